//! The status of files, without asking a server and without opening anything.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use linux_raw_sys::general::{FUSE_SUPER_MAGIC, HUGETLBFS_MAGIC, OVERLAYFS_SUPER_MAGIC};
use nix::errno::Errno;
use rustix::fs::{AtFlags, CWD, FileType, FsWord, Statx, StatxFlags, fstatfs, readlinkat, statx};

use crate::common::address::AddressRange;
use crate::target::ProcessId;
use crate::target::live::interrupted::retry;
use crate::target::live::mounts::device_of;
use crate::target::live::pinned::Pinned;
use crate::target::live::shortage::found;
use crate::target::mapping::Device;

/// `/dev/zero`, whose private mappings are plain anonymous memory (`drivers/char/mem.c`).
const DEV_ZERO: (u32, u32) = (1, 5);

const OVERLAY: FsWord = OVERLAYFS_SUPER_MAGIC as FsWord;
const FUSE: FsWord = FUSE_SUPER_MAGIC as FsWord;
/// hugetlbfs.
pub(super) const HUGE: FsWord = HUGETLBFS_MAGIC as FsWord;

/// What tells two files apart that exist at the same time, as `stat` shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FileId {
    pub(super) device: Device,
    pub(super) inode: u64,
}

impl FileId {
    pub(super) fn of(status: &Statx) -> Self {
        Self {
            device: device_of(status),
            inode: status.stx_ino,
        }
    }
}

/// A kind of file system, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileSystemKind {
    /// The file that is open is the one that is mapped.
    Plain,
    /// Another file may be mapped than the one that opens under its name (overlayfs).
    Stacked,
    /// A server may have another file mapped in its place (FUSE passthrough).
    Served,
    /// hugetlbfs: it knows no holes.
    Huge,
}

impl FileSystemKind {
    pub(super) fn of(file: impl AsFd) -> Self {
        match retry(|| fstatfs(&file)).map(|status| status.f_type) {
            Ok(OVERLAY) => Self::Stacked,
            Ok(FUSE) => Self::Served,
            Ok(HUGE) => Self::Huge,
            _ => Self::Plain,
        }
    }
}

/// `statx` that asks no server: a network or FUSE file system that hangs must not hold us up.
///
/// # Errors
/// As [`found`], as of all others here.
pub(in crate::target::live) fn status(path: &Path) -> Result<Option<Statx>, Errno> {
    status_at(CWD, path)
}

fn status_at(directory: impl AsFd, path: &Path) -> Result<Option<Statx>, Errno> {
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    found(retry(|| {
        statx(&directory, path, flags, StatxFlags::BASIC_STATS)
    }))
}

/// The status of an open file.
pub(super) fn status_of_file(file: &File) -> Result<Option<Statx>, Errno> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    found(retry(|| statx(file, "", flags, StatxFlags::BASIC_STATS)))
}

/// The status of a file that a process has open, by its directory `fd`.
pub(super) fn status_of_descriptor(directory: &File, number: i32) -> Result<Option<Statx>, Errno> {
    status_at(directory, Path::new(&number.to_string()))
}

/// The type of a file.
pub(in crate::target::live) fn file_type(status: &Statx) -> FileType {
    FileType::from_raw_mode(u32::from(status.stx_mode))
}

pub(in crate::target::live) fn is_dev_zero(status: &Statx) -> bool {
    (status.stx_rdev_major, status.stx_rdev_minor) == DEV_ZERO
}

/// The name of a mapping's own link to its file, which needs `CAP_CHECKPOINT_RESTORE` or `CAP_SYS_ADMIN` to be
/// followed (proc_pid_map_files(5)).
fn link_name(range: AddressRange) -> String {
    format!("{:x}-{:x}", range.start().get(), range.end().get())
}

/// `map_files` of a process, to ask for many links of it: each is one step then, and not four.
#[derive(Debug)]
pub(in crate::target::live) struct MapFiles(Option<File>);

impl MapFiles {
    /// The directory of the pinned process, where there is one.
    pub(in crate::target::live) fn of(pinned: &Pinned) -> Result<Self, Errno> {
        Ok(Self(pinned.directory_if_there("map_files")?))
    }

    /// The status of the file of the mapping of just this range.
    pub(in crate::target::live) fn status(
        &self,
        range: AddressRange,
    ) -> Result<Option<Statx>, Errno> {
        self.at(range, |directory, link| status_at(directory, link))
    }

    /// The file of the mapping of just this range, without opening it.
    pub(super) fn place(&self, range: AddressRange) -> Result<Option<File>, Errno> {
        self.at(range, |directory, link| super::place(directory, link))
    }

    /// What the link of the mapping of just this range shows.
    pub(super) fn name(&self, range: AddressRange) -> Result<Option<Vec<u8>>, Errno> {
        let name = self.at(range, |directory, link| {
            found(retry(|| readlinkat(directory, link, Vec::new())))
        })?;
        Ok(name.map(std::ffi::CString::into_bytes))
    }

    /// Whether the file of the mapping of just this range is on overlayfs; `None` where it cannot be asked.
    pub(in crate::target::live) fn is_stacked(
        &self,
        range: AddressRange,
    ) -> Result<Option<bool>, Errno> {
        let place = self.place(range)?;
        Ok(place.map(|place| FileSystemKind::of(place) == FileSystemKind::Stacked))
    }

    /// What `ask` finds of the link of just this range; nothing where there are none.
    fn at<T>(
        &self,
        range: AddressRange,
        ask: impl FnOnce(&File, &Path) -> Result<Option<T>, Errno>,
    ) -> Result<Option<T>, Errno> {
        let directory = self.0.as_ref();
        directory.map_or(Ok(None), |directory| {
            ask(directory, Path::new(&link_name(range)))
        })
    }
}

/// Whether a path leads to a file on overlayfs.
pub(in crate::target::live) fn is_stacked_at(path: &Path) -> Result<bool, Errno> {
    let place = super::place(CWD, path)?;
    Ok(place.is_some_and(|place| FileSystemKind::of(place) == FileSystemKind::Stacked))
}

/// A path as the process sees it.
pub(in crate::target::live) fn path_in_root(task: ProcessId, path: &[u8]) -> std::path::PathBuf {
    let mut full = format!("/proc/{task}/root/").into_bytes();
    full.extend_from_slice(path);
    std::path::PathBuf::from(OsStr::from_bytes(&full))
}
