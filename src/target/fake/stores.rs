//! Stores of snapshots in the memory of this program.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use nix::errno::Errno;

use crate::common::error::{Error, Result};
use crate::common::sync::Mutex;
use crate::common::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::target::snapshot::{NewStore, Store, StoreSource};

/// Makes stores, and counts them.
#[derive(Clone, Debug)]
pub struct FakeStores {
    available: Arc<AtomicU64>,
    kept: Arc<AtomicUsize>,
}

impl Default for FakeStores {
    fn default() -> Self {
        Self {
            available: Arc::new(AtomicU64::new(u64::MAX)),
            kept: Arc::default(),
        }
    }
}

impl FakeStores {
    /// Says how many bytes can be had.
    pub fn set_available(&self, bytes: u64) {
        self.available.store(bytes, Ordering::Relaxed);
    }

    /// Stores that there are.
    pub fn count(&self) -> usize {
        self.kept.load(Ordering::Relaxed)
    }
}

impl StoreSource for FakeStores {
    fn create(&self, len: u64) -> Result<Box<dyn NewStore>> {
        let len = usize::try_from(len).map_err(|_| Error::Invalid)?;
        self.kept.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(FakeStore {
            bytes: Mutex::new(vec![0; len]),
            kept: Arc::clone(&self.kept),
        }))
    }

    fn available(&self) -> u64 {
        self.available.load(Ordering::Relaxed)
    }
}

struct FakeStore {
    bytes: Mutex<Vec<u8>>,
    kept: Arc<AtomicUsize>,
}

/// Without what is in it.
impl std::fmt::Debug for FakeStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FakeStore")
    }
}

impl Drop for FakeStore {
    fn drop(&mut self) {
        self.kept.fetch_sub(1, Ordering::Relaxed);
    }
}

impl NewStore for FakeStore {
    fn prepare(&self, offset: u64, len: u64) -> Result<()> {
        let end = offset.saturating_add(len) as usize;
        match end <= self.bytes.lock().len() {
            true => Ok(()),
            false => Err(Error::system("a fake store", Errno::ENOMEM)),
        }
    }

    fn bytes(&mut self) -> &mut [u8] {
        self.bytes.get_mut()
    }

    fn keep(self: Box<Self>) -> Box<dyn Store> {
        self
    }
}

impl Store for FakeStore {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let bytes = self.bytes.lock();
        let from = bytes.get(offset as usize..offset as usize + buffer.len());
        let from = from.ok_or_else(|| Error::system("a fake store", Errno::EIO))?;
        buffer.copy_from_slice(from);
        Ok(())
    }

    fn discard(&self, offset: u64, len: u64) {
        self.bytes.lock()[offset as usize..(offset + len) as usize].fill(0);
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}
