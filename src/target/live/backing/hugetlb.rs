//! Huge pages of hugetlbfs, whose files know no holes (`fs/hugetlbfs/inode.c` has no `llseek` of its own).

use std::fs::File;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr::NonNull;

use linux_raw_sys::general::{
    UFFD_FEATURE_MINOR_HUGETLBFS, UFFD_USER_MODE_ONLY, UFFDIO_REGISTER_MODE_MINOR, uffdio_continue,
    uffdio_range,
};
use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use rustix::fs::fstatfs;
use rustix::mm::{UserfaultfdFlags, userfaultfd};

use crate::common::address::{Address, AddressRange};
use crate::target::live::interrupted::retry;
use crate::target::live::userfault::{agree, register};

mod ioctl {
    use linux_raw_sys::general::{_UFFDIO_CONTINUE, UFFDIO, uffdio_continue};

    nix::ioctl_readwrite!(proceed, UFFDIO, _UFFDIO_CONTINUE, uffdio_continue);
}

/// Bytes of a file that are probed together: 131,072 pages of 2 MiB, in some 30 milliseconds.
const WINDOW: u64 = 256 << 30;

/// Finds the pages of a file that are allocated, and allocates none.
///
/// A private mapping of our own is registered with a `userfaultfd` for minor faults. `UFFDIO_CONTINUE` then
/// maps a page of the file where there is one, and says `EFAULT` where there is none
/// (ioctl_userfaultfd(2), `hugetlb_mfill_atomic_pte` in `mm/hugetlb.c`; since Linux 5.13).
#[derive(Debug)]
pub(super) struct Probe {
    userfault: OwnedFd,
    start: NonNull<std::ffi::c_void>,
    len: NonZeroUsize,
    /// Where in the file the mapping starts.
    offset: u64,
    page: u64,
}

impl Probe {
    /// Probes the file from `offset` on, up to `end` at most; `None` where the kernel does not do that.
    pub(super) fn new(file: &File, offset: u64, end: u64) -> Option<Self> {
        let page = u64::try_from(retry(|| fstatfs(file)).ok()?.f_bsize).ok()?;
        let offset = offset / page * page;
        let len = end
            .next_multiple_of(page)
            .checked_sub(offset)?
            .min(WINDOW / page * page);
        let len = NonZeroUsize::new(usize::try_from(len).ok()?)?;
        let userfault = open()?;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
        let position = i64::try_from(offset).ok()?;
        // SAFETY: a new mapping at an address of the kernel's choice; its bytes are never touched.
        let start = unsafe { mmap(None, len, ProtFlags::PROT_READ, flags, file, position) }.ok()?;
        let probe = Self {
            userfault,
            start,
            len,
            offset,
            page,
        };
        let first = Address::new(start.as_ptr() as u64);
        let all = AddressRange::new(first, first.plus(len.get() as u64))?;
        register(probe.userfault.as_fd(), all, UFFDIO_REGISTER_MODE_MINOR).ok()?;
        Some(probe)
    }

    /// How far it reaches.
    pub(super) fn end(&self) -> u64 {
        self.offset + self.len.get() as u64
    }

    /// Where the run of pages from `position` on ends that are all there, or all not there, as the flag says.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub(super) fn run(&self, position: u64) -> Result<(bool, u64), Errno> {
        let mut at = position / self.page * self.page;
        let first = self.is_allocated(at)?;
        while at < self.end() && (at <= position || self.is_allocated(at)? == first) {
            at += self.page;
        }
        Ok((first, at))
    }

    fn is_allocated(&self, position: u64) -> Result<bool, Errno> {
        let mut proceed = uffdio_continue {
            range: self.range(position, self.page),
            mode: 0,
            mapped: 0,
        };
        // SAFETY: the descriptor is open, and the argument is the structure that this request takes.
        match unsafe { ioctl::proceed(self.userfault.as_raw_fd(), &raw mut proceed) } {
            // It was mapped by an earlier probe of ours.
            Ok(_) | Err(Errno::EEXIST) => Ok(true),
            Err(Errno::EFAULT) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    fn range(&self, position: u64, len: u64) -> uffdio_range {
        uffdio_range {
            start: self.start.as_ptr() as u64 + (position - self.offset),
            len,
        }
    }
}

/// A `userfaultfd` for minor faults of huge pages; `None` where this user gets none.
fn open() -> Option<OwnedFd> {
    let only_ours = UserfaultfdFlags::from_bits_retain(UFFD_USER_MODE_ONLY);
    // SAFETY: nothing but the mapping of a probe, which is never touched, is registered with it.
    let userfault = unsafe { userfaultfd(UserfaultfdFlags::CLOEXEC | only_ours) }.ok()?;
    agree(userfault.as_fd(), UFFD_FEATURE_MINOR_HUGETLBFS).ok()?;
    Some(userfault)
}

/// Whether [`Probe`]s work for this user on this kernel.
pub(in crate::target::live) fn can_probe_huge_pages() -> bool {
    open().is_some()
}

impl Drop for Probe {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours alone, and no reference into it was ever made.
        if let Err(errno) = unsafe { munmap(self.start, self.len.get()) } {
            log::debug!("munmap: {errno}");
        }
    }
}
