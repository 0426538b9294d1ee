//! Whether `/proc` speaks of the processes that the system calls speak of (pid_namespaces(7)).
//!
//! `process_vm_readv` and `pidfd_open` take the numbers of the caller's own PID namespace, the
//! names below `/proc` are numbers of the namespace of whoever mounted it. Where the two are not
//! the same, one number stands for two processes.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{PROC_SUPER_MAGIC, statfs};
use thiserror::Error;

use crate::common::address::PAGE_SIZE;
use crate::common::error::{Error, Result};
use crate::common::pid::ProcessId;
use crate::target::live::from_io;
use crate::target::live::interrupted::retry;

/// Why processes cannot be shown on this system.
#[derive(Debug, Error)]
pub enum ProcFault {
    /// There is none.
    #[error("/proc is not mounted: mount it first (mount -t proc proc /proc)")]
    Missing,
    /// Its numbers are others than this process's namespace gives.
    #[error(
        "/proc is of another PID namespace, where other processes have these numbers: \
         mount this one's own first (mount -t proc proc /proc, or unshare --mount-proc)"
    )]
    OtherNamespace,
    /// It is there and cannot be read.
    #[error("/proc cannot be read")]
    Unreadable(#[source] io::Error),
    /// All of it is counted in pages of another size, in bytes.
    #[error(
        "this kernel's pages have {0} bytes, and procmemfs knows pages of {PAGE_SIZE} only: a kernel with such pages is needed"
    )]
    PageSize(u64),
}

/// The `/proc` that was last found to be of this process's own PID namespace.
#[derive(Debug)]
pub(super) struct ProcMount {
    device: AtomicU64,
}

impl ProcMount {
    /// # Errors
    /// See [`ProcFault`].
    pub(super) fn check() -> std::result::Result<Self, ProcFault> {
        let device = proc_device();
        check_proc()?;
        Ok(Self {
            device: AtomicU64::new(device),
        })
    }

    /// Fails where another `/proc` lies there by now that is not this namespace's own.
    ///
    /// # Errors
    /// `WrongProc`.
    pub(super) fn confirm(&self) -> Result<()> {
        let device = proc_device();
        if device != self.device.load(Ordering::Relaxed) {
            check_proc().map_err(|_| Error::WrongProc)?;
            self.device.store(device, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// What is mounted on `/proc`: each mount of it is a device of its own (since Linux 5.8).
fn proc_device() -> u64 {
    std::fs::metadata("/proc").map_or(0, |proc| proc.dev())
}

/// Checks that `/proc` is of this process's own PID namespace.
///
/// # Errors
/// See [`ProcFault`].
fn check_proc() -> std::result::Result<(), ProcFault> {
    let is_proc = statfs("/proc").is_ok_and(|found| found.f_type == PROC_SUPER_MAGIC);
    if !is_proc {
        return Err(ProcFault::Missing);
    }
    let status = match std::fs::read("/proc/self/status") {
        Ok(status) => status,
        // No process is itself in a namespace that it is not part of.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(ProcFault::OtherNamespace);
        }
        Err(error) => return Err(ProcFault::Unreadable(error)),
    };
    match is_own(&status, std::process::id()) {
        true => Ok(()),
        false => Err(ProcFault::OtherNamespace),
    }
}

/// Whether `status` of this process shows that its namespace is that of `/proc`: it has one number only, and none in a
/// namespace below.
fn is_own(status: &[u8], own: u32) -> bool {
    let numbers = |name: &str| numbers(status, name);
    match numbers("NSpid:") {
        Some(numbers) => numbers == [i64::from(own)],
        // A kernel without namespaces.
        None => numbers("Pid:").is_some_and(|numbers| numbers == [i64::from(own)]),
    }
}

/// The numbers of a line of `/proc/PID/status` or of `fdinfo`; what is none becomes one that no process has.
fn numbers(text: &[u8], name: &str) -> Option<Vec<i64>> {
    let line = text
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(name.as_bytes()))?;
    let line = String::from_utf8_lossy(line);
    let numbers = line.split_ascii_whitespace();
    Some(
        numbers
            .map(|number| number.parse().unwrap_or(i64::MIN))
            .collect(),
    )
}

/// Fails unless `pidfd`, which was opened as `pid`, is the process that `/proc` shows under `pid`;
/// `device` is that of the `/proc` which was asked so far.
///
/// # Errors
/// `NoProcess` where it has ended, `WrongProc`, `System`.
pub(in crate::target::live) fn check_pidfd(
    pidfd: BorrowedFd<'_>,
    pid: ProcessId,
    device: u64,
) -> Result<()> {
    let mut text = [0; 512];
    let read = File::open(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).and_then(|info| {
        // Somebody may be mounting another one over it just now.
        let is_same = retry(|| info.metadata())?.dev() == device;
        Ok((is_same, retry(|| info.read_at(&mut text, 0))?))
    });
    let (is_same, len) = match read {
        Ok(read) => read,
        // This process is not in it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Error::WrongProc);
        }
        Err(error) => return Err(from_io(pid, "fdinfo of a pidfd", &error)),
    };
    match numbers(&text[..len], "Pid:").as_deref() {
        _ if !is_same => Err(Error::WrongProc),
        Some([shown]) if *shown == i64::from(pid.get()) => Ok(()),
        // It has been reaped.
        Some([-1]) => Err(Error::NoProcess(pid)),
        _ => Err(Error::WrongProc),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::process::{PidfdFlags, pidfd_open};

    use super::*;

    #[test]
    fn the_own_proc_is_the_own() {
        check_proc().unwrap();
    }

    #[test]
    fn one_number_alone_is_the_own_namespace() {
        let status =
            |ns: &str| format!("Name:\tx\nTgid:\t7\nPid:\t7\nNStgid:\t1\n{ns}VmRSS:\t1 kB\n");
        let table = [
            ("NSpid:\t7\n", true),
            ("", true),
            ("NSpid:\t8\n", false),
            // By accident the same number in both.
            ("NSpid:\t7\t7\n", false),
            ("NSpid:\t99\t7\n", false),
            ("NSpid:\t99\t7\t1\n", false),
            ("NSpid:\n", false),
            ("NSpid:\tx\n", false),
        ];
        for (line, own) in table {
            assert_eq!(is_own(status(line).as_bytes(), 7), own, "{line:?}");
        }
        assert!(!is_own(b"", 7));
    }

    #[test]
    fn a_pidfd_is_of_the_process_that_proc_shows() {
        let device = std::fs::metadata("/proc/self").unwrap().dev();
        let own = std::process::id();
        let pidfd = pidfd_open(rustix::process::getpid(), PidfdFlags::empty()).unwrap();
        let check = |number, device| {
            let pid = ProcessId::new(number).unwrap();
            check_pidfd(pidfd.as_fd(), pid, device)
        };
        assert_eq!(check(own, device), Ok(()));
        assert_eq!(check(own + 1, device), Err(Error::WrongProc));
        assert_eq!(check(own, device + 1), Err(Error::WrongProc));
    }

    #[test]
    fn a_process_that_was_reaped_is_none() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let number = child.id();
        let raw = rustix::process::Pid::from_raw(number.cast_signed()).unwrap();
        let pidfd = pidfd_open(raw, PidfdFlags::empty()).unwrap();
        child.wait().unwrap();
        let pid = ProcessId::new(number).unwrap();
        let device = std::fs::metadata("/proc/self").unwrap().dev();
        let answer = check_pidfd(pidfd.as_fd(), pid, device);
        assert_eq!(answer, Err(Error::NoProcess(pid)));
    }
}
