//! Which pages a process writes, by write protection that the kernel lifts by itself (`UFFD_FEATURE_WP_ASYNC`, Linux 6.7).
//!
//! The first write to a page costs the process a fault, as after a fork, and parts a huge page into small ones. Who writes by
//! another way than the process's page table (a device, through pages that were pinned before) is not seen: processes that
//! have such memory are left out.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use linux_raw_sys::general::{UFFD_FEATURE_WP_ASYNC, UFFDIO_REGISTER_MODE_WP};
use nix::errno::Errno;

use super::kernel::Kernel;
use super::pagemap::Pagemap;
use super::userfault::{agree, register};
use crate::common::address::AddressRange;
use crate::common::error::{Error, Result};
use crate::target::WriteTracker;

/// Tracks writes until it is dropped: the kernel lifts all protection then.
#[derive(Debug)]
pub(super) struct LiveTracker {
    _userfault: OwnedFd,
    pagemap: Pagemap,
}

impl LiveTracker {
    /// Protects the private pages of these ranges, as far as they can be: a process that stands still. The descriptor is new.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub(super) fn new(
        userfault: OwnedFd,
        pagemap: &Arc<File>,
        kernel: &Arc<Kernel>,
        ranges: impl Iterator<Item = AddressRange>,
    ) -> std::result::Result<Self, Errno> {
        agree(userfault.as_fd(), UFFD_FEATURE_WP_ASYNC)?;
        let pagemap = Pagemap::new(Arc::clone(pagemap), Arc::clone(kernel));
        for range in ranges {
            let tracked = register(userfault.as_fd(), range, UFFDIO_REGISTER_MODE_WP)
                .and_then(|()| pagemap.write_protect(range));
            if let Err(errno) = tracked {
                log::debug!("writes to {range} are not tracked: {errno}");
            }
        }
        Ok(Self {
            _userfault: userfault,
            pagemap,
        })
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
