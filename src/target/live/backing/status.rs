//! The status of files, without asking a server and without opening anything.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use linux_raw_sys::general::{FUSE_SUPER_MAGIC, HUGETLBFS_MAGIC, OVERLAYFS_SUPER_MAGIC};
use rustix::fs::{AtFlags, CWD, FileType, FsWord, Statx, StatxFlags, fstatfs, readlinkat, statx};

use crate::common::address::AddressRange;
use crate::target::ProcessId;
use crate::target::live::interrupted::retry;
use crate::target::live::mounts::device_of;
use crate::target::live::pinned::Pinned;
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
pub(in crate::target::live) fn status(path: &Path) -> Option<Statx> {
    status_at(CWD, path)
}

fn status_at(directory: impl AsFd, path: &Path) -> Option<Statx> {
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    retry(|| statx(&directory, path, flags, StatxFlags::BASIC_STATS)).ok()
}

/// The status of an open file.
pub(super) fn status_of_file(file: &File) -> Option<Statx> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    retry(|| statx(file, "", flags, StatxFlags::BASIC_STATS)).ok()
}

/// The status of a file that a process has open, by its directory `fd`.
pub(super) fn status_of_descriptor(directory: &File, number: i32) -> Option<Statx> {
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
    pub(in crate::target::live) fn of(pinned: &Pinned) -> Self {
        Self(pinned.open_directory("map_files").ok())
    }

    /// The status of the file of the mapping of just this range.
    pub(in crate::target::live) fn status(&self, range: AddressRange) -> Option<Statx> {
        status_at(self.0.as_ref()?, Path::new(&link_name(range)))
    }

    /// The file of the mapping of just this range, without opening it.
    pub(super) fn place(&self, range: AddressRange) -> Option<File> {
        super::place(self.0.as_ref()?, Path::new(&link_name(range)))
    }

    /// What the link of the mapping of just this range shows.
    pub(super) fn name(&self, range: AddressRange) -> Option<Vec<u8>> {
        let directory = self.0.as_ref()?;
        let name = retry(|| readlinkat(directory, link_name(range), Vec::new()));
        name.ok().map(std::ffi::CString::into_bytes)
    }

    /// Whether the file of the mapping of just this range is on overlayfs; `None` where it cannot be asked.
    pub(in crate::target::live) fn is_stacked(&self, range: AddressRange) -> Option<bool> {
        Some(FileSystemKind::of(self.place(range)?) == FileSystemKind::Stacked)
    }
}

/// Whether a path leads to a file on overlayfs.
pub(in crate::target::live) fn is_stacked_at(path: &Path) -> bool {
    super::place(CWD, path)
        .is_some_and(|place| FileSystemKind::of(place) == FileSystemKind::Stacked)
}

/// A path as the process sees it.
pub(in crate::target::live) fn path_in_root(task: ProcessId, path: &[u8]) -> std::path::PathBuf {
    let mut full = format!("/proc/{task}/root/").into_bytes();
    full.extend_from_slice(path);
    std::path::PathBuf::from(OsStr::from_bytes(&full))
}
