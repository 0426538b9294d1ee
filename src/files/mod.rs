//! The files of the mount: what each kind of them is, and the one place that tells the kinds apart.
//!
//! A kind of file is a type with a file of its own here, a line in `nodes!`, and nothing else: a [`Node`] is used by
//! the trait [`File`], and one that is open by [`OpenFile`]. Numbers of inodes and handles belong to the server.

mod attributes;
mod block_sizes;
mod by_cgroup;
mod by_name;
mod context;
mod core;
mod listing;
mod mapping;
mod mapping_table;
mod memory;
mod opened;
mod pass;
mod process;
mod processes;
mod root;
mod self_link;
mod snap;

mod space;
mod statistics;
mod stats;
mod text;
mod usage;
pub mod view;
mod xattr;

use std::fmt::Debug;
use std::ops::Deref;
use std::sync::Arc;

use nix::libc;

use crate::common::address::AddressRange;
use crate::common::error::{Error, Result};
use crate::files::view::Seek;
use crate::target::snapshot::KeptStore;
use crate::target::{Credentials, ProcessId, ProcessIdentity, ProcessInfo};

pub(crate) use attributes::{Attributes, Change, Kind};
pub(crate) use block_sizes::DirectReads;
pub(crate) use context::{Context, FileOptions, Services};
pub(crate) use listing::{DirectoryEntry, LISTING_VALID, Listing};
pub(crate) use opened::OpenProcess;
pub(crate) use pass::{Found, Pass};
pub(crate) use snap::{Copied, Snapshot, SnapshotName, Snapshots, Taking};
pub(crate) use statistics::Statistics;
pub(crate) use usage::CountedUsage;
pub(crate) use xattr::xattr_list;

use mapping::Mapping;
use process::Process;

/// Defines [`Node`]: a line for each kind of file, with its type, and for those that lie at the top of the mount their
/// name there.
macro_rules! nodes {
    ($($(#[$doc:meta])* $kind:ident: $file:path $(, at $name:literal)?;)*) => {
        /// An object of the tree. Two are equal, and so have one inode, where they are the same object.
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub(crate) enum Node {
            $($(#[$doc])* $kind($file),)*
        }

        impl Deref for Node {
            type Target = dyn File;

            fn deref(&self) -> &Self::Target {
                match self {
                    $(Self::$kind(file) => file,)*
                }
            }
        }

        $(impl From<$file> for Node {
            fn from(file: $file) -> Self {
                Self::$kind(file)
            }
        })*

        impl Node {
            /// The views at the top of the mount, by name.
            const VIEWS: &[(&str, Self)] = &[$($(($name, Self::$kind($file)),)?)*];
        }
    };
}

nodes! {
    /// The mount point.
    Root: root::Root;
    /// Processes by control group.
    ByCgroup: by_cgroup::ByCgroup, at "by-cgroup";
    /// Processes by the name of their command.
    ByName: by_name::ByName, at "by-name";
    /// Core files.
    Cores: core::Cores, at "core";
    /// Whole address spaces.
    Spaces: space::Spaces, at "mem";
    /// The calling process.
    SelfLink: self_link::SelfLink, at "self";
    /// Snapshots.
    Snapshots: snap::Snapshots, at "snap";
    /// The counters.
    Stats: stats::Stats, at "stats";
    /// `mem/PID`
    Space: space::Space;
    /// `core/PID`
    Core: core::Core;
    /// `by-cgroup/GROUP`, `by-cgroup/GROUP/GROUP`
    Cgroup: by_cgroup::Cgroup;
    /// `by-cgroup/PID`, `by-cgroup/GROUP/PID`
    CgroupLink: by_cgroup::CgroupLink;
    /// `by-name/COMMAND`
    Command: by_name::Command;
    /// `by-name/COMMAND/PID`
    CommandLink: by_name::CommandLink;
    /// `snap/PID+PID@NAME`
    SnapshotGroup: snap::SnapshotGroup;
    /// `snap/PID@NAME`, `snap/PID+PID@NAME/PID`
    FrozenDirectory: snap::FrozenDirectory;
    /// `heap`, `stack` in it
    FrozenLink: snap::FrozenLink;
    /// `START-END.PERMS.LABEL` in it
    FrozenMapping: snap::FrozenMapping;
    /// `extents` in it
    FrozenExtents: snap::FrozenExtents;
    /// `mem` in it
    FrozenSpace: snap::FrozenSpace;
    /// `core` in it
    FrozenCore: snap::FrozenCore;
    /// `process` in it
    FrozenRecord: snap::FrozenRecord;
    /// `PID`
    Process: process::Process;
    /// `PID/heap`, `PID/stack`
    MappingLink: mapping::MappingLink;
    /// `PID/START-END.PERMS.LABEL`
    Mapping: mapping::Mapping;
}

impl Node {
    /// The mount point.
    pub(crate) const ROOT: Self = Self::Root(root::Root);
}

/// Who asks for something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The thread, in the PID namespace of the mount; 0 where the kernel asks for itself.
    pub(crate) pid: u32,
    /// Its user (fsuid).
    pub(crate) uid: u32,
    /// Its group (fsgid).
    pub(crate) gid: u32,
}

/// Whose rights a request is judged by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) caller: Caller,
    /// The caller's; `None` where the mounter's own rights do, because nobody else may enter or the caller has all of them.
    pub(crate) credentials: Option<Arc<Credentials>>,
}

impl Subject {
    fn credentials(&self) -> Option<&Credentials> {
        self.credentials.as_deref()
    }
}

/// What a file is opened for, or what right is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) read: bool,
    pub(crate) write: bool,
    /// Executing or entering.
    pub(crate) execute: bool,
    /// Past the kernel's page cache (`O_DIRECT`): the kernel does that by itself, and asks for several parts at a time.
    pub(crate) is_direct: bool,
}

impl Access {
    /// Those of the flags of open(2).
    pub(crate) fn of_open(flags: i32) -> Self {
        let mode = flags & libc::O_ACCMODE;
        Self {
            read: mode != libc::O_WRONLY,
            write: mode != libc::O_RDONLY,
            execute: false,
            is_direct: flags & libc::O_DIRECT != 0,
        }
    }

    /// Those of a mask of access(2): `R_OK`, `W_OK`, `X_OK`.
    pub(crate) fn of_mask(mask: u32) -> Self {
        let has = |bit| mask & bit != 0;
        Self {
            read: has(4),
            write: has(2),
            execute: has(1),
            is_direct: false,
        }
    }
}

/// Whom a request may wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaitsFor {
    /// Nobody.
    Nobody,
    /// A process of this number, and the inode of its pidfd, where it is known which one it is.
    Process(ProcessId, Option<u64>),
    /// Each process there is.
    Everybody,
}

