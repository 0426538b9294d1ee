//! Files that stay open for a snapshot.

use std::sync::Arc;

use linux_raw_sys::general::TMPFS_MAGIC;
use rustix::fs::{FsWord, fstatfs};

use super::OpenFile;
use super::status::{HUGE, status_of_file};
use crate::target::live::interrupted::retry;
use crate::target::snapshot::{FileContent, HeldFile};

/// tmpfs and shared memory.
const TMPFS: FsWord = TMPFS_MAGIC as FsWord;

/// A time in seconds and nanoseconds.
type Time = (i64, u32);

/// What tells that a file has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    size: u64,
    written: Time,
    changed: Time,
    links: u32,
}

impl Version {
    /// Whether a file that was `self` and is `now` holds the same bytes still. Whoever writes and then sets the time of writing back moves that
    /// of the change. So does whoever removes a name of it, as installing another file in its place does; that alone is not to take
    /// a snapshot's bytes away.
    fn holds_the_same(&self, now: &Self) -> bool {
        let is_unwritten = (self.size, self.written) == (now.size, now.written);
        is_unwritten && (self.changed == now.changed || self.links != now.links)
    }
}

/// A file as it was when it was first held.
#[derive(Debug)]
struct Held {
    file: Arc<OpenFile>,
    version: Version,
}

/// How an open file of a mapping can be kept.
pub(in crate::target::live) fn held_file(file: Arc<OpenFile>) -> FileContent {
    match retry(|| fstatfs(&file.file)).map(|status| status.f_type) {
        // A write through a mapping changes no time there.
        Ok(TMPFS | HUGE) | Err(_) => return FileContent::Memory,
        Ok(_) => (),
    }
    match version(&file) {
        Some(version) => FileContent::Held(Arc::new(Held { file, version })),
        None => FileContent::Unknown,
    }
}

fn version(file: &OpenFile) -> Option<Version> {
    let status = status_of_file(&file.file).ok().flatten()?;
    let [written, changed] =
        [status.stx_mtime, status.stx_ctime].map(|time| (time.tv_sec, time.tv_nsec));
    Some(Version {
        size: status.stx_size,
        written,
        changed,
        links: status.stx_nlink,
    })
}

impl HeldFile for Held {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> Option<usize> {
        let read = self.file.read(offset, buffer).ok()?;
        // After the read: what was read before a change is what was there.
        self.is_unchanged().then_some(read)
    }

    fn is_unchanged(&self) -> bool {
        version(&self.file).is_some_and(|now| self.version.holds_the_same(&now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_lost_a_name_holds_the_same_and_one_that_was_written_to_does_not() {
        let was = Version {
            size: 4096,
            written: (10, 5),
            changed: (10, 5),
            links: 1,
        };
        let changed = (20, 0);
        let table = [
            (was, true),
            (
                Version {
                    changed,
                    links: 0,
                    ..was
                },
                true,
            ),
            (Version { changed, ..was }, false),
            (
                Version {
                    written: changed,
                    changed,
                    ..was
                },
                false,
            ),
            (
                Version {
                    written: changed,
                    changed,
                    links: 0,
                    ..was
                },
                false,
            ),
            (Version { size: 0, ..was }, false),
        ];
        for (now, expected) in table {
            assert_eq!(was.holds_the_same(&now), expected, "{now:?}");
        }
    }
}
