//! `PID`: the directory of a process, a file for each of its mappings.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::by_cgroup::{CGROUP, CONTAINER, attribute_of};
use super::mapping::{MappingLink, WellKnown};
use super::{Attributes, Context, CountedUsage, File, Kind, Listing, Mapping, Node, Pass};
use crate::common::error::{Error, Result};
use crate::target::{self, ProcessId, ProcessInfo};

/// The directory of one program of one process.
#[derive(Clone, Debug)]
pub(crate) struct Process(pub(super) Arc<ProcessInfo>);

impl PartialEq for Process {
    fn eq(&self, other: &Self) -> bool {
        self.0.identity == other.0.identity
    }
}

impl Eq for Process {}

impl Hash for Process {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.identity.hash(state);
    }
}

/// Names of the attributes of a process that a copy of it has, too, in the order of their listing.
pub(super) const COPIED_XATTRS: &[&str] = &["comm", "exe", "cmdline", "uid", "state", "rss"];

impl File for Process {
    fn kind(&self) -> Kind {
        Kind::Directory
    }

    fn path(&self) -> String {
        self.0.identity.pid.to_string()
    }

    fn process(&self) -> Option<&Arc<ProcessInfo>> {
        Some(&self.0)
    }

    fn attributes(
        &self,
        context: &Context,
        plain: Attributes,
        _counted: &CountedUsage,
    ) -> Attributes {
        Attributes {
            // As `/proc/PID` where the kernel checks it: we are asked for each name in it.
            mode: if context.options.allow_other {
                0o555
            } else {
                0o500
            },
            ..plain
        }
    }

    fn lookup(&self, context: &Context, name: &str, _pass: &Pass<'_>) -> Result<Node> {
        let found = if let Some(link) = WellKnown::named(name) {
            context.processes.find(&self.0, |table| {
                link.of(table).map(|_| self.link(link).into())
            })
        } else if Mapping::may_be_named(name) {
            context.processes.find(&self.0, |table| {
                let mapping = table.named(name)?;
                Some(Mapping::new(&self.0, mapping).into())
            })
        } else {
            Ok(None)
        };
        found?.ok_or(Error::NoEntry)
    }

    fn entries(&self, context: &Context, _pass: &Pass<'_>) -> Result<Listing> {
        let table = context.processes.read_address_space(&self.0)?;
        let mut listing = Listing::default();
        for link in WellKnown::ALL {
            if link.of(&table).is_some() {
                listing.add(link.name(), self.link(link));
            }
        }
        Ok(listing.with_mappings(&self.0, table))
    }

    fn xattr_names(&self) -> Vec<&'static str> {
        [COPIED_XATTRS, &[CGROUP, CONTAINER]].concat()
    }

    fn xattr(&self, context: &Context, name: &str) -> Result<Vec<u8>> {
        let Self(info) = self;
        let ask = |ask: &dyn Fn(&dyn target::Process) -> Result<Vec<u8>>| {
            context.opened.ask(&info.identity, ask)
        };
        match name {
            "comm" => Ok(info.command.clone()),
            "uid" => Ok(info.uid.to_string().into_bytes()),
            "exe" => ask(&|process| process.executable()),
            "cmdline" => ask(&|process| process.arguments()),
            "state" => ask(&|process| Ok(vec![process.state()?])),
            "rss" => ask(&|process| Ok(process.resident()?.to_string().into_bytes())),
            CGROUP | CONTAINER => {
                let source = &context.services.source;
                let group = context.opened.retry(|| source.cgroup(info.identity.pid))?;
                context.verify(info)?;
                attribute_of(&group, name)
            }
            _ => Err(Error::NoAttribute),
        }
    }
}

impl Process {
    fn link(&self, which: WellKnown) -> MappingLink {
        MappingLink::new(self.clone(), which)
    }
}

impl Context {
    /// The process whose number a name is, for who `pass` is for.
    pub(super) fn process_named(&self, name: &str, pass: &Pass<'_>) -> Result<Arc<ProcessInfo>> {
        let pid = ProcessId::parse(name).ok_or(Error::NoEntry)?;
        self.processes.describe(pass.who(), pid)
    }
}
