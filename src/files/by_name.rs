//! `by-name`: processes by the name of their command.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Caller, Context, File, Kind, Listing, Node, Pass, WaitsFor, process_named_waits_for};
use crate::common::error::{Error, Result};
use crate::target::ProcessId;
use crate::target::mapping::sanitized;

/// A directory for each command name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ByName;

impl File for ByName {
    fn kind(&self) -> Kind {
        Kind::Directory
    }

    fn path(&self) -> String {
        "by-name".to_owned()
    }

    fn lookup(&self, context: &Context, name: &str, pass: &Pass<'_>) -> Result<Node> {
        let processes = context.processes.recent_list(pass)?;
        let mut commands = processes.iter().map(|info| sanitized(&info.command));
        if commands.any(|command| command == name) {
            Ok(Command(name.into()).into())
        } else {
            Err(Error::NoEntry)
        }
    }

    fn entries(&self, context: &Context, pass: &Pass<'_>) -> Result<Listing> {
        let processes = context.processes.fresh_list(pass)?;
        let commands: BTreeSet<String> = processes
            .iter()
            .map(|info| sanitized(&info.command))
            .collect();
        let mut listing = Listing::default();
        for command in commands {
            let node = Command(command.as_str().into());
            listing.add(command, node);
        }
        Ok(listing)
    }

    fn entries_wait_for(&self) -> WaitsFor {
        WaitsFor::Everybody
    }

    fn lookup_waits_for(&self, _name: &str) -> WaitsFor {
        WaitsFor::Everybody
    }
}

/// The processes of one command name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Command(Arc<str>);

impl File for Command {
    fn kind(&self) -> Kind {
        Kind::Directory
    }

    fn path(&self) -> String {
        format!("by-name/{}", self.0)
    }

    fn parent(&self) -> Node {
        ByName.into()
    }

    fn lookup(&self, context: &Context, name: &str, pass: &Pass<'_>) -> Result<Node> {
        let info = context.process_named(name, pass)?;
        if sanitized(&info.command) == *self.0 {
            Ok(CommandLink(info.identity.pid).into())
        } else {
            Err(Error::NoEntry)
        }
    }

    fn entries(&self, context: &Context, pass: &Pass<'_>) -> Result<Listing> {
        let mut listing = Listing::default();
        for info in context.processes.fresh_list(pass)?.iter() {
            if sanitized(&info.command) == *self.0 {
                let pid = info.identity.pid;
                listing.add(pid.to_string(), CommandLink(pid));
            }
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

/// A link to the directory of one of these processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CommandLink(ProcessId);

#[cfg(test)]
impl Node {
    /// A node that needs no process.
    pub(crate) fn command_link(pid: ProcessId) -> Self {
        CommandLink(pid).into()
    }
}

impl File for CommandLink {
    fn kind(&self) -> Kind {
        Kind::Link
    }

    fn path(&self) -> String {
        format!("by-name/*/{}", self.0)
    }

    fn target(&self, _context: &Context, _caller: &Caller) -> Result<String> {
        Ok(format!("../../{}", self.0))
    }
}
