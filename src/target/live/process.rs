//! One live process, pinned.

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use nix::errno::Errno;
use procfs::FromRead;
use procfs::process::Stat;
use rustix::fs::OFlags;

use super::arguments::arguments;
use super::backing::{BackingFiles, Leases};
use super::credentials::{OwnCredentials, Rights};
use super::dump::facts;
use super::kernel::{Feature, Kernel};
use super::mem::Mem;
use super::memory::LiveMemory;
use super::mounts::mounts;
use super::pagemap::Pagemap;
use super::pinned::{Description, Pinned};
use super::resolver::Resolver;
use super::smaps::RecentSmaps;
use super::stop::stop;
use super::task::is_in_exec;
use super::text::field;
use super::vma::Maps;
use super::{accessible, errno_of, from_io, from_proc};
use crate::common::address::PAGE_SIZE;
use crate::common::clock::Clock;
use crate::common::error::{Error, Result};
use crate::common::log_limit::LogLimit;
use crate::common::metrics::Metrics;
use crate::target::mapping::{AddressSpace, Device, MapsReader};
use crate::target::{
    Credentials, DumpFacts, Process, ProcessId, ProcessIdentity, ProcessInfo, ProcessMemory,
    Stopped,
};

/// Mappings of one process that are held, at some 150 bytes each: those that the kernel allows where
/// `vm.max_map_count` is 1048576, as some distributions have it, and a few more. It can be 2000 times that.
pub(crate) const MOST_MAPPINGS: usize = (1 << 20) + (1 << 10);

/// Counts the mappings of a process while they are read.
#[derive(Debug)]
struct Lines {
    pid: ProcessId,
    most: usize,
    left: usize,
}

impl Lines {
    fn of(pid: ProcessId, most: usize) -> Self {
        Self {
            pid,
            most,
            left: most,
        }
    }

    /// # Errors
    /// `TooManyMappings`.
    fn count(&mut self) -> Result<()> {
        let left = self.left.checked_sub(1);
        self.left = left.ok_or(Error::TooManyMappings(self.pid, self.most))?;
        Ok(())
    }
}

/// How live processes are to be seen.
#[derive(Clone, Debug, Default)]
pub struct SourceOptions {
    /// Whether memory will be written.
    pub writable: bool,
    /// The only processes to show; all of them where it is empty.
    pub only: Vec<ProcessId>,
    /// Whether reads may fault absent pages in.
    pub touch: bool,
    /// What to do without although the kernel has it, as on an older one.
    pub without: Vec<Feature>,
}

/// What all processes of one source share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) options: SourceOptions,
    pub(super) own: Arc<OwnCredentials>,
    pub(super) kernel: Arc<Kernel>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) own_device: OnceLock<Device>,
    pub(super) warnings: LogLimit<&'static str>,
    pub(super) leases: Arc<Leases>,
    /// When the system started, in seconds since the epoch.
    pub(super) boot_time: u64,
    pub(super) ticks_per_second: u64,
}

impl Shared {
    /// What the tree shows of a process.
    pub(super) fn info(&self, identity: ProcessIdentity, description: Description) -> ProcessInfo {
        let Description {
            command,
            owner: (uid, gid),
            memory_owner,
        } = description;
        ProcessInfo {
            identity,
            command,
            uid,
            gid,
            memory_owner,
            started: self.boot_time + identity.start_time / self.ticks_per_second,
        }
    }
}

/// A pinned process, and its memory once somebody has asked for it.
#[derive(Debug)]
pub(super) struct LiveProcess {
    pinned: Arc<Pinned>,
    shared: Arc<Shared>,
    memory: OnceLock<Arc<LiveMemory>>,
    smaps: Arc<RecentSmaps>,
}

impl LiveProcess {
    pub(super) fn new(pinned: Pinned, shared: &Arc<Shared>) -> Self {
        Self {
            pinned: Arc::new(pinned),
            smaps: Arc::new(RecentSmaps::new(Arc::clone(&shared.clock))),
            shared: Arc::clone(shared),
            memory: OnceLock::new(),
        }
    }

