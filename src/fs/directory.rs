//! Looking names up, listing them, and where links lead.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::sync::Arc;

use super::{Attributes, Counted, FileSystem};
use crate::common::error::{Error, Result};
use crate::target::mapping::sanitized;
use crate::target::{ProcessId, ProcessInfo};
use crate::tree::{DirectoryEntry, Found, Handle, Inode, Kind, Listing, Node, OpenDirectory};
use crate::tree::{Pass, ProcessTable, Snapshot, WellKnown};

const SELF: &str = "self";
const STATS: &str = "stats";
const NAMES: &str = "by-name";
const SPACES: &str = "mem";

/// Whom a request may wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Involves {
    /// Nobody.
    Nobody,
    /// A process of this number, and the inode of its pidfd, where it is known which one it is.
    Process(ProcessId, Option<u64>),
    /// Each process there is.
    Everybody,
}

impl FileSystem {
    /// Finds `name` in a directory. The kernel then holds one more reference to what it found.
    ///
    /// # Errors
    /// `NoEntry`, `NoProcess`, `ProcessDenied`, `NotADirectory`.
    pub fn lookup(&self, parent: Inode, name: &OsStr) -> Result<Attributes> {
        self.lookup_on(parent, name, &Pass::everywhere(&Found::default()))
    }

    /// As [`lookup`](Self::lookup); where all processes must be looked at for it, `pass` does that.
    ///
    /// # Errors
    /// As [`lookup`](Self::lookup), and `TimedOut`.
    pub fn lookup_on(&self, parent: Inode, name: &OsStr, pass: &Pass<'_>) -> Result<Attributes> {
        let parent = self.inodes.get(parent)?;
        // Every name here is ASCII.
        let name = name.to_str().ok_or(Error::NoEntry)?;
        let node = self.child(&parent, name, pass)?;
        Ok(self.remember(&node, &Counted::default()))
    }

    /// Attributes of a node for the kernel to keep, which takes a reference.
    pub fn remember(&self, node: &Node, counted: &Counted) -> Attributes {
        let (inode, generation) = self.inodes.remember(node);
        Attributes {
            generation,
            ..self.describe(inode, node, counted)
        }
    }

    /// Attributes of a node that are only to be shown, without a reference to it.
    pub fn show(&self, node: &Node, counted: &Counted) -> Attributes {
        self.describe(self.inode_of(node), node, counted)
    }

    /// Whom a request for this inode may wait for.
    pub fn involves(&self, inode: Inode) -> Involves {
        match self.inodes.get(inode) {
            Ok(node) => node.process().map_or(Involves::Nobody, |info| {
                Involves::Process(info.identity.pid, Some(info.identity.pidfd_inode))
            }),
            Err(_) => Involves::Nobody,
        }
    }

    /// Whom opening this directory may wait for.
    pub fn listing_involves(&self, inode: Inode) -> Involves {
        match self.inodes.get(inode) {
            Ok(Node::Root | Node::Spaces | Node::Names | Node::Command(_)) => Involves::Everybody,
            _ => self.involves(inode),
        }
    }

    /// Whom reading this directory from `position` on may wait for: where a walk begins it may be listed again.
    pub fn reading_involves(&self, inode: Inode, position: u64) -> Involves {
        match position {
            0 => self.listing_involves(inode),
            _ => self.involves(inode),
        }
    }

    /// Whom looking this name up may wait for.
    pub fn name_involves(&self, parent: Inode, name: &OsStr) -> Involves {
        let number = || name.to_str().and_then(ProcessId::parse);
        match self.inodes.get(parent) {
            Ok(Node::Root | Node::Spaces | Node::Command(_)) => {
                number().map_or(Involves::Nobody, |pid| Involves::Process(pid, None))
            }
            Ok(Node::Names) => Involves::Everybody,
            _ => self.involves(parent),
        }
    }

    /// Gives references back.
    pub fn forget(&self, inode: Inode, lookups: u64) {
        self.inodes.forget(inode, lookups);
    }

