//! A piece of machine code (x86-64) that a thread of the target runs: three system calls, and then what it was about to do.
//!
//! It opens a `userfaultfd`, closes it, sets the thread's signal mask, puts back the registers that this has changed, and goes on where
//! the thread was. It needs no stack, changes no flags and no vector register. So whoever has begun it need not be there to
//! end it: a thread whose tracer is killed in the middle runs through it by itself.

use nix::libc;

/// What the thread is to have when it leaves the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Resume {
    /// The registers that system calls change, and those that pass their arguments.
    pub(super) rax: u64,
    pub(super) rdi: u64,
    pub(super) rsi: u64,
    pub(super) rdx: u64,
    pub(super) r10: u64,
    pub(super) rcx: u64,
    pub(super) r11: u64,
    /// Its next instruction.
    pub(super) rip: u64,
    /// Signals that it blocks.
    pub(super) mask: u64,
}

/// Errors of system calls that were interrupted and are to be made again (`include/linux/errno.h`). No program ever sees them.
const RESTARTED: [i64; 3] = [-512, -513, -514];
const RESTARTED_BY_BLOCK: i64 = -516;

/// How long the instruction is that makes a system call.
const SYSCALL: u64 = 2;

impl Resume {
    /// What the kernel would have the thread do next: where a system call was interrupted, that is to make it again
    /// (`arch_do_signal_or_restart` in `arch/x86/kernel/signal.c`).
    pub(super) fn of(registers: &libc::user_regs_struct, mask: u64) -> Self {
        let (mut rax, mut rip) = (registers.rax, registers.rip);
        if is_in_a_call(registers) {
            let answer = registers.rax.cast_signed();
            if RESTARTED.contains(&answer) {
                (rax, rip) = (registers.orig_rax, rip - SYSCALL);
            } else if answer == RESTARTED_BY_BLOCK {
                (rax, rip) = (libc::SYS_restart_syscall.cast_unsigned(), rip - SYSCALL);
            }
        }
        Self {
            rax,
            rdi: registers.rdi,
            rsi: registers.rsi,
            rdx: registers.rdx,
            r10: registers.r10,
            rcx: registers.rcx,
            r11: registers.r11,
            rip,
            mask,
        }
    }
}

/// Whether the thread was stopped in a system call.
pub(super) fn is_in_a_call(registers: &libc::user_regs_struct) -> bool {
    registers.orig_rax.cast_signed() >= 0
}

/// Bytes of the code, a multiple of eight.
pub(super) const LEN: usize = 136;

/// Where in it the descriptor is closed.
pub(super) const CLOSED: u64 = 11;

