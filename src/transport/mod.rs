//! What brings requests from the kernel and takes answers back. A transport translates, and decides nothing.

pub mod fuser;
pub(crate) mod uring;

/// The largest request, in bytes. Larger reads past the kernel's cache are cut up into such, which are served side by side.
pub const MAX_REQUEST: u32 = 256 << 10;
