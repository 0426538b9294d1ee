//! What snapshots may take, and where they keep it.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{file_of, mkdir, names, nothing_is_left, runs_on, stored, take};
use crate::faults::{Injection, unfiltered};
use crate::support::{
    Mount, MountPoint, Program, Target, assert_bytes, daemon_binary, eventually, expect_errno, run,
    tests, unmount_lazily,
};

tests![
    more_than_snap_size_is_refused,
    a_dropped_one_gives_its_room_back,
    pages_lie_in_snap_dir,
    a_full_disk_is_refused: [Need::Root],
    a_disk_that_others_fill_is_refused: [Need::Root],
    a_disk_that_fills_up_meanwhile_is_refused: [Need::Root, Need::Tool("strace")],
    a_directory_that_cannot_be_used_is_named,
    a_size_that_is_none_is_named,
];

/// SEMANTICS: what does not fit into `snap_size` is `ENOSPC`, with a log line that says how much is missing; nothing is left, and the target runs.
fn more_than_snap_size_is_refused() {
    let mut target = Target::new();
    let small = Program::sleep();
    let mount = Mount::new("snap_size=4m");
    let name = format!("{}@x", target.pid());
    for _ in 0..3 {
        expect_errno("mkdir", mkdir(&mount, &name), libc::ENOSPC);
        nothing_is_left(&mount);
        runs_on(&mut target);
    }
    assert!(mount.log().contains("ENOSPC"), "{}", mount.log());
    // What fits is taken, and what is refused together with it takes nothing.
    let group = format!("{}+{}@x", target.pid(), small.pid());
    expect_errno("mkdir of both", mkdir(&mount, &group), libc::ENOSPC);
    nothing_is_left(&mount);
    take(&mount, small.pid(), "x");
    assert!((1..4 << 20).contains(&stored(&mount)));
}

fn a_dropped_one_gives_its_room_back() {
    let mut target = Target::new();
    let mount = Mount::new("snap_size=24m");
    for round in 0..5 {
        let copy = take(&mount, target.pid(), &round.to_string());
        target.ask(&format!(
            "fill {:x} {}",
            target.region("scratch").start,
            8 << 20
        ));
        // Another one that has nothing in common with it, and then there is no room for a third.
        std::fs::remove_dir(&copy).unwrap();
        nothing_is_left(&mount);
    }
    let first = take(&mount, target.pid(), "first");
    let kept = names(&first);
    let other = Target::of_generation(2);
    take(&mount, other.pid(), "second");
    let third = Target::of_generation(3);
    let name = format!("{}@third", third.pid());
    expect_errno("a third one", mkdir(&mount, &name), libc::ENOSPC);
    std::fs::remove_dir(&first).unwrap();
    mkdir(&mount, &name).unwrap();
    assert!(kept.len() > 10);
    runs_on(&mut target);
}

/// A tmpfs of its own. Unmounted when dropped.
struct Disk(tempfile::TempDir);

impl Disk {
    fn new(size: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        let how = format!("size={size}");
        run(mount
            .args(["-t", "tmpfs", "-o", &how, "none"])
            .arg(dir.path()))
        .success();
        Self(dir)
    }

    /// Allows so many files on it, and no more.
    fn set_inodes(&self, inodes: u32) {
        let mut mount = Command::new("mount");
        let how = format!("remount,nr_inodes={inodes}");
        run(mount.args(["-o", &how]).arg(self.0.path())).success();
    }

    fn used(&self) -> u64 {
        let status = nix::sys::statvfs::statvfs(self.0.path()).unwrap();
        (status.blocks() - status.blocks_free()) * status.fragment_size()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        unmount_lazily(self.0.path());
    }
}

fn mount_at(dir: &Path) -> Mount {
    Mount::new(&format!("snap_dir={}", dir.display()))
}

/// SEMANTICS: with `snap_dir` pages lie in files of that directory, which have no name.
fn pages_lie_in_snap_dir() {
    let mut target = Target::new();
    let dir = tempfile::tempdir().unwrap();
    let mount = mount_at(dir.path());
    let copy = take(&mount, target.pid(), "x");
    assert_eq!(stored(&mount), 0, "in memory");
    let device = dir.path().metadata().unwrap().dev();
    let kept = || -> Vec<PathBuf> {
        let entries = std::fs::read_dir(format!("/proc/{}/fd", mount.daemon())).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        let is_kept = |path: &PathBuf| {
            let status = std::fs::metadata(path);
            status.is_ok_and(|it| it.dev() == device && it.nlink() == 0 && it.size() > 1 << 20)
        };
        paths.filter(is_kept).collect()
    };
    assert!(!kept().is_empty());
    assert_eq!(names(dir.path()), [""; 0]);
    let region = target.region("scratch");
    let shown = file_of(&copy, &region);
    let before = target.bytes("scratch");
    target.kill();
    assert_bytes("scratch", &std::fs::read(&shown).unwrap(), &before);
    std::fs::remove_dir(&copy).unwrap();
    eventually("the files are closed", || kept().is_empty().then_some(()));
}

