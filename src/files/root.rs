//! The mount point.

use std::sync::Arc;

use super::{Context, File, Kind, Listing, Node, Pass, Process, WaitsFor, process_named_waits_for};
use crate::common::error::Result;

/// The mount point: a directory for each process, and the views beside them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Root;

impl File for Root {
    fn kind(&self) -> Kind {
        Kind::Directory
    }

    fn path(&self) -> String {
        ".".to_owned()
    }

    fn lookup(&self, context: &Context, name: &str, pass: &Pass<'_>) -> Result<Node> {
        match Node::VIEWS.iter().find(|(view, _)| *view == name) {
            Some((_, view)) => Ok(view.clone()),
            None => Ok(Process(context.process_named(name, pass)?).into()),
        }
    }

    fn entries(&self, context: &Context, pass: &Pass<'_>) -> Result<Listing> {
        let mut listing = Listing::default();
        for (name, view) in Node::VIEWS {
            listing.add(*name, view.clone());
        }
        for info in context.processes.read_list(pass)?.iter() {
            listing.add(info.identity.pid.to_string(), Process(Arc::clone(info)));
        }
        Ok(listing)
    }

    fn entries_wait_for(&self) -> WaitsFor {
        WaitsFor::Everybody
    }

    fn lookup_waits_for(&self, name: &str) -> WaitsFor {
        process_named_waits_for(name)
    }
}
