//! What every mount test uses: a mount, a target, a command, a deadline.

mod abort;
mod cgroup;
mod client;
mod footprint;
mod hung;
mod inside;
mod leftovers;
mod machine;
mod mount;
mod needs;
mod programs;
mod run;
mod runtimes;
mod stats;
mod target;
mod terminal;
mod threads;
mod workload;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

pub(crate) use cgroup::{FrozenGroup, MemoryGroup, ProcessGroup};
pub(crate) use client::{Client, Width, build_client};
pub(crate) use footprint::{Footprint, extents, held, measured, pread_within, seek, timed};
pub(crate) use hung::{Hang, HungFs, descriptors};
pub(crate) use inside::Inside;
pub(crate) use machine::Turn;
pub(crate) use mount::{
    Mount, MountPoint, built_binary, daemon_binary, daemon_on, daemons_on, end_with_us, is_mounted,
    thread_call, unmount, unmount_lazily,
};
pub(crate) use needs::{GONE, Need, Test, fsx, has_rings, is_over_rings, python_with, tests, tool};
pub(crate) use programs::{Program, secret};
pub(crate) use run::{Output, current_test, install, lines_of, quote, run, run_within, sh};
pub(crate) use stats::Stats;
pub(crate) use target::{Region, Target};
pub(crate) use terminal::Terminal;
pub(crate) use threads::{field, of_threads};
pub(crate) use workload::{TABLE, Workload};

#[path = "../target/pattern.rs"]
pub(crate) mod pattern;
#[path = "../target/scatter.rs"]
pub(crate) mod scatter;

/// The page size that the tests count in.
pub(crate) const PAGE: usize = 4096;

/// How long anything may take that should be immediate.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// What a busy machine may add to what is promised. Far from what hangs, and far above what was ever measured: a test tells whether
/// somebody waits for something, a benchmark for how long.
pub(crate) const BUSY: Duration = Duration::from_secs(8);

/// How many rounds a test goes: `long` with `PROCMEMFS_LONG` set, else `short`.
pub(crate) fn rounds(short: u64, long: u64) -> u64 {
    match std::env::var_os("PROCMEMFS_LONG") {
        Some(_) => long,
        None => short,
    }
}

/// Asks again and again until `probe` has an answer; fails after `SOON`.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(answer) = probe() {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {SOON:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The name of an errno, for messages.
pub(crate) fn errno_name(errno: i32) -> String {
    format!("{:?}", nix::errno::Errno::from_raw(errno))
}

/// Fails unless `result` is the error `errno`.
#[track_caller]
pub(crate) fn expect_errno<T>(what: &str, result: io::Result<T>, errno: i32) {
    match result {
        Ok(_) => panic!("{what}: expected {}, but it succeeded", errno_name(errno)),
        Err(error) => assert_eq!(
            error.raw_os_error(),
            Some(errno),
            "{what}: expected {}, got {error}",
            errno_name(errno)
        ),
    }
}

/// One `pread` of at most `len` bytes.
pub(crate) fn pread(file: &File, offset: usize, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0xa5; len];
    let count = file.read_at(&mut bytes, offset as u64)?;
    bytes.truncate(count);
    Ok(bytes)
}

/// One `pread` that must give all `len` bytes.
#[track_caller]
pub(crate) fn pread_all(file: &File, offset: usize, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xa5; len];
    if let Err(error) = file.read_exact_at(&mut bytes, offset as u64) {
        panic!("read of {len} bytes at {offset}: {error}");
    }
    bytes
}

/// A page of an open file; `None` for `EIO`.
pub(crate) fn page_or_hole(file: &File, offset: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = vec![0xa5; PAGE];
    match file.read_exact_at(&mut bytes, offset) {
        Ok(()) => Ok(Some(bytes)),
        Err(error) if error.raw_os_error() == Some(libc::EIO) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Opens a file of the mount for reading.
#[track_caller]
pub(crate) fn open(path: &Path) -> File {
    File::open(path).unwrap_or_else(|error| panic!("open {path:?}: {error}"))
}

/// Opens a file of the mount for reading and writing.
pub(crate) fn open_rw(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

/// Opens a file with additional `open(2)` flags.
pub(crate) fn open_flags(path: &Path, write: bool, flags: i32) -> io::Result<File> {
    OpenOptions::new()
        .read(!write)
        .write(write)
        .custom_flags(flags)
        .open(path)
}

/// Makes the kernel forget the pages of an open file that it has cached.
pub(crate) fn drop_kernel_pages(file: &File) {
    use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
    posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
}

/// Fails with the first difference instead of two screens of numbers.
#[track_caller]
pub(crate) fn assert_bytes(what: &str, got: &[u8], expected: &[u8]) {
    assert_eq!(got.len(), expected.len(), "{what}: number of bytes");
    if let Some(at) = (0..got.len()).find(|&at| got[at] != expected[at]) {
        let end = got.len().min(at + 16);
        panic!(
            "{what}: first difference at {at:#x}: got {:02x?}, expected {:02x?}",
            &got[at..end],
            &expected[at..end]
        );
    }
}

/// A sequence of numbers that is the same each time.
#[derive(Debug)]
pub(crate) struct Numbers(u64);

impl Numbers {
    /// The sequence that `seed` names.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number, which is smaller than `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}
