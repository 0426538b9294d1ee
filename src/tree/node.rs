//! What a name in the tree stands for.

use std::sync::Arc;

use crate::common::address::AddressRange;
use crate::target::mapping::{Device, Mapping, Protection};
use crate::target::{ProcessId, ProcessIdentity, ProcessInfo};

/// The kind of a file, as its mode shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Link,
}

/// A mapping that has a name of its own in its process's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WellKnown {
    /// `heap`
    Heap,
    /// `stack`
    Stack,
}

impl WellKnown {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Heap, Self::Stack];

    /// The link's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Heap => "heap",
            Self::Stack => "stack",
        }
    }
}

/// An object of the tree.
#[derive(Clone, Debug)]
pub enum Node {
    /// The mount point.
    Root,
    /// `self`
    SelfLink,
    /// `stats`
    Stats,
    /// `mem`
    Spaces,
    /// `mem/PID`
    Space(Arc<ProcessInfo>),
    /// `by-name`
    Names,
    /// `by-name/COMMAND`
    Command(Arc<str>),
    /// `by-name/COMMAND/PID`
    CommandLink(ProcessId),
    /// `PID`
    Process(Arc<ProcessInfo>),
    /// `PID/heap`, `PID/stack`
    MappingLink(Arc<ProcessInfo>, WellKnown),
    /// `PID/START-END.PERMS.LABEL`
    Mapping(Arc<ProcessInfo>, Arc<Mapping>),
}

/// What makes two nodes the same object, and so gives them one inode.
///
/// Not the end of a mapping's file, which moves while the mapping stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum NodeKey<'a> {
    Root,
    SelfLink,
    Stats,
    Spaces,
    Space(ProcessIdentity),
    Names,
    Command(&'a str),
    CommandLink(ProcessId),
    Process(ProcessIdentity),
    MappingLink(ProcessIdentity, WellKnown),
    Mapping(ProcessIdentity, AddressRange, Protection, u64, Device, u64),
}

impl Node {
    /// The kind of file it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Root | Self::Spaces | Self::Names | Self::Command(_) | Self::Process(_) => {
                Kind::Directory
            }
            Self::SelfLink | Self::CommandLink(_) | Self::MappingLink(..) => Kind::Link,
            Self::Stats | Self::Space(_) | Self::Mapping(..) => Kind::File,
        }
    }

    /// The process it belongs to.
    pub fn process(&self) -> Option<&Arc<ProcessInfo>> {
        match self {
            Self::Process(info)
            | Self::Space(info)
            | Self::MappingLink(info, _)
            | Self::Mapping(info, _) => Some(info),
            _ => None,
        }
    }

    pub(super) fn key(&self) -> NodeKey<'_> {
        match self {
            Self::Root => NodeKey::Root,
            Self::SelfLink => NodeKey::SelfLink,
            Self::Stats => NodeKey::Stats,
            Self::Spaces => NodeKey::Spaces,
            Self::Space(info) => NodeKey::Space(info.identity),
            Self::Names => NodeKey::Names,
            Self::Command(name) => NodeKey::Command(name),
            Self::CommandLink(pid) => NodeKey::CommandLink(*pid),
            Self::Process(info) => NodeKey::Process(info.identity),
            Self::MappingLink(info, which) => NodeKey::MappingLink(info.identity, *which),
            Self::Mapping(info, mapping) => NodeKey::Mapping(
                info.identity,
                mapping.range(),
                mapping.protection(),
                mapping.offset(),
                mapping.device(),
                mapping.inode(),
            ),
        }
    }
}
