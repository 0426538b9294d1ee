//! Files of overlayfs: what was mapped of a lower layer stays mapped when the file is copied up.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{compare, page_of_mem, pages};
use crate::support::{Mount, PAGE, Region, Target, assert_bytes, run, tests, unmount_lazily};

tests![
    files_that_were_not_copied_up_are_read: [Need::Root],
    a_file_that_was_copied_up_is_not_mistaken: [Need::Root],
    a_file_that_was_copied_up_before_is_read: [Need::Root],
    a_process_forked_before_is_not_mistaken: [Need::Root],
];

const LEN: usize = 16 * PAGE;

/// An overlay of temporary directories. Unmounted when dropped.
struct Overlay(tempfile::TempDir);

impl Overlay {
    /// With `file`, all of it `L`.
    fn new() -> Self {
        let overlay = Self(tempfile::tempdir().unwrap());
        for name in ["lower", "upper", "work", "merged"] {
            std::fs::create_dir(overlay.dir(name)).unwrap();
        }
        std::fs::write(overlay.dir("lower").join("file"), vec![b'L'; LEN]).unwrap();
        // File times tell no less than a tick of the kernel's clock apart.
        std::thread::sleep(Duration::from_millis(30));
        let layers = format!(
            "lowerdir={},upperdir={},workdir={}",
            overlay.dir("lower").display(),
            overlay.dir("upper").display(),
            overlay.dir("work").display()
        );
        let mut mount = Command::new("mount");
        mount.args(["-t", "overlay", "overlay", "-o", &layers]);
        run(mount.arg(overlay.dir("merged"))).success();
        overlay
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self) -> PathBuf {
        self.dir("merged").join("file")
    }

    /// Writes in place: the file is copied up.
    fn write(&self, bytes: &[u8]) {
        let file = File::options().write(true).open(self.file()).unwrap();
        file.write_all_at(bytes, 0).unwrap();
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        unmount_lazily(&self.dir("merged"));
    }
}

/// Lets a target map the file, which it opens for reading only: to open it for writing copies it up.
fn map(target: &mut Target, path: &Path, kind: &str) -> Region {
    let region = Region::parse(&target.ask(&format!("reserve {LEN} 0"))).unwrap();
    target.ask(&format!("open layered {}", path.display()));
    target.ask(&format!("lay layered {:x} {LEN} {kind}", region.start));
    target.ask("close layered");
    region
}

/// The files of images are older than the processes that map them.
fn files_that_were_not_copied_up_are_read() {
    let overlay = Overlay::new();
    let mut target = Target::new();
    let region = map(&mut target, &overlay.file(), "private rw");
    target.write(region.start, b"changed");
    let mount = Mount::new("");
    let found = pages(&mount, &target, &region);
    assert!(found.iter().all(Option::is_some), "all of it is known");
    assert_bytes("absent", found[5].as_ref().unwrap(), &[b'L'; PAGE]);
    compare(&target, &region, &found, |_| false);
}

/// The mapping still shows the lower file, while its name leads to the upper one.
fn a_file_that_was_copied_up_is_not_mistaken() {
    for truncate in [false, true] {
        for touched in [false, true] {
            let overlay = Overlay::new();
            let mut target = Target::new();
            let region = map(&mut target, &overlay.file(), "private r");
            if touched {
                target.read(region.start + 2 * PAGE, 1);
            }
            overlay.write(&[b'U'; LEN]);
            if truncate {
                File::options()
                    .write(true)
                    .open(overlay.file())
                    .unwrap()
                    .set_len(0)
                    .unwrap();
            }
            let mount = Mount::new("");
            let found = pages(&mount, &target, &region);
            assert_eq!(found.len(), LEN / PAGE, "the length of the lower file");
            for bytes in found.iter().flatten() {
                assert_bytes("what is mapped", bytes, &[b'L'; PAGE]);
            }
            assert_eq!(found[2].is_some(), touched, "resident pages are read");
            let says_why = mount.log().contains("-o touch");
            assert!(touched || says_why, "{}", mount.log());
            let touching = Mount::new("touch");
            let file = touching.mapping(target.pid(), region.start, region.end);
            let bytes = std::fs::read(file).unwrap();
            assert_bytes("with touch", &bytes, &[b'L'; LEN]);
        }
    }
}

/// What was copied up before it was mapped is the upper file: page frames show it.
fn a_file_that_was_copied_up_before_is_read() {
    let overlay = Overlay::new();
    let mut target = Target::new();
    overlay.write(&[b'U'; LEN]);
    let region = map(&mut target, &overlay.file(), "shared r");
    // Through its mapping one page alone comes in.
    target.ask(&format!(
        "advise {:x} {LEN} {}",
        region.start,
        libc::MADV_RANDOM
    ));
    target.read(region.start + 2 * PAGE, 1);
    let mount = Mount::new("");
    let found = pages(&mount, &target, &region);
    assert!(
        found.iter().all(Option::is_some),
        "a page in memory shows what is mapped"
    );
    compare(&target, &region, &found, |_| false);
}

/// A child has the mappings of its parent, which can be older than a file that is older than the child.
fn a_process_forked_before_is_not_mistaken() {
    let overlay = Overlay::new();
    let mut target = Target::new();
    let region = map(&mut target, &overlay.file(), "private r");
    overlay.write(&[b'U'; LEN]);
    std::thread::sleep(Duration::from_millis(30));
    let child: u32 = target.ask("fork").parse().unwrap();
    let mount = Mount::new("");
    let file = mount.mapping(child, region.start, region.end);
    let file = crate::support::open(&file);
    for index in 0..LEN / PAGE {
        if let Some(bytes) = super::page(&file, index * PAGE) {
            assert_bytes("what is mapped", &bytes, &[b'L'; PAGE]);
        }
    }
    assert_bytes(
        "mem",
        &page_of_mem(child, region.start).unwrap(),
        &[b'L'; PAGE],
    );
}
