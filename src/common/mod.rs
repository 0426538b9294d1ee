//! What every layer uses: numbers, time, errors, counters.

pub mod address;
pub mod aged;
pub mod clock;
pub(crate) mod contained;
pub mod error;
pub(crate) mod log_limit;
pub mod metrics;
pub mod pid;
pub(crate) mod recent;
pub(crate) mod room;
