//! Bytes and holes of an open file.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

use super::hugetlb::Probe;
use super::own_page::OwnPage;
use crate::common::address::{AddressRange, PAGE_SIZE};
use crate::target::live::errno_of;
use crate::target::live::interrupted::retry;
use crate::target::page_state::{Extent, PageState, push};

/// Bytes that were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Read {
    /// How many, up to the end of the page in which the file ends.
    pub(super) done: usize,
    /// How many of them lie before the end of the file; those past it were filled with zeros.
    pub(super) before_end: usize,
}

/// Reads from `offset` on.
///
/// # Errors
/// The kernel's refusal.
pub(super) fn read(file: &File, offset: u64, buffer: &mut [u8]) -> Result<Read, Errno> {
    let mut done = 0;
    let mut before_end = None;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => {
                // Past the end of the file its last page is filled up with zeros (mmap(2)).
                let end = offset + done as u64;
                before_end = Some(done);
                let left = end.next_multiple_of(PAGE_SIZE) - end;
                let filled = usize::try_from(left)
                    .map_or(buffer.len(), |left| buffer.len().min(done + left));
                if done > 0 || file_ends_in_page(file, end) {
                    buffer[done..filled].fill(0);
                    done = filled;
                }
                break;
            }
            Ok(read) => done += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => (),
            Err(_) if done > 0 => break,
            Err(error) => return Err(errno_of(&error)),
        }
    }
    let before_end = before_end.unwrap_or(done);
    Ok(Read { done, before_end })
}

/// Fills in what lies past the end of the file in its last page: zeros, unless somebody has written there through a
/// mapping, which the page in memory keeps. A hole stays one: its page would be allocated.
pub(super) fn read_past_end(file: &File, offset: u64, buffer: &mut [u8]) {
    let page = offset / PAGE_SIZE * PAGE_SIZE;
    let is_data = matches!(seek(file, page, Whence::SeekData), Ok(Some(data)) if data < offset);
    if is_data && let Some(own) = OwnPage::map(file, page) {
        let mut bytes = vec![0; buffer.len()];
        if own.read(offset - page, &mut bytes).is_ok() {
            buffer.copy_from_slice(&bytes);
        }
    }
}

/// Whether `offset`, at or past the end of the file, lies in the page in which the file ends.
fn file_ends_in_page(file: &File, offset: u64) -> bool {
    retry(|| file.metadata()).is_ok_and(|status| offset < status.len().next_multiple_of(PAGE_SIZE))
}

/// How the holes of a file are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holes {
    /// By `SEEK_DATA` and `SEEK_HOLE`, which move the file's offset: it must be nobody else's.
    Seek,
    /// By a probe of each huge page of hugetlbfs.
    Probe,
    /// All of it is one where nothing of the file is allocated.
    Blocks,
    /// It has none, or nobody can tell.
    None,
}

/// Data, holes and the end of a file, as extents of the range that maps it from `offset` on, until there are
/// `at_most`; returns how far it got.
pub(super) fn extents(
    file: &File,
    holes: Holes,
    offset: u64,
    range: AddressRange,
    at_most: usize,
    extents: &mut Vec<Extent>,
) -> crate::common::address::Address {
    // Where it may not be asked for, all of the mapping may be there.
    let size = retry(|| file.metadata()).map_or(u64::MAX >> 1, |status| status.len());
    let end = size.next_multiple_of(PAGE_SIZE);
    let mapped_end = offset.saturating_add(range.len()).min(end);
    let at = |position: u64| range.start().plus(position.saturating_sub(offset));
    let mut position = offset;
    let mut probe = None;
    while position < mapped_end {
        if extents.len() >= at_most {
            return at(position);
        }
        let (data, hole) = match holes {
            Holes::None => (position, mapped_end),
            Holes::Seek => data_and_hole(file, position, mapped_end),
            Holes::Probe => probed(file, &mut probe, position, mapped_end),
            Holes::Blocks => allocated(file, position, mapped_end),
        };
        for (from, to, state) in [
            (position, data, PageState::Zero),
            (data, hole, PageState::File),
        ] {
            if let Some(part) = AddressRange::new(at(from), at(to)) {
                push(extents, part, state);
            }
        }
        position = hole;
    }
    if let Some(rest) = AddressRange::new(at(mapped_end.max(offset)), range.end()) {
        push(extents, rest, PageState::Unreadable);
    }
    range.end()
}

