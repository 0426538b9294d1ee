//! ptrace(2), as far as it is needed to have a stopped thread run.

use std::os::raw::c_void;
use std::time::Instant;

use linux_raw_sys::ptrace::{
    PTRACE_GET_RSEQ_CONFIGURATION, PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG, PTRACE_GETSIGMASK,
    PTRACE_SETSIGMASK, ptrace_rseq_configuration, ptrace_sud_config,
};
use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace;
use nix::unistd::Pid;

use crate::common::address::Address;
use crate::target::live::stop::ptrace::{Waited, poll};
use crate::target::live::stop::{PAUSE, SPIN};

/// Bytes of a set of signals.
const MASK_BYTES: usize = size_of::<u64>();

/// Where in a thread's `struct rseq` the address of its sequence lies (`include/uapi/linux/rseq.h`).
const RSEQ_CS: u64 = 8;

/// A word of the other's memory.
type Word = libc::c_long;

/// Has system calls be told from other stops.
///
/// # Errors
/// `ESRCH` where the thread has ended: so all of these.
pub(super) fn trace_calls(tid: i32) -> Result<(), Errno> {
    ptrace::setoptions(Pid::from_raw(tid), ptrace::Options::PTRACE_O_TRACESYSGOOD)
}

/// Lets the thread run, with a signal if that is not 0, until it makes a system call or comes back from one, or stops
/// for another reason.
pub(super) fn run_to_a_call(tid: i32, signal: i32) -> Result<(), Errno> {
    let (none, data): (Word, Word) = (0, signal.into());
    // SAFETY: takes no pointer.
    Errno::result(unsafe { libc::ptrace(libc::PTRACE_SYSCALL, tid, none, data) }).map(drop)
}

/// Waits until the thread has stopped; it may run still then.
pub(super) fn wait(tid: i32, until: Instant) -> Waited {
    let begun = Instant::now();
    loop {
        match poll(tid) {
            Waited::Running if begun.elapsed() < SPIN => std::hint::spin_loop(),
            Waited::Running if Instant::now() < until => std::thread::sleep(PAUSE),
            state => return state,
        }
    }
}

/// Its general registers.
pub(super) fn registers(tid: i32) -> Result<libc::user_regs_struct, Errno> {
    ptrace::getregs(Pid::from_raw(tid))
}

/// Sets its general registers.
pub(super) fn set_registers(tid: i32, registers: &libc::user_regs_struct) -> Result<(), Errno> {
    ptrace::setregs(Pid::from_raw(tid), *registers)
}

/// The signals that it blocks; where a system call blocks others meanwhile (`ppoll`), those before that.
pub(super) fn signal_mask(tid: i32) -> Result<u64, Errno> {
    let mut mask = 0_u64;
    // SAFETY: the kernel writes a set of signals, whose size it is told, to where one lies.
    let answer = unsafe { libc::ptrace(PTRACE_GETSIGMASK as _, tid, MASK_BYTES, &raw mut mask) };
    Errno::result(answer).map(|_| mask)
}

/// Sets the signals that it blocks; the kernel leaves out those that cannot be.
pub(super) fn set_signal_mask(tid: i32, mask: u64) -> Result<(), Errno> {
    // SAFETY: the kernel reads a set of signals, whose size it is told, from where one lies.
    let answer = unsafe { libc::ptrace(PTRACE_SETSIGMASK as _, tid, MASK_BYTES, &raw const mask) };
    Errno::result(answer).map(drop)
}

/// Writes whole words to its memory, whatever the protection.
pub(super) fn write(tid: i32, address: Address, words: &[u8]) -> Result<(), Errno> {
    for (number, word) in words.chunks_exact(size_of::<Word>()).enumerate() {
        let at = address.plus((number * size_of::<Word>()) as u64).get();
        let word = Word::from_ne_bytes(word.try_into().unwrap_or_default());
        ptrace::write(Pid::from_raw(tid), at as *mut c_void, word)?;
    }
    Ok(())
}

/// Whether it handles its own system calls (`PR_SET_SYSCALL_USER_DISPATCH` in prctl(2)).
pub(super) fn dispatches_calls(tid: i32) -> Result<bool, Errno> {
    let mut config = ptrace_sud_config {
        mode: 0,
        selector: 0,
        offset: 0,
        len: 0,
    };
    let request = PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG;
    // SAFETY: the kernel writes this structure, whose size it is told, to where one lies.
    let answer = unsafe { libc::ptrace(request as _, tid, size_of_val(&config), &raw mut config) };
    Errno::result(answer).map(|_| config.mode != 0)
}

/// The restartable sequence that it may be in (rseq(2)): an address, or 0.
pub(super) fn restartable_sequence(tid: i32) -> Result<u64, Errno> {
    let mut config = ptrace_rseq_configuration {
        rseq_abi_pointer: 0,
        rseq_abi_size: 0,
        signature: 0,
        flags: 0,
        pad: 0,
    };
    let request = PTRACE_GET_RSEQ_CONFIGURATION;
    // SAFETY: as above.
    let answer = unsafe { libc::ptrace(request as _, tid, size_of_val(&config), &raw mut config) };
    match Errno::result(answer) {
        // A kernel without them.
        Err(Errno::EIO) => return Ok(0),
        Err(errno) => return Err(errno),
        Ok(_) if config.rseq_abi_pointer == 0 => return Ok(0),
        Ok(_) => (),
    }
    let at = config.rseq_abi_pointer + RSEQ_CS;
    let word = ptrace::read(Pid::from_raw(tid), at as *mut c_void)?;
    Ok(word.cast_unsigned())
}

/// Whether what it has run last is `syscall`, the instruction.
pub(super) fn is_after_a_call(tid: i32, next: Address) -> bool {
    let Some(at) = next.get().checked_sub(size_of::<Word>() as u64) else {
        return false;
    };
    let word = ptrace::read(Pid::from_raw(tid), at as *mut c_void);
    word.is_ok_and(|word| word.to_ne_bytes().ends_with(&[0x0f, 0x05]))
}
