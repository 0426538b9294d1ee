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
    pub(super) fn copy(&self, pinned: &Pinned, wanted: FileId, name: &[u8]) -> Option<File> {
        if !self.kernel.has(Feature::PidfdGetfd) {
            return None;
        }
        let mut list = self.list.lock();
        let list = self.recent_list(&mut list, pinned);
        let numbers = list.numbers.get(&wanted).cloned().unwrap_or_default();
        numbers.into_iter().find_map(|number| {
            let copy = || pidfd_getfd(pinned.pidfd(), number, PidfdGetfdFlags::empty());
            let copy = retry(copy).ok()?;
            let file = File::from(copy);
            let id = match status_of_file(&file) {
                Some(status) => FileId::of(&status),
                None => list.id_by_info(pinned, &own_info(&file)?)?,
            };
            // It may be on another file by now.
            (id == wanted && is_named(&file, name) && is_readable(&file)).then_some(file)
        })
    }

    /// The list of a moment ago, or one of now.
    fn recent_list<'a>(&self, list: &'a mut Option<Aged<List>>, pinned: &Pinned) -> &'a mut List {
        let now = self.clock.now();
        let is_old = |list: &Aged<List>| !list.is_within(now, LIFETIME, COST_FACTOR);
        if list.as_ref().is_some_and(is_old) {
            *list = None;
        }
        let list = list.get_or_insert_with(|| Aged::find(&*self.clock, || List::read(pinned)));
        list.value_mut()
    }
}

impl List {
    fn read(pinned: &Pinned) -> Self {
        let mut list = Self::default();
        let Ok(directory) = pinned.open_directory("fd") else {
            return list;
        };
        let task = pinned.task().number();
        let entries = retry(|| std::fs::read_dir(format!("/proc/{task}/fd")));
        let entries = entries.into_iter().flatten().map_while(Result::ok);
        for entry in entries.take(MOST) {
            let name = entry.file_name();
            let Some(number) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let id = match status_of_descriptor(&directory, number) {
                Some(status) => Some(FileId::of(&status)),
                // A FUSE file system of a user lets root see nothing of its files.
                None => std::fs::read(format!("/proc/{task}/fdinfo/{number}"))
                    .ok()
                    .and_then(|info| list.id_by_info(pinned, &info)),
            };
            if let Some(id) = id {
                list.numbers.entry(id).or_default().push(number);
            }
        }
        list
    }

    /// The file of an open descriptor by its `fdinfo`, with the device that `maps` shows (proc_pid_fdinfo(5)).
    fn id_by_info(&mut self, pinned: &Pinned, info: &[u8]) -> Option<FileId> {
        let field = |name: &str| {
            let mut lines = info.split(|byte| *byte == b'\n');
            let value = lines.find_map(|line| line.strip_prefix(name.as_bytes()))?;
            std::str::from_utf8(value).ok()?.trim().parse::<u64>().ok()
        };
        let (mount, inode) = (field("mnt_id:")?, field("ino:")?);
        let read = || {
            let mountinfo = pinned.open_file("mountinfo").ok();
            let mounts = mountinfo.and_then(|file| mounts_in(file, |_| true).ok());
            let mounts = mounts.into_iter().flatten();
            mounts.map(|mount| (mount.id, mount.device)).collect()
        };
        let mounts: &HashMap<_, _> = self.mounts.get_or_insert_with(read);
        let device = *mounts.get(&mount)?;
        Some(FileId { device, inode })
    }
}

/// Whether `/proc` shows this name for an open file.
fn is_named(file: &File, name: &[u8]) -> bool {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let link = retry(|| std::fs::read_link(&path));
    link.is_ok_and(|link| link.as_os_str().as_bytes() == name)
}

fn own_info(file: &File) -> Option<Vec<u8>> {
    std::fs::read(format!("/proc/self/fdinfo/{}", file.as_raw_fd())).ok()
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
        assert!(is_named(&file, path.as_os_str().as_bytes()));
        assert!(!is_named(&file, b"/SYSV00000000 (deleted)"));
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
