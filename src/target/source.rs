//! The processes there are.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use super::identity::{ProcessDetails, ProcessId, ProcessIdentity, ProcessInfo};
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
