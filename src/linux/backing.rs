//! The file or shared memory object behind a mapping, read itself where the process has not mapped a page of it.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lru::LruCache;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{Whence, lseek};
use parking_lot::Mutex;
use rustix::fs::{AtFlags, CWD, FileType, Statx, StatxFlags, statx};

use super::pinned::Pinned;
use super::vma::Vma;
use crate::address::{AddressRange, PAGE_SIZE};
use crate::mapping::{Device, Mapping};
use crate::process::ProcessId;

/// `/dev/zero`, whose private mappings are plain anonymous memory (`drivers/char/mem.c`).
const DEV_ZERO: (u32, u32) = (1, 5);

/// Files that stay open for each process.
const KEPT: NonZeroUsize = NonZeroUsize::new(8).expect("not zero");

/// What is behind a mapping that has an inode.
#[derive(Debug)]
pub(super) enum Backing {
    /// A file or a shared memory object.
    File(File),
    /// `/dev/zero`: anonymous memory.
    Zeros,
    /// A device, or something that this user may not open: it is not touched.
    Closed,
}

/// The files behind one process's mappings.
#[derive(Debug)]
pub(super) struct BackingFiles {
    pid: ProcessId,
    open: Mutex<LruCache<Key, Arc<Backing>>>,
}

type Key = (u64, u64, u32, u32, u64);

impl BackingFiles {
    pub(super) fn new(pid: ProcessId) -> Self {
        Self {
            pid,
            open: Mutex::new(LruCache::new(KEPT)),
        }
    }

    /// Closes all of them: a file that is held cannot be unmounted, and a memfd keeps its memory.
    pub(super) fn close(&self) {
        let files = std::mem::replace(&mut *self.open.lock(), LruCache::new(KEPT));
        drop(files);
    }

    /// What is behind `vma`, which was asked for just now. `mapping` names the file, for plain users.
    pub(super) fn of(&self, vma: &Vma, mapping: &Mapping) -> Arc<Backing> {
        let key = (
            vma.range.start().get(),
            vma.offset,
            vma.device.major,
            vma.device.minor,
            vma.inode,
        );
        // An open file holds its inode, so the same numbers are the same file.
        if let Some(known) = self.open.lock().get(&key) {
            return Arc::clone(known);
        }
        let backing = Arc::new(self.find(vma, mapping));
        if let Backing::File(_) = *backing {
            // Closed outside the lock: that can take long on a file system that hangs.
            let evicted = self.open.lock().push(key, Arc::clone(&backing));
            drop(evicted);
        }
        backing
    }

    fn find(&self, vma: &Vma, mapping: &Mapping) -> Backing {
        let by_path = || {
            let known = !mapping.is_deleted() && mapping.inode() == vma.inode;
            known.then(|| path_in_root(self.pid, mapping.path()))
        };
        // Lazily, one after the other: the first serves whoever is privileged, and cannot be mistaken.
        std::iter::once((map_files_link(self.pid, vma.range), Sameness::Given))
            .chain(
                std::iter::once_with(by_path)
                    .flatten()
                    .map(|path| (path, Sameness::SamePath)),
            )
            .chain(
                std::iter::once_with(|| descriptors(self.pid))
                    .flatten()
                    .map(|path| (path, Sameness::Device)),
            )
            .find_map(|(path, sameness)| open_if_same(&path, vma, sameness))
            .unwrap_or(Backing::Closed)
    }
}

/// What shows, besides the inode's number, that a path leads to the file behind a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sameness {
    /// The kernel says so.
    Given,
    /// It is the mapping's own path. `maps` and `stat` show different devices on file systems
    /// that are made of several (btrfs, overlayfs), whose devices have no driver.
    SamePath,
    /// The device must be the same.
    Device,
}

impl Sameness {
    fn holds(self, status: &Statx, vma: &Vma) -> bool {
        let device = Device {
            major: status.stx_dev_major,
            minor: status.stx_dev_minor,
        };
        let same = match self {
            Self::Given => true,
            Self::SamePath => device == vma.device || (device.major == 0 && vma.device.major == 0),
            Self::Device => device == vma.device,
        };
        same && status.stx_ino == vma.inode
    }
}