/// Where the next data starts and ends, from `position` on and before `end`.
fn data_and_hole(file: &File, position: u64, end: u64) -> (u64, u64) {
    let data = match seek(file, position, Whence::SeekData) {
        Ok(data) => data.unwrap_or(end),
        // Who cannot tell holes from data may have data everywhere.
        Err(_) => position,
    };
    let data = data.clamp(position, end);
    let hole = match seek(file, data, Whence::SeekHole) {
        Ok(Some(hole)) => hole.clamp(data, end),
        Ok(None) | Err(_) => end,
    };
    // A file system that cannot tell says that all is data; one that answers oddly must not stop us.
    (data, if hole == position { end } else { hole })
}

/// As [`data_and_hole`], of huge pages. What a probe does not see is taken for data.
fn probed(file: &File, probe: &mut Option<Probe>, position: u64, end: u64) -> (u64, u64) {
    if probe.as_ref().is_none_or(|probe| probe.end() <= position) {
        *probe = Probe::new(file, position, end);
    }
    match probe.as_ref().map(|probe| probe.run(position)) {
        Some(Ok((true, hole))) => (position, hole.min(end)),
        Some(Ok((false, data))) => (data.min(end), data.min(end)),
        Some(Err(_)) | None => allocated(file, position, end),
    }
}

/// As [`data_and_hole`], where only the number of blocks tells. What has any may have them everywhere.
fn allocated(file: &File, position: u64, end: u64) -> (u64, u64) {
    match retry(|| file.metadata()) {
        Ok(status) if status.blocks() == 0 => (end, end),
        _ => (position, end),
    }
}

/// Where the next data or hole of the file starts, from `offset` on; `None` past the last.
///
/// # Errors
/// Where the file system cannot tell.
fn seek(file: &File, offset: u64, whence: Whence) -> Result<Option<u64>, Errno> {
    let offset = i64::try_from(offset).map_err(|_| Errno::EINVAL)?;
    match retry(|| lseek(file.as_fd(), offset, whence)) {
        Ok(found) => Ok(u64::try_from(found).ok()),
        Err(Errno::ENXIO) => Ok(None),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use nix::sys::memfd::{MFdFlags, memfd_create};
    use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

    use super::*;

    /// SEMANTICS: for each address what `/proc/PID/mem` gives.
    #[test]
    fn bytes_past_the_end_of_a_file_are_those_of_the_page() {
        let file = File::from(memfd_create(c"tail", MFdFlags::MFD_CLOEXEC).unwrap());
        file.set_len(100).unwrap();
        let read = || {
            let mut bytes = [0xee; 300];
            let read = super::read(&file, 0, &mut bytes).unwrap();
            assert_eq!((read.done, read.before_end), (300, 100));
            read_past_end(&file, 100, &mut bytes[100..]);
            bytes
        };
        assert_eq!(read(), [0; 300]);
        assert_eq!(file.metadata().unwrap().blocks(), 0, "it is a hole still");
        let len = NonZeroUsize::new(PAGE_SIZE as usize).unwrap();
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no other memory.
        let start = unsafe { mmap(None, len, access, MapFlags::MAP_SHARED, &file, 0) }.unwrap();
        let byte = (start.as_ptr() as usize + 200) as *mut u8;
        // SAFETY: the byte lies in the page that was mapped just now.
        unsafe { byte.write_volatile(b'A') };
        assert_eq!(read()[200], b'A');
        assert_eq!(read()[..200], [0; 200]);
        // SAFETY: nothing refers to the mapping any more.
        unsafe { munmap(start, len.get()) }.unwrap();
    }
}
