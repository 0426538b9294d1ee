//! `stat`, `chmod` and their like.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{Counted, FileSystem};
use crate::common::address::AddressRange;
use crate::common::error::{Error, Result};
use crate::target::ProcessInfo;
use crate::target::mapping::Mapping;
use crate::tree::{Generation, Inode, Kind, LISTING_VALID, Node, OpenProcess};
use crate::view::SPACE_SIZE;

/// What `stat` shows, and how long it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// The inode's number.
    pub inode: Inode,
    /// Its generation, where the kernel gets a reference to it.
    pub generation: Generation,
    /// The kind of file.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u16,
    /// Length in bytes.
    pub size: u64,
    /// Memory held, in units of 512 bytes.
    pub blocks: u64,
    /// When the content may have changed.
    pub modified: SystemTime,
    /// When the object came to be.
    pub changed: SystemTime,
    /// Names it has.
    pub links: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// How long all this may be kept.
    pub valid: Duration,
}

/// A change of attributes that somebody asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Whether the mode, the owner or a time is to change.
    pub metadata: bool,
    /// The size to truncate to.
    pub size: Option<u64>,
}

/// The size of a block as `st_blocks` counts them (stat(2)).
const BLOCK: u64 = 512;

impl FileSystem {
    /// The attributes of an inode, or of what a handle holds open under it.
    ///
    /// # Errors
    /// `NoEntry`; for a handle `Ended` and `Replaced`, and without one
    /// `Replaced` for both, which makes the kernel look the path up again.
    pub fn attributes(&self, inode: Inode, handle: Option<u64>) -> Result<Attributes> {
        let node = self.inodes.get(inode)?;
        if let Some(info) = node.process() {
            self.opened
                .verify(&info.identity)
                .map_err(|error| match error {
                    Error::Ended(pid) if handle.is_none() && !self.handles.holds(inode) => {
                        Error::Replaced(pid)
                    }
                    error => error,
                })?;
        }
        Ok(self.describe(inode, &node, &Counted::default()))
    }

    /// Takes note of a change, which changes nothing: truncation is accepted
    /// as on a device, anything else is refused.
    ///
    /// # Errors
    /// `NotPermitted`, and as [`attributes`](Self::attributes).
    pub fn set_attributes(
        &self,
        inode: Inode,
        change: Change,
        handle: Option<u64>,
    ) -> Result<Attributes> {
        if change.metadata {
            return Err(Error::NotPermitted);
        }
        if change.size.is_some() {
            match self.inodes.get(inode)? {
                Node::Mapping(..) | Node::Space(_) => self.options.check_writable()?,
                node if node.kind() == Kind::Directory => return Err(Error::IsADirectory),
                _ => return Err(Error::NotPermitted),
            }
        }
        self.attributes(inode, handle)
    }

    /// The attributes of a node that was just found; `counted` is what is known already of the memory it holds.
    pub(super) fn describe(&self, inode: Inode, node: &Node, counted: &Counted) -> Attributes {
        let freshness = &self.services.freshness;
        let plain = Attributes {
            inode,
            generation: Generation::default(),
            kind: node.kind(),
            mode: match node.kind() {
                Kind::Directory => 0o555,
                Kind::File => 0o444,
                Kind::Link => 0o777,
            },
            size: 0,
            blocks: 0,
            modified: self.mounted,
            changed: self.mounted,
            // A directory with two is taken for one without directories in it (`find`, `File::Find`
            // of Perl); one says that they were not counted, as on btrfs.
            links: 1,
            uid: self.options.uid,
            gid: self.options.gid,
            valid: freshness.lendable(),
        };
        let shown = self.describe_kind(node, plain, counted);
        if node.kind() != Kind::Directory {
            return shown;
        }
        Attributes {
            // What is in it can change at any moment, and nobody tells us: who lists it again
            // because of its time must never miss a name.
            modified: freshness.clock().wall(),
            valid: shown.valid.min(LISTING_VALID),
            ..shown
        }
    }

    fn describe_kind(&self, node: &Node, plain: Attributes, counted: &Counted) -> Attributes {
        match node {
            Node::Root | Node::SelfLink | Node::Spaces | Node::Names | Node::Command(_) => plain,
            Node::CommandLink(_) => Attributes {
                size: self.target_len(node),
                ..plain
            },
            Node::Stats => Attributes {
                size: self.services.metrics.render().len() as u64,
                modified: self.services.freshness.clock().wall(),
                valid: Duration::ZERO,
                ..plain
            },
            Node::Process(info) => Attributes {
                mode: 0o500,
                ..owned(plain, info)
            },
            Node::MappingLink(info, _) => Attributes {
                size: self.target_len(node),
                ..owned(plain, info)
            },
            Node::Space(info) => self.describe_space(owned(plain, info), info),
            Node::Mapping(info, mapping) => {
                self.describe_mapping(owned(plain, info), info, mapping, counted)
            }
        }
    }