    /// What `ask` finds out.
    ///
    /// # Errors
    /// What `ask` says; `Replaced` where it is not that program any more afterwards.
    fn ask<T>(&self, ask: impl FnOnce(&Arc<Pinned>) -> Result<T>) -> Result<T> {
        let answer = ask(&self.pinned)?;
        match self.pinned.verify() {
            Ok(()) => Ok(answer),
            Err(_) => Err(Error::Replaced(self.pinned.identity().pid)),
        }
    }

    fn live_memory(&self) -> Result<&Arc<LiveMemory>> {
        if let Some(memory) = self.memory.get() {
            return Ok(memory);
        }
        // Where two make it at a time, one of them counts.
        let memory = Arc::new(self.new_memory(None, Rights::Own)?);
        Ok(self.memory.get_or_init(|| memory))
    }

    /// Its memory, used with these rights, and through this `mem` where there is one.
    fn new_memory(&self, theirs: Option<Mem>, rights: Rights) -> Result<LiveMemory> {
        let kernel = || Arc::clone(&self.shared.kernel);
        let resolver = Resolver {
            pinned: Arc::clone(&self.pinned),
            pagemap: Pagemap::new(Arc::clone(self.pinned.pagemap()), kernel()),
            maps: Maps::new(self.pinned.maps()?, kernel()),
            kernel: kernel(),
            smaps: Arc::clone(&self.smaps),
            files: BackingFiles::new(
                Arc::clone(&self.shared.clock),
                Arc::clone(&self.shared.leases),
                kernel(),
                rights,
            ),
            own_device: self.shared.own_device.get().copied(),
            other_mounts: if self.shared.options.touch {
                mounts_of_our_kind()?
            } else {
                Vec::new()
            },
        };
        let metrics = Arc::clone(&self.shared.metrics);
        Ok(LiveMemory::new(
            Arc::clone(&self.pinned),
            theirs,
            resolver,
            &self.shared.options,
            metrics,
        ))
    }

    /// All of `/proc/PID/stat`.
    fn stat(&self) -> Result<Stat> {
        let stat = self.pinned.contents("stat")?;
        let pid = self.pinned.identity().pid;
        Stat::from_read(&*stat).map_err(|error| from_proc(pid, "stat", &error))
    }
}

impl Process for LiveProcess {
    fn identity(&self) -> &ProcessIdentity {
        self.pinned.identity()
    }

    fn verify(&self) -> Result<()> {
        self.pinned.verify()
    }

    fn check_space(&self) -> Result<()> {
        self.pinned.check_space()
    }

    fn describe(&self) -> Result<ProcessInfo> {
        // First, as in a verification: all that is asked of processes by a listing must not wait for an exec.
        self.pinned.check_space()?;
        if is_in_exec(self.pinned.task().directory()) {
            return Err(Error::Replaced(self.identity().pid));
        }
        let description = self.pinned.describe()?;
        Ok(self.shared.info(*self.identity(), description))
    }

    fn memory(&self) -> Result<Arc<dyn ProcessMemory>> {
        Ok(Arc::clone(self.live_memory()?) as _)
    }

    fn memory_for(&self, who: &Credentials, write: bool) -> Result<Arc<dyn ProcessMemory>> {
        let access = if write { OFlags::RDWR } else { OFlags::RDONLY };
        let own = &self.shared.own;
        let mem = self.ask(|pinned| open_as(pinned, own, who, "mem", access))?;
        let rights = Rights::Of(Arc::clone(own), Arc::new(who.clone()));
        let memory = self.new_memory(Some(Mem::opened(mem, write)), rights)?;
        Ok(Arc::new(memory))
    }

    fn check_visible(&self, who: &Credentials) -> Result<()> {
        self.ask(|pinned| check_visible(pinned, &self.shared.own, who))
    }