    /// The number of a node, without a reference to it.
    pub fn inode_of(&self, node: &Node) -> Inode {
        self.inodes.number(node)
    }

    /// Opens a directory as it is now.
    ///
    /// # Errors
    /// `NotADirectory`, and what listing the processes or reading `maps` says.
    pub fn open_directory(&self, inode: Inode) -> Result<u64> {
        self.open_directory_on(inode, &Pass::everywhere(&Found::default()))
    }

    /// As [`open_directory`](Self::open_directory); where all processes are listed, `pass` finds them.
    ///
    /// # Errors
    /// As [`open_directory`](Self::open_directory), and `TimedOut`.
    pub fn open_directory_on(&self, inode: Inode, pass: &Pass<'_>) -> Result<u64> {
        let node = self.inodes.get(inode)?;
        let taken = self.services.freshness.clock().now();
        let listing = self.list(&node, pass)?;
        let open = OpenDirectory::new(node, listing, taken);
        Ok(self.handles.open(Handle::Directory(Arc::new(open))))
    }

    /// As [`read_directory_on`](Self::read_directory_on), however long that takes.
    ///
    /// # Errors
    /// As [`read_directory_on`](Self::read_directory_on).
    pub fn read_directory(&self, handle: u64, position: u64) -> Result<Arc<Listing>> {
        self.read_directory_on(handle, position, &Pass::everywhere(&Found::default()))
    }

    /// The entries of an open directory, `.` and `..` first, for who reads them from `position`
    /// on: as they are now where a walk begins, and else as they were when it began.
    ///
    /// # Errors
    /// `BadHandle`, and as [`open_directory_on`](Self::open_directory_on).
    pub fn read_directory_on(
        &self,
        handle: u64,
        position: u64,
        pass: &Pass<'_>,
    ) -> Result<Arc<Listing>> {
        let Handle::Directory(open) = self.handles.get(handle)? else {
            return Err(Error::BadHandle);
        };
        let now = self.services.freshness.clock().now();
        if let Some(listing) = open.listing(position, now) {
            return Ok(listing);
        }
        Ok(open.begin(self.list(open.node(), pass)?, now))
    }

    /// Where a link leads, for the thread `caller`.
    ///
    /// # Errors
    /// `Invalid` for what is no link, `NoEntry` where it leads nowhere.
    pub fn read_link(&self, inode: Inode, caller: u32) -> Result<String> {
        self.target(&self.inodes.get(inode)?, Some(caller))
    }

    pub(super) fn target(&self, link: &Node, caller: Option<u32>) -> Result<String> {
        match link {
            Node::SelfLink => {
                let caller = caller.ok_or(Error::NoEntry)?;
                Ok(self.services.source.process_of_thread(caller)?.to_string())
            }
            Node::CommandLink(pid) => Ok(format!("../../{pid}")),
            Node::MappingLink(info, which) => self
                .processes
                .find(info, |snapshot| {
                    well_known(snapshot, *which).map(|mapping| mapping.file_name())
                })?
                .ok_or(Error::NoEntry),
            _ => Err(Error::Invalid),
        }
    }

    fn child(&self, parent: &Node, name: &str, pass: &Pass<'_>) -> Result<Node> {
        match parent {
            Node::Root => match name {
                SELF => Ok(Node::SelfLink),
                STATS => Ok(Node::Stats),
                NAMES => Ok(Node::Names),
                SPACES => Ok(Node::Spaces),
                name => Ok(Node::Process(self.process_named(name)?)),
            },
            Node::Spaces => Ok(Node::Space(self.process_named(name)?)),
            Node::Names => self
                .processes
                .recent_list(pass)?
                .iter()
                .any(|info| sanitized(&info.command) == name)
                .then(|| Node::Command(name.into()))
                .ok_or(Error::NoEntry),
            Node::Command(command) => {
                let pid = ProcessId::parse(name).ok_or(Error::NoEntry)?;
                let info = self.processes.describe(pid)?;
                if sanitized(&info.command) == **command {
                    Ok(Node::CommandLink(pid))
                } else {
                    Err(Error::NoEntry)
                }
            }
            Node::Process(info) => self.child_of_process(info, name),
            Node::SelfLink
            | Node::Stats
            | Node::Space(_)
            | Node::CommandLink(_)
            | Node::MappingLink(..)
            | Node::Mapping(..) => Err(Error::NotADirectory),
        }
    }

