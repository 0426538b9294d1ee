//! Files on a FUSE file system of a user, which lets root see nothing of them.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command};

use super::{compare, page, pages};
use crate::support::{
    Mount, PAGE, Region, Target, eventually, expect_errno, is_mounted, open, pattern, tests,
    unmount_lazily,
};
use crate::users::USER;

tests![
    files_that_root_may_not_open_are_read_by_the_processs_descriptor:
        [Need::PlainUser, Need::Tool("bindfs")],
];

const LEN: usize = 16 * PAGE;

/// A directory that is mounted once more by a plain user, for that user alone.
struct PrivateMount {
    dir: tempfile::TempDir,
    server: Child,
}

impl PrivateMount {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["files", "mnt"] {
            let path = dir.path().join(name);
            std::fs::create_dir(&path).unwrap();
            std::os::unix::fs::chown(&path, Some(USER), Some(USER)).unwrap();
        }
        std::fs::write(dir.path().join("files/file"), pattern::bytes(0, LEN, 9)).unwrap();
        let mut command = Command::new("setpriv");
        command.args([format!("--reuid={USER}"), format!("--regid={USER}")]);
        command.args(["--clear-groups", "bindfs", "--no-allow-other", "-f"]);
        command.args([dir.path().join("files"), dir.path().join("mnt")]);
        let server = command.spawn().unwrap();
        let mount = Self { dir, server };
        eventually("the mount of a user", || {
            is_mounted(&mount.point()).then_some(())
        });
        mount
    }

    fn point(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }
}

impl Drop for PrivateMount {
    fn drop(&mut self) {
        unmount_lazily(&self.point());
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// A descriptor of the process serves, and nothing is asked of the file system by name.
fn files_that_root_may_not_open_are_read_by_the_processs_descriptor() {
    let private = PrivateMount::new();
    let path = private.point().join("file");
    expect_errno("root", std::fs::read(&path), libc::EACCES);
    let mut target = Target::of_user(USER);
    let region = Region::parse(&target.ask(&format!("reserve {LEN} 0"))).unwrap();
    target.ask(&format!("open file {}", path.display()));
    target.ask(&format!("lay file {:x} {LEN} private rw", region.start));
    target.write(region.start + 3 * PAGE, b"changed");
    let mount = Mount::new("");
    let found = pages(&mount, &target, &region);
    assert!(found.iter().all(Option::is_some), "it has a descriptor");
    target.ask("close file");
    // The list of its descriptors is a moment old.
    let file = mount.mapping(target.pid(), region.start, region.end);
    eventually("the end of the descriptor", || {
        page(&open(&file), 7 * PAGE).is_none().then_some(())
    });
    let found = pages(&mount, &target, &region);
    assert_eq!(
        found.iter().flatten().count(),
        1,
        "but the page that it holds itself"
    );
    compare(&target, &region, &found, |index| index != 3);
}