    fn address_space(&self) -> Result<AddressSpace> {
        let pid = self.identity().pid;
        let shared = &self.shared;
        let (space, file) = self.ask(|pinned| {
            shared.metrics.maps_reads.increment();
            let mut maps = MapsReader::default();
            let mut lines = Lines::of(pid, MOST_MAPPINGS);
            let file = pinned.open_file("maps")?;
            pinned.lines_of(&file, "maps", |line| {
                lines.count()?;
                maps.line(line).map_err(|error| {
                    if let Some(left_out) = shared.warnings.admit("maps") {
                        log::warn!("process {pid}: {error}{left_out}");
                    }
                    Error::system("parsing maps", Errno::EIO)
                })
            })?;
            let mut space = maps.finish();
            let own_device = shared.own_device.get().copied();
            accessible::complete(pinned, &mut space, own_device)
                .map_err(|errno| Error::system("completing maps", errno))?;
            Ok((space, file))
        })?;
        // It is that of the program, as was verified just now.
        self.pinned.keep_maps(file);
        Ok(space)
    }

    fn executable(&self) -> Result<Vec<u8>> {
        self.ask(|pinned| Ok(pinned.executable()))
    }

    fn arguments(&self) -> Result<Vec<u8>> {
        self.ask(|_| {
            let memory = self.live_memory()?;
            arguments(&**memory, memory.maps(), &self.stat()?)
        })
    }

    fn state(&self) -> Result<u8> {
        self.ask(|_| Ok(u8::try_from(self.stat()?.state).unwrap_or(b'?')))
    }

    fn dump_facts(&self) -> Result<DumpFacts> {
        let arguments = self.arguments()?;
        self.ask(|pinned| facts(pinned, &self.stat()?, &self.smaps, arguments))
    }

    fn stop(&self) -> Result<Box<dyn Stopped>> {
        stop(&self.pinned, &self.shared.kernel, &self.shared.metrics)
    }

    fn resident(&self) -> Result<u64> {
        self.ask(|pinned| {
            // `stat` counts what each processor has not handed in yet, `status` does not.
            let status = pinned.contents("status")?;
            let kib = field(&status, b"VmRSS:")
                .and_then(|field| field.strip_suffix(" kB")?.trim().parse::<u64>().ok());
            match kib {
                Some(kib) => Ok(kib * 1024),
                None => Ok(self.stat()?.rss * PAGE_SIZE),
            }
        })
    }
}

/// Whether whoever has these credentials may read the `maps` of a pinned process.
///
/// # Errors
/// `CallerDenied`, `NoProcess`.
pub(super) fn check_visible(
    pinned: &Pinned,
    own: &OwnCredentials,
    who: &Credentials,
) -> Result<()> {
    open_as(pinned, own, who, "maps", OFlags::RDONLY).map(drop)
}

/// Opens a file below `/proc/PID` as whoever has these credentials.
fn open_as(
    pinned: &Pinned,
    own: &OwnCredentials,
    who: &Credentials,
    name: &'static str,
    access: OFlags,
) -> Result<File> {
    let pid = pinned.identity().pid;
    // The kernel lets a thread look into its own process, whatever its credentials (`__ptrace_may_access` in
    // `kernel/ptrace.c`), and into its own memory by the number of any process: nobody else could.
    if pid.get() == std::process::id() || own.is_memory_of(pinned.identity().layout) {
        return Err(Error::CallerDenied(pid));
    }
    let directory = pinned.open_directory(".")?;
    let opened = own.open_as(who, directory, Path::new(name), access);
    opened.map_err(|errno| match from_io(pid, name, &errno.into()) {
        Error::ProcessDenied(pid) => Error::CallerDenied(pid),
        error => error,
    })
}

/// Devices of all mounts of this program.
///
/// # Errors
/// `System`: to touch pages without knowing them could wait for itself.
fn mounts_of_our_kind() -> Result<Vec<Device>> {
    let ours = mounts(|mount| mount.is_ours)
        .map_err(|error| Error::system("reading mountinfo", errno_of(&error)))?;
    Ok(ours.into_iter().map(|mount| mount.device).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_mappings_are_held_and_no_more() {
        let pid = ProcessId::new(7).unwrap();
        let mut lines = Lines::of(pid, 2);
        assert_eq!(lines.count(), Ok(()));
        assert_eq!(lines.count(), Ok(()));
        for _ in 0..2 {
            assert_eq!(lines.count(), Err(Error::TooManyMappings(pid, 2)));
        }
    }
}
