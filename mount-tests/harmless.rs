//! Reading never changes the target: shared memory stays as sparse as it was,
//! files stay out of it, and yet every byte is the right one.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::support::{
    Footprint, MemoryGroup, Mount, PAGE, Region, Target, assert_bytes, eventually, expect_errno,
    extents, held, open, pattern, pread, pread_all, tests,
};

tests![
    a_sparse_memfd_stays_sparse: [Need::Root],
    sparse_shared_memory_stays_sparse: [Need::Root],
    touch_allocates_what_it_reads: [Need::Root],
    a_target_in_a_small_cgroup_survives: [Need::Root, Need::MemoryCgroup],
    data_that_the_target_has_not_mapped_is_read: [Need::Root],
    a_file_that_was_never_touched_is_read: [Need::Root],
    touch_brings_a_file_into_the_target,
    a_private_file_with_changed_pages: [Need::Root],
    a_file_cut_short_under_its_mapping: [Need::Root],
    zeros_that_were_read_before_stay_holes,
    memory_without_access_is_read_and_its_holes_stay,
];

const GIB: usize = 1 << 30;
const MODES: [&str; 2] = ["", "cache_ttl=0"];

/// The object of a mapping, which has a size and blocks of its own.
fn object(pid: u32, region: &Region) -> PathBuf {
    let Region { start, end } = region;
    format!("/proc/{pid}/map_files/{start:x}-{end:x}").into()
}

/// Reads all of a file by mebibytes; returns where bytes other than 0 are, by page.
fn pages_of(path: &Path) -> Vec<usize> {
    let file = open(path);
    let len = file.metadata().unwrap().len() as usize;
    let mut bytes = vec![0; 1 << 20];
    let mut pages = Vec::new();
    for offset in (0..len).step_by(bytes.len()) {
        file.read_exact_at(&mut bytes, offset as u64).unwrap();
        for (index, page) in bytes.chunks(PAGE).enumerate() {
            if page.iter().any(|byte| *byte != 0) {
                pages.push(offset / PAGE + index);
            }
        }
    }
    pages
}

/// Reads a sparse object of a gibibyte whole. `shape` makes the mapping; three
/// pages of it are there afterwards.
#[track_caller]
fn stays_sparse(shape: &str, options: &str) {
    let mut target = Target::new();
    let region = Region::parse(&target.ask(shape)).unwrap();
    let pages = [0, 1000, GIB / PAGE - 1];
    for page in pages {
        target.ask(&format!("fill {:x} {PAGE}", region.start + page * PAGE));
    }
    let object = object(target.pid(), &region);
    let size = held(&object);
    assert_eq!(size, (pages.len() * PAGE) as u64);
    let before = Footprint::of(target.pid());
    let mount = Mount::new(options);
    let path = mount.mapping(target.pid(), region.start, region.end);
    assert_eq!(pages_of(&path), pages, "{options}");
    assert_eq!(held(&object), size, "bytes that the object takes up");
    assert_eq!(Footprint::of(target.pid()), before, "{options}");
    let file = open(&path);
    let page = |index: usize| ((index * PAGE) as u64, ((index + 1) * PAGE) as u64);
    assert_eq!(extents(&file), pages.map(page), "{options}");
    for index in pages {
        let expected = pattern::bytes((region.start + index * PAGE) as u64, PAGE, 1);
        assert_bytes(options, &pread_all(&file, index * PAGE, PAGE), &expected);
    }
}

/// A sparse memfd of a gibibyte is read whole and allocates nothing.
fn a_sparse_memfd_stays_sparse() {
    for options in MODES {
        stays_sparse(&format!("object big {GIB}"), options);
    }
}

/// So is shared memory without a name.
fn sparse_shared_memory_stays_sparse() {
    for options in MODES {
        stays_sparse(&format!("shared {GIB}"), options);
    }
}

/// Only with `touch` does reading allocate, as the kernel's own file does.
fn touch_allocates_what_it_reads() {
    const LEN: usize = 4 << 20;
    for (options, expected) in [
        ("", 0),
        ("touch", LEN as u64),
        ("touch,cache_ttl=0", LEN as u64),
    ] {
        let mut target = Target::new();
        let region = Region::parse(&target.ask(&format!("shared {LEN}"))).unwrap();
        let mount = Mount::new(options);
        let path = mount.mapping(target.pid(), region.start, region.end);
        assert_eq!(pages_of(&path), [0; 0], "{options}");
        assert_eq!(held(&object(target.pid(), &region)), expected, "{options}");
    }
}

