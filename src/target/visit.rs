//! Looking at many processes one after another, without waiting for any.

use std::fmt::Debug;

use crate::common::pid::ProcessId;

/// Whether to look at a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Visit {
    /// Look at it.
    Enter,
    /// Pass over it: somebody waits for that one already, or there is no time left.
    Skip,
    /// Go no further: another thread has taken over.
    Stop,
}

/// Says where to look, and is told in that way what is looked at.
pub(crate) trait Visits: Debug {
    /// Whether to look at `process` now.
    fn visit(&self, process: ProcessId) -> Visit;
}

/// Looks everywhere, however long that takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Everywhere;

impl Visits for Everywhere {
    fn visit(&self, _process: ProcessId) -> Visit {
        Visit::Enter
    }
}
