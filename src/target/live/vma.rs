//! The mapping at an address, as it is now: `PROCMAP_QUERY` (since Linux 6.11), or the text of `maps`.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use linux_raw_sys::general::{procmap_query, procmap_query_flags as flags};
use nix::errno::Errno;

use super::errno_of;
use super::interrupted::retry;
use super::kernel::{Feature, Kernel};
use crate::common::address::{Address, AddressRange};
use crate::target::mapping::{AddressSpace, Device};
use crate::target::page_state::Run;

/// A mapping, as far as its bytes depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Vma {
    pub(super) range: AddressRange,
    pub(super) readable: bool,
    pub(super) writable: bool,
    pub(super) shared: bool,
    /// Where in its file it starts, in bytes.
    pub(super) offset: u64,
    pub(super) device: Device,
    pub(super) inode: u64,
}

/// How addresses of a mapping become offsets in its file: by what is added, with an overflow dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileShift(u64);

impl FileShift {
    /// The offset of the byte at `address`.
    pub(super) fn offset_of(self, address: Address) -> u64 {
        address.get().wrapping_add(self.0)
    }
}

impl Vma {
    /// Where in its file the bytes are.
    pub(super) fn file_shift(&self) -> FileShift {
        FileShift(self.offset.wrapping_sub(self.range.start().get()))
    }

    /// Whether it has no file; a file can have the inode 0, but no file has the device 0.
    pub(super) fn is_anonymous(&self) -> bool {
        self.inode == 0 && self.device == Device::default()
    }
}

/// A pinned `/proc/PID/maps`.
#[derive(Debug)]
pub(super) struct Maps {
    file: Arc<File>,
    kernel: Arc<Kernel>,
}

mod ioctl {
    use linux_raw_sys::general::procmap_query as Query;

    nix::ioctl_readwrite!(procmap_query, b'f', 17, Query);
}

const READABLE: u64 = flags::PROCMAP_QUERY_VMA_READABLE as u64;
const WRITABLE: u64 = flags::PROCMAP_QUERY_VMA_WRITABLE as u64;
const SHARED: u64 = flags::PROCMAP_QUERY_VMA_SHARED as u64;
const COVERING_OR_NEXT: u64 = flags::PROCMAP_QUERY_COVERING_OR_NEXT_VMA as u64;

impl Maps {
    pub(super) fn new(file: Arc<File>, kernel: Arc<Kernel>) -> Self {
        Self { file, kernel }
    }

    /// The mappings of `range` and the gaps between them (`None`), in order and without a gap, each asked for when its
    /// turn comes. `known` is taken for the first if it holds the start of the range. An error ends them.
    pub(super) fn over(
        &self,
        range: AddressRange,
        known: Option<Vma>,
    ) -> impl Iterator<Item = Result<Run<Option<Vma>>, Errno>> {
        let mut at = range.start();
        let mut known = known.filter(|vma| vma.range.contains(at));
        std::iter::from_fn(move || {
            if at >= range.end() {
                return None;
            }
            let vma = match known.take() {
                Some(vma) => Ok(Some(vma)),
                None => self.at_or_after(at),
            };
            let vma = match vma {
                Ok(vma) => vma,
                Err(errno) => {
                    at = range.end();
                    return Some(Err(errno));
                }
            };
            let (end, state) = match vma {
                Some(vma) if vma.range.contains(at) => (vma.range.end(), Some(vma)),
                Some(next) => {
                    known = Some(next);
                    (next.range.start(), None)
                }
                None => (range.end(), None),
            };
            let part = AddressRange::new(at, end.min(range.end()))?;
            debug_assert!(!part.is_empty(), "a mapping that is there holds a byte");
            at = part.end();
            Some(Ok(Run { range: part, state }))
        })
    }

    /// The mapping that holds `address`, or the next one after it.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub(super) fn at_or_after(&self, address: Address) -> Result<Option<Vma>, Errno> {
        match self.kernel.has(Feature::ProcmapQuery) {
            true => query(&self.file, address),
            false => self.read(address),
        }
    }

    fn read(&self, address: Address) -> Result<Option<Vma>, Errno> {
        let mut text = Vec::new();
        loop {
            let from = text.len();
            text.resize(from + (1 << 16), 0);
            match retry(|| self.file.read_at(&mut text[from..], from as u64)) {
                Ok(read) => text.truncate(from + read),
                Err(error) => return Err(errno_of(&error)),
            }
            if text.len() == from {
                break;
            }
        }
        let space = AddressSpace::parse(&text).map_err(|_| Errno::EIO)?;
        Ok(space
            .mappings()
            .iter()
            .find(|mapping| mapping.range().end() > address)
            .map(|mapping| Vma {
                range: mapping.range(),
                readable: mapping.protection().read,
                writable: mapping.protection().write,
                shared: mapping.protection().shared,
                offset: mapping.offset(),
                device: mapping.device(),
                inode: mapping.inode(),
            }))
    }
}

/// As [`Maps::at_or_after`], by `PROCMAP_QUERY`; `ENOTTY` or `EINVAL` where the kernel does not know that.
pub(super) fn query(maps: &File, address: Address) -> Result<Option<Vma>, Errno> {
    let mut query = procmap_query {
        size: size_of::<procmap_query>() as u64,
        query_flags: COVERING_OR_NEXT,
        query_addr: address.get(),
        vma_start: 0,
        vma_end: 0,
        vma_flags: 0,
        vma_page_size: 0,
        vma_offset: 0,
        inode: 0,
        dev_major: 0,
        dev_minor: 0,
        vma_name_size: 0,
        build_id_size: 0,
        vma_name_addr: 0,
        build_id_addr: 0,
    };
    // SAFETY: the descriptor is open, and the argument is laid out as the kernel's, names its
    // own size and asks for no name or build ID, so that the kernel writes nowhere else.
    let ask = || unsafe { ioctl::procmap_query(maps.as_raw_fd(), &raw mut query) };
    match retry(ask) {
        Ok(_) => (),
        Err(Errno::ENOENT) => return Ok(None),
        Err(errno) => return Err(errno),
    }
    let range = AddressRange::new(Address::new(query.vma_start), Address::new(query.vma_end));
    Ok(range.map(|range| Vma {
        range,
        readable: query.vma_flags & READABLE != 0,
        writable: query.vma_flags & WRITABLE != 0,
        shared: query.vma_flags & SHARED != 0,
        offset: query.vma_offset,
        device: Device {
            major: query.dev_major,
            minor: query.dev_minor,
        },
        inode: query.inode,
    }))
}