/// A target that may use 64 MiB survives the reading of a gibibyte of its
/// shared memory, and its group uses no more than before.
fn a_target_in_a_small_cgroup_survives() {
    const LIMIT: u64 = 64 << 20;
    for options in MODES {
        let group = MemoryGroup::new(LIMIT).unwrap();
        let mut target = Target::new();
        group.add(target.pid()).unwrap();
        let object = Region::parse(&target.ask(&format!("object big {GIB}"))).unwrap();
        let shared = Region::parse(&target.ask(&format!("shared {GIB}"))).unwrap();
        let mount = Mount::new(options);
        let before = group.usage();
        for region in [object, shared] {
            let path = mount.mapping(target.pid(), region.start, region.end);
            assert_eq!(pages_of(&path), [0; 0], "{options}");
        }
        let pid = Pid::from_raw(target.pid() as i32);
        kill(pid, None).unwrap_or_else(|error| panic!("the target has gone: {error}"));
        assert!(target.ask("comm").is_empty(), "it answers");
        let after = group.usage();
        // The kernel's own memory for what the target does is counted, too, and a stock for each processor.
        assert!(after < before + (16 << 20), "{before} bytes, then {after}");
    }
}

/// Data that is in the object but not in the target's page table is read as
/// it is, also where the target maps it afterwards, and changes nothing.
fn data_that_the_target_has_not_mapped_is_read() {
    for options in MODES {
        let mut target = Target::new();
        let len = 64 * PAGE;
        let region = Region::parse(&target.ask(&format!("object odd {len}"))).unwrap();
        let start = region.start;
        for (offset, len) in [
            (5 * PAGE + 100, 3 * PAGE),
            (20 * PAGE, PAGE),
            (63 * PAGE, PAGE),
        ] {
            let offset = offset / 8 * 8;
            target.ask(&format!("put odd {start:x} {offset} {len}"));
        }
        // One that is in the page table, and one that was.
        target.ask(&format!("fill {:x} {PAGE}", start + 30 * PAGE));
        target.ask(&format!("fill {:x} {PAGE}", start + 40 * PAGE));
        target.ask(&format!("forget {:x} {PAGE}", start + 40 * PAGE));
        let mut expected = vec![0; len];
        let odd = 5 * PAGE + 96;
        for part in [
            odd..odd + 3 * PAGE,
            20 * PAGE..21 * PAGE,
            30 * PAGE..31 * PAGE,
            40 * PAGE..41 * PAGE,
            63 * PAGE..64 * PAGE,
        ] {
            let bytes = pattern::bytes((start + part.start) as u64, part.len(), 1);
            expected[part].copy_from_slice(&bytes);
        }
        let before = Footprint::of(target.pid());
        let mount = Mount::new(options);
        let path = mount.mapping(target.pid(), region.start, region.end);
        assert_bytes(options, &std::fs::read(&path).unwrap(), &expected);
        let pages = |from: u64, to: u64| (from * PAGE as u64, to * PAGE as u64);
        assert_eq!(
            extents(&open(&path)),
            [
                pages(5, 9),
                pages(20, 21),
                pages(30, 31),
                pages(40, 41),
                pages(63, 64)
            ],
            "{options}"
        );
        assert_eq!(Footprint::of(target.pid()), before, "{options}");
    }
}

/// A target that maps a file of `len` bytes, and the bytes.
fn with_file(target: &mut Target, len: usize, kind: &str) -> (Region, Vec<u8>) {
    let path = target.dir().join("untouched.bin");
    let bytes = pattern::bytes(0, len, 9);
    std::fs::write(&path, &bytes).unwrap();
    let region = target.map("untouched", path.to_str().unwrap(), len, kind);
    (region, bytes)
}

/// A file of 64 MiB that the target maps and never touches is read right, and
/// does not come into the target.
fn a_file_that_was_never_touched_is_read() {
    for (options, kind) in [
        ("", "private r"),
        ("cache_ttl=0", "private rw"),
        ("", "shared rw"),
    ] {
        let mut target = Target::new();
        let (region, bytes) = with_file(&mut target, 64 << 20, kind);
        let before = Footprint::of(target.pid());
        let mount = Mount::new(options);
        let path = mount.mapping(target.pid(), region.start, region.end);
        let got = std::fs::read(&path).unwrap();
        assert_bytes(kind, &got, &bytes);
        assert_eq!(Footprint::of(target.pid()), before, "{options} {kind}");
        assert_eq!(extents(&open(&path)), [(0, 64 << 20)], "{options} {kind}");
        assert!(held(&path) < PAGE as u64, "nothing of it is in memory");
    }
}

/// With `touch` it does come into the target: what the test before looks at
/// would tell.
fn touch_brings_a_file_into_the_target() {
    let mut target = Target::new();
    let len = 4 << 20;
    let (region, bytes) = with_file(&mut target, len, "private r");
    let before = Footprint::of(target.pid());
    let mount = Mount::new("touch");
    let path = mount.mapping(target.pid(), region.start, region.end);
    assert_bytes("touched", &std::fs::read(&path).unwrap(), &bytes);
    let grown = Footprint::of(target.pid()).pages - before.pages;
    assert_eq!(grown, (len / 1024) as u64, "KiB");
}

