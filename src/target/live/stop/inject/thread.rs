//! One thread of the target, stopped, that makes a system call for us.

use std::os::fd::OwnedFd;
use std::time::Instant;

use linux_raw_sys::general::UFFD_USER_MODE_ONLY;
use nix::errno::Errno;
use nix::libc;
use rustix::process::{PidfdGetfdFlags, pidfd_getfd};

use super::stub::{self, Resume};
use super::{Failure, Refusal, control};
use crate::common::address::Address;
use crate::target::live::interrupted::retry;
use crate::target::live::pinned::Pinned;
use crate::target::live::stop::LONGEST_RUN;
use crate::target::live::stop::ptrace::{Waited, interrupt, signal_info};
use crate::target::live::text::field;

/// The selector of 64-bit code (`__USER_CS`).
const CODE_OF_64_BITS: u64 = 0x33;

/// The flag with which the processor traps after each instruction (`X86_EFLAGS_TF`).
const TRAP_FLAG: u64 = 0x100;

/// What a thread stops with at a system call, where that is asked for (`PTRACE_O_TRACESYSGOOD` in ptrace(2)).
const AT_A_CALL: Waited = Waited::Signal(libc::SIGTRAP | 0x80);

/// Stops for other reasons on the way to a system call: a stop by job control or two.
const OTHER_STOPS: usize = 16;

const ENDED: Refusal = "a thread has ended";

/// A stopped thread that can run the code.
#[derive(Debug)]
pub(super) struct Thread<'a> {
    pinned: &'a Pinned,
    tid: i32,
    registers: libc::user_regs_struct,
    mask: u64,
    state: Waited,
}

