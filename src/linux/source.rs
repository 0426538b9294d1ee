//! The processes of this system.

use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, OnceLock};

use nix::errno::Errno;
use procfs::process::{Process, all_processes};

use super::backing::BackingFiles;
use super::memory::LiveMemory;
use super::mounts::mounts;
use super::pagemap::Pagemap;
use super::pinned::{Pinned, contents};
use super::plan::Planner;
use super::vma::Maps;
use super::{extent, from_io, from_proc};
use crate::address::PAGE_SIZE;
use crate::error::{Error, Result};
use crate::mapping::{AddressSpace, Device};
use crate::metrics::Metrics;
use crate::process::{
    ProcessDetails, ProcessId, ProcessIdentity, ProcessInfo, ProcessMemory, ProcessSource,
};

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

/// The processes that `/proc` shows.
#[derive(Debug)]
pub struct LiveSource {
    options: SourceOptions,
    metrics: Arc<Metrics>,
    /// When the system started, in seconds since the epoch.
    boot_time: u64,
    ticks_per_second: u64,
    own_device: OnceLock<Device>,
}

impl LiveSource {
    /// The processes of this system.
    ///
    /// # Errors
    /// `System` where `/proc` is not mounted.
    pub fn new(options: SourceOptions, metrics: Arc<Metrics>) -> Result<Self> {
        Ok(Self {
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

    fn pin(&self, pid: ProcessId, writable: bool) -> Result<(Process, Pinned)> {
        let process = self.process(pid)?;
        let pinned = Pinned::open(&process, pid, writable)?;
        Ok((process, pinned))
    }

    fn pin_same(&self, identity: &ProcessIdentity, writable: bool) -> Result<(Process, Pinned)> {
        let (process, pinned) = self.pin(identity.pid, writable)?;
        if pinned.identity() == identity {
            Ok((process, pinned))
        } else {
            Err(Error::Replaced(identity.pid))
        }
    }
}

impl ProcessSource for LiveSource {
    fn processes(&self) -> Result<Vec<ProcessInfo>> {
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
        Ok(pids
            .into_iter()
            .filter_map(|pid| match self.describe(pid) {
                Ok(info) => Some(info),
                Err(Error::NoProcess(_) | Error::ProcessDenied(_)) => None,
                Err(error) => {
                    log::warn!("process {pid} is left out of the listing: {error}");
                    None
                }
            })
            .collect())
    }

    fn describe(&self, pid: ProcessId) -> Result<ProcessInfo> {
        let (process, pinned) = self.pin(pid, false)?;
        let owner = std::fs::metadata(format!("/proc/{pid}"))
            .map_err(|error| from_io(pid, "stat of /proc/PID", &error))?;
        let mut command = contents(&process, pid, "comm")?;
        if command.last() == Some(&b'\n') {
            command.pop();
        }
        // The second field, in pages; `stat` leaves out what each processor counts for itself.
        let statm = contents(&process, pid, "statm")?;
        let resident = std::str::from_utf8(&statm)
            .ok()
            .and_then(|statm| statm.split(' ').nth(1)?.parse::<u64>().ok())
            .map_or(0, |pages| pages * PAGE_SIZE);
        // The owner was asked for by number: it is the pinned process's only if that still lives.
        pinned.check_program().map_err(|_| Error::NoProcess(pid))?;
        let identity = *pinned.identity();
        Ok(ProcessInfo {
            identity,
            command,
            uid: owner.uid(),
            gid: owner.gid(),
            started: self.boot_time + identity.start_time / self.ticks_per_second,
            resident,
        })
    }

    fn details(&self, identity: &ProcessIdentity) -> Result<ProcessDetails> {
        let pid = identity.pid;
        let (process, pinned) = self.pin_same(identity, false)?;
        let stat = process
            .stat()
            .map_err(|error| from_proc(pid, "stat", &error))?;
        let executable = std::fs::read_link(format!("/proc/{pid}/exe"))
            .map(|path| path.into_os_string().into_vec())
            .unwrap_or_default();
        let arguments = contents(&process, pid, "cmdline")?;
        // `stat` counts what each processor has not handed in yet, `status` does not.
        let status = contents(&process, pid, "status")?;
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
        let (process, pinned) = self.pin_same(identity, false)?;
        self.metrics.maps_reads.increment();
        let maps = contents(&process, pid, "maps")?;
        let mut space = AddressSpace::parse(&maps).map_err(|error| {
            log::warn!("process {pid}: {error}");
            Error::system("parsing maps", Errno::EIO)
        })?;
        extent::complete(&process, pid, &mut space, self.own_device.get().copied());
        pinned.verify().map_err(|_| Error::Replaced(pid))?;
        Ok(space)
    }

    fn open(&self, identity: &ProcessIdentity) -> Result<Arc<dyn ProcessMemory>> {
        let pid = identity.pid;
        let (process, pinned) = self.pin_same(identity, self.options.writable)?;
        let open = |name| {
            process
                .open_relative(name)
                .map_err(|error| from_proc(pid, "open below /proc/PID", &error))
        };
        let planner = Planner {
            pagemap: Pagemap::new(pinned.pagemap()?, !self.options.without_scan),
            maps: Maps::new(open("maps")?),
            files: BackingFiles::new(pid),
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
        let status = contents(&process, pid, "status")?;
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
