//! The processes there are.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use super::identity::{ProcessId, ProcessIdentity, ProcessInfo};
use super::process::Process;
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

    /// As [`describe`](Self::describe), and waits for an exec that does nothing at most until `timeout` has passed; not at
    /// all where that is zero. An exec that gets on is waited for as by `describe`.
    ///
    /// # Errors
    /// As [`describe`](Self::describe).
    fn describe_within(&self, pid: ProcessId, timeout: Duration) -> Result<ProcessInfo> {
        let _ = timeout;
        self.describe(pid)
    }

    /// Whether `identity` still runs, as far as its number alone tells; costs less than [`describe`](Self::describe).
    fn is_current(&self, identity: &ProcessIdentity) -> bool;

    /// Resident memory of the process, in bytes. Does not wait for it.
    ///
    /// # Errors
    /// `NoProcess`.
    fn resident(&self, pid: ProcessId) -> Result<u64>;

    /// Pins the process that was seen as `identity`.
    ///
    /// # Errors
    /// `NoProcess`, `ProcessDenied`, and `Replaced` where it is not `identity` any more.
    fn open(&self, identity: &ProcessIdentity) -> Result<Arc<dyn Process>>;

    /// The process that the thread `tid` belongs to.
    ///
    /// # Errors
    /// `NoEntry` where there is no such thread.
    fn process_of_thread(&self, tid: u32) -> Result<ProcessId>;
}
