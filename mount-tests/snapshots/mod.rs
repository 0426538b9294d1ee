//! Snapshots: `mkdir snap/PID@NAME` takes one, `rmdir` drops it.

mod budget;
mod contents;
mod faulty;
mod files;
mod given_up;
mod inject;
mod moment;
mod names;
mod reading;
mod refusals;
mod tools;
mod users;

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::support::{Mount, Region, Target, Test, eventually, field};

/// The tests of all these modules.
pub(crate) fn tests() -> Vec<Test> {
    [
        faulty::tests(),
        given_up::tests(),
        inject::tests(),
        moment::tests(),
        contents::tests(),
        files::tests(),
        budget::tests(),
        names::tests(),
        reading::tests(),
        refusals::tests(),
        tools::tests(),
        users::tests(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Where the snapshot of this name is, or is to be.
fn at(mount: &Mount, name: &str) -> PathBuf {
    mount.path("snap").join(name)
}

/// Takes a snapshot of a process, and returns its directory.
#[track_caller]
fn take(mount: &Mount, pid: u32, name: &str) -> PathBuf {
    let path = at(mount, &format!("{pid}@{name}"));
    std::fs::create_dir(&path).unwrap_or_else(|error| panic!("mkdir {path:?}: {error}"));
    path
}

/// The names in a directory, sorted.
#[track_caller]
fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap_or_else(|error| panic!("{dir:?}: {error}"));
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// The file of a mapping in the directory of a process that was copied.
#[track_caller]
fn file_of(dir: &Path, region: &Region) -> PathBuf {
    let prefix = format!("{:012x}-{:012x}.", region.start, region.end);
    let names = names(dir);
    let name = names.iter().find(|name| name.starts_with(&prefix));
    dir.join(name.unwrap_or_else(|| panic!("no {prefix}* among {names:#?}")))
}

/// Bytes of memory that the daemon keeps for snapshots.
fn stored(mount: &Mount) -> u64 {
    let dir = format!("/proc/{}/fd", mount.daemon());
    let descriptors = std::fs::read_dir(dir).unwrap();
    let stores = descriptors.filter_map(|entry| {
        let path = entry.ok()?.path();
        let target = std::fs::read_link(&path).ok()?;
        let is_store = target.to_str()?.starts_with("/memfd:procmemfs-snapshot");
        is_store.then(|| std::fs::metadata(path).ok())?
    });
    stores.map(|status| status.blocks() * 512).sum()
}

/// Nothing of any snapshot is left: no name, and no memory.
#[track_caller]
fn nothing_is_left(mount: &Mount) {
    assert_eq!(names(&mount.path("snap")), [""; 0]);
    eventually("the memory is given back", || {
        (stored(mount) == 0).then_some(())
    });
}

/// The target goes on: it answers, and nobody traces it.
#[track_caller]
fn runs_on(target: &mut Target) {
    let start = target.region("private").start;
    target.read(start, 8);
    eventually("nobody traces it", || {
        (status_of(target.pid(), "TracerPid:") == "0").then_some(())
    });
}

/// A field of `/proc/PID/status`.
#[track_caller]
fn status_of(pid: u32, name: &str) -> String {
    let text = std::fs::read(format!("/proc/{pid}/status")).unwrap();
    let text = String::from_utf8_lossy(&text).into_owned();
    let value = field(&text, name);
    value
        .unwrap_or_else(|| panic!("no {name} in {text}"))
        .to_owned()
}

/// Waits until a process is in this state, as `ps` shows it.
#[track_caller]
fn wait_for_state(pid: u32, state: char) {
    eventually("the state of a process", || {
        status_of(pid, "State:").starts_with(state).then_some(())
    });
}

/// Makes the directory `name` in `snap`.
fn mkdir(mount: &Mount, name: &str) -> io::Result<()> {
    std::fs::create_dir(at(mount, name))
}

/// The first eight bytes of a page, as the number that the target counts in.
#[track_caller]
fn word(file: &File, offset: usize) -> u64 {
    let bytes = crate::support::pread_all(file, offset, 8);
    u64::from_ne_bytes(bytes.try_into().expect("eight bytes"))
}
