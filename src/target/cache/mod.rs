//! The page cache: memory that was read a moment ago is not read again.
//!
//! [`CachedMemory`] is itself a [`ProcessMemory`], so that it can be left out.

mod denied;
mod freshness;
mod memory;
#[cfg(all(test, shuttle))]
mod models;
mod page_states;
mod pages;

pub(crate) use denied::DeniedMemory;
pub use freshness::{Epoch, Freshness, SpaceEpoch};
pub use memory::CachedMemory;
pub use pages::PageCache;

#[cfg(doc)]
use crate::target::ProcessMemory;
