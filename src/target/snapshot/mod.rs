//! Snapshots: copies of processes at one moment, which stay when these have gone on or ended.
//!
//! All threads of a process, or of several, are stopped together; what is in memory or in swap is copied by all processors at
//! once; then they go on. Where what a process writes may be tracked, most of its memory is copied before that, while it still runs (`precopy`). What is in no page table is not copied: it is zeros, or is read from the file of the mapping for
//! as long as that stays unchanged.

mod budget;
mod capture;
mod copy;
mod frozen;
mod layout;
mod parallel;
mod plan;
mod precopy;
mod ranges;
mod record;
mod sharing;
mod store;
mod watch;

#[cfg(test)]
mod tests;

pub use budget::{Budget, Reservation};
pub use capture::{Capture, Subject};
pub use frozen::{FrozenMemory, FrozenProcess, HeldFile, KeptStore, Place};
pub use plan::FileContent;
pub use record::{ProcessRecord, RecordError, ThreadPlace};
pub use store::{NewStore, Store, StoreSource};
pub use watch::Watch;
