//! Files that stay open for a snapshot.

use std::sync::Arc;

use rustix::fs::{FsWord, fstatfs};

use super::OpenFile;
use super::status::status_of_file;
use crate::target::live::interrupted::retry;
use crate::target::snapshot::{FileContent, HeldFile};

/// tmpfs and shared memory (`linux/magic.h`).
const TMPFS: FsWord = 0x0102_1994;
/// hugetlbfs.
const HUGETLBFS: FsWord = 0x9584_58f6;

/// What tells that a file has changed: its size, and when it was written and changed, in seconds and nanoseconds.
type Version = (u64, [(i64, u32); 2]);

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
        Ok(TMPFS | HUGETLBFS) | Err(_) => return FileContent::Memory,
        Ok(_) => (),
    }
    match version(&file) {
        Some(version) => FileContent::Held(Arc::new(Held { file, version })),
        None => FileContent::Unknown,
    }
}

fn version(file: &OpenFile) -> Option<Version> {
    let status = status_of_file(&file.file)?;
    let times = [status.stx_mtime, status.stx_ctime].map(|time| (time.tv_sec, time.tv_nsec));
    Some((status.stx_size, times))
}

impl HeldFile for Held {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> Option<usize> {
        let read = self.file.read(offset, buffer).ok()?;
        // After the read: what was read before a change is what was there.
        self.is_unchanged().then_some(read)
    }

    fn is_unchanged(&self) -> bool {
        version(&self.file).as_ref() == Some(&self.version)
    }
}
