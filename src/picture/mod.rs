//! What an address space looks like: where the bytes of each mapping are, and what differs between two copies of one.
//!
//! Facts alone: whoever shows them decides how. Nothing here touches a page of a process.

mod difference;
mod process;
mod strip;

pub use difference::{Difference, DifferenceError, MappingDifference, PageCounts, difference};
pub use process::{Amounts, MappingPicture, Picture, picture};
pub use strip::{Cell, Place};
