//! The processes of this system.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nix::sys::signal::Signal;
use procfs::process::Process as Directory;

use super::backing::Leases;
use super::credentials::OwnCredentials;
use super::interrupted::retry;
use super::kernel::{Kernel, ProcFault, boot_time};
use super::pinned::Pinned;
use super::process::{LiveProcess, Shared, SourceOptions, check_visible};
use super::task::{Task, activity, resident};
use super::text::{field, read_whole};
use super::{check_page_size, descriptor_limit, errno_of, from_io, from_proc};
use crate::common::address::PAGE_SIZE;
use crate::common::clock::Clock;
use crate::common::error::{Error, Result};
use crate::common::log_limit::LogLimit;
use crate::common::metrics::Metrics;
use crate::target::mapping::Device;
use crate::target::{
    Activity, CgroupPath, Credentials, LONGEST_EXEC, Process, ProcessId, ProcessIdentity,
    ProcessInfo, ProcessSource, Program, ReadCounts,
};

/// Processes that are held for speed alone, where descriptors are not short.
const MOST_HELD: usize = 1024;

/// What is held for speed alone has one of so many descriptors at most.
const OF_ALL: u64 = 4;

const EXEC_PAUSE: Duration = Duration::from_millis(2);

/// How often a process is read again that runs a new program meanwhile: an exec lays code and stack
/// out step by step, and each step makes it another one.
const MOST_TRIES: u32 = 64;

/// How long a process in an exec is waited for.
///
/// One that runs, or would if it had a processor, comes to its end: on a busy machine it may only be late. One that
/// does not run from one look to the next waits for something, perhaps for ever.
#[derive(Debug)]
struct ExecWait {
    begun: Duration,
    /// What is left for pauses in which the process did nothing. They count as what they were meant to
    /// take: where they took longer, we had no processor, and the process may have had none either.
    left: Duration,
    seen: Option<Activity>,
}

impl ExecWait {
    fn new(begun: Duration, timeout: Duration) -> Self {
        Self {
            begun,
            left: timeout,
            seen: None,
        }
    }

    fn is_left(&self, now: Duration) -> bool {
        !self.left.is_zero() && now.saturating_sub(self.begun) < LONGEST_EXEC
    }

    /// Takes in what the process does after a pause.
    fn paused(&mut self, activity: Option<Activity>) {
        let gets_on = activity.is_some_and(|now| now.is_running || self.seen != Some(now));
        if !gets_on {
            self.left = self.left.saturating_sub(EXEC_PAUSE);
        }
        self.seen = activity;
    }
}

/// The processes that `/proc` shows.
#[derive(Debug)]
pub struct LiveSource {
    shared: Arc<Shared>,
}

