//! The page cache: memory that was read a moment ago is not read again.
//!
//! [`CachedMemory`] is itself a [`ProcessMemory`], so that it can be left out.

mod freshness;
mod looked;
mod memory;
mod pages;

pub use freshness::{Epoch, Freshness, SpaceEpoch};
pub use memory::CachedMemory;
pub use pages::PageCache;

#[cfg(doc)]
use crate::process::ProcessMemory;