/// SEMANTICS: a full disk is `ENOSPC`, nothing is left, and the target runs.
fn a_full_disk_is_refused() {
    let mut target = Target::new();
    let disk = Disk::new("4m");
    let mount = mount_at(disk.0.path());
    for _ in 0..3 {
        expect_errno(
            "mkdir",
            mkdir(&mount, &format!("{}@x", target.pid())),
            libc::ENOSPC,
        );
        assert_eq!(names(&mount.path("snap")), [""; 0]);
        eventually("nothing is left", || (disk.used() == 0).then_some(()));
        runs_on(&mut target);
    }
    let small = Program::sleep();
    let copy = take(&mount, small.pid(), "x");
    assert!(disk.used() > 0);
    std::fs::remove_dir(&copy).unwrap();
    eventually("nothing is left", || (disk.used() == 0).then_some(()));
}

/// A snapshot is refused since the disk is full: `used` bytes of it are then used, as before, and the target runs.
#[track_caller]
fn no_room(mount: &Mount, target: &mut Target, disk: &Disk, used: u64) {
    let name = format!("{}@x", target.pid());
    let listed = names(disk.0.path());
    expect_errno("mkdir", mkdir(mount, &name), libc::ENOSPC);
    assert_eq!(names(&mount.path("snap")), [""; 0]);
    assert_eq!(names(disk.0.path()), listed);
    eventually("nothing is left", || (disk.used() == used).then_some(()));
    runs_on(target);
}

/// There is room again: a snapshot is taken, is whole, and is dropped.
#[track_caller]
fn room_again(mount: &Mount, target: &mut Target, disk: &Disk) {
    let copy = take(mount, target.pid(), "again");
    let shown = std::fs::read(file_of(&copy, &target.region("scratch"))).unwrap();
    assert_bytes("scratch", &shown, &target.bytes("scratch"));
    std::fs::remove_dir(&copy).unwrap();
    eventually("nothing is left", || (disk.used() == 0).then_some(()));
}

/// SEMANTICS: one that somebody else has filled since is `ENOSPC`, too, whatever there is no more of, and no more so once there is room.
fn a_disk_that_others_fill_is_refused() {
    let mut target = Target::new();
    let disk = Disk::new("64m");
    let mount = mount_at(disk.0.path());
    // Bytes there are, but besides the directory itself there can be only one file, which some mapping gets.
    disk.set_inodes(2);
    no_room(&mount, &mut target, &disk, 0);
    assert!(mount.log().contains("a file for a snapshot"));
    disk.set_inodes(1000);
    room_again(&mount, &mut target, &disk);
    let path = disk.0.path().join("of somebody else");
    let mut file = std::fs::File::create(&path).unwrap();
    let filled = std::io::copy(&mut std::io::repeat(7), &mut file);
    expect_errno("a full disk", filled, libc::ENOSPC);
    no_room(&mount, &mut target, &disk, disk.used());
    drop(file);
    std::fs::remove_file(&path).unwrap();
    room_again(&mount, &mut target, &disk);
}

/// SEMANTICS: so is one that had room when the snapshot was begun, and has none any more while memory is taken for it.
fn a_disk_that_fills_up_meanwhile_is_refused() {
    let mut target = Target::new();
    let disk = Disk::new("64m");
    let mount = unfiltered(&format!("snap_dir={}", disk.0.path().display()));
    let arguments = [
        "-e",
        "trace=fallocate",
        "-e",
        "inject=fallocate:error=ENOSPC",
    ];
    let injection = Injection::begin(&mount, &arguments.map(str::to_owned));
    no_room(&mount, &mut target, &disk, 0);
    assert!(injection.end() > 0, "no disk space was asked for");
    assert!(mount.log().contains("fallocate of a snapshot"));
    room_again(&mount, &mut target, &disk);
}

fn refused(options: &str, words: &[&str]) {
    let point = MountPoint::new();
    let mut command = Command::new(daemon_binary());
    let output = run(command.args(["-f", "-o", options]).arg(point.path()));
    assert!(!output.status.success());
    output.one_line(words);
}

/// SEMANTICS: a `snap_dir` that takes no files is named before anything is mounted.
fn a_directory_that_cannot_be_used_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let file = file.to_str().unwrap();
    for path in ["/nowhere", "/proc", file] {
        refused(&format!("snap_dir={path}"), &["snap_dir", path]);
    }
    refused("snap_dir=relative", &["snap_dir"]);
    refused("snap_dir", &["snap_dir"]);
}

fn a_size_that_is_none_is_named() {
    for size in ["x", "-1", "", "1y"] {
        refused(&format!("snap_size={size}"), &["snap_size"]);
    }
}