/// Opens what `path` leads to, once it is known what that is: opening a device can have effects.
fn open_if_same(path: &Path, vma: &Vma, sameness: Sameness) -> Option<Backing> {
    let place = OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_PATH | OFlag::O_CLOEXEC).bits())
        .open(path)
        .ok()?;
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let status = statx(&place, "", flags, StatxFlags::BASIC_STATS).ok()?;
    if !sameness.holds(&status, vma) {
        return None;
    }
    match FileType::from_raw_mode(u32::from(status.stx_mode)) {
        FileType::RegularFile => reopen(&place).map(Backing::File),
        FileType::CharacterDevice if is_dev_zero(&status) => Some(Backing::Zeros),
        _ => Some(Backing::Closed),
    }
}

/// Reads from `offset` on; returns the bytes up to the end of the page in which the file ends.
///
/// # Errors
/// The kernel's refusal.
pub(super) fn read(file: &File, offset: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => {
                // Behind the end of the file its last page is filled up with zeros (mmap(2)).
                let end = offset + done as u64;
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
            Err(error) => return Err(error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)),
        }
    }
    Ok(done)
}

/// Whether `offset`, at or behind the end of the file, lies in the page in which the file ends.
fn file_ends_in_page(file: &File, offset: u64) -> bool {
    file.metadata()
        .is_ok_and(|status| offset < status.len().next_multiple_of(PAGE_SIZE))
}

/// Where the next data or hole of the file starts, from `offset` on; `None` behind the last.
///
/// # Errors
/// Where the file system cannot tell.
pub(super) fn seek(file: &File, offset: u64, whence: Whence) -> Result<Option<u64>, Errno> {
    let offset = i64::try_from(offset).map_err(|_| Errno::EINVAL)?;
    // The position that this moves is nobody's: bytes are read by `pread`.
    match lseek(file.as_fd(), offset, whence) {
        Ok(found) => Ok(u64::try_from(found).ok()),
        Err(Errno::ENXIO) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// The file's own link, which needs `CAP_CHECKPOINT_RESTORE` or `CAP_SYS_ADMIN` to be followed (proc_pid_map_files(5)).
pub(super) fn map_files_link(pid: ProcessId, range: AddressRange) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/map_files/{}", link_name(range)))
}

fn link_name(range: AddressRange) -> String {
    format!("{:x}-{:x}", range.start().get(), range.end().get())
}

/// `map_files` of a process, for those who ask for many links of it: each is one step then, and not four.
#[derive(Debug)]
pub(super) struct MapFiles(Option<File>);

impl MapFiles {
    /// The directory of the pinned process, where there is one.
    pub(super) fn of(pinned: &Pinned) -> Self {
        Self(pinned.open_directory("map_files").ok())
    }

    /// The status of the file behind the mapping of just this range.
    pub(super) fn status(&self, range: AddressRange) -> Option<Statx> {
        status_at(self.0.as_ref()?, Path::new(&link_name(range)))
    }
}

/// The process's own descriptors: a memfd or a deleted file is often open still.
fn descriptors(pid: ProcessId) -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
}

/// A path as the process sees it.
pub(super) fn path_in_root(pid: ProcessId, path: &[u8]) -> PathBuf {
    let mut full = format!("/proc/{pid}/root/").into_bytes();
    full.extend_from_slice(path);
    PathBuf::from(OsStr::from_bytes(&full))
}

/// `statx` that asks no server: a network or FUSE file system that hangs must not hold us up.
pub(super) fn status(path: &Path) -> Option<Statx> {
    status_at(CWD, path)
}

fn status_at(directory: impl AsFd, path: &Path) -> Option<Statx> {
    let flags = AtFlags::STATX_DONT_SYNC;
    statx(directory, path, flags, StatxFlags::BASIC_STATS).ok()
}

/// Whether it is `/dev/zero`.
pub(super) fn is_dev_zero(status: &Statx) -> bool {
    (status.stx_rdev_major, status.stx_rdev_minor) == DEV_ZERO
}

/// Opens for reading what is held already, without a trace in its access time if this user may do that.
fn reopen(place: &File) -> Option<File> {
    let path = format!("/proc/self/fd/{}", place.as_raw_fd());
    let open = |flags: OFlag| {
        OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits())
            .open(&path)
    };
    open(OFlag::O_NONBLOCK | OFlag::O_NOATIME)
        .or_else(|_| open(OFlag::O_NONBLOCK))
        .ok()
}