/// Of a private mapping of a file, pages that the target has changed come from
/// the target, the others from the file.
fn a_private_file_with_changed_pages() {
    const PAGES: usize = 64;
    for options in MODES {
        let mut target = Target::new();
        let (region, mut bytes) = with_file(&mut target, PAGES * PAGE, "private rw");
        for page in (0..PAGES).filter(|page| page % 3 == 1) {
            let at = region.start + page * PAGE;
            target.write(at + 17, b"changed");
            bytes[page * PAGE + 17..][..7].copy_from_slice(b"changed");
        }
        let before = Footprint::of(target.pid());
        let mount = Mount::new(options);
        let path = mount.mapping(target.pid(), region.start, region.end);
        assert_bytes(options, &std::fs::read(&path).unwrap(), &bytes);
        // Across the boundaries of both kinds.
        let file = open(&path);
        let got = pread_all(&file, PAGE - 3, 4 * PAGE + 6);
        assert_bytes(options, &got, &bytes[PAGE - 3..5 * PAGE + 3]);
        assert_eq!(Footprint::of(target.pid()), before, "{options}");
    }
}

/// A file that was cut short under its mapping: what is left is read, what is
/// gone is `EIO`, and everything goes on.
fn a_file_cut_short_under_its_mapping() {
    const PAGES: usize = 64;
    for (options, kind) in [
        ("cache_ttl=0", "shared rw"),
        ("cache_ttl=0", "private r"),
        ("", "shared r"),
    ] {
        let mut target = Target::new();
        let (region, mut bytes) = with_file(&mut target, PAGES * PAGE, kind);
        let mount = Mount::new(options);
        let file = open(&mount.mapping(target.pid(), region.start, region.end));
        let left = 10 * PAGE + 100;
        let path = target.dir().join("untouched.bin");
        let backing = OpenOptions::new().write(true).open(path);
        backing.unwrap().set_len(left as u64).unwrap();
        bytes[left..].fill(0);
        let got = pread_all(&file, 0, 11 * PAGE);
        assert_bytes("what is left", &got, &bytes[..11 * PAGE]);
        for page in [11, 40, PAGES - 1] {
            let result = pread(&file, page * PAGE, PAGE);
            // A kernel that was told of the new end meanwhile ends the file there.
            if options == "cache_ttl=0" || !matches!(&result, Ok(bytes) if bytes.is_empty()) {
                expect_errno(&format!("page {page}, {options} {kind}"), result, libc::EIO);
            }
        }
        assert!(target.ask("comm").is_empty(), "the target lives");
        let path = mount.mapping(target.pid(), region.start, region.end);
        eventually("the new size", || {
            (path.metadata().unwrap().len() == 11 * PAGE as u64).then_some(())
        });
        let got = std::fs::read(&path).unwrap();
        assert_bytes("read anew", &got, &bytes[..11 * PAGE]);
        let private = std::fs::read(mount.file(&target, "private")).unwrap();
        assert_bytes("private", &private, &target.bytes("private"));
    }
}

/// Pages that the target has read and never written are the kernel's page of
/// zeros: they are holes.
fn zeros_that_were_read_before_stay_holes() {
    let mut target = Target::new();
    let region = Region::parse(&target.ask(&format!("reserve {} 0", 16 * PAGE))).unwrap();
    assert_eq!(target.read(region.start, 16 * PAGE), [0; 16 * PAGE]);
    let mount = Mount::new("");
    let path = mount.mapping(target.pid(), region.start, region.end);
    assert_eq!(extents(&open(&path)), []);
    assert_eq!(held(&path), 0);
    assert_eq!(std::fs::read(&path).unwrap(), [0; 16 * PAGE]);
}

/// Pages of a mapping without access are read, and those that are not there
/// are holes.
fn memory_without_access_is_read_and_its_holes_stay() {
    for options in MODES {
        let mut target = Target::new();
        let len = 1 << 30;
        let region = Region::parse(&target.ask(&format!("reserve {len} 0"))).unwrap();
        target.ask(&format!("fill {:x} {PAGE}", region.start + 7 * PAGE));
        target.ask(&format!("protect {:x} {len} ---", region.start));
        let before = Footprint::of(target.pid());
        let mount = Mount::new(options);
        let path = mount.mapping(target.pid(), region.start, region.end);
        assert_eq!(pages_of(&path), [7], "{options}");
        let page = PAGE as u64;
        assert_eq!(extents(&open(&path)), [(7 * page, 8 * page)], "{options}");
        assert_eq!(Footprint::of(target.pid()), before, "{options}");
    }
}