/// The code. It can lie anywhere; the thread enters it at its start, with the number of the first system call and its
/// argument in `rax` and `rdi`.
pub(super) fn assemble(resume: &Resume) -> [u8; LEN] {
    let mut code = Vec::with_capacity(LEN);
    // syscall
    code.extend([0x0f, 0x05]);
    // mov edi, eax; mov eax, SYS_close; syscall
    code.extend([0x89, 0xc7, 0xb8]);
    code.extend((libc::SYS_close as u32).to_le_bytes());
    code.extend([0x0f, 0x05]);
    // mov eax, SYS_rt_sigprocmask; mov edi, SIG_SETMASK
    code.push(0xb8);
    code.extend((libc::SYS_rt_sigprocmask as u32).to_le_bytes());
    code.push(0xbf);
    code.extend(libc::SIG_SETMASK.to_le_bytes());
    // lea rsi, [rip + distance]: the mask, which are the last eight bytes.
    code.extend([0x48, 0x8d, 0x35]);
    let after = code.len() + 4;
    code.extend((LEN as u32 - 8 - after as u32).to_le_bytes());
    // mov edx, 0 (not xor, which changes flags); mov r10d, 8; syscall
    code.extend([0xba, 0, 0, 0, 0]);
    code.extend([0x41, 0xba, 8, 0, 0, 0]);
    code.extend([0x0f, 0x05]);
    // mov REGISTER, VALUE
    let registers = [
        ([0x48, 0xb8], resume.rax),
        ([0x48, 0xbf], resume.rdi),
        ([0x48, 0xbe], resume.rsi),
        ([0x48, 0xba], resume.rdx),
        ([0x49, 0xba], resume.r10),
        ([0x48, 0xb9], resume.rcx),
        ([0x49, 0xbb], resume.r11),
    ];
    for (operation, value) in registers {
        code.extend(operation);
        code.extend(value.to_le_bytes());
    }
    // jmp [rip]: to what the next eight bytes say.
    code.extend([0xff, 0x25, 0, 0, 0, 0]);
    code.extend(resume.rip.to_le_bytes());
    // int3, which nobody comes to.
    code.resize(LEN - 8, 0xcc);
    code.extend(resume.mask.to_le_bytes());
    code.try_into().unwrap_or([0xcc; LEN])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registers(orig_rax: i64, rax: i64) -> libc::user_regs_struct {
        // SAFETY: all of it are integers.
        let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        registers.orig_rax = orig_rax.cast_unsigned();
        registers.rax = rax.cast_unsigned();
        registers.rip = 0x1002;
        registers
    }

    #[test]
    fn the_descriptor_is_closed_by_the_second_call() {
        let code = assemble(&Resume::of(&registers(-1, 0), 0));
        let calls = code
            .windows(2)
            .enumerate()
            .filter(|(_, two)| *two == [0x0f, 0x05]);
        let ends: Vec<u64> = calls.map(|(at, _)| at as u64 + 2).collect();
        assert_eq!(ends[..2], [2, CLOSED]);
        assert_eq!(ends.len(), 3);
    }

    #[test]
    fn a_call_that_was_interrupted_is_made_again() {
        let table = [
            // In its own code, with a number in `rax` that looks like one of those errors.
            (-1, -512, (-512, 0x1002)),
            // Calls that are made again.
            (7, -512, (7, 0x1000)),
            (7, -513, (7, 0x1000)),
            (7, -514, (7, 0x1000)),
            (35, -516, (219, 0x1000)),
            // One that has its answer.
            (7, -4, (-4, 0x1002)),
            (0, 12, (12, 0x1002)),
        ];
        for (orig_rax, rax, expected) in table {
            let resume = Resume::of(&registers(orig_rax, rax), 5);
            let found = (resume.rax.cast_signed(), resume.rip);
            assert_eq!(found, expected, "{orig_rax} {rax}");
            assert_eq!(resume.mask, 5);
        }
    }

    /// Runs it here, in memory of our own, as a thread of the target would in its own.
    #[test]
    fn whoever_runs_through_it_has_all_registers_as_they_were() {
        use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
        const MARK: u64 = 0x0123_4567_89ab_cdef;
        let resume = Resume {
            rax: 0x1111_2222_3333_4444,
            rdi: 0x2222,
            rsi: u64::MAX,
            rdx: 1 << 63,
            r10: 5,
            rcx: 6,
            r11: 7,
            rip: MARK,
            mask: 0,
        };
        let code = assemble(&resume);
        let mark = code.windows(8).position(|it| it == MARK.to_le_bytes());
        let len = std::num::NonZeroUsize::new(LEN).unwrap();
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE | ProtFlags::PROT_EXEC;
        let mut found = [0_u64; 8];
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let page = unsafe { mmap_anonymous(None, len, protection, MapFlags::MAP_PRIVATE) }.unwrap();
        // SAFETY: it is long enough, and known to nobody else.
        unsafe { std::ptr::copy_nonoverlapping(code.as_ptr(), page.as_ptr().cast(), LEN) };
        // SAFETY: the code there ends with a jump to the label `2`, whose address is put to where the mark is; it touches no
        // stack, and all that it changes is said to be lost. What is stored then goes to the array.
        unsafe {
            std::arch::asm!(
                "lea rax, [rip + 2f]",
                "mov [r8 + r9], rax",
                "mov eax, {number}",
                "mov edi, {flags}",
                "stc",
                "jmp r8",
                "2:",
                "mov [r12], rax",
                "setc al",
                "movzx eax, al",
                "mov [r12 + 56], rax",
                "mov [r12 + 8], rdi",
                "mov [r12 + 16], rsi",
                "mov [r12 + 24], rdx",
                "mov [r12 + 32], r10",
                "mov [r12 + 40], rcx",
                "mov [r12 + 48], r11",
                number = const libc::SYS_userfaultfd,
                flags = const libc::O_CLOEXEC | 1,
                in("r8") page.as_ptr(),
                in("r9") mark.unwrap(),
                in("r12") found.as_mut_ptr(),
                out("rax") _, out("rdi") _, out("rsi") _, out("rdx") _, out("r10") _, out("rcx") _, out("r11") _,
            );
        }
        // SAFETY: nobody runs there any more.
        unsafe { munmap(page, LEN) }.unwrap();
        let carry = 1;
        let Resume {
            rax,
            rdi,
            rsi,
            rdx,
            r10,
            rcx,
            r11,
            ..
        } = resume;
        assert_eq!(found, [rax, rdi, rsi, rdx, r10, rcx, r11, carry]);
    }
}
