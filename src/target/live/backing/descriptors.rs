//! Descriptors that the process itself has open: a copy of one reads its file without opening it.
//!
//! Nothing is opened, so no lease is broken, nobody who watches opens (fanotify(7)) is asked, and no server
//! of a network file system; the rights are those of the process's own open. See pidfd_getfd(2).

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use parking_lot::Mutex;
use rustix::process::{PidfdGetfdFlags, pidfd_getfd};

use super::status::{FileId, status_of_descriptor, status_of_file};
use crate::common::aged::Aged;
use crate::common::clock::Clock;
use crate::target::live::interrupted::retry;
use crate::target::live::kernel::{Feature, Kernel};
use crate::target::live::mounts::mounts_in;
use crate::target::live::pinned::Pinned;
use crate::target::live::shortage::found;
use crate::target::mapping::Device;

/// How long a list of descriptors is believed: what was opened since is found by its name meanwhile.
const LIFETIME: Duration = Duration::from_millis(100);
/// Making a list may take a tenth of the time.
const COST_FACTOR: u32 = 10;
/// Descriptors that are listed, of a process that may have a million of them.
const MOST: usize = 4096;

/// The descriptors of one process, by the file that they are on.
#[derive(Debug)]
pub(super) struct Descriptors {
    clock: Arc<dyn Clock>,
    kernel: Arc<Kernel>,
    /// Guards the last list. It is held while the next one is read from `/proc`, so that this is done once;
    /// inside it only the thread to ask is locked ([`Pinned::task`]).
    list: Mutex<Option<Aged<List>>>,
}

#[derive(Debug, Default)]
struct List {
    numbers: HashMap<FileId, Vec<i32>>,
    /// The device of each mount that the process sees, where some descriptor cannot be told without.
    mounts: Option<HashMap<u64, Device>>,
}

impl Descriptors {
    pub(super) fn new(clock: Arc<dyn Clock>, kernel: Arc<Kernel>) -> Self {
        Self {
            clock,
            kernel,
            list: Mutex::new(None),
        }
    }

    /// A copy of a descriptor that the process has open on the file, if it can be read.
    ///
    /// `name` is what `/proc` shows for it, since numbers do not tell all: segments of SysV shared memory have their
    /// identifiers as inode numbers, on the same device as memfds (`newseg` in `ipc/shm.c`).
    ///
    /// The copy shares its offset with the process: bytes must be read by `pread`, and nothing may seek.
    ///
    /// # Errors
    /// As [`found`].
    pub(super) fn copy(
        &self,
        pinned: &Pinned,
        wanted: FileId,
        name: &[u8],
    ) -> Result<Option<File>, Errno> {
        // A first thread that has ended has no descriptors any more, whatever the others have (`__pidfd_fget` in `kernel/pid.c`).
        if !self.kernel.has(Feature::PidfdGetfd) || !pinned.task().is_first() {
            return Ok(None);
        }
        let mut list = self.list.lock();
        let list = self.recent_list(&mut list, pinned)?;
        let numbers = list.numbers.get(&wanted).cloned().unwrap_or_default();
        for number in numbers {
            let copy = || pidfd_getfd(pinned.pidfd(), number, PidfdGetfdFlags::empty());
            let Some(copy) = found(retry(copy))? else {
                continue;
            };
            let file = File::from(copy);
            let id = match status_of_file(&file)? {
                Some(status) => Some(FileId::of(&status)),
                None => list.id_by_info(pinned, own_info(&file))?,
            };
            // It may be on another file by now.
            if id == Some(wanted) && is_named(&file, name)? && is_readable(&file) {
                return Ok(Some(file));
            }
        }
        Ok(None)
    }

    /// The list of a moment ago, or one of now.
    fn recent_list<'a>(
        &self,
        list: &'a mut Option<Aged<List>>,
        pinned: &Pinned,
    ) -> Result<&'a mut List, Errno> {
        let now = self.clock.now();
        let is_recent = |list: &Aged<List>| list.is_within(now, LIFETIME, COST_FACTOR);
        let recent = match list.take().filter(is_recent) {
            Some(recent) => recent,
            None => Aged::try_find(&*self.clock, || List::read(pinned))?,
        };
        Ok(list.insert(recent).value_mut())
    }
}

