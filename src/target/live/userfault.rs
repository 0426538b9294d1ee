//! ioctl_userfaultfd(2), as far as it is needed: what a descriptor is to do, and for which addresses.

use std::os::fd::{AsRawFd, BorrowedFd};

use linux_raw_sys::general::{UFFD_API, uffdio_api, uffdio_range, uffdio_register};
use nix::errno::Errno;

use super::interrupted::retry;
use crate::common::address::AddressRange;

mod ioctl {
    use linux_raw_sys::general::{
        _UFFDIO_API, _UFFDIO_REGISTER, UFFDIO, uffdio_api, uffdio_register,
    };

    nix::ioctl_readwrite!(api, UFFDIO, _UFFDIO_API, uffdio_api);
    nix::ioctl_readwrite!(register, UFFDIO, _UFFDIO_REGISTER, uffdio_register);
}

/// Agrees with the kernel on what the descriptor does (`UFFD_FEATURE_*`): once, before anything else.
///
/// # Errors
/// `EINVAL` where the kernel does not know all of it.
pub(super) fn agree(userfault: BorrowedFd<'_>, features: u32) -> Result<(), Errno> {
    let mut api = uffdio_api {
        api: u64::from(UFFD_API),
        features: u64::from(features),
        ioctls: 0,
    };
    // SAFETY: the descriptor is open, and the argument is the structure that this request takes.
    retry(|| unsafe { ioctl::api(userfault.as_raw_fd(), &raw mut api) }).map(drop)
}

/// Registers whole pages (`UFFDIO_REGISTER_MODE_*`) of the address space that the descriptor was opened in.
///
/// # Errors
/// The kernel's refusal: `EBUSY` where another descriptor has some of them.
pub(super) fn register(
    userfault: BorrowedFd<'_>,
    range: AddressRange,
    mode: u32,
) -> Result<(), Errno> {
    let mut register = uffdio_register {
        range: uffdio_range {
            start: range.start().get(),
            len: range.len(),
        },
        mode: u64::from(mode),
        ioctls: 0,
    };
    // SAFETY: as above. What the modes in use do to the pages changes none of their bytes.
    retry(|| unsafe { ioctl::register(userfault.as_raw_fd(), &raw mut register) }).map(drop)
}