impl LiveSource {
    /// The processes of this system.
    ///
    /// # Errors
    /// Where `/proc` does not show the processes that the system calls speak of, or pages have another size than ours.
    pub fn new(
        options: SourceOptions,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> std::result::Result<Self, ProcFault> {
        // All that follows counts in pages.
        check_page_size(procfs::page_size())?;
        Ok(Self {
            shared: Arc::new(Shared {
                kernel: Arc::new(Kernel::probe(&options.without)?),
                own: Arc::new(OwnCredentials::of_thread()),
                options,
                metrics,
                own_device: OnceLock::new(),
                warnings: LogLimit::new(Arc::clone(&clock)),
                leases: Arc::new(Leases::new(Arc::clone(&clock))),
                clock,
                // `/proc` mounted with `subset=pid` has no `stat`.
                boot_time: procfs::boot_time_secs()
                    .unwrap_or_else(|_| boot_time().map_or(0, |time| time.as_secs())),
                ticks_per_second: procfs::ticks_per_second().max(1),
            }),
        })
    }

    /// Tells which device is the mount's own: a mapping of one of its files must never be read.
    pub fn set_own_device(&self, device: Device) {
        // A mount has one device for life, so a second call has nothing to say.
        let _ = self.shared.own_device.set(device);
    }

    /// Whether this program may take the credentials of others, for the kernel to judge what they ask for
    /// (`CAP_SETUID` and `CAP_SETGID`).
    pub fn may_act_as_others(&self) -> bool {
        self.shared.own.may_be_left()
    }

    /// What the kernel has.
    pub fn kernel(&self) -> &Arc<Kernel> {
        &self.shared.kernel
    }

    fn is_shown(&self, pid: ProcessId) -> bool {
        self.shared.options.only.is_empty() || self.shared.options.only.contains(&pid)
    }

    fn directory(&self, pid: ProcessId) -> Result<Directory> {
        if !self.is_shown(pid) {
            return Err(Error::NoProcess(pid));
        }
        retry(|| Directory::new(pid.as_pid_t()))
            .map_err(|error| from_proc(pid, "open of /proc/PID", &error))
    }

    fn pin(&self, pid: ProcessId, wanted: Option<&ProcessIdentity>) -> Result<Pinned> {
        Pinned::open(self.directory(pid)?, pid, wanted)
    }

    /// # Errors
    /// As [`describe`](ProcessSource::describe); `Replaced` where it begins to run a new program meanwhile.
    fn describe_once(
        &self,
        who: Option<&Credentials>,
        pid: ProcessId,
    ) -> Result<(ProcessInfo, Arc<dyn Process>)> {
        let shared = &self.shared;
        let visible =
            |pinned: &Pinned| who.map_or(Ok(()), |who| check_visible(pinned, &shared.own, who));
        let (pinned, description) = Pinned::open_described(self.directory(pid)?, pid, visible)?;
        let info = shared.info(*pinned.identity(), description);
        Ok((info, Arc::new(LiveProcess::new(pinned, shared))))
    }
}

/// The numbers that `/proc` lists, all of them: none is opened for that, since one that cannot be would be missing.
fn listed() -> std::io::Result<Vec<ProcessId>> {
    let entries = retry(|| std::fs::read_dir("/proc"))?;
    let number = |name: OsString| name.to_str().and_then(ProcessId::parse);
    entries
        .filter_map(|entry| entry.map(|entry| number(entry.file_name())).transpose())
        .collect()
}

/// The group that `/proc/PID/cgroup` shows, with one read where it is as short as it mostly is: it is read for each process.
fn cgroup(pid: ProcessId) -> std::io::Result<CgroupPath> {
    let mut file = retry(|| File::open(format!("/proc/{pid}/cgroup")))?;
    let mut first = [0; 2048];
    let len = retry(|| file.read(&mut first))?;
    if len < first.len() {
        return Ok(CgroupPath::parse(&first[..len]));
    }
    let rest = read_whole(&mut file)?;
    Ok(CgroupPath::parse(&[&first[..], &rest].concat()))
}

impl ProcessSource for LiveSource {
    fn numbers(&self) -> Result<Vec<ProcessId>> {
        self.shared.kernel.confirm_proc()?;
        let mut pids: Vec<ProcessId> = if self.shared.options.only.is_empty() {
            retry(listed).map_err(|error| Error::system("listing /proc", errno_of(&error)))?
        } else {
            self.shared.options.only.clone()
        };
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    fn describe_pinned(
        &self,
        who: Option<&Credentials>,
        pid: ProcessId,
        timeout: Duration,
    ) -> Result<(ProcessInfo, Arc<dyn Process>)> {
        let mut wait = ExecWait::new(self.shared.clock.now(), timeout);
        let mut tries = 1;
        loop {
            match self.describe_once(who, pid) {
                // Not there, or not in the `/proc` that lies there now.
                Err(Error::NoProcess(pid)) if self.is_shown(pid) => {
                    return self
                        .shared
                        .kernel
                        .confirm_proc()
                        .and(Err(Error::NoProcess(pid)));
                }
                Err(Error::Replaced(_)) if tries < MOST_TRIES => (),
                Err(Error::Replaced(_)) if wait.is_left(self.shared.clock.now()) => {
                    // It takes its time: whoever waits in the kernel for it holds a thread for as long.
                    std::thread::sleep(EXEC_PAUSE);
                    wait.paused(self.directory(pid).ok().and_then(|of| activity(&of)));
                }
                Err(Error::Replaced(_)) => return Err(Error::TimedOut(pid)),
                answer => return answer,
            }
            tries += 1;
        }
    }

    fn most_held(&self) -> usize {
        let limit = descriptor_limit() / OF_ALL / Pinned::DESCRIPTORS;
        usize::try_from(limit).map_or(MOST_HELD, |most| most.min(MOST_HELD))
    }

    fn is_current(&self, identity: &ProcessIdentity) -> bool {
        Pinned::is_running(identity)
    }

    fn resident(&self, pid: ProcessId) -> Result<u64> {
        let directory = self.directory(pid)?;
        let gone = Error::NoProcess(pid);
        // Shown by each thread alike, but for a first one that has ended; and `statm` waits for nobody.
        let resident = match resident(&directory) {
            Some(0) => Task::find(directory, pid).map(|(task, _)| resident(task.directory()))?,
            pages => pages,
        };
        Ok(resident.ok_or(gone)? * PAGE_SIZE)
    }

    fn cgroup(&self, pid: ProcessId) -> Result<CgroupPath> {
        if !self.is_shown(pid) {
            return Err(Error::NoProcess(pid));
        }
        // Shown to everybody, and without a lock of the process (`proc_cgroup_show` in `kernel/cgroup/cgroup.c`).
        cgroup(pid).map_err(|error| from_io(pid, "cgroup", &error))
    }

    fn open(&self, identity: &ProcessIdentity) -> Result<Arc<dyn Process>> {
        let pinned = self.pin(identity.pid, Some(identity))?;
        if pinned.identity() != identity {
            return Err(Error::Replaced(identity.pid));
        }
        Ok(Arc::new(LiveProcess::new(pinned, &self.shared)))
    }

    fn credentials(&self, thread: u32, uid: u32, gid: u32) -> Result<Option<Credentials>> {
        self.shared.own.of_caller(thread, uid, gid)
    }

    fn program_of_thread(&self, tid: u32) -> Option<Program> {
        let directory = thread(tid)?;
        let mut command = read_whole(&mut directory.open_relative("comm").ok()?).ok()?;
        command.pop_if(|last| *last == b'\n');
        let executable = directory.exe().unwrap_or_default();
        Some(Program {
            pid: process_of(&directory)?,
            command,
            executable: executable.into_os_string().into_vec(),
        })
    }

    fn reads_of_thread(&self, tid: u32) -> Option<ReadCounts> {
        let io = read_whole(&mut thread(tid)?.open_relative("io").ok()?).ok()?;
        let io = String::from_utf8(io).ok()?;
        let of = |name| {
            let mut lines = io.lines();
            lines.find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
        };
        Some(ReadCounts {
            calls: of("syscr:")?,
            bytes: of("rchar:")?,
        })
    }

    fn boot(&self) -> String {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        boot.unwrap_or_default().trim().to_owned()
    }

    fn has_signal(&self, tid: u32) -> bool {
        let status = thread(tid).and_then(|directory| {
            read_whole(&mut retry(|| directory.open_relative("status")).ok()?).ok()
        });
        // Whoever is gone waits for nothing any more; where it is not seen, nobody knows.
        let Some(status) = status else {
            return false;
        };
        has_signal(&status)
    }

    fn process_of_thread(&self, tid: u32) -> Result<ProcessId> {
        let process = thread(tid).and_then(|directory| process_of(&directory));
        process.ok_or(Error::NoEntry)
    }
}

/// Whether a thread with this `/proc/TID/status` has a signal to see to.
fn has_signal(status: &[u8]) -> bool {
    let mask = |name: &[u8]| {
        let mask = field(status, name).and_then(|mask| u64::from_str_radix(mask, 16).ok());
        mask.unwrap_or(0)
    };
    let waiting = mask(b"SigPnd:") | mask(b"ShdPnd:");
    // One that waits because another thread blocks it, and that does nothing where nobody handles it.
    let nothing = DO_NOTHING & !mask(b"SigCgt:");
    waiting & !mask(b"SigBlk:") & !mask(b"SigIgn:") & !nothing != 0
}

/// Signals that do nothing by default (`SIG_KERNEL_IGNORE_MASK` in `include/linux/signal.h`), a bit each.
const DO_NOTHING: u64 =
    bit(Signal::SIGCONT) | bit(Signal::SIGCHLD) | bit(Signal::SIGWINCH) | bit(Signal::SIGURG);

const fn bit(signal: Signal) -> u64 {
    1 << (signal as u32 - 1)
}

/// `/proc/TID` of a thread.
fn thread(tid: u32) -> Option<Directory> {
    let number = ProcessId::new(tid)?.as_pid_t();
    retry(|| Directory::new(number)).ok()
}

/// The process that a thread belongs to.
fn process_of(thread: &Directory) -> Option<ProcessId> {
    // By hand: the crate's own parser stops at a thread name that is not UTF-8.
    let status = read_whole(&mut thread.open_relative("status").ok()?).ok()?;
    field(&status, b"Tgid:").and_then(ProcessId::parse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_that_nobody_sees_to_interrupts_nobody() {
        // SIGINT is 2, SIGCHLD 0x10000.
        let table = [
            ("0", "0", "0", "0", false),
            ("2", "0", "0", "0", true),
            ("2", "2", "0", "0", false),
            ("2", "0", "2", "0", false),
            ("10000", "0", "0", "0", false),
            ("10000", "0", "0", "10000", true),
            ("10002", "0", "0", "0", true),
        ];
        for (pending, blocked, ignored, caught, expected) in table {
            let status = format!(
                "SigPnd:\t0\nShdPnd:\t{pending}\nSigBlk:\t{blocked}\nSigIgn:\t{ignored}\nSigCgt:\t{caught}\n"
            );
            assert_eq!(has_signal(status.as_bytes()), expected, "{status}");
        }
    }

    /// SEMANTICS: a directory for each process, also while it runs a new program.
    #[test]
    fn an_exec_that_gets_on_is_waited_for_and_one_that_waits_is_not() {
        let activity = |is_running, scheduled| {
            Some(Activity {
                is_running,
                scheduled,
            })
        };
        let looks = |of: &dyn Fn(u64) -> Option<Activity>| {
            let mut wait = ExecWait::new(Duration::ZERO, EXEC_PAUSE * 3);
            let mut looks = 0;
            while looks < 100 && wait.is_left(Duration::ZERO) {
                looks += 1;
                wait.paused(of(looks));
            }
            looks
        };
        assert_eq!(looks(&|_| activity(true, 5)), 100, "it has no processor");
        assert_eq!(
            looks(&|look| activity(false, look)),
            100,
            "it waits briefly"
        );
        assert_eq!(looks(&|_| activity(false, 5)), 4, "it hangs");
        assert_eq!(looks(&|_| None), 3, "nothing is known");
        let wait = ExecWait::new(EXEC_PAUSE, EXEC_PAUSE);
        assert!(!wait.is_left(EXEC_PAUSE + LONGEST_EXEC), "not for ever");
        assert!(!ExecWait::new(EXEC_PAUSE, Duration::ZERO).is_left(EXEC_PAUSE));
    }

    /// Its clocks and `/proc/stat` tell the same, but for what `/proc/stat` rounds.
    #[test]
    fn the_boot_time_is_known_without_proc() {
        let said = procfs::boot_time_secs().unwrap();
        assert!(boot_time().unwrap().as_secs().abs_diff(said) <= 1);
    }
}
