//! Files that the kernel reads itself in the place of ours (FUSE passthrough).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};

use fuser::BackingId;

mod ioctl {
    // `FUSE_DEV_IOC_BACKING_CLOSE` of `include/uapi/linux/fuse.h`.
    nix::ioctl_write_ptr!(backing_close, 229, 2, u32);
}

/// A file that the kernel was told of, until it is dropped.
#[derive(Debug)]
pub(super) struct Backing {
    id: u32,
    device: Weak<OwnedFd>,
}

impl Backing {
    /// Tells the kernel of a file.
    ///
    /// # Errors
    /// Where it does not do that, or not for this user.
    pub(super) fn new(device: &Arc<OwnedFd>, file: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Self {
            id: BackingId::create_raw(device.as_fd(), file)?,
            device: Arc::downgrade(device),
        })
    }

    /// What the kernel knows it by.
    pub(super) fn id(&self) -> u32 {
        self.id
    }
}

impl Drop for Backing {
    fn drop(&mut self) {
        // With the connection the kernel drops all of them.
        let Some(device) = self.device.upgrade() else {
            return;
        };
        // SAFETY: the descriptor is open, and the argument is the number that this request takes.
        if let Err(errno) = unsafe { ioctl::backing_close(device.as_raw_fd(), &raw const self.id) }
        {
            log::debug!("a store of a snapshot stays known to the kernel: {errno}");
        }
    }
}
