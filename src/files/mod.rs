//! The files of the mount: what each kind of them is, and the one place that tells the kinds apart.
//!
//! A kind of file is a type with a file of its own here, a line in `nodes!`, and nothing else: a [`Node`] is used by
//! the trait [`File`], and one that is open by [`OpenFile`]. Numbers of inodes and handles belong to the server.

mod attributes;
mod by_name;
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
mod stats;
mod text;
mod usage;
pub mod view;
mod xattr;

use std::fmt::Debug;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::common::address::AddressRange;
use crate::common::clock::Clock;
use crate::common::error::{Error, Result};
use crate::common::metrics::Metrics;
use crate::files::view::{FaultPolicy, Seek};
use crate::target::cache::{Freshness, PageCache};
use crate::target::snapshot::{Budget, KeptStore, StoreSource};
use crate::target::{
    self, Credentials, ProcessId, ProcessIdentity, ProcessInfo, ProcessSource, Program,
};

pub(crate) use attributes::{Attributes, Change, Kind};
pub(crate) use listing::{DirectoryEntry, LISTING_VALID, Listing};
pub(crate) use opened::OpenProcess;
pub(crate) use pass::{Found, Pass};
pub(crate) use snap::{Taking, named_processes};
pub(crate) use usage::CountedUsage;
pub(crate) use xattr::xattr_list;

use self::core::CoreTable;
use mapping::Mapping;
use opened::OpenProcesses;
use process::Process;
use processes::ProcessTable;
use snap::{Snapshot, SnapshotTable};
use usage::MemoryUsages;

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
    /// `mem` in it
    FrozenSpace: snap::FrozenSpace;
    /// `core` in it
    FrozenCore: snap::FrozenCore;
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
    /// Whether it may keep them for as long as it likes: nothing of the file ever changes.
    pub(crate) is_constant: bool,
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

    /// The process whose memory it shows.
    fn process(&self) -> Option<&Arc<OpenProcess>> {
        None
    }
}

/// What the files work with.
#[derive(Clone, Debug)]
pub(crate) struct Services {
    /// The processes they show.
    pub(crate) source: Arc<dyn ProcessSource>,
    /// Memory that was read a moment ago.
    pub(crate) cache: Arc<PageCache>,
    /// How old data may be.
    pub(crate) freshness: Arc<Freshness>,
    /// Where pages of snapshots go.
    pub(crate) stores: Arc<dyn StoreSource>,
    /// How many of them there may be.
    pub(crate) budget: Arc<Budget>,
    pub(crate) metrics: Arc<Metrics>,
}

/// How the files behave.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FileOptions {
    /// Whether memory may be written (`write`).
    pub(crate) writable: bool,
    /// Whether nothing at all may be written (`ro`).
    pub(crate) read_only: bool,
    /// Whether a mapping's own protection is passed over by writes (`force`).
    pub(crate) force: bool,
    /// Whether others than the mounter may enter, each judged by their own credentials (`allow_other`).
    pub(crate) allow_other: bool,
    /// Whether no process is ever stopped, also not for the registers of its core file (`nostop`).
    pub(crate) no_stop: bool,
    /// Whether all that can be read is in a core file (`fullcore`).
    pub(crate) full_core: bool,
    /// What becomes of unreadable bytes (`fault`).
    pub(crate) faults: FaultPolicy,
    /// Owner of whatever belongs to no process.
    pub(crate) uid: u32,
    /// Group of whatever belongs to no process.
    pub(crate) gid: u32,
}

impl FileOptions {
    /// Whether memory may be written at all.
    ///
    /// # Errors
    /// `ReadOnlyMount`, `WriteOff`.
    fn check_writable(&self) -> Result<()> {
        match (self.writable, self.read_only) {
            (true, _) => Ok(()),
            // The kernel refuses that by itself, until root makes the mount writable (`mount -i -o remount,rw`).
            (false, true) => Err(Error::ReadOnlyMount),
            (false, false) => Err(Error::WriteOff),
        }
    }
}

