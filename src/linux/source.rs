//! The processes of this system.

use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use parking_lot::Mutex;
use procfs::FromRead;
use procfs::process::{Process, Stat, all_processes};

use super::backing::BackingFiles;
use super::memory::LiveMemory;
use super::mounts::mounts;
use super::pagemap::Pagemap;
use super::pinned::{Pinned, read_whole};
use super::plan::Planner;
use super::vma::Maps;
use super::{extent, from_io, from_proc};
use crate::address::PAGE_SIZE;
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, Result};
use crate::mapping::{AddressSpace, Device, MapsReader};
use crate::metrics::Metrics;
use crate::process::{
    ProcessDetails, ProcessId, ProcessIdentity, ProcessInfo, ProcessMemory, ProcessSource,
};
use crate::recent::Recent;

/// How live processes are to be seen.
#[derive(Clone, Debug, Default)]
pub struct SourceOptions {
    /// Whether memory will be written.
    pub writable: bool,
    /// The only processes to show; all of them where it is empty.
    pub only: Vec<ProcessId>,
    /// Whether reads may fault absent pages in.
    pub touch: bool,
    /// Whether to do without `PAGEMAP_SCAN`, as on a kernel before 6.7.
    pub without_scan: bool,
}

/// Processes that stay pinned for whoever comes next: a walk looks a process up, lists it, and opens it.
const KEPT: NonZeroUsize = NonZeroUsize::new(16).expect("not zero");

/// How long an exec is waited for: less than a request may take at all.
const LONGEST_EXEC: Duration = Duration::from_millis(1000);
const EXEC_PAUSE: Duration = Duration::from_millis(2);

/// Looks at a process that runs a new program while it is looked at: an exec lays code and stack
/// out step by step, and each step makes it another one.
const MOST_TRIES: u32 = 64;

/// The processes that `/proc` shows.
#[derive(Debug)]
pub struct LiveSource {
    options: SourceOptions,
    metrics: Arc<Metrics>,
    /// When the system started, in seconds since the epoch.
    boot_time: u64,
    ticks_per_second: u64,
    own_device: OnceLock<Device>,
    clock: SystemClock,
    pinned: Mutex<Recent<ProcessIdentity, Arc<Pinned>>>,
}

impl LiveSource {
    /// The processes of this system.
    ///
    /// # Errors
    /// `System` where `/proc` is not mounted.
    pub fn new(options: SourceOptions, metrics: Arc<Metrics>) -> Result<Self> {
        Ok(Self {
            clock: SystemClock::new(),
            pinned: Mutex::new(Recent::new(KEPT)),
            options,
            metrics,
            boot_time: procfs::boot_time_secs()
                .map_err(|_| Error::system("reading /proc/stat", Errno::ENOENT))?,
            ticks_per_second: procfs::ticks_per_second().max(1),
            own_device: OnceLock::new(),
        })
    }

    /// Tells which device is the mount's own: a mapping of one of its files must never be read.
    pub fn set_own_device(&self, device: Device) {
        // A mount has one device for life, so a second call has nothing to say.
        let _ = self.own_device.set(device);
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
}

impl ProcessSource for LiveSource {
    fn numbers(&self) -> Result<Vec<ProcessId>> {
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

    fn describe_within(&self, pid: ProcessId, patience: Duration) -> Result<ProcessInfo> {
        let begun = Instant::now();
        let mut tries = 1;
        loop {
            match self.describe_once(pid) {
                Err(Error::Replaced(_)) if tries < MOST_TRIES => (),
                Err(Error::Replaced(_)) if begun.elapsed() < patience => {
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
        let mut statm = self
            .process(pid)?
            .open_relative("statm")
            .map_err(|error| from_proc(pid, "open of statm", &error))?;
        let statm = read_whole(&mut statm).map_err(|error| from_io(pid, "statm", &error))?;
        // The second field, in pages; `stat` leaves out what each processor counts for itself.
        let pages = std::str::from_utf8(&statm)
            .ok()
            .and_then(|statm| statm.split(' ').nth(1)?.parse::<u64>().ok());
        Ok(pages.unwrap_or(0) * PAGE_SIZE)
    }

    fn details(&self, identity: &ProcessIdentity) -> Result<ProcessDetails> {
        let pid = identity.pid;
        let pinned = self.pin_same(identity)?;
        let stat = pinned.contents("stat")?;
        let stat = Stat::from_read(&*stat).map_err(|error| from_proc(pid, "stat", &error))?;
        let executable = std::fs::read_link(format!("/proc/{pid}/exe"))
            .map(|path| path.into_os_string().into_vec())
            .unwrap_or_default();
        let arguments = pinned.contents("cmdline")?;
        // `stat` counts what each processor has not handed in yet, `status` does not.
        let status = pinned.contents("status")?;
        let resident = field(&status, b"VmRSS:")
            .and_then(|field| field.strip_suffix(" kB")?.trim().parse::<u64>().ok());
        pinned.verify().map_err(|_| Error::Replaced(pid))?;
        Ok(ProcessDetails {
            executable,
            arguments,
            state: u8::try_from(stat.state).unwrap_or(b'?'),
            resident: resident.map_or(stat.rss * PAGE_SIZE, |kib| kib * 1024),
        })
    }

    fn address_space(&self, identity: &ProcessIdentity) -> Result<AddressSpace> {
        let pid = identity.pid;
        let pinned = self.pin_same(identity)?;
        self.metrics.maps_reads.increment();
        let mut maps = MapsReader::default();
        pinned.lines("maps", |line| {
            maps.line(line).map_err(|error| {
                log::warn!("process {pid}: {error}");
                Error::system("parsing maps", Errno::EIO)
            })
        })?;
        let mut space = maps.finish();
        let own_device = self.own_device.get().copied();
        extent::complete(&pinned, &mut space, own_device);
        pinned.verify().map_err(|_| Error::Replaced(pid))?;
        Ok(space)
    }

    fn open(&self, identity: &ProcessIdentity) -> Result<Arc<dyn ProcessMemory>> {
        let pinned = self.pin_same(identity)?;
        let planner = Planner {
            pagemap: Pagemap::new(Arc::clone(pinned.pagemap()), !self.options.without_scan),
            maps: Maps::new(pinned.open_file("maps")?),
            files: BackingFiles::new(identity.pid),
            own_device: self.own_device.get().copied(),
            other_mounts: if self.options.touch {
                mounts_of_our_kind()
            } else {
                Vec::new()
            },
        };
        // Were there an exec in between, these would belong to another program.
        pinned.verify()?;
        let metrics = Arc::clone(&self.metrics);
        Ok(Arc::new(LiveMemory::new(
            pinned,
            planner,
            self.options.touch,
            metrics,
        )))
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

/// A field of `/proc/PID/status`, without the white space around it.
fn field<'a>(status: &'a [u8], name: &[u8]) -> Option<&'a str> {
    status
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(name))
        .and_then(|field| std::str::from_utf8(field.trim_ascii()).ok())
}

/// Devices of all mounts of this program.
fn mounts_of_our_kind() -> Vec<Device> {
    let mounts = mounts().unwrap_or_default();
    let ours = mounts.into_iter().filter(|mount| mount.is_ours);
    ours.map(|mount| mount.device).collect()
}
