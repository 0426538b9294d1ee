//! What a core dump says of a process besides its memory.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use super::mapping::Mapping;
use crate::common::address::AddressRange;
use crate::common::error::Result;

/// What is known of a process without stopping it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DumpFacts {
    /// The process as a whole.
    pub process: ProcessStatus,
    /// Its threads, the first one first, as far as they live.
    pub threads: Vec<ThreadStatus>,
    /// The auxiliary vector, as the kernel gave it to the program (getauxval(3)).
    pub auxiliary: Vec<u8>,
    /// Which mappings belong into a core dump (core(5)).
    pub filter: u32,
    /// Its mappings, lowest address first.
    pub vmas: Vec<DumpVma>,
}

/// What `smaps` says of a mapping, as far as it decides what of it is dumped (proc_pid_smaps(5)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DumpVma {
    /// Where it lies.
    pub range: AddressRange,
    /// Its pages that are in memory, in bytes.
    pub resident: u64,
    /// Pages of no file, in memory and in swap, in bytes.
    pub anonymous: u64,
    /// Its pages that are in swap, in bytes.
    pub swapped: u64,
    /// Memory of a device (`VM_IO`).
    pub is_device: bool,
    /// Huge pages of hugetlbfs (`VM_HUGETLB`).
    pub is_huge: bool,
    /// `MADV_DONTDUMP` (madvise(2)).
    pub is_left_out: bool,
}

/// What `/proc/PID/stat` and `/proc/PID/status` say of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessStatus {
    /// Its number.
    pub pid: i32,
    /// That of its parent.
    pub parent: i32,
    /// Its process group.
    pub group: i32,
    /// Its session.
    pub session: i32,
    /// Its real user.
    pub uid: u32,
    /// Its real group.
    pub gid: u32,
    /// A letter.
    pub state: u8,
    /// From -20 to 19.
    pub nice: i8,
    /// The kernel's flags (`PF_*`).
    pub flags: u64,
    /// Its command (`/proc/PID/comm`), in its own bytes.
    pub command: Vec<u8>,
    /// Its arguments, each ended by a NUL.
    pub arguments: Vec<u8>,
}

/// What `/proc/PID/task/TID` says of a thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadStatus {
    /// Its number.
    pub tid: i32,
    /// Signals that wait for it, a bit each.
    pub pending: u64,
    /// Signals that it blocks.
    pub blocked: u64,
    /// Time in its own code and in the kernel, and those of children that it has waited for.
    pub times: ThreadTimes,
}

/// Processor time (times(2)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadTimes {
    /// In its own code.
    pub user: Duration,
    /// In the kernel.
    pub system: Duration,
    /// Of children, in their own code.
    pub children_user: Duration,
    /// Of children, in the kernel.
    pub children_system: Duration,
}

/// The registers of one thread while it was stopped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ThreadRegisters {
    /// Its number.
    pub tid: i32,
    /// The general ones first (`NT_PRSTATUS`).
    pub sets: Vec<RegisterSet>,
    /// The signal that it was about to get, as `siginfo_t`, where there is one.
    pub signal: Option<Vec<u8>>,
}

impl ThreadRegisters {
    /// Its next instruction and the top of its stack, by the layout of the architectures that are known.
    pub fn place(&self) -> Option<(u64, u64)> {
        let general = self
            .sets
            .iter()
            .find(|set| set.kind == register_kind::PRSTATUS)?;
        let word = |at: usize| {
            let bytes = general.bytes.get(at..)?.first_chunk()?;
            Some(u64::from_le_bytes(*bytes))
        };
        let half = |at: usize| {
            let bytes = general.bytes.get(at..)?.first_chunk()?;
            Some(u64::from(u32::from_le_bytes(*bytes)))
        };
        // `user_regs_struct` of x86-64 and of x86, `user_pt_regs` of aarch64, `user_regs` of arm.
        match general.bytes.len() {
            216 => word(128).zip(word(152)),
            68 => half(48).zip(half(60)),
            272 => word(256).zip(word(248)),
            72 => half(60).zip(half(52)),
            _ => None,
        }
    }
}

/// A set of registers, as the kernel lays it out (`PTRACE_GETREGSET` in ptrace(2)).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegisterSet {
    /// `NT_*`, as in `elf.h`.
    pub kind: u32,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Kinds of register sets, with the names and numbers of `elf.h`.
pub mod register_kind {
    /// General registers.
    pub const PRSTATUS: u32 = 1;
    /// Floating point.
    pub const PRFPREG: u32 = 2;
    /// SSE of 32-bit x86.
    pub const PRXFPREG: u32 = 0x46e6_2b7f;
    /// Segments of thread-local storage of 32-bit x86.
    pub const X86_TLS: u32 = 0x200;
    /// All of XSAVE.
    pub const X86_XSTATE: u32 = 0x202;
    /// The shadow stack.
    pub const X86_SHSTK: u32 = 0x204;
    /// The register of thread-local storage.
    pub const ARM_TLS: u32 = 0x401;
    /// Scalable vectors.
    pub const ARM_SVE: u32 = 0x405;
    /// Which bits of pointers are authentication codes.
    pub const ARM_PAC_MASK: u32 = 0x406;
    /// Tagged addresses.
    pub const ARM_TAGGED_ADDR_CTRL: u32 = 0x409;
}

/// A process that is stopped, until this is dropped: all its threads stand still together.
pub trait Stopped: Debug + Send {
    /// Its threads, the first one first.
    fn threads(&self) -> &[ThreadRegisters];

    /// Whether all threads have stopped, but for one that waits for this.
    fn stands_still(&self, waiting: i32) -> bool {
        let mut running = self.threads().iter().filter(|it| it.sets.is_empty());
        running.all(|thread| thread.tid == waiting)
    }

    /// Has it be noted from now on which pages the process writes, of some of its anonymous private mappings: what was copied of
    /// these while it ran need not be copied again where it was not written since. `mappings` are all that it has now; `advance`
    /// is asked again and again whether to go on.
    ///
    /// # Errors
    /// `Untracked` where that could do harm, or would not see all writes; `Unstoppable` where a thread is not where it was any
    /// more; those of `advance`.
    fn track_writes(
        &self,
        mappings: &[Arc<Mapping>],
        tracked: &[AddressRange],
        advance: &dyn Fn() -> Result<()>,
    ) -> Result<Box<dyn WriteTracker>>;
}

/// Notes which pages a process writes, until it is dropped.
pub trait WriteTracker: Debug + Send {
    /// Private pages of `range` that were there when tracking began and that nobody has written since, lowest address first.
    /// The process stands still; pages that are not there, or are not tracked, are none of them.
    ///
    /// # Errors
    /// The kernel's refusal.
    fn unwritten(&self, range: AddressRange) -> Result<Vec<AddressRange>>;
}
