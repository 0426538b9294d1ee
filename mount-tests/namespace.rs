//! The tree belongs to the processes: nobody creates, renames or removes.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, SFlag};

use crate::support::{Mount, Target, assert_bytes, errno_name, expect_errno, open_flags, tests};

tests![
    changes_to_the_tree_are_not_permitted,
    changes_to_a_read_only_mount_are_refused,
    truncate_changes_nothing,
];

/// Every operation that would change the tree, with its result.
fn attempts(dir: &Path, file: &Path) -> Vec<(String, std::io::Result<()>)> {
    let new: PathBuf = dir.join("new");
    let node = nix::sys::stat::mknod(&new, SFlag::S_IFIFO, Mode::S_IRUSR, 0);
    let create = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&new)
        .map(drop);
    let create_flag = open_flags(&new, true, libc::O_CREAT).map(drop);
    let name = |what: &str| format!("{what} in {dir:?}");
    vec![
        (name("create"), create),
        (name("open with O_CREAT"), create_flag),
        (name("mkdir"), std::fs::create_dir(&new)),
        (name("mknod"), node.map_err(Into::into)),
        (name("symlink"), symlink("x", &new)),
        (name("link"), std::fs::hard_link(file, &new)),
        (name("rename"), std::fs::rename(file, &new)),
        (name("rename over"), std::fs::rename(file, dir.join("self"))),
    ]
}

/// Creating, linking, renaming and removing give `EPERM`, on a mount with `write`
/// and on one with neither `write` nor `ro`, and leave everything as it was.
fn changes_to_the_tree_are_not_permitted() {
    for options in ["", "write"] {
        let target = Target::new();
        let mount = Mount::new(options);
        let process = mount.process(target.pid());
        let file = mount.file(&target, "private");
        let before = mount.names(target.pid());
        for dir in [&process, mount.point(), &mount.path("by-name")] {
            for (what, result) in attempts(dir, &file) {
                expect_errno(&format!("{what}, {options:?}"), result, libc::EPERM);
            }
        }
        expect_errno("unlink", std::fs::remove_file(&file), libc::EPERM);
        let heap = process.join("heap");
        expect_errno("unlink of a link", std::fs::remove_file(heap), libc::EPERM);
        let stats = mount.path("stats");
        expect_errno("unlink of stats", std::fs::remove_file(stats), libc::EPERM);
        expect_errno("rmdir", std::fs::remove_dir(&process), libc::EPERM);
        assert_eq!(mount.names(target.pid()), before);
        assert_bytes(
            "private",
            &std::fs::read(&file).unwrap(),
            &target.bytes("private"),
        );
    }
}

/// On a mount with `ro` they give `EROFS`, as on every read-only file system.
fn changes_to_a_read_only_mount_are_refused() {
    let target = Target::new();
    let mount = Mount::new("ro");
    let file = mount.file(&target, "private");
    for (what, result) in attempts(&mount.process(target.pid()), &file) {
        expect_errno(&what, result, libc::EROFS);
    }
    expect_errno("unlink", std::fs::remove_file(&file), libc::EROFS);
}

/// `truncate` to any length either fails or is ignored; no size, no byte
/// changes.
fn truncate_changes_nothing() {
    let mut target = Target::new();
    let mount = Mount::new("write");
    let path = mount.file(&target, "private");
    let region = target.region("private");
    for length in [0, 1, 5000, region.len(), region.len() + 1, 1 << 30] {
        let result = nix::unistd::truncate(&path, length as i64);
        if let Err(errno) = result {
            let name = errno_name(errno as i32);
            assert!(
                ["EPERM", "EINVAL"].contains(&name.as_str()),
                "truncate to {length}: {name}"
            );
        }
        let size = path.metadata().unwrap().len();
        assert_eq!(size, region.len() as u64, "size after truncate to {length}");
        let said = target.read(region.start, region.len());
        assert_bytes("the target", &said, &target.bytes("private"));
    }
}
