//! `stats`: the counters.

use std::time::Duration;

use super::text::Text;
use super::{Access, Attributes, Context, CountedUsage, File, Kind, Open, Subject};
use crate::common::error::{Error, Result};
use crate::common::metrics::Metrics;

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

    fn open(&self, context: &Context, _subject: &Subject, access: Access) -> Result<Open> {
        if access.write {
            return Err(Error::NotPermitted);
        }
        Ok(Text::open(context.metrics().render()))
    }
}
