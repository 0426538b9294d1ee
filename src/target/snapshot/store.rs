//! Where the pages of a snapshot are kept.

use std::fmt::Debug;
use std::os::fd::BorrowedFd;

use crate::common::error::Result;

/// Makes room for pages.
pub trait StoreSource: Debug + Send + Sync {
    /// A new store, which reads as zeros until something is put there; it takes no memory yet.
    ///
    /// # Errors
    /// `System` where there is none to be had.
    fn create(&self, len: u64) -> Result<Box<dyn NewStore>>;

    /// Bytes that can be had now without harm to others.
    fn available(&self) -> u64;
}

/// A store that is being filled.
pub trait NewStore: Debug + Send + Sync {
    /// Takes memory for whole pages, so that filling them takes less time.
    ///
    /// # Errors
    /// `System` where there is not enough.
    fn prepare(&self, offset: u64, len: u64) -> Result<()>;

    /// All of it, to be filled.
    fn bytes(&mut self) -> &mut [u8];

    /// From now on it is read only.
    fn keep(self: Box<Self>) -> Box<dyn Store>;
}

/// Pages that are kept.
pub trait Store: Debug + Send + Sync {
    /// Reads all of `buffer`, which must lie in it.
    ///
    /// # Errors
    /// `System`.
    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<()>;

    /// Gives the memory of whole pages back; they read as zeros from then on.
    fn discard(&self, offset: u64, len: u64);

    /// The file that holds it, from which the kernel itself can read.
    fn descriptor(&self) -> Option<BorrowedFd<'_>>;
}
