//! A short-lived process of one thread, for what a thread of this program may not do.

use std::ffi::{c_int, c_void};

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Bytes of stack for a process that makes some system calls.
const STACK: usize = 64 << 10;

/// How a process has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    ByItself,
    /// Somebody has stopped or killed it.
    ByOthers,
}

/// Has `work` done by a process that shares memory and descriptors with this one, and waits for its end. What `work` does must
/// neither allocate nor take a lock: it may be killed in the middle of it. A process that is stopped is killed.
///
/// # Errors
/// Where there cannot be another process.
pub(super) fn run_in_process(work: &mut dyn FnMut()) -> Result<End, Errno> {
    let mut masked = || {
        // No handler of ours runs in it. That fails for no set of signals.
        let _ = SigSet::all().thread_block();
        work();
    };
    let mut work: &mut dyn FnMut() = &mut masked;
    let mut stack = vec![0_u128; STACK / size_of::<u128>()];
    // SAFETY: this thread goes on when the new process has ended, so that nobody else uses what `work` borrows, nor its
    // stack, which is aligned and deep enough: it makes some system calls, takes no lock and allocates nothing. Of what belongs
    // to this thread alone both use `errno`, and whatever this thread reads there it waits on, but for `ECHILD`, which none of
    // those calls gives.
    let child = unsafe {
        libc::clone(
            run,
            stack.as_mut_ptr_range().end.cast(),
            libc::CLONE_VM | libc::CLONE_FILES,
            (&raw mut work).cast(),
        )
    };
    Ok(end_of(Pid::from_raw(Errno::result(child)?)))
}

/// Runs what `clone` was given: a `&mut dyn FnMut()`.
extern "C" fn run(work: *mut c_void) -> c_int {
    // SAFETY: it is what `run_in_process` has given, and lives until this process has ended.
    let work = unsafe { &mut *work.cast::<&mut dyn FnMut()>() };
    work();
    0
}

/// Waits for the end of a process, and kills it where it was stopped.
fn end_of(child: Pid) -> End {
    let flags = WaitPidFlag::__WALL | WaitPidFlag::WUNTRACED;
    loop {
        match waitpid(child, Some(flags)) {
            Ok(WaitStatus::Exited(..)) => return End::ByItself,
            Ok(WaitStatus::Signaled(..)) | Err(Errno::ECHILD) => return End::ByOthers,
            Ok(WaitStatus::Stopped(..)) => {
                // It fails only where the process has ended.
                let _ = kill(child, Signal::SIGKILL);
            }
            // It may still run, and use our stack.
            Ok(_) | Err(_) => (),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI32, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::common::clock::ManualClock;
    use crate::common::error::Error;
    use crate::target::live::{LiveSource, SourceOptions};
    use crate::target::{Credentials, ProcessId, ProcessSource};

    /// Has a process wait while `meanwhile` is done with its number, and says how it ended.
    fn wait_while(meanwhile: impl FnOnce(Pid) + Send) -> End {
        let (wake, woken) = std::io::pipe().map(|(read, write)| (write, read)).unwrap();
        let number = AtomicI32::new(0);
        std::thread::scope(|scope| {
            let number = &number;
            scope.spawn(move || {
                let pid = loop {
                    match number.load(Ordering::Acquire) {
                        0 => std::thread::yield_now(),
                        pid => break Pid::from_raw(pid),
                    }
                };
                // Where that fails the process ends all the same.
                let _wake = wake;
                meanwhile(pid);
            });
            run_in_process(&mut || {
                number.store(nix::unistd::getpid().as_raw(), Ordering::Release);
                let _ = rustix::io::read(woken.as_fd(), &mut [0; 1]);
            })
            .unwrap()
        })
    }

    /// SEMANTICS: a process that is stopped or killed holds nobody up.
    #[test]
    fn a_process_that_others_stop_or_kill_is_ended_and_known() {
        assert_eq!(wait_while(|_| ()), End::ByItself);
        for signal in [Signal::SIGSTOP, Signal::SIGKILL] {
            let ended = wait_while(|pid| {
                kill(pid, signal).unwrap();
                // It is gone once it has been waited for.
                while kill(pid, None) != Err(Errno::ESRCH) {
                    std::thread::yield_now();
                }
            });
            assert_eq!(ended, End::ByOthers, "{signal}");
        }
        // Nothing else gets through to it.
        let ended = wait_while(|pid| kill(pid, Signal::SIGTERM).unwrap());
        assert_eq!(ended, End::ByItself);
    }

    /// SEMANTICS: the daemon is shown to nobody but the mounter, by no number: whoever has its memory is the daemon to the kernel.
    #[test]
    fn a_process_with_our_memory_is_shown_to_nobody_else() {
        let clock = Arc::new(ManualClock::new());
        let source = LiveSource::new(SourceOptions::default(), clock, Arc::default()).unwrap();
        if !source.may_act_as_others() {
            eprintln!("not tried: this user may not take the credentials of others");
            return;
        }
        wait_while(|pid| {
            let pid = ProcessId::new(pid.as_raw().cast_unsigned()).unwrap();
            let process = source
                .open(&source.describe(pid).unwrap().identity)
                .unwrap();
            for who in [Credentials::plain(1234, 4321), Credentials::plain(0, 0)] {
                let shown = source.describe_for(Some(&who), pid, Duration::ZERO);
                assert_eq!(shown.map(drop), Err(Error::CallerDenied(pid)));
                let opened = process.memory_for(&who, true);
                assert_eq!(opened.map(drop), Err(Error::CallerDenied(pid)));
            }
        });
    }
}