    /// Length of what a link holds; that of `self` depends on who asks and is shown as 0, as in `/proc`.
    fn target_len(&self, link: &Node) -> u64 {
        match self.target(link, None) {
            Ok(target) => target.len() as u64,
            Err(_) => 0,
        }
    }

    /// Memory that a mapping holds, in blocks; `None` where that cannot be known.
    ///
    /// A file of no block at all is archived as one large hole by `tar -S`
    /// without a look. So one that may have bytes elsewhere shows a block at least.
    fn blocks(&self, info: &ProcessInfo, mapping: &Mapping, counted: &Counted) -> Option<u64> {
        let shown = shown(mapping);
        let hidden = mapping.has_file() || mapping.is_special();
        if shown.is_empty() {
            return Some(0);
        }
        let held = match counted.of(shown) {
            Some(held) => held,
            None => {
                let process = self.process(info)?;
                self.held.of(&*process.memory, shown).ok()?
            }
        };
        // Tools look for holes only where blocks are missing, so what is there and cannot be read shows none.
        let is_own = info.identity.pid.get() == std::process::id();
        if held.total() >= shown.len() && (is_own || mapping.is_of_own_mount()) {
            return Some(0);
        }
        Some((held.total() / BLOCK).max(u64::from(hidden)))
    }

    /// Counts the memory that the nodes of one listing hold, all of it together.
    pub fn count<'a>(&self, nodes: impl IntoIterator<Item = &'a Node>) -> Counted {
        // The mappings of a listing are all of one process, lowest address first.
        let mappings = nodes.into_iter().filter_map(|node| match node {
            Node::Mapping(info, mapping) => Some((info, shown(mapping))),
            _ => None,
        });
        let mut of = None;
        let ranges: Vec<_> = mappings
            .inspect(|(info, _)| of = Some(*info))
            .map(|(_, shown)| shown)
            .filter(|shown| !shown.is_empty())
            .collect();
        // Where that fails each is asked for alone.
        of.and_then(|info| self.process(info))
            .and_then(|process| self.held.of_all(&*process.memory, ranges).ok())
            .unwrap_or_default()
    }

    /// The process, if it can be opened.
    fn process(&self, info: &ProcessInfo) -> Option<Arc<OpenProcess>> {
        match self.opened.find(&info.identity) {
            Some(open) => Some(open),
            None => self.opened.open(&info.identity).ok(),
        }
    }

    /// Waits for no process: a listing of `mem` shows them all, and one may not answer.
    fn describe_space(&self, plain: Attributes, info: &ProcessInfo) -> Attributes {
        let resident = self.services.source.resident(info.identity.pid);
        let (modified, valid) = self.modified(info);
        Attributes {
            mode: if self.options.writable { 0o600 } else { 0o400 },
            size: SPACE_SIZE,
            // Never none: see `blocks`.
            blocks: (resident.unwrap_or(0) / BLOCK).max(1),
            modified,
            valid,
            ..plain
        }
    }

    /// The time of last modification, and how long it holds: while the
    /// process is open they move with the epoch of what was read, and never without it.
    fn modified(&self, info: &ProcessInfo) -> (SystemTime, Duration) {
        let freshness = &self.services.freshness;
        match self.opened.find(&info.identity) {
            Some(open) => {
                let (epoch, valid) = freshness.lend(&open.epoch);
                (epoch.modified(), valid)
            }
            None => (freshness.clock().wall(), freshness.lendable()),
        }
    }

    fn describe_mapping(
        &self,
        plain: Attributes,
        info: &ProcessInfo,
        mapping: &Mapping,
        counted: &Counted,
    ) -> Attributes {
        let size = mapping.size();
        let blocks = self.blocks(info, mapping, counted);
        // Last: counting blocks can take long, and time runs.
        let (modified, valid) = self.modified(info);
        Attributes {
            mode: if self.may_write(mapping) {
                0o600
            } else {
                0o400
            },
            size,
            blocks: blocks.unwrap_or(size.div_ceil(BLOCK)),
            modified: if size == 0 { plain.modified } else { modified },
            valid,
            ..plain
        }
    }

    /// Whether a mapping can be opened for writing.
    pub(super) fn may_write(&self, mapping: &Mapping) -> bool {
        self.options.writable && (mapping.protection().write || self.options.force)
    }
}

/// The part of a mapping that its file shows.
fn shown(mapping: &Mapping) -> AddressRange {
    mapping.range().truncated(mapping.size())
}

fn owned(plain: Attributes, info: &ProcessInfo) -> Attributes {
    let started = SystemTime::UNIX_EPOCH + Duration::from_secs(info.started);
    Attributes {
        uid: info.uid,
        gid: info.gid,
        modified: started,
        changed: started,
        ..plain
    }
}
