//! No thread is made to run anything on this architecture.

use std::os::fd::OwnedFd;

use super::{Failure, Pinned, Tracee};
use crate::common::address::AddressRange;

/// Takes no `userfaultfd`.
///
/// # Errors
/// Always.
pub(super) fn userfaultfd(
    _pinned: &Pinned,
    _threads: &mut [Tracee],
    _vdso: AddressRange,
) -> Result<OwnedFd, Failure> {
    Err(Failure::Refused("this architecture has no code for it"))
}