impl<'a> Thread<'a> {
    /// The thread, if it is harmless to have it make a system call.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn new(pinned: &'a Pinned, tid: i32) -> Result<Self, Refusal> {
        let signal = signal_info(tid).map_err(|_| ENDED)?;
        // A stop by job control names its signal.
        if signal.first_chunk() != Some(&libc::SIGTRAP.to_ne_bytes()) {
            return Err("it is stopped by a signal");
        }
        let status = pinned.thread_contents(tid, "status").map_err(|_| ENDED)?;
        if field(&status, b"Seccomp:") != Some("0") {
            return Err("a filter judges its system calls (seccomp)");
        }
        if control::dispatches_calls(tid) != Ok(false) {
            return Err("it dispatches its system calls itself (PR_SET_SYSCALL_USER_DISPATCH)");
        }
        let registers = control::registers(tid).map_err(|_| ENDED)?;
        if registers.cs != CODE_OF_64_BITS {
            return Err("it does not run 64-bit code");
        }
        // Its trap would be forced on it, and end it where that is blocked.
        if registers.eflags & TRAP_FLAG != 0 {
            return Err("it runs step by step (TF)");
        }
        if stub::is_in_a_call(&registers) {
            if registers.orig_rax == libc::SYS_rt_sigreturn.cast_unsigned() {
                return Err("it returns from a signal handler");
            }
            if !control::is_after_a_call(tid, Address::new(registers.rip)) {
                return Err("it makes a system call in an old way (int 0x80)");
            }
        } else if control::restartable_sequence(tid) != Ok(0) {
            // The kernel would not see any more that it was interrupted there (`rseq_ip_fixup` in `kernel/rseq.c`).
            return Err("it is in a restartable sequence (rseq)");
        }
        let mask = control::signal_mask(tid).map_err(|_| ENDED)?;
        Ok(Self {
            pinned,
            tid,
            registers,
            mask,
            state: Waited::Stopped,
        })
    }

    /// Whether it stands still, as far as is known.
    pub(super) fn state(&self) -> Waited {
        self.state
    }

    /// Has the thread open a `userfaultfd`, of which we take a copy, and close it; it stands then where it stood. `place` has
    /// room for the code.
    ///
    /// # Errors
    /// `Refused` where there is none; `Lost` where it could not be brought back: it comes back by itself when it is let go.
    pub(super) fn open_userfaultfd(&mut self, place: Address) -> Result<OwnedFd, Failure> {
        const UNTOUCHED: Failure = Failure::Refused(ENDED);
        let code = stub::assemble(&Resume::of(&self.registers, self.mask));
        control::trace_calls(self.tid).map_err(|_| UNTOUCHED)?;
        control::write(self.tid, place, &code)
            .map_err(|_| Failure::Refused("its vDSO cannot be written"))?;
        let entry = libc::user_regs_struct {
            rip: place.get(),
            rax: libc::SYS_userfaultfd.cast_unsigned(),
            rdi: u64::from(UFFD_USER_MODE_ONLY) | libc::O_CLOEXEC as u64,
            // It is in no system call: none is made again.
            orig_rax: u64::MAX,
            ..self.registers
        };
        control::set_registers(self.tid, &entry).map_err(|_| UNTOUCHED)?;
        // From here on it comes back by itself, whatever becomes of us.
        let opened = self.run_through();
        self.come_back(place)?;
        opened.map_err(Failure::Refused)
    }

    fn run_through(&mut self) -> Result<OwnedFd, Refusal> {
        let until = Instant::now() + LONGEST_RUN;
        // No handler of a signal is to see it there.
        control::set_signal_mask(self.tid, u64::MAX).map_err(|_| ENDED)?;
        self.run_until(AT_A_CALL, until)?;
        self.run_until(AT_A_CALL, until)?;
        let answer = control::registers(self.tid).map_err(|_| ENDED)?.rax;
        let copy = i32::try_from(answer).ok().map(|number| {
            retry(|| pidfd_getfd(self.pinned.pidfd(), number, PidfdGetfdFlags::empty()))
        });
        self.run_until(AT_A_CALL, until)?;
        self.run_until(AT_A_CALL, until)?;
        match copy {
            Some(Ok(userfault)) => Ok(userfault),
            Some(Err(_)) => Err("its userfaultfd cannot be copied"),
            None => Err(refused(answer)),
        }
    }

    /// Lets the thread run until it is in this state, past stops for other reasons.
    fn run_until(&mut self, wanted: Waited, until: Instant) -> Result<(), Refusal> {
        let mut signal = 0;
        for _ in 0..OTHER_STOPS {
            control::run_to_a_call(self.tid, signal).map_err(|_| ENDED)?;
            self.state = control::wait(self.tid, until);
            signal = match self.state {
                Waited::Ended => return Err(ENDED),
                Waited::Running => return Err("a thread does not run (is its cgroup frozen?)"),
                state if state == wanted => return Ok(()),
                // SIGSTOP, which cannot be blocked: it stops the process when all of this is over.
                Waited::Signal(signal) if self.state != AT_A_CALL => signal,
                Waited::Signal(_) | Waited::Stopped => 0,
            };
        }
        Err("a thread is stopped again and again")
    }

    /// Stops the thread in the way that it was stopped before, where the kernel sees to interrupted system calls, and puts
    /// everything back.
    fn come_back(&mut self, place: Address) -> Result<(), Failure> {
        let until = Instant::now() + LONGEST_RUN;
        let tid = self.tid;
        interrupt(tid).map_err(|_| Failure::Lost)?;
        // One that does not run, since its cgroup is frozen, stops all the same.
        let mut has_stopped = false;
        if self.state == Waited::Running {
            self.state = control::wait(tid, until);
            has_stopped = self.state == Waited::Stopped;
        }
        if !has_stopped {
            self.run_until(Waited::Stopped, until)
                .map_err(|_| Failure::Lost)?;
        }
        let at = control::registers(tid).map_err(|_| Failure::Lost)?.rip;
        // It has a descriptor, which it must close yet.
        if (place.get() + 1..place.get() + stub::CLOSED).contains(&at) {
            return Err(Failure::Lost);
        }
        // First the mask, which the code puts back, too.
        control::set_signal_mask(tid, self.mask).map_err(|_| Failure::Lost)?;
        control::set_registers(tid, &self.registers).map_err(|_| Failure::Lost)?;
        // What cannot be cleared is passed over the next time.
        let _ = control::write(tid, place, &[0; stub::LEN]);
        Ok(())
    }
}

/// Why the thread got no descriptor, by the answer of the call.
fn refused(answer: u64) -> Refusal {
    let errno = i32::try_from(-answer.cast_signed()).map_or(Errno::UnknownErrno, Errno::from_raw);
    match errno {
        Errno::EMFILE | Errno::ENFILE => "it may open no more files",
        Errno::EPERM => {
            "it may have no userfaultfd (vm.unprivileged_userfaultfd, a security module)"
        }
        Errno::ENOSYS => "the kernel has no userfaultfd",
        _ => "the kernel gives it no userfaultfd",
    }
}
