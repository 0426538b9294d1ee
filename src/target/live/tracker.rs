//! Which pages a process writes, by write protection that the kernel lifts by itself (`UFFD_FEATURE_WP_ASYNC`, Linux 6.7).
//!
//! The first write to a page costs the process a fault, as after a fork, and parts a huge page into small ones. Who writes by
//! another way than the process's page table (a device, through pages that were pinned before) is not seen: processes that
//! are known to have such memory are left out (`stop::tracking`).

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use linux_raw_sys::general::{UFFD_FEATURE_WP_ASYNC, UFFDIO_REGISTER_MODE_WP};
use nix::errno::Errno;
use parking_lot::Mutex;

use super::kernel::Kernel;
use super::pagemap::Pagemap;
use super::userfault::{agree, register, unregister};
use crate::common::address::AddressRange;
use crate::common::error::{Error, Result};
use crate::target::WriteTracker;

/// Tracks writes until it is dropped: all protection is lifted then.
#[derive(Debug)]
pub(super) struct LiveTracker {
    userfault: OwnedFd,
    /// What is to be lifted. Guards the list; nothing is locked inside it.
    registered: Mutex<Vec<AddressRange>>,
    pagemap: Pagemap,
}

impl LiveTracker {
    /// Tracks nothing yet. The descriptor is new.
    ///
    /// # Errors
    /// `EINVAL` where the kernel does not do that.
    pub(super) fn new(
        userfault: OwnedFd,
        pagemap: &Arc<File>,
        kernel: &Arc<Kernel>,
    ) -> std::result::Result<Self, Errno> {
        agree(userfault.as_fd(), UFFD_FEATURE_WP_ASYNC)?;
        let pagemap = Pagemap::new(Arc::clone(pagemap), Arc::clone(kernel));
        Ok(Self {
            userfault,
            registered: Mutex::default(),
            pagemap,
        })
    }

    /// Protects the private pages of a range, as far as they can be: of a process that stands still. `advance` says whether to go
    /// on, after each step.
    ///
    /// # Errors
    /// Those of `advance`.
    pub(super) fn track(
        &self,
        range: AddressRange,
        advance: &dyn Fn() -> Result<()>,
    ) -> Result<()> {
        let registered = register(self.userfault.as_fd(), range, UFFDIO_REGISTER_MODE_WP);
        if let Err(errno) = registered {
            log::debug!("writes to {range} are not tracked: {errno}");
            return Ok(());
        }
        self.registered.lock().push(range);
        let mut at = range.start();
        while let Some(rest) = AddressRange::new(at, range.end()).filter(|it| !it.is_empty()) {
            advance()?;
            match self.pagemap.write_protect(rest) {
                Ok(end) => at = end,
                Err(errno) => {
                    // What is not protected counts as written.
                    log::debug!("writes to {rest} are not tracked: {errno}");
                    break;
                }
            }
        }
        Ok(())
    }
}

/// Closing the descriptor ends it, too, but only with its last copy: whatever program we start has one for a moment, until
/// it is executed.
impl Drop for LiveTracker {
    fn drop(&mut self) {
        for range in self.registered.get_mut() {
            if let Err(errno) = unregister(self.userfault.as_fd(), *range) {
                log::debug!("{range} is tracked until its descriptor is closed: {errno}");
            }
        }
    }
}

impl WriteTracker for LiveTracker {
    fn unwritten(&self, range: AddressRange) -> Result<Vec<AddressRange>> {
        match self.pagemap.unwritten(range) {
            Ok(ranges) => Ok(ranges),
            // A mapping that was made since, or could not be tracked.
            Err(Errno::EPERM) => Ok(Vec::new()),
            Err(errno) => Err(Error::system("PAGEMAP_SCAN", errno)),
        }
    }
}
