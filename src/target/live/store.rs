//! Pages of snapshots: in memory (memfd_create(2)), or in files of a directory that have no name.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use memmap2::{Advice, MmapMut, MmapOptions};
use nix::errno::Errno;
use rustix::fs::{
    CWD, FallocateFlags, MemfdFlags, Mode, OFlags, SealFlags, fallocate, fcntl_add_seals,
    ftruncate, memfd_create, openat, statvfs,
};

use super::errno_of;
use super::interrupted::retry;
use super::memory_limit;
use crate::common::error::{Error, Result};
use crate::target::snapshot::{NewStore, Store, StoreSource};

/// Makes stores in memory, or in a directory: what [`Capture`](crate::target::snapshot::Capture) puts pages into.
#[derive(Clone, Debug)]
pub struct LiveStores {
    directory: Option<PathBuf>,
}

impl LiveStores {
    /// Stores in files of `directory`; in memory where there is none.
    ///
    /// # Errors
    /// Why no file can be made there.
    pub fn new(directory: Option<PathBuf>) -> Result<Self> {
        let stores = Self { directory };
        stores.file(0)?;
        Ok(stores)
    }

    /// How many bytes all snapshots may take together where nobody says so: half of the memory, or what the disk has.
    pub fn default_budget(&self) -> u64 {
        match self.directory {
            None => memory_limit::total().unwrap_or(u64::MAX) / 2,
            Some(_) => u64::MAX,
        }
    }

    fn file(&self, len: u64) -> Result<File> {
        let made = match &self.directory {
            None => retry(|| memfd_create("procmemfs-snapshot", MEMORY)),
            Some(directory) => retry(|| openat(CWD, directory, UNNAMED, Mode::RUSR | Mode::WUSR)),
        };
        let file = File::from(made.map_err(|errno| refused("a file for a snapshot", errno))?);
        retry(|| ftruncate(&file, len))
            .map_err(|errno| refused("ftruncate of a snapshot", errno))?;
        Ok(file)
    }
}

const MEMORY: MemfdFlags = MemfdFlags::CLOEXEC.union(MemfdFlags::ALLOW_SEALING);

const UNNAMED: OFlags = OFlags::TMPFILE.union(OFlags::RDWR).union(OFlags::CLOEXEC);

fn refused(what: &'static str, errno: rustix::io::Errno) -> Error {
    Error::system(what, Errno::from_raw(errno.raw_os_error()))
}

impl StoreSource for LiveStores {
    fn create(&self, len: u64) -> Result<Box<dyn NewStore>> {
        let file = self.file(len)?;
        let options = MmapOptions::new();
        // SAFETY: nobody else has the file, which has no name: it is neither changed nor made shorter meanwhile. What is
        // read of it later is read by calls, once this is unmapped.
        let map = unsafe { options.map_mut(&file) };
        let map = map.map_err(|error| Error::system("mmap of a snapshot", errno_of(&error)))?;
        Ok(Box::new(Filling {
            file,
            map,
            is_on_disk: self.directory.is_some(),
        }))
    }

    fn available(&self) -> u64 {
        match &self.directory {
            None => memory_limit::available().unwrap_or(u64::MAX),
            Some(directory) => available_space(directory).unwrap_or(0),
        }
    }
}

fn available_space(directory: &Path) -> Option<u64> {
    let status = retry(|| statvfs(directory)).ok()?;
    status.f_bavail.checked_mul(status.f_frsize)
}

/// A store that is being filled, through a mapping of its file.
#[derive(Debug)]
struct Filling {
    file: File,
    map: MmapMut,
    is_on_disk: bool,
}

impl NewStore for Filling {
    fn prepare(&self, offset: u64, len: u64) -> Result<()> {
        if len == 0 {
            return Ok(());
        }
        if self.is_on_disk {
            // Else a full disk would show only when a page is written to.
            retry(|| fallocate(&self.file, FallocateFlags::empty(), offset, len))
                .map_err(|errno| refused("fallocate of a snapshot", errno))?;
        }
        let range = usize::try_from(offset).ok().zip(usize::try_from(len).ok());
        let (offset, len) = range.ok_or(Error::Invalid)?;
        match self.map.advise_range(Advice::PopulateWrite, offset, len) {
            Ok(()) => Ok(()),
            // Before Linux 5.14: pages come as they are filled.
            Err(error) if errno_of(&error) == Errno::EINVAL => Ok(()),
            Err(error) => Err(Error::system("memory for a snapshot", errno_of(&error))),
        }
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.map
    }

    fn keep(self: Box<Self>) -> Box<dyn Store> {
        // Not of a file on a disk; nobody else has it in either case.
        let _ = fcntl_add_seals(&self.file, SealFlags::SHRINK | SealFlags::GROW);
        Box::new(Kept(self.file))
    }
}

/// A file with pages.
#[derive(Debug)]
struct Kept(File);

impl Store for Kept {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.0
            .read_exact_at(buffer, offset)
            .map_err(|error| Error::system("read of a snapshot", errno_of(&error)))
    }

    fn discard(&self, offset: u64, len: u64) {
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if len > 0
            && let Err(errno) = retry(|| fallocate(&self.0, hole, offset, len))
        {
            log::debug!("memory of a snapshot stays: {errno}");
        }
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::common::address::PAGE_SIZE;

    const PAGE: usize = PAGE_SIZE as usize;

    fn check(stores: &LiveStores) {
        assert!(stores.available() > 0);
        let mut store = stores.create(1 << 40).unwrap();
        store.prepare(1 << 30, 2 * PAGE_SIZE).unwrap();
        let at = 1 << 30;
        store.bytes()[at..at + 2 * PAGE].fill(7);
        let kept = store.keep();
        let mut bytes = vec![0; 4 * PAGE];
        kept.read((1 << 30) - PAGE_SIZE, &mut bytes).unwrap();
        let expected = [[0; PAGE], [7; PAGE], [7; PAGE], [0; PAGE]].concat();
        assert!(bytes == expected);
        let blocks = || {
            let copy = kept.descriptor().unwrap().try_clone_to_owned().unwrap();
            File::from(copy).metadata().unwrap().blocks() * 512
        };
        let held = blocks();
        assert!((2 * PAGE_SIZE..1 << 20).contains(&held), "{held}");
        kept.discard(1 << 30, PAGE_SIZE);
        assert!(blocks() < held);
        kept.read(1 << 30, &mut bytes).unwrap();
        assert!(bytes[..2 * PAGE] == [[0; PAGE], [7; PAGE]].concat());
        assert!(kept.read(1 << 40, &mut bytes).is_err(), "past the end");
    }

    #[test]
    fn pages_are_kept_in_memory() {
        check(&LiveStores::new(None).unwrap());
    }

    #[test]
    fn pages_are_kept_in_a_directory() {
        let directory = tempfile::tempdir().unwrap();
        let stores = LiveStores::new(Some(directory.path().to_owned())).unwrap();
        check(&stores);
        let entries = std::fs::read_dir(directory.path()).unwrap();
        assert_eq!(entries.count(), 0, "without a name");
    }

    #[test]
    fn a_directory_that_takes_no_files_is_refused() {
        for path in ["/nowhere", "/proc"] {
            assert!(LiveStores::new(Some(path.into())).is_err(), "{path}");
        }
    }
}
