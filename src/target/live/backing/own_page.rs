//! A page of a file that we have mapped ourselves, and never touch but through the kernel.

use std::fs::File;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

use crate::common::address::{Address, PAGE_SIZE};
use crate::target::live::pagemap::Pagemap;
use crate::target::live::vm;

/// The page, mapped privately and brought in: of a hole of shared memory that would allocate a page.
#[derive(Debug)]
pub(in crate::target::live) struct OwnPage {
    start: NonNull<std::ffi::c_void>,
    len: NonZeroUsize,
}

impl OwnPage {
    /// Maps the page at `offset`, which starts there.
    pub(super) fn map(file: &File, offset: u64) -> Option<Self> {
        let len = NonZeroUsize::new(PAGE_SIZE as usize)?;
        let offset = i64::try_from(offset).ok()?;
        // Populated by the call itself: a touch past the end of a file that was cut short would be fatal.
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_POPULATE;
        // SAFETY: a new mapping at an address of the kernel's choice; its bytes are never touched.
        let start = unsafe { mmap(None, len, ProtFlags::PROT_READ, flags, file, offset) }.ok()?;
        Some(Self { start, len })
    }

    /// A page of nothing, that nobody may read or write.
    pub(in crate::target::live) fn without_access() -> Option<Self> {
        let len = NonZeroUsize::new(PAGE_SIZE as usize)?;
        let (nothing, flags) = (ProtFlags::PROT_NONE, MapFlags::MAP_PRIVATE);
        // SAFETY: a new mapping at an address of the kernel's choice; its bytes are never touched.
        let start = unsafe { mmap_anonymous(None, len, nothing, flags) }.ok()?;
        Some(Self { start, len })
    }

    /// Its page frame; `None` without `CAP_SYS_ADMIN`.
    pub(super) fn frame(&self) -> Option<u64> {
        Pagemap::frame_in(&File::open("/proc/self/pagemap").ok()?, self.address())
    }

    /// Copies its bytes from `from` on.
    ///
    /// # Errors
    /// The kernel's refusal, as where the file was cut short meanwhile.
    pub(super) fn read(&self, from: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        vm::read_own(self.address().plus(from), buffer)
    }

    pub(in crate::target::live) fn address(&self) -> Address {
        Address::new(self.start.as_ptr() as u64)
    }
}

impl Drop for OwnPage {
    fn drop(&mut self) {
        // SAFETY: the page was mapped by `map`, and no reference into it was ever made.
        if let Err(errno) = unsafe { munmap(self.start, self.len.get()) } {
            log::debug!("munmap: {errno}");
        }
    }
}
