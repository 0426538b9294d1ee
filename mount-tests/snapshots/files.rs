//! What was not in memory when it was copied, and so stays in its file, and memory that others can change.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use nix::unistd::Whence;

use super::{file_of, take};
use crate::support::{
    Footprint, Mount, PAGE, Region, Target, assert_bytes, drop_kernel_pages, expect_errno, extents,
    open, pattern, pread, pread_all, seek, tests,
};

tests![
    files_that_were_never_touched_are_read,
    files_that_change_afterwards_are_errors_and_holes,
    memory_that_others_can_change_is_copied,
    a_file_that_grows_shows_no_new_bytes,
];

const LEN: usize = 16 * PAGE;

/// A target that maps a file, of which it touches nothing.
fn mapped(target: &mut Target, name: &str, kind: &str) -> (std::path::PathBuf, Region, Vec<u8>) {
    let path = target.dir().join(name);
    let bytes = pattern::bytes(7, LEN, 3);
    std::fs::write(&path, &bytes).unwrap();
    let region = target.map(name, path.to_str().unwrap(), LEN, kind);
    (path, region, bytes)
}

/// SEMANTICS: what a process has not in memory is read from its file, and costs neither the process nor the snapshot any memory.
fn files_that_were_never_touched_are_read() {
    let mut target = Target::new();
    let files = ["private rw", "shared rw"].map(|kind| {
        let name = kind.replace(' ', "-");
        mapped(&mut target, &name, kind)
    });
    let before = Footprint::of(target.pid());
    let mount = Mount::new("");
    let copy = take(&mount, target.pid(), "x");
    for (path, region, bytes) in &files {
        let shown = std::fs::read(file_of(&copy, region)).unwrap();
        assert_bytes(&format!("{path:?}"), &shown, bytes);
    }
    assert_eq!(Footprint::of(target.pid()), before);
    // Held open: it need not have a name.
    for (path, ..) in &files {
        std::fs::remove_file(path).unwrap();
    }
    target.end();
    std::fs::remove_dir(&copy).unwrap();
    super::nothing_is_left(&mount);
}

/// SEMANTICS: where a file has changed since, its pages that were not in memory are `EIO`, and a hole to `lseek`: never new bytes.
fn files_that_change_afterwards_are_errors_and_holes() {
    let mut target = Target::new();
    let (path, region, _) = mapped(&mut target, "changing", "private rw");
    // One page is a private copy.
    target.write(region.start + 3 * PAGE, &[0x77; PAGE]);
    let mount = Mount::new("");
    let copy = take(&mount, target.pid(), "x");
    let shown = file_of(&copy, &region);
    let file = open(&shown);
    assert_eq!(extents(&file), [(0, LEN as u64)]);
    pread_all(&file, 5 * PAGE, PAGE);
    let writer = OpenOptions::new().write(true).open(&path).unwrap();
    writer.write_all_at(b"new", (9 * PAGE) as u64).unwrap();
    drop_kernel_pages(&file);
    for file in [&file, &open(&shown)] {
        for page in [0, 5, 9, 15] {
            expect_errno(
                "a page of a file that changed",
                pread(file, page * PAGE, PAGE),
                libc::EIO,
            );
        }
        assert_bytes("a copy", &pread_all(file, 3 * PAGE, PAGE), &[0x77; PAGE]);
        let data = seek(file, 0, Whence::SeekData).unwrap();
        assert_eq!(data, Some(3 * PAGE as u64));
        assert_eq!(extents(file), [(3 * PAGE as u64, 4 * PAGE as u64)]);
    }
    // Taken anew it shows what is there now.
    let again = take(&mount, target.pid(), "y");
    let now = pread_all(&open(&file_of(&again, &region)), 9 * PAGE, 3);
    assert_bytes("a new snapshot", &now, b"new");
}

/// SEMANTICS: shared memory is copied, also where the process has not touched it: who writes to it later tells nobody.
fn memory_that_others_can_change_is_copied() {
    let mut target = Target::new();
    let regions = ["sparse_shared", "memfd", "shared", "sysv"];
    let mount = Mount::new("");
    let copy = take(&mount, target.pid(), "x");
    let known = regions.map(|name| (target.region(name), target.bytes(name)));
    // Through descriptors of the target, not through its mapping.
    for name in ["sparse_shared", "memfd"] {
        let number = target.ask(&format!("memfd {name}"));
        let path = format!("/proc/{}/fd/{number}", target.pid());
        let file = OpenOptions::new().write(true).open(path).unwrap();
        file.write_all_at(&[0xdd; PAGE], 0).unwrap();
        if name == "sparse_shared" {
            file.write_all_at(&[0xdd; PAGE], 512 * PAGE as u64).unwrap();
            file.set_len(600 * PAGE as u64).unwrap();
        }
    }
    for (name, (region, bytes)) in regions.iter().zip(&known) {
        let file = open(&file_of(&copy, region));
        assert_bytes(name, &pread_all(&file, 0, bytes.len()), bytes);
    }
    let sparse = open(&file_of(&copy, &known[0].0));
    let page = PAGE as u64;
    assert_eq!(extents(&sparse), [(0, page), (512 * page, 513 * page)]);
    target.end();
    assert_bytes(
        "sysv",
        &std::fs::read(file_of(&copy, &known[3].0)).unwrap(),
        &known[3].1,
    );
}

/// A file that ends in a mapping: pages past its end are no bytes, also once it has grown.
fn a_file_that_grows_shows_no_new_bytes() {
    let target = Target::new();
    let (region, bytes) = (target.region("past_end"), target.bytes("past_end"));
    let mount = Mount::new("");
    let copy = take(&mount, target.pid(), "x");
    let shown = file_of(&copy, &region);
    assert_bytes("before", &std::fs::read(&shown).unwrap(), &bytes);
    let path = target.dir().join("past-end.bin");
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[9; PAGE], 3 * PAGE as u64).unwrap();
    let status = shown.metadata().unwrap();
    assert_eq!(status.len(), bytes.len() as u64);
    match std::fs::read(&shown) {
        // Where they were in memory they were copied, or the kernel has kept them since they were read.
        Ok(now) => assert_bytes("after", &now, &bytes),
        Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EIO)),
    }
}
