//! What every layer uses: numbers, time, errors, counters.

pub mod address;
pub(crate) mod aged;
pub mod attended;
pub mod choice;
pub mod clock;
pub(crate) mod contained;
pub mod error;
pub(crate) mod log_limit;
pub mod metrics;
#[cfg(all(test, shuttle))]
pub(crate) mod models;
pub(crate) mod other_work;
pub(crate) mod pages;
pub(crate) mod pid;
pub(crate) mod recent;
pub(crate) mod room;
pub(crate) mod sync;
pub(crate) mod threads;