/// What all files of one mount share.
#[derive(Debug)]
pub(crate) struct Context {
    services: Services,
    options: FileOptions,
    processes: ProcessTable,
    opened: Arc<OpenProcesses>,
    usages: MemoryUsages,
    cores: CoreTable,
    snapshots: SnapshotTable,
    /// When it was mounted, as the times of what belongs to no process show it.
    mounted: SystemTime,
}

impl Context {
    /// What the files of the processes of `services.source` share.
    pub(crate) fn new(services: Services, options: FileOptions) -> Self {
        let clock = services.freshness.clock();
        let bound = services.freshness.bound();
        let opened = Arc::new(OpenProcesses::new(services.clone(), Arc::clone(clock)));
        let source = Arc::clone(&services.source);
        Self {
            mounted: clock.wall(),
            usages: MemoryUsages::new(Arc::clone(clock), bound),
            cores: CoreTable::new(Arc::clone(clock), bound),
            snapshots: SnapshotTable::default(),
            processes: ProcessTable::new(source, Arc::clone(&opened), Arc::clone(clock), bound),
            opened,
            services,
            options,
        }
    }

    /// The clock that they go by.
    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        self.services.freshness.clock()
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.services.metrics
    }

    /// Closes what is kept open for speed alone and was not used for long. Returns how long it is until
    /// there is more to close; `None` where nothing is kept. May wait for a file system.
    pub(crate) fn close_unused(&self) -> Option<Duration> {
        self.opened.close_unused()
    }

    /// Whose rights a request of `caller` is judged by.
    ///
    /// # Errors
    /// `UnknownCaller`.
    pub(crate) fn subject(&self, caller: &Caller) -> Result<Subject> {
        let credentials = match self.options.allow_other {
            true => {
                let Caller { pid, uid, gid } = *caller;
                self.services.source.credentials(pid, uid, gid)?
            }
            false => None,
        };
        Ok(Subject {
            caller: *caller,
            credentials: credentials.map(Arc::new),
        })
    }

    /// The user who asks, where that is not the mounter.
    pub(crate) fn other_user(&self, caller: &Caller) -> Option<u32> {
        (self.options.allow_other && caller.uid != self.options.uid).then_some(caller.uid)
    }

    /// The program that asks, for the audit trail; `None` where it is not seen.
    pub(crate) fn program_of(&self, caller: &Caller) -> Option<Program> {
        self.services.source.program_of_thread(caller.pid)
    }

    /// The path of the program that a process runs.
    ///
    /// # Errors
    /// Why the process cannot be asked.
    pub(crate) fn executable(&self, info: &ProcessInfo) -> Result<Vec<u8>> {
        self.opened
            .ask(&info.identity, |process| process.executable())
    }

    /// Whether `subject` may know of the process that a file belongs to, if it belongs to one.
    ///
    /// # Errors
    /// `CallerDenied`, and why the process cannot be asked.
    pub(crate) fn check_visible(&self, node: &Node, subject: &Subject) -> Result<()> {
        let Some(who) = subject.credentials() else {
            return Ok(());
        };
        if let Some(info) = node.process() {
            let check = |process: &dyn target::Process| process.check_visible(who);
            return self.opened.ask(&info.identity, check);
        }
        match node.snapshot() {
            Some(snapshot) if !snapshot.belongs_to(who.uid) => Err(Error::NotOwner),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether the program that was seen as `info` still runs.
    ///
    /// # Errors
    /// `Ended`, `Replaced`, or why it cannot be known.
    pub(crate) fn verify(&self, info: &ProcessInfo) -> Result<()> {
        self.opened.verify(&info.identity)
    }

    #[cfg(test)]
    pub(crate) fn is_pinned(&self, identity: &ProcessIdentity) -> bool {
        self.opened.known(identity).is_some()
    }
}