impl WaitsFor {
    /// That process and no other of its number.
    pub(crate) fn program(identity: &ProcessIdentity) -> Self {
        Self::Process(identity.pid, Some(identity.pidfd_inode))
    }
}

/// A file of the mount, whatever its kind.
///
/// What is not said here is not possible with a kind of file: it is the error that POSIX has for it.
pub(crate) trait File: Debug {
    /// Directory, regular file or link.
    fn kind(&self) -> Kind;

    /// Its path from the mount point on, for the log: printable ASCII.
    fn path(&self) -> String;

    /// The directory that a directory lies in.
    fn parent(&self) -> Node {
        Node::ROOT
    }

    /// The process that it belongs to.
    fn process(&self) -> Option<&Arc<ProcessInfo>> {
        None
    }

    /// The snapshot that it belongs to.
    fn snapshot(&self) -> Option<&Arc<Snapshot>> {
        None
    }

    /// Its attributes: those that are `plain`, and what is its own. `counted` is the memory usage that
    /// is known already.
    fn attributes(
        &self,
        context: &Context,
        plain: Attributes,
        counted: &CountedUsage,
    ) -> Attributes {
        let _ = (context, counted);
        plain
    }

    /// The memory whose usage its attributes show.
    fn memory(&self) -> Option<AddressRange> {
        None
    }

    /// Whether it may be written (access(2)).
    ///
    /// # Errors
    /// Why not.
    fn check_writable(&self, context: &Context) -> Result<()> {
        let _ = context;
        match self.kind() {
            Kind::Directory | Kind::File => Err(Error::NotPermitted),
            // Its target says.
            Kind::Link => Ok(()),
        }
    }

    /// Whether it may be truncated, which then changes nothing, as on a device.
    ///
    /// # Errors
    /// Why not.
    fn check_truncatable(&self, context: &Context) -> Result<()> {
        let _ = context;
        match self.kind() {
            Kind::Directory => Err(Error::IsADirectory),
            Kind::File | Kind::Link => Err(Error::NotPermitted),
        }
    }

    /// Opens it for `subject`; what is read through it from now on is no older than now.
    ///
    /// # Errors
    /// `IsADirectory`, `WriteOff`, `ReadOnlyMount`, `Protected`, `Replaced`, `ProcessDenied`, `CallerDenied`.
    fn open(&self, context: &Context, subject: &Subject, access: Access) -> Result<Open> {
        let _ = (context, subject, access);
        match self.kind() {
            Kind::Directory => Err(Error::IsADirectory),
            Kind::File | Kind::Link => Err(Error::Invalid),
        }
    }