    fn process_named(&self, name: &str) -> Result<Arc<ProcessInfo>> {
        let pid = ProcessId::parse(name).ok_or(Error::NoEntry)?;
        self.processes.describe(pid)
    }

    fn child_of_process(&self, info: &Arc<ProcessInfo>, name: &str) -> Result<Node> {
        let link = WellKnown::ALL
            .into_iter()
            .find(|which| which.name() == name);
        if link.is_none() && !ProcessTable::is_mapping_name(name) {
            return Err(Error::NoEntry);
        }
        self.processes
            .find(info, |snapshot| match link {
                Some(which) => {
                    well_known(snapshot, which).map(|_| Node::MappingLink(Arc::clone(info), which))
                }
                None => snapshot
                    .named(name)
                    .map(|mapping| Node::Mapping(Arc::clone(info), Arc::clone(mapping))),
            })?
            .ok_or(Error::NoEntry)
    }

    fn list(&self, directory: &Node, pass: &Pass<'_>) -> Result<Listing> {
        let parent = match directory {
            Node::Command(_) => Node::Names,
            _ => Node::Root,
        };
        let mut entries = vec![entry(".", directory.clone()), entry("..", parent)];
        match directory {
            Node::Root => {
                entries.push(entry(NAMES, Node::Names));
                entries.push(entry(SPACES, Node::Spaces));
                entries.push(entry(SELF, Node::SelfLink));
                entries.push(entry(STATS, Node::Stats));
                entries.extend(self.processes.list(pass)?.iter().map(|info| {
                    entry(
                        info.identity.pid.to_string(),
                        Node::Process(Arc::clone(info)),
                    )
                }));
            }
            Node::Spaces => {
                entries.extend(self.processes.fresh_list(pass)?.iter().map(|info| {
                    let name = info.identity.pid.to_string();
                    entry(name, Node::Space(Arc::clone(info)))
                }));
            }
            Node::Names => {
                let commands: BTreeMap<String, ()> = self
                    .processes
                    .fresh_list(pass)?
                    .iter()
                    .map(|info| (sanitized(&info.command), ()))
                    .collect();
                entries.extend(commands.into_keys().map(|name| {
                    let node = Node::Command(name.as_str().into());
                    entry(name, node)
                }));
            }
            Node::Command(command) => {
                entries.extend(
                    self.processes
                        .fresh_list(pass)?
                        .iter()
                        .filter(|info| sanitized(&info.command) == **command)
                        .map(|info| info.identity.pid)
                        .map(|pid| entry(pid.to_string(), Node::CommandLink(pid))),
                );
            }
            Node::Process(info) => {
                let snapshot = self.processes.listed(info)?;
                for which in WellKnown::ALL {
                    if well_known(&snapshot, which).is_some() {
                        entries.push(entry(
                            which.name(),
                            Node::MappingLink(Arc::clone(info), which),
                        ));
                    }
                }
                return Ok(Listing::with_mappings(entries, info, snapshot));
            }
            Node::SelfLink
            | Node::Stats
            | Node::Space(_)
            | Node::CommandLink(_)
            | Node::MappingLink(..)
            | Node::Mapping(..) => return Err(Error::NotADirectory),
        }
        debug_assert!(
            directory.kind() == Kind::Directory,
            "only directories have entries"
        );
        Ok(Listing::new(entries))
    }
}

fn well_known(
    snapshot: &Snapshot,
    which: WellKnown,
) -> Option<&Arc<crate::target::mapping::Mapping>> {
    match which {
        WellKnown::Heap => snapshot.heap(),
        WellKnown::Stack => snapshot.stack(),
    }
}

fn entry(name: impl Into<String>, node: Node) -> DirectoryEntry {
    DirectoryEntry {
        name: name.into(),
        node,
    }
}
