//! The processes of this system.

use std::num::NonZeroUsize;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nix::errno::Errno;
use parking_lot::Mutex;
use procfs::FromRead;
use procfs::process::{Process, Stat, all_processes};

use super::arguments::arguments;
use super::backing::{BackingFiles, Leases};
use super::errno_of;
use super::kernel::{Feature, Kernel, ProcFault, boot_time};
use super::memory::LiveMemory;
use super::mounts::mounts;
use super::pagemap::Pagemap;
use super::pinned::{Pinned, read_whole};
use super::resolver::Resolver;
use super::smaps::RecentSmaps;
use super::task::{Task, resident};
use super::vma::Maps;
use super::{accessible, from_io, from_proc};
use crate::common::address::PAGE_SIZE;
use crate::common::clock::Clock;
use crate::common::error::{Error, Result};
use crate::common::log_limit::LogLimit;
use crate::common::metrics::Metrics;
use crate::common::recent::Recent;
use crate::target::mapping::{AddressSpace, Device, MapsReader};
use crate::target::{ProcessId, ProcessIdentity, ProcessInfo, ProcessMemory, ProcessSource};

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

/// Processes that stay pinned for whoever comes next: a walk looks a process up, lists it, and opens it.
const KEPT: NonZeroUsize = NonZeroUsize::new(16).expect("not zero");

/// How long an exec is waited for: less than a request may take at all.
const LONGEST_EXEC: Duration = Duration::from_millis(1000);
const EXEC_PAUSE: Duration = Duration::from_millis(2);

/// Looks at a process that runs a new program while it is looked at: an exec lays code and stack
/// out step by step, and each step makes it another one.
const MOST_TRIES: u32 = 64;

/// Mappings of one process that are held, at some 150 bytes each: those that the kernel allows where
/// `vm.max_map_count` is 1048576, as some distributions have it, and a few more. It can be 2000 times that.
const MOST_MAPPINGS: usize = (1 << 20) + (1 << 10);

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

/// The processes that `/proc` shows.
#[derive(Debug)]
pub struct LiveSource {
    options: SourceOptions,
    kernel: Arc<Kernel>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    /// When the system started, in seconds since the epoch.
    boot_time: u64,
    ticks_per_second: u64,
    own_device: OnceLock<Device>,
    pinned: Mutex<Recent<ProcessIdentity, Arc<Pinned>>>,
    warnings: LogLimit<&'static str>,
    leases: Arc<Leases>,
}

