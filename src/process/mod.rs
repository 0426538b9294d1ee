//! Processes, and the two traits through which everybody above sees them.

#[cfg(test)]
pub(crate) mod conformance;
pub mod fake;
mod withheld;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use crate::address::{Address, AddressRange};
use crate::error::Result;
use crate::mapping::{AddressSpace, Mapping};
use crate::residency::{Held, Stretch};

pub use crate::pid::ProcessId;
pub use withheld::WithheldMemory;

/// One program run by one process: two of them are equal only if neither a
/// reuse of the PID nor an exec lies between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProcessIdentity {
    /// The process's number.
    pub pid: ProcessId,
    /// When it started, in clock ticks since boot (`/proc/PID/stat`, field 22).
    pub start_time: u64,
    /// The inode of its pidfd: unlike the start time it tells two processes of one tick apart (Linux 6.9 and later).
    pub pidfd_inode: u64,
    /// Where its code and its stack start (fields 26 and 28): each exec lays them out anew.
    pub layout: [u64; 2],
}

/// What the tree shows of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessInfo {
    /// Which program of which process this is about.
    pub identity: ProcessIdentity,
    /// The command name (`/proc/PID/comm`), in its own bytes.
    pub command: Vec<u8>,
    /// Owner of `/proc/PID`.
    pub uid: u32,
    /// Group of `/proc/PID`.
    pub gid: u32,
    /// When the process started, as a file time, in seconds since the epoch.
    pub started: u64,
}

/// What is to be known of a process at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessDetails {
    /// The path of its program, in its own bytes; empty where the kernel does not say.
    pub executable: Vec<u8>,
    /// Its arguments, each ended by a NUL.
    pub arguments: Vec<u8>,
    /// Its state, a letter as in `/proc/PID/stat`.
    pub state: u8,
    /// Memory it holds, in bytes.
    pub resident: u64,
}

/// Bytes to be read: from `address` on, as many as `buffer` holds.
#[derive(Debug)]
pub struct ReadSegment<'a> {
    /// Where the bytes lie in the process.
    pub address: Address,
    /// Where they go.
    pub buffer: &'a mut [u8],
    /// The mapping that holds all of them.
    pub mapping: &'a Mapping,
}

/// How a write treats the mapping's own protection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteMode {
    /// Obey it.
    Obey,
    /// Write in spite of it, as `/proc/PID/mem` does (`-o force`).
    Force,
}

/// The memory of one program of one process, pinned: it never shows another's.
///
/// A cache or a fault injector is a decorator of this trait, and
/// `process::fake` and `linux` pass the same conformance tests.
pub trait ProcessMemory: Debug + Send + Sync {
    /// Whose memory it is.
    fn identity(&self) -> &ProcessIdentity;

    /// Whether the process still lives and still runs the same program.
    ///
    /// # Errors
    /// `Ended` or `Replaced`.
    fn verify(&self) -> Result<()>;

    /// Fills the segments in order, and returns how many bytes it got before
    /// the first that cannot be read. All of them were the pinned program's.
    ///
    /// # Errors
    /// `Unreachable` where not even the first byte can be read; `Ended`,
    /// `Replaced` whatever was copied.
    fn read(&self, segments: &mut [ReadSegment<'_>]) -> Result<usize>;

    /// Where the bytes of `range`, a part of `mapping`, are; touches none of them.
    ///
    /// The stretches lie in order and without a gap from the start of the
    /// range on. They may end before the range does, and do after about `at_most` of them, since a
    /// target decides how many there are: then ask again from there.
    ///
    /// # Errors
    /// `Ended`, `Replaced`, and `System` where the kernel does not say.
    fn contents(
        &self,
        mapping: &Mapping,
        range: AddressRange,
        at_most: usize,
    ) -> Result<Vec<Stretch>>;

    /// Lets go of what is held for speed alone: nobody has the memory open for now.
    fn rest(&self) {}

    /// How much memory each of `ranges` holds, which lie in order and do not overlap.
    ///
    /// # Errors
    /// As [`contents`](Self::contents).
    fn held(&self, ranges: &[AddressRange]) -> Result<Vec<Held>>;

    /// Writes exactly `data` at `address`, and returns how many bytes got
    /// there before the first that cannot be written.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    fn write(&self, address: Address, data: &[u8], mode: WriteMode) -> Result<usize>;
}

/// The processes of a system.
pub trait ProcessSource: Debug + Send + Sync {
    /// Numbers that may be those of processes to show, lowest first.
    ///
    /// # Errors
    /// `System` where they cannot be listed at all.
    fn numbers(&self) -> Result<Vec<ProcessId>>;

    /// What is to be known of one process that has memory and may be read; waits for one that is in
    /// the middle of an exec.
    ///
    /// # Errors
    /// `NoProcess`, `ProcessDenied`; `TimedOut` where an exec takes very long.
    fn describe(&self, pid: ProcessId) -> Result<ProcessInfo>;

    /// As [`describe`](Self::describe), and waits no longer than `patience` for an exec to end.
    ///
    /// # Errors
    /// As [`describe`](Self::describe).
    fn describe_within(&self, pid: ProcessId, patience: Duration) -> Result<ProcessInfo> {
        let _ = patience;
        self.describe(pid)
    }

    /// Closes what is kept for speed alone and was not used for long. Returns how long it is until
    /// there is more to close; `None` where nothing is kept.
    fn close_unused(&self) -> Option<Duration> {
        None
    }

    /// Whether `identity` still runs, as far as a look at its number tells; costs less than [`describe`](Self::describe).
    fn is_current(&self, identity: &ProcessIdentity) -> bool;

    /// Memory that the process holds, in bytes. Does not wait for it.
    ///
    /// # Errors
    /// `NoProcess`.
    fn resident(&self, pid: ProcessId) -> Result<u64>;

    /// More of the same process.
    ///
    /// # Errors
    /// As [`address_space`](Self::address_space).
    fn details(&self, identity: &ProcessIdentity) -> Result<ProcessDetails>;

    /// The mappings of the process now.
    ///
    /// # Errors
    /// `NoProcess`, `ProcessDenied`, and `Replaced` where it is not `identity` any more.
    fn address_space(&self, identity: &ProcessIdentity) -> Result<AddressSpace>;

    /// Pins the process's memory.
    ///
    /// # Errors
    /// As [`address_space`](Self::address_space).
    fn open(&self, identity: &ProcessIdentity) -> Result<Arc<dyn ProcessMemory>>;

    /// The process that the thread `tid` belongs to.
    ///
    /// # Errors
    /// `NoEntry` where there is no such thread.
    fn process_of_thread(&self, tid: u32) -> Result<ProcessId>;
}

/// Bytes that `segments` ask for.
pub fn requested(segments: &[ReadSegment<'_>]) -> usize {
    segments.iter().map(|segment| segment.buffer.len()).sum()
}
