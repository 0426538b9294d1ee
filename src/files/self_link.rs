//! `self`: the calling process.

use super::{Caller, Context, File, Kind};
use crate::common::error::Result;

/// A link to the directory of the process that asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SelfLink;

impl File for SelfLink {
    fn kind(&self) -> Kind {
        Kind::Link
    }

    fn path(&self) -> String {
        "self".to_owned()
    }

    fn target(&self, context: &Context, caller: &Caller) -> Result<String> {
        let process = context.services.source.process_of_thread(caller.pid)?;
        Ok(process.to_string())
    }
}
