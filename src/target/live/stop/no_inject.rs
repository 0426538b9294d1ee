//! No thread is made to run anything on this architecture.

use std::os::fd::OwnedFd;

use super::{Pinned, Tracee};
use crate::common::address::AddressRange;

/// Why it is not done.
pub(super) type Refusal = &'static str;

/// Takes no `userfaultfd`.
///
/// # Errors
/// Always.
pub(super) fn userfaultfd(
    _pinned: &Pinned,
    _threads: &mut [Tracee],
    _vdso: AddressRange,
) -> Result<OwnedFd, Refusal> {
    Err("this architecture has no code for it")
}
