//! `stats`: the counters.

use std::sync::Arc;
use std::time::Duration;

use super::{Access, Attributes, Caller, Context, CountedUsage, File, Kind, Open, OpenFile};
use crate::common::error::{Error, Result};
use crate::common::metrics::Metrics;
use crate::files::view::Seek;

/// The counters as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Stats;

impl File for Stats {
    fn kind(&self) -> Kind {
        Kind::File
    }

    fn path(&self) -> String {
        "stats".to_owned()
    }

    fn attributes(
        &self,
        context: &Context,
        plain: Attributes,
        _counted: &CountedUsage,
    ) -> Attributes {
        Attributes {
            size: Metrics::rendered_length(),
            modified: context.clock().wall(),
            valid: Duration::ZERO,
            ..plain
        }
    }

    fn open(&self, context: &Context, _caller: &Caller, access: Access) -> Result<Open> {
        if access.write {
            return Err(Error::NotPermitted);
        }
        Ok(Open {
            file: Arc::new(Text(context.metrics().render())),
            direct: true,
        })
    }
}

/// A text, as it was when it was opened.
#[derive(Debug)]
struct Text(String);

impl OpenFile for Text {
    fn read_at(&self, _context: &Context, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let Self(text) = self;
        let from = usize::try_from(offset).map_or(text.len(), |from| from.min(text.len()));
        let rest = &text.as_bytes()[from..];
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn seek(&self, _context: &Context, offset: u64, whence: Seek) -> Result<u64> {
        let len = self.0.len() as u64;
        match whence {
            _ if offset >= len => Err(Error::NoMoreData),
            Seek::Data => Ok(offset),
            Seek::Hole => Ok(len),
        }
    }
}