    /// Where a link leads, for `caller`.
    ///
    /// # Errors
    /// `Invalid` for what is no link, `NoEntry` where it leads nowhere.
    fn target(&self, context: &Context, caller: &Caller) -> Result<String> {
        let _ = (context, caller);
        Err(Error::Invalid)
    }

    /// The file of this name in a directory, for who `pass` is for; where all processes must be visited for it, `pass` does that.
    ///
    /// # Errors
    /// `NoEntry`, `NoProcess`, `ProcessDenied`, `CallerDenied`, `NotADirectory`, `TimedOut`.
    fn lookup(&self, context: &Context, name: &str, pass: &Pass<'_>) -> Result<Node> {
        let _ = (context, name, pass);
        Err(Error::NotADirectory)
    }

    /// The entries of a directory as they are now, without `.` and `..`, for who `pass` is for; where all processes are listed,
    /// `pass` finds them.
    ///
    /// # Errors
    /// As [`lookup`](Self::lookup).
    fn entries(&self, context: &Context, pass: &Pass<'_>) -> Result<Listing> {
        let _ = (context, pass);
        Err(Error::NotADirectory)
    }

    /// Names of its extended attributes, without their prefix.
    fn xattr_names(&self) -> Vec<&'static str> {
        Vec::new()
    }

    /// The value of an extended attribute, by its name without the prefix: text, or bytes as the process has them.
    ///
    /// # Errors
    /// `NoAttribute`, and why the process cannot be asked.
    fn xattr(&self, context: &Context, name: &str) -> Result<Vec<u8>> {
        let _ = (context, name);
        Err(Error::NoAttribute)
    }

    /// Whom any request for it may wait for.
    fn waits_for(&self) -> WaitsFor {
        self.process()
            .map_or(WaitsFor::Nobody, |info| WaitsFor::program(&info.identity))
    }

    /// Whom listing its entries may wait for.
    fn entries_wait_for(&self) -> WaitsFor {
        self.waits_for()
    }

    /// Whom a look-up of this name in it may wait for.
    fn lookup_waits_for(&self, name: &str) -> WaitsFor {
        let _ = name;
        self.waits_for()
    }
}

/// Whom a look-up may wait for in a directory whose names are processes.
fn process_named_waits_for(name: &str) -> WaitsFor {
    ProcessId::parse(name).map_or(WaitsFor::Nobody, |pid| WaitsFor::Process(pid, None))
}

/// A file that was opened.
#[derive(Clone, Debug)]
pub(crate) struct Open {
    pub(crate) file: Arc<dyn OpenFile>,
    /// Whether the kernel must keep none of its pages.
    pub(crate) direct: bool,
    /// Whether it is to be read ahead here, since the kernel does not.
    pub(crate) reads_ahead: bool,
    /// Whether it may keep them for as long as it likes: nothing of the file ever changes.
    pub(crate) is_constant: bool,
    /// Whether its size may be another one than was shown a moment ago. What lies past that the kernel would not ask for.
    pub(crate) is_resized: bool,
}

/// An open file, whatever its kind.
pub(crate) trait OpenFile: Debug + Send + Sync {
    /// Reads from `offset` on, and returns how many bytes it got.
    ///
    /// # Errors
    /// `Unreachable` or `Incomplete` where bytes cannot be read, and whatever the memory says.
    fn read_at(&self, context: &Context, offset: u64, buffer: &mut [u8]) -> Result<usize>;

    /// Writes `data` at `offset`, and returns how many bytes got there.
    ///
    /// # Errors
    /// `BadHandle` where it is open for reading only; `PastEnd`, `Unreachable`, and whatever the memory says.
    fn write_at(&self, context: &Context, offset: u64, data: &[u8]) -> Result<usize> {
        let _ = (context, offset, data);
        Err(Error::BadHandle)
    }

    /// Where data or a hole starts, from `offset` on (`lseek` with `SEEK_DATA`, `SEEK_HOLE`).
    ///
    /// # Errors
    /// `NoMoreData` at and past the end.
    fn seek(&self, context: &Context, offset: u64, whence: Seek) -> Result<u64>;

    /// The store that holds all of its bytes, and no others.
    fn backing(&self) -> Option<&Arc<KeptStore>> {
        None
    }

    /// Takes note of a request for so many bytes of it, whoever answers that.
    fn was_read(&self, context: &Context, bytes: usize) {
        let _ = (context, bytes);
    }

    /// The process whose memory it shows.
    fn process(&self) -> Option<&Arc<OpenProcess>> {
        None
    }
}
