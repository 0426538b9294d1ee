//! ptrace(2), as far as it is needed to stop a thread and to read its registers.
//!
//! By hand where the crates know only signals that have a name: the real-time ones must reach the thread, too.

use std::io;

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace;
use nix::unistd::Pid;
use rustix::process::{WaitId, WaitIdOptions, waitid};

use crate::target::live::interrupted::retry;

/// Bytes of the largest set of registers that is read: AVX-512 and AMX take 11 KiB.
const LARGEST: usize = 64 << 10;

/// Also for threads that are no child of ours (`__WALL` in waitid(2)).
const ALL_CHILDREN: u32 = 0x4000_0000;

/// What `status >> 8` is where a thread has stopped because it was told to (`PTRACE_EVENT_STOP`).
const EVENT_STOP: i32 = 128;

/// What became of a thread that was told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waited {
    /// It runs still.
    Running,
    /// It has stopped.
    Stopped,
    /// It has stopped on the way to this signal, which it gets when it goes on.
    Signal(i32),
    /// It has ended.
    Ended,
}

/// Begins to trace a thread, which goes on. Where this thread ends the other is let go, whatever it does then.
///
/// # Errors
/// `ESRCH` where there is none; `EPERM` where it is traced, ends, or may not be.
pub(super) fn seize(tid: i32) -> Result<(), Errno> {
    ptrace::seize(Pid::from_raw(tid), ptrace::Options::empty())
}

/// Tells a thread to stop.
///
/// # Errors
/// `ESRCH` where it has ended.
pub(super) fn interrupt(tid: i32) -> Result<(), Errno> {
    ptrace::interrupt(Pid::from_raw(tid))
}

/// Whether a thread has stopped by now.
///
/// It is looked at and not taken (`WNOWAIT`): a signal that a thread is about to get is dropped where its tracer has taken that
/// stop and is killed then (`wait_task_stopped` in `kernel/exit.c`).
pub(super) fn poll(tid: i32) -> Waited {
    let Some(pid) = rustix::process::Pid::from_raw(tid) else {
        return Waited::Ended;
    };
    let look = |more: WaitIdOptions| {
        let kinds = WaitIdOptions::from_bits_retain(ALL_CHILDREN) | WaitIdOptions::NOHANG;
        retry(|| waitid(WaitId::Pid(pid), kinds | WaitIdOptions::EXITED | more))
    };
    match look(WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT) {
        Ok(None) => Waited::Running,
        Ok(Some(status)) => match status.trapping_signal() {
            Some(signal) if signal >> 8 == EVENT_STOP => Waited::Stopped,
            Some(signal) => Waited::Signal(signal & 0xff),
            None => {
                // Else it stays for as long as this thread does.
                let _ = look(WaitIdOptions::empty());
                Waited::Ended
            }
        },
        Err(_) => Waited::Ended,
    }
}

/// Lets a stopped thread go on, with a signal if that is not 0. A stop by job control goes on, too: as a stop.
pub(super) fn detach(tid: i32, signal: i32) {
    let data: libc::c_long = signal.into();
    let none: libc::c_long = 0;
    // SAFETY: takes no pointer. Where the thread has ended meanwhile that is an error, which says all there is to say.
    unsafe { libc::ptrace(libc::PTRACE_DETACH, tid, none, data) };
}

/// A set of registers of a stopped thread (`NT_*`); `None` where it has none of this kind.
pub(super) fn register_set(tid: i32, kind: u32) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 1024];
    loop {
        let mut vector = libc::iovec {
            iov_base: bytes.as_mut_ptr().cast(),
            iov_len: bytes.len(),
        };
        let kind = libc::c_ulong::from(kind);
        // SAFETY: the kernel writes no more than `iov_len` bytes to where the vector's bytes are, and says in the
        // same place how many these are.
        let answer = unsafe { libc::ptrace(libc::PTRACE_GETREGSET, tid, kind, &raw mut vector) };
        if answer != 0 {
            return None;
        }
        let len = vector.iov_len;
        // Where all of it is full there may be more.
        if len < bytes.len() || bytes.len() >= LARGEST {
            bytes.truncate(len);
            return Some(bytes);
        }
        bytes.resize(bytes.len() * 4, 0);
    }
}

/// What a stopped thread would be told of its signal, as `siginfo_t`.
///
/// # Errors
/// The kernel's refusal.
pub(super) fn signal_info(tid: i32) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; size_of::<libc::siginfo_t>()];
    let none: libc::c_long = 0;
    // SAFETY: the kernel writes a `siginfo_t`, and there is as much room; bytes need no alignment where only the kernel
    // writes to them.
    let answer = unsafe { libc::ptrace(libc::PTRACE_GETSIGINFO, tid, none, bytes.as_mut_ptr()) };
    match answer {
        0 => Ok(bytes),
        _ => Err(io::Error::last_os_error()),
    }
}
