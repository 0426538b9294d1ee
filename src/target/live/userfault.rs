//! ioctl_userfaultfd(2), as far as it is needed: what a descriptor is to do, and for which addresses.

use std::os::fd::{AsRawFd, BorrowedFd};

use linux_raw_sys::general::{UFFD_API, uffdio_api, uffdio_range, uffdio_register};
use nix::errno::Errno;

use super::interrupted::retry;
use crate::common::address::AddressRange;

mod ioctl {
    use linux_raw_sys::general::{
        _UFFDIO_API, _UFFDIO_REGISTER, _UFFDIO_UNREGISTER, UFFDIO, uffdio_api, uffdio_range,
        uffdio_register,
    };

    nix::ioctl_readwrite!(api, UFFDIO, _UFFDIO_API, uffdio_api);
    nix::ioctl_readwrite!(register, UFFDIO, _UFFDIO_REGISTER, uffdio_register);
    // "Read" is the kernel's side here: it is given a range (`include/uapi/linux/userfaultfd.h`).
    nix::ioctl_read!(unregister, UFFDIO, _UFFDIO_UNREGISTER, uffdio_range);
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
        range: pages(range),
        mode: u64::from(mode),
        ioctls: 0,
    };
    // SAFETY: as above. What the modes in use do to the pages changes none of their bytes.
    retry(|| unsafe { ioctl::register(userfault.as_raw_fd(), &raw mut register) }).map(drop)
}

/// Ends what [`register`] has begun, and lifts all protection.
///
/// # Errors
/// The kernel's refusal: `EINVAL` where other memory has taken the place of some of it, `ESRCH` where the process is gone.
pub(super) fn unregister(userfault: BorrowedFd<'_>, range: AddressRange) -> Result<(), Errno> {
    let mut range = pages(range);
    // SAFETY: as above. It lifts protection, and changes no byte of any page.
    retry(|| unsafe { ioctl::unregister(userfault.as_raw_fd(), &raw mut range) }).map(drop)
}

fn pages(range: AddressRange) -> uffdio_range {
    uffdio_range {
        start: range.start().get(),
        len: range.len(),
    }
}
