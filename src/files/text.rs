//! Files of text.

use std::sync::Arc;

use super::view::Seek;
use super::{Context, Open, OpenFile};
use crate::common::error::{Error, Result};

/// A text, as it was when it was opened.
#[derive(Debug)]
pub(super) struct Text(String);

impl Text {
    /// Opens a text, of which the kernel keeps nothing: the next one may be another.
    pub(super) fn open(text: String) -> Open {
        Open {
            file: Arc::new(Self(text)),
            direct: true,
            reads_ahead: false,
            is_constant: false,
            is_resized: false,
        }
    }
}

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
