//! The processes there are.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use super::identity::{ProcessId, ProcessIdentity, ProcessInfo};
use super::mapping::AddressSpace;
use super::memory::ProcessMemory;
use crate::common::error::Result;

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

    /// As [`describe`](Self::describe), and waits at most until `timeout` has passed for an exec to end.
    ///
    /// # Errors
    /// As [`describe`](Self::describe).
    fn describe_within(&self, pid: ProcessId, timeout: Duration) -> Result<ProcessInfo> {
        let _ = timeout;
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

    /// The path of its program, in its own bytes; empty where the kernel does not say.
    ///
    /// # Errors
    /// As [`address_space`](Self::address_space).
    fn executable(&self, identity: &ProcessIdentity) -> Result<Vec<u8>>;

    /// Its arguments, each ended by a NUL; the first 64 KiB of them.
    ///
    /// # Errors
    /// As [`address_space`](Self::address_space).
    fn arguments(&self, identity: &ProcessIdentity) -> Result<Vec<u8>>;

    /// Its state, a letter as in `/proc/PID/stat`.
    ///
    /// # Errors
    /// As [`address_space`](Self::address_space).
    fn state(&self, identity: &ProcessIdentity) -> Result<u8>;

    /// As [`resident`](Self::resident), of just this program: may wait for it.
    ///
    /// # Errors
    /// As [`address_space`](Self::address_space).
    fn resident_of(&self, identity: &ProcessIdentity) -> Result<u64>;

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
