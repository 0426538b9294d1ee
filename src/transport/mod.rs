//! What brings requests from the kernel and takes answers back. A transport translates, and decides nothing.

pub mod fuser;
pub(crate) mod uring;

/// The largest read, in bytes, and the largest request over io_uring. Larger reads past the kernel's cache are cut up into such, which
/// are served side by side.
pub const MAX_READ: u32 = 256 << 10;

/// The largest request through `/dev/fuse`, in bytes: what the kernel takes without more privileges (`fs.fuse.max_pages_limit`).
pub const MAX_REQUEST: u32 = 1 << 20;
