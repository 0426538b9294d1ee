//! How bytes of memory become bytes of a file.

mod core_file;
mod mapping_file;
mod range;
mod space_file;

pub use core_file::CoreFile;
pub use mapping_file::MappingFile;
pub use range::{Seek, Unreadable};
pub use space_file::{SPACE_SIZE, SpaceFile};

/// What becomes of bytes that cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FaultPolicy {
    /// They end the read, and are an error when it starts on one.
    #[default]
    Error,
    /// They read as zeros.
    Zero,
}

/// Whether a read may be answered with fewer bytes than lie before the end of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Short {
    /// Yes: direct I/O hands the count on.
    Allowed,
    /// No: in buffered mode the kernel takes a short answer for the end of
    /// the file, so it must be an error; the kernel then asks page by page.
    Refused,
}