impl LiveSource {
    /// The processes of this system.
    ///
    /// # Errors
    /// Where `/proc` does not show the processes that the system calls speak of.
    pub fn new(
        options: SourceOptions,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> std::result::Result<Self, ProcFault> {
        Ok(Self {
            kernel: Arc::new(Kernel::probe(&options.without)?),
            pinned: Mutex::new(Recent::new(KEPT)),
            options,
            metrics,
            // `/proc` mounted with `subset=pid` has no `stat`.
            boot_time: procfs::boot_time_secs()
                .unwrap_or_else(|_| boot_time().map_or(0, |time| time.as_secs())),
            ticks_per_second: procfs::ticks_per_second().max(1),
            own_device: OnceLock::new(),
            warnings: LogLimit::new(Arc::clone(&clock)),
            leases: Arc::new(Leases::new(Arc::clone(&clock))),
            clock,
        })
    }

    /// Tells which device is the mount's own: a mapping of one of its files must never be read.
    pub fn set_own_device(&self, device: Device) {
        // A mount has one device for life, so a second call has nothing to say.
        let _ = self.own_device.set(device);
    }

    /// What the kernel has.
    pub fn kernel(&self) -> &Arc<Kernel> {
        &self.kernel
    }

    fn is_shown(&self, pid: ProcessId) -> bool {
        self.options.only.is_empty() || self.options.only.contains(&pid)
    }

    fn process(&self, pid: ProcessId) -> Result<Process> {
        if !self.is_shown(pid) {
            return Err(Error::NoProcess(pid));
        }
        Process::new(pid.as_pid_t()).map_err(|error| from_proc(pid, "open of /proc/PID", &error))
    }

    fn pin(&self, pid: ProcessId, wanted: Option<&ProcessIdentity>) -> Result<Pinned> {
        Pinned::open(self.process(pid)?, pid, self.options.writable, wanted)
    }

    /// The process, if it is pinned.
    fn recent(&self, identity: &ProcessIdentity) -> Option<Arc<Pinned>> {
        let now = self.clock.now();
        self.pinned.lock().get(identity, now).map(Arc::clone)
    }

    /// # Errors
    /// As [`describe`](ProcessSource::describe); `Replaced` where it begins to run a new program meanwhile.
    fn describe_once(&self, pid: ProcessId) -> Result<ProcessInfo> {
        let pinned = self.pin(pid, None)?;
        let owner = std::fs::metadata(format!("/proc/{pid}"))
            .map_err(|error| from_io(pid, "stat of /proc/PID", &error))?;
        let command = pinned.line("comm")?;
        // The owner was asked for by number: it is the pinned process's only if that still lives.
        pinned.confirm()?;
        let identity = *pinned.identity();
        Ok(ProcessInfo {
            identity,
            command,
            uid: owner.uid(),
            gid: owner.gid(),
            started: self.boot_time + identity.start_time / self.ticks_per_second,
        })
    }

    /// The process that was seen as `identity`, pinned now or a moment ago.
    fn pin_same(&self, identity: &ProcessIdentity) -> Result<Arc<Pinned>> {
        if let Some(pinned) = self.recent(identity) {
            if pinned.verify().is_ok() {
                return Ok(pinned);
            }
            let gone = self.pinned.lock().pop(identity);
            drop(gone);
        }
        let pinned = Arc::new(self.pin(identity.pid, Some(identity))?);
        if pinned.identity() != identity {
            return Err(Error::Replaced(identity.pid));
        }
        let now = self.clock.now();
        let evicted = self.pinned.lock().push(*identity, Arc::clone(&pinned), now);
        // Outside the lock: this closes descriptors.
        drop(evicted);
        Ok(pinned)
    }

    /// What `ask` finds out of the process that was seen as `identity`.
    ///
    /// # Errors
    /// What pinning it and `ask` say; `Replaced` where it is not that process any more afterwards.
    fn ask<T>(
        &self,
        identity: &ProcessIdentity,
        ask: impl FnOnce(&Arc<Pinned>) -> Result<T>,
    ) -> Result<T> {
        let pinned = self.pin_same(identity)?;
        let answer = ask(&pinned)?;
        match pinned.verify() {
            Ok(()) => Ok(answer),
            Err(_) => Err(Error::Replaced(identity.pid)),
        }
    }

    /// The memory of a pinned process.
    ///
    /// # Errors
    /// As [`open`](ProcessSource::open).
    fn memory(&self, pinned: Arc<Pinned>) -> Result<LiveMemory> {
        let kernel = || Arc::clone(&self.kernel);
        let resolver = Resolver {
            pinned: Arc::clone(&pinned),
            pagemap: Pagemap::new(Arc::clone(pinned.pagemap()), kernel()),
            maps: Maps::new(pinned.open_file("maps")?, kernel()),
            kernel: kernel(),
            smaps: RecentSmaps::new(Arc::clone(&self.clock)),
            files: BackingFiles::new(Arc::clone(&self.clock), Arc::clone(&self.leases), kernel()),
            own_device: self.own_device.get().copied(),
            other_mounts: if self.options.touch {
                mounts_of_our_kind()?
            } else {
                Vec::new()
            },
        };
        // Were there an exec in between, these would belong to another program.
        pinned.verify()?;
        let metrics = Arc::clone(&self.metrics);
        Ok(LiveMemory::new(
            pinned,
            resolver,
            self.options.touch,
            metrics,
        ))
    }
}

impl ProcessSource for LiveSource {
    fn numbers(&self) -> Result<Vec<ProcessId>> {
        self.kernel.confirm_proc()?;
        let mut pids: Vec<ProcessId> = if self.options.only.is_empty() {
            all_processes()
                .map_err(|_| Error::system("listing /proc", Errno::EIO))?
                .filter_map(|process| ProcessId::new(process.ok()?.pid().cast_unsigned()))
                .collect()
        } else {
            self.options.only.clone()
        };
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    fn describe(&self, pid: ProcessId) -> Result<ProcessInfo> {
        self.describe_within(pid, LONGEST_EXEC)
    }

    fn describe_within(&self, pid: ProcessId, timeout: Duration) -> Result<ProcessInfo> {
        let begun = self.clock.now();
        let mut tries = 1;
        loop {
            match self.describe_once(pid) {
                // Not there, or not in the `/proc` that lies there now.
                Err(Error::NoProcess(pid)) if self.is_shown(pid) => {
                    return self.kernel.confirm_proc().and(Err(Error::NoProcess(pid)));
                }
                Err(Error::Replaced(_)) if tries < MOST_TRIES => (),
                Err(Error::Replaced(_)) if self.clock.now().saturating_sub(begun) < timeout => {
                    // It takes its time: whoever waits in the kernel for it holds a thread for as long.
                    std::thread::sleep(EXEC_PAUSE);
                }
                Err(Error::Replaced(_)) => return Err(Error::TimedOut(pid)),
                answer => return answer,
            }
            tries += 1;
        }
    }

    fn close_unused(&self) -> Option<Duration> {
        let (unused, next) = self.pinned.lock().take_unused(self.clock.now());
        // Outside the lock: this closes descriptors.
        drop(unused);
        next
    }

    fn is_current(&self, identity: &ProcessIdentity) -> bool {
        match self.recent(identity) {
            Some(pinned) => pinned.verify().is_ok(),
            None => Pinned::is_running(identity),
        }
    }

    fn resident(&self, pid: ProcessId) -> Result<u64> {
        let directory = self.process(pid)?;
        let gone = Error::NoProcess(pid);
        // Shown by each thread alike, but for a first one that has ended; and `statm` waits for nobody.
        let resident = match resident(&directory) {
            Some(0) => Task::find(directory, pid).map(|(task, _)| resident(task.directory()))?,
            pages => pages,
        };
        Ok(resident.ok_or(gone)? * PAGE_SIZE)
    }

    fn executable(&self, identity: &ProcessIdentity) -> Result<Vec<u8>> {
        self.ask(identity, |pinned| Ok(pinned.executable()))
    }

    fn arguments(&self, identity: &ProcessIdentity) -> Result<Vec<u8>> {
        self.ask(identity, |pinned| {
            let stat = stat(pinned)?;
            let memory = self.memory(Arc::clone(pinned))?;
            let maps = Maps::new(pinned.open_file("maps")?, Arc::clone(&self.kernel));
            arguments(&memory, &maps, &stat)
        })
    }

    fn state(&self, identity: &ProcessIdentity) -> Result<u8> {
        self.ask(identity, |pinned| {
            Ok(u8::try_from(stat(pinned)?.state).unwrap_or(b'?'))
        })
    }

    fn resident_of(&self, identity: &ProcessIdentity) -> Result<u64> {
        self.ask(identity, |pinned| {
            // `stat` counts what each processor has not handed in yet, `status` does not.
            let status = pinned.contents("status")?;
            let kib = field(&status, b"VmRSS:")
                .and_then(|field| field.strip_suffix(" kB")?.trim().parse::<u64>().ok());
            match kib {
                Some(kib) => Ok(kib * 1024),
                None => Ok(stat(pinned)?.rss * PAGE_SIZE),
            }
        })
    }

    fn address_space(&self, identity: &ProcessIdentity) -> Result<AddressSpace> {
        let pid = identity.pid;
        self.ask(identity, |pinned| {
            self.metrics.maps_reads.increment();
            let mut maps = MapsReader::default();
            let mut lines = Lines::of(pid, MOST_MAPPINGS);
            pinned.lines("maps", |line| {
                lines.count()?;
                maps.line(line).map_err(|error| {
                    if let Some(left_out) = self.warnings.admit("maps") {
                        log::warn!("process {pid}: {error}{left_out}");
                    }
                    Error::system("parsing maps", Errno::EIO)
                })
            })?;
            let mut space = maps.finish();
            let own_device = self.own_device.get().copied();
            accessible::complete(pinned, &mut space, own_device);
            Ok(space)
        })
    }

    fn open(&self, identity: &ProcessIdentity) -> Result<Arc<dyn ProcessMemory>> {
        Ok(Arc::new(self.memory(self.pin_same(identity)?)?))
    }

    fn process_of_thread(&self, tid: u32) -> Result<ProcessId> {
        let pid = ProcessId::new(tid).ok_or(Error::NoEntry)?;
        let process = Process::new(pid.as_pid_t()).map_err(|_| Error::NoEntry)?;
        // By hand: the crate's own parser stops at a thread name that is not UTF-8.
        let mut status = process
            .open_relative("status")
            .map_err(|_| Error::NoEntry)?;
        let status = read_whole(&mut status).map_err(|_| Error::NoEntry)?;
        field(&status, b"Tgid:")
            .and_then(ProcessId::parse)
            .ok_or(Error::NoEntry)
    }
}

/// All of `/proc/PID/stat`.
fn stat(pinned: &Pinned) -> Result<Stat> {
    let stat = pinned.contents("stat")?;
    Stat::from_read(&*stat).map_err(|error| from_proc(pinned.identity().pid, "stat", &error))
}

/// A field of `/proc/PID/status`, without the white space around it.
fn field<'a>(status: &'a [u8], name: &[u8]) -> Option<&'a str> {
    status
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(name))
        .and_then(|field| std::str::from_utf8(field.trim_ascii()).ok())
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

    /// Its clocks and `/proc/stat` tell the same, but for what `/proc/stat` rounds.
    #[test]
    fn the_boot_time_is_known_without_proc() {
        let said = procfs::boot_time_secs().unwrap();
        assert!(boot_time().unwrap().as_secs().abs_diff(said) <= 1);
    }
}
