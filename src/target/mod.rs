//! Processes, and the traits through which everybody else sees them.

mod activity;
pub(crate) mod auxiliary;
pub(crate) mod build_id;
pub mod cache;
mod cgroup;
mod credentials;
mod dump;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod identity;
pub mod live;
pub mod mapping;
mod memory;
pub mod page_state;
mod process;
pub mod snapshot;
mod source;
pub(crate) mod visit;

pub(crate) use activity::Activity;
pub(crate) use build_id::build_id;
pub use cgroup::CgroupPath;
pub use credentials::{Credentials, UserNamespace};
pub use dump::{
    DumpFacts, DumpVma, ProcessStatus, RegisterSet, Stopped, ThreadRegisters, ThreadStatus,
    ThreadTimes, WriteTracker, register_kind,
};
pub use identity::{ProcessId, ProcessIdentity, ProcessInfo, Program, ReadCounts};
pub(crate) use memory::all_extents;
pub use memory::{ProcessMemory, ReadSegment, WriteMode, for_each_extent, requested};
pub use process::Process;
pub(crate) use source::LONGEST_EXEC;
pub use source::ProcessSource;
