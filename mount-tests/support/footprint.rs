//! What looking at a process costs it, and what a sparse file holds.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

use super::run::current_test;
use super::{Output, pread, run_within};

/// Memory that a process uses, in KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Footprint {
    /// What `ps` shows (`VmRSS`).
    pub(crate) rss: u64,
    /// The same, counted page by page (`smaps_rollup`).
    pub(crate) pages: u64,
    /// Page tables (`VmPTE`).
    pub(crate) tables: u64,
    /// In swap.
    pub(crate) swap: u64,
}

impl Footprint {
    /// What the process uses now.
    #[track_caller]
    pub(crate) fn of(pid: u32) -> Self {
        let status = format!("/proc/{pid}/status");
        Self {
            rss: field(&status, "VmRSS:"),
            pages: field(&format!("/proc/{pid}/smaps_rollup"), "Rss:"),
            tables: field(&status, "VmPTE:"),
            swap: field(&status, "VmSwap:"),
        }
    }
}

/// The number after `name` in a file of `/proc`.
#[track_caller]
fn field(path: &str, name: &str) -> u64 {
    let text = std::fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let value = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in {path}"))
}

/// Bytes that a file takes up, by its `st_blocks`.
#[track_caller]
pub(crate) fn held(path: &Path) -> u64 {
    let status = path.metadata().unwrap_or_else(|e| panic!("{path:?}: {e}"));
    status.blocks() * 512
}

/// The stretches of data of an open file, as `SEEK_DATA` and `SEEK_HOLE` tell them.
#[track_caller]
pub(crate) fn extents(file: &File) -> Vec<(u64, u64)> {
    let mut extents = Vec::new();
    let mut at = 0;
    while let Some(data) = seek(file, at, Whence::SeekData).unwrap() {
        let hole = seek(file, data, Whence::SeekHole).unwrap();
        let hole = hole.expect("the end counts as a hole");
        assert!(data >= at && hole > data, "{at:#x}: {data:#x}-{hole:#x}");
        extents.push((data, hole));
        at = hole;
    }
    extents
}

/// One `lseek`; `None` for `ENXIO`.
pub(crate) fn seek(file: &File, offset: u64, whence: Whence) -> io::Result<Option<u64>> {
    match lseek(file, offset as i64, whence) {
        Ok(found) => Ok(Some(found as u64)),
        Err(Errno::ENXIO) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Runs a command that must be done within `limit`, and prints how long it took.
#[track_caller]
pub(crate) fn timed(what: &str, limit: Duration, command: &mut Command) -> Output {
    let started = Instant::now();
    let output = run_within(limit, command);
    measured(what, started.elapsed());
    output
}

/// Prints a figure.
pub(crate) fn measured(what: &str, time: Duration) {
    eprintln!("[{}] {what}: {:.3} s", current_test(), time.as_secs_f64());
}

/// One `pread` on a thread of its own, and how long it took; fails instead of
/// waiting for longer than `limit`.
#[track_caller]
pub(crate) fn pread_within(
    limit: Duration,
    file: &Arc<File>,
    offset: usize,
    len: usize,
) -> (io::Result<Vec<u8>>, Duration) {
    let (sender, receiver) = mpsc::channel();
    let file = Arc::clone(file);
    std::thread::spawn(move || {
        let started = Instant::now();
        let result = pread(&file, offset, len);
        let _ = sender.send((result, started.elapsed()));
    });
    receiver
        .recv_timeout(limit)
        .unwrap_or_else(|_| panic!("no answer to a read at {offset:#x} within {limit:?}"))
}
