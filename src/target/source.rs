//! The processes there are.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use super::cgroup::CgroupPath;
use super::credentials::Credentials;
use super::identity::{ProcessId, ProcessIdentity, ProcessInfo, Program, ReadCounts};
use super::process::Process;
use crate::common::error::Result;

/// How long an exec is waited for at most: less than a request may take at all.
pub(crate) const LONGEST_EXEC: Duration = Duration::from_millis(1000);

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
    fn describe(&self, pid: ProcessId) -> Result<ProcessInfo> {
        self.describe_for(None, pid, LONGEST_EXEC)
    }

    /// As [`describe`](Self::describe), for whoever has these credentials, where they are not this program's own: what the kernel
    /// does not show them is `CallerDenied`. It waits for an exec that does nothing at most until `timeout` has passed;
    /// not at all where that is zero. An exec that gets on is waited for as by `describe`.
    ///
    /// # Errors
    /// As [`describe`](Self::describe), and `CallerDenied`.
    fn describe_for(
        &self,
        who: Option<&Credentials>,
        pid: ProcessId,
        timeout: Duration,
    ) -> Result<ProcessInfo> {
        let described = self.describe_pinned(who, pid, timeout);
        described.map(|(info, _)| info)
    }

    /// As [`describe_for`](Self::describe_for), and the process pinned: it is pinned to be described, and whoever lists processes
    /// mostly asks for more of each in a moment.
    ///
    /// # Errors
    /// As [`describe_for`](Self::describe_for).
    fn describe_pinned(
        &self,
        who: Option<&Credentials>,
        pid: ProcessId,
        timeout: Duration,
    ) -> Result<(ProcessInfo, Arc<dyn Process>)>;

    /// How many pinned processes may be held for speed alone: few, where descriptors are short.
    fn most_held(&self) -> usize;

    /// The credentials of the thread `thread`, which asks as the user `uid` and the group `gid`, and waits for the
    /// answer; `None` where they grant all that this program's own do.
    ///
    /// # Errors
    /// `UnknownCaller`.
    fn credentials(&self, thread: u32, uid: u32, gid: u32) -> Result<Option<Credentials>>;

    /// Whether `identity` still runs, as far as its number alone tells; costs less than [`describe`](Self::describe).
    fn is_current(&self, identity: &ProcessIdentity) -> bool;

    /// Resident memory of the process, in bytes. Does not wait for it.
    ///
    /// # Errors
    /// `NoProcess`.
    fn resident(&self, pid: ProcessId) -> Result<u64>;

    /// The control group of the process that has this number now. Does not wait for it.
    ///
    /// # Errors
    /// `NoProcess`, `ProcessDenied`.
    fn cgroup(&self, pid: ProcessId) -> Result<CgroupPath>;

    /// Pins the process that was seen as `identity`.
    ///
    /// # Errors
    /// `NoProcess`, `ProcessDenied`, and `Replaced` where it is not `identity` any more.
    fn open(&self, identity: &ProcessIdentity) -> Result<Arc<dyn Process>>;

    /// The program that the thread `tid` runs; `None` where there is no such thread.
    fn program_of_thread(&self, tid: u32) -> Option<Program>;

    /// What the process of the thread `tid` has read so far; `None` where the kernel does not say.
    fn reads_of_thread(&self, tid: u32) -> Option<ReadCounts>;

    /// The identification of this boot; a process of another one is another process, whatever its number.
    fn boot(&self) -> String;

    /// Whether a signal waits for the thread `tid` that it does not block or ignore.
    fn has_signal(&self, tid: u32) -> bool;

    /// The process that the thread `tid` belongs to.
    ///
    /// # Errors
    /// `NoEntry` where there is no such thread.
    fn process_of_thread(&self, tid: u32) -> Result<ProcessId>;
}
