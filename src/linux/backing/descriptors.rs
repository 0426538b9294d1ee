//! Descriptors that the process itself has open: a copy of one reads its file without opening it.
//!
//! Nothing is opened, so no lease is broken, nobody who watches opens (fanotify(7)) is asked, and no server
//! of a network file system; the rights are those of the process's own open. See pidfd_getfd(2).

use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use parking_lot::Mutex;
use rustix::process::{PidfdGetfdFlags, pidfd_getfd};

use super::status::{FileId, status_of_descriptor, status_of_file};
use crate::clock::Clock;
use crate::linux::pinned::Pinned;

/// How long a list of descriptors is believed: what was opened since is found by its name meanwhile.
const LIFETIME: Duration = Duration::from_millis(100);
/// Making a list may take a tenth of the time.
const COST_FACTOR: u32 = 10;
/// Descriptors that are looked at, of a process that may have a million of them.
const MOST: usize = 4096;

/// The descriptors of one process, by the file that they are on.
#[derive(Debug)]
pub(super) struct Descriptors {
    clock: Arc<dyn Clock>,
    list: Mutex<Option<List>>,
}

#[derive(Debug)]
struct List {
    numbers: HashMap<FileId, Vec<i32>>,
    taken: Duration,
    cost: Duration,
}

impl Descriptors {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            list: Mutex::new(None),
        }
    }

    /// A copy of a descriptor that the process has open on the file, if it can be read.
    ///
    /// The copy shares its offset with the process: bytes must be read by `pread`, and nothing may seek.
    pub(super) fn copy(&self, pinned: &Pinned, wanted: FileId) -> Option<File> {
        let numbers = self.numbers(pinned, wanted);
        numbers.into_iter().find_map(|number| {
            let copy = pidfd_getfd(pinned.pidfd(), number, PidfdGetfdFlags::empty()).ok()?;
            let file = File::from(copy);
            // It may be on another file by now.
            let same = FileId::of(&status_of_file(&file)?) == wanted;
            (same && is_readable(&file)).then_some(file)
        })
    }

    fn numbers(&self, pinned: &Pinned, wanted: FileId) -> Vec<i32> {
        let mut list = self.list.lock();
        let now = self.clock.now();
        let is_recent = |list: &List| {
            let lifetime = LIFETIME.max(list.cost * COST_FACTOR);
            now.saturating_sub(list.taken) <= lifetime
        };
        let known = match list.take().filter(is_recent) {
            Some(recent) => recent,
            None => {
                let numbers = read(pinned);
                let cost = self.clock.now().saturating_sub(now);
                List {
                    numbers,
                    taken: now,
                    cost,
                }
            }
        };
        let found = known.numbers.get(&wanted).cloned().unwrap_or_default();
        *list = Some(known);
        found
    }
}

fn read(pinned: &Pinned) -> HashMap<FileId, Vec<i32>> {
    let mut numbers: HashMap<FileId, Vec<i32>> = HashMap::new();
    let Ok(directory) = pinned.open_directory("fd") else {
        return numbers;
    };
    let path = format!("/proc/{}/fd", pinned.task().number());
    let entries = std::fs::read_dir(path).into_iter().flatten();
    for entry in entries.map_while(Result::ok).take(MOST) {
        let number = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        if let Some(number) = number
            && let Some(status) = status_of_descriptor(&directory, number)
        {
            numbers.entry(FileId::of(&status)).or_default().push(number);
        }
    }
    numbers
}

/// Whether `pread` of any offset and length works: not for `O_PATH`, `O_WRONLY`, `O_DIRECT`.
fn is_readable(file: &File) -> bool {
    let Ok(flags) = fcntl(file, FcntlArg::F_GETFL) else {
        return false;
    };
    let flags = OFlag::from_bits_retain(flags);
    let accessible = flags & OFlag::O_ACCMODE != OFlag::O_WRONLY;
    accessible && !flags.intersects(OFlag::O_PATH | OFlag::O_DIRECT)
}