impl List {
    fn read(pinned: &Pinned) -> Result<Self, Errno> {
        let mut list = Self::default();
        let Some(directory) = pinned.directory_if_there("fd")? else {
            return Ok(list);
        };
        let task = pinned.task().number();
        let entries = found(retry(|| std::fs::read_dir(format!("/proc/{task}/fd"))))?;
        for entry in entries.into_iter().flatten().take(MOST) {
            let Some(entry) = found(entry)? else {
                break;
            };
            let name = entry.file_name();
            let Some(number) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let id = match status_of_descriptor(&directory, number)? {
                Some(status) => Some(FileId::of(&status)),
                // A FUSE file system of a user lets root see nothing of its files.
                None => {
                    let info = std::fs::read(format!("/proc/{task}/fdinfo/{number}"));
                    list.id_by_info(pinned, info)?
                }
            };
            if let Some(id) = id {
                list.numbers.entry(id).or_default().push(number);
            }
        }
        Ok(list)
    }

    /// The file of an open descriptor by its `fdinfo`, with the device that `maps` shows (proc_pid_fdinfo(5)).
    fn id_by_info(
        &mut self,
        pinned: &Pinned,
        info: std::io::Result<Vec<u8>>,
    ) -> Result<Option<FileId>, Errno> {
        let Some(info) = found(info)? else {
            return Ok(None);
        };
        let field = |name: &str| {
            let mut lines = info.split(|byte| *byte == b'\n');
            let value = lines.find_map(|line| line.strip_prefix(name.as_bytes()))?;
            std::str::from_utf8(value).ok()?.trim().parse::<u64>().ok()
        };
        let (Some(mount), Some(inode)) = (field("mnt_id:"), field("ino:")) else {
            return Ok(None);
        };
        let mounts = match &self.mounts {
            Some(mounts) => mounts,
            None => {
                let mountinfo = found(pinned.open_file("mountinfo"))?;
                let mounts = match mountinfo {
                    Some(file) => found(mounts_in(file, |_| true))?,
                    None => None,
                };
                let mounts = mounts.into_iter().flatten();
                let devices = mounts.map(|mount| (mount.id, mount.device)).collect();
                self.mounts.insert(devices)
            }
        };
        let device = mounts.get(&mount).copied();
        Ok(device.map(|device| FileId { device, inode }))
    }
}

/// Whether `/proc` shows this name for an open file.
fn is_named(file: &File, name: &[u8]) -> Result<bool, Errno> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let link = found(retry(|| std::fs::read_link(&path)))?;
    Ok(link.is_some_and(|link| link.as_os_str().as_bytes() == name))
}

fn own_info(file: &File) -> std::io::Result<Vec<u8>> {
    std::fs::read(format!("/proc/self/fdinfo/{}", file.as_raw_fd()))
}

/// Whether `pread` of any offset and length works: not for `O_PATH`, `O_WRONLY`, `O_DIRECT`.
fn is_readable(file: &File) -> bool {
    let Ok(flags) = retry(|| fcntl(file, FcntlArg::F_GETFL)) else {
        return false;
    };
    let flags = OFlag::from_bits_retain(flags);
    let accessible = flags & OFlag::O_ACCMODE != OFlag::O_WRONLY;
    accessible && !flags.intersects(OFlag::O_PATH | OFlag::O_DIRECT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_one_number_are_told_by_their_names() {
        let file = File::open("/proc/self/exe").unwrap();
        let path = std::env::current_exe().unwrap();
        assert_eq!(is_named(&file, path.as_os_str().as_bytes()), Ok(true));
        assert_eq!(is_named(&file, b"/SYSV00000000 (deleted)"), Ok(false));
    }

    #[test]
    fn descriptors_without_bytes_are_not_read() {
        use std::os::unix::fs::OpenOptionsExt;
        let open = |flags: OFlag| {
            let mut options = File::options();
            options.read(true).custom_flags(flags.bits());
            options.open("/proc/self/exe").unwrap()
        };
        assert!(is_readable(&open(OFlag::empty())));
        assert!(!is_readable(&open(OFlag::O_PATH)));
        let temporary = tempfile::NamedTempFile::new().unwrap();
        let only_write = File::options().write(true).open(temporary.path()).unwrap();
        assert!(!is_readable(&only_write));
    }
}
