//! How files of snapshots are read: by the kernel itself where it can.

use std::os::unix::fs::FileExt;

use super::{file_of, nothing_is_left, stored, take};
use crate::support::{
    Mount, Numbers, PAGE, Region, Stats, Target, assert_bytes, drop_kernel_pages, open, open_flags,
    pread_all, tests,
};

tests![
    the_kernel_reads_large_mappings_itself: [Need::Root],
    a_map_of_a_file_with_holes_takes_no_memory,
    every_block_size_gives_the_same_bytes,
    stops_are_counted,
];

/// SEMANTICS: where the kernel has FUSE passthrough, and for root, it reads large mappings of a snapshot without asking the daemon.
fn the_kernel_reads_large_mappings_itself() {
    let target = Target::new();
    let mount = Mount::new("");
    let copy = take(&mount, target.pid(), "x");
    let (large, small) = (target.region("scratch"), target.region("private"));
    let path = file_of(&copy, &large);
    let before = Stats::of(&mount);
    for _ in 0..3 {
        let bytes = std::fs::read(&path).unwrap();
        assert_bytes("a large one", &bytes, &target.bytes("scratch"));
    }
    // SAFETY: nobody changes a file of a snapshot.
    let map = unsafe { memmap2::Mmap::map(&open(&path)) }.unwrap();
    assert_bytes("mapped", &map, &target.bytes("scratch"));
    let direct = open_flags(&path, false, libc::O_DIRECT).unwrap();
    assert_bytes(
        "direct",
        &pread_all(&direct, PAGE, 3 * PAGE),
        &map[PAGE..4 * PAGE],
    );
    let after = Stats::of(&mount);
    // What was read of `stats` alone.
    let asked = after.since(&before, "read_bytes_total");
    assert!(asked < 1 << 18, "{asked} bytes went through the daemon");
    // A small one is in a store with others: the daemon gives it.
    let bytes = std::fs::read(file_of(&copy, &small)).unwrap();
    assert_bytes("a small one", &bytes, &target.bytes("private"));
    drop((map, direct));
    std::fs::remove_dir(&copy).unwrap();
    nothing_is_left(&mount);
}

/// SEMANTICS: nobody has a snapshot take more memory by reading it: whoever maps a file of tmpfs has its holes allocated.
fn a_map_of_a_file_with_holes_takes_no_memory() {
    let mut target = Target::new();
    let region = Region::parse(&target.ask(&format!("reserve {} 1000", 64 << 20))).unwrap();
    let mount = Mount::new("");
    let copy = take(&mount, target.pid(), "x");
    let before = stored(&mount);
    let file = open(&file_of(&copy, &region));
    // SAFETY: nobody changes a file of a snapshot.
    let map = unsafe { memmap2::Mmap::map(&file) }.unwrap();
    let held = map
        .chunks(PAGE)
        .filter(|page| page.iter().any(|byte| *byte != 0));
    assert_eq!(held.count(), 1000);
    assert_eq!(stored(&mount), before);
}

/// Whatever the size of a read, and wherever it begins, the bytes are the same: by passthrough, and by the daemon.
fn every_block_size_gives_the_same_bytes() {
    let target = Target::new();
    let mount = Mount::new("");
    let copy = take(&mount, target.pid(), "x");
    for name in [
        "scratch",
        "private",
        "sparse_private",
        "sparse_shared",
        "past_end",
        "memfd",
    ] {
        let (region, expected) = (target.region(name), target.bytes(name));
        let file = open(&file_of(&copy, &region));
        let space = open(&copy.join("mem"));
        for size in [512, 4096, 65_536, 1 << 20, 4 << 20] {
            drop_kernel_pages(&file);
            let mut read = Vec::new();
            while read.len() < expected.len() {
                let mut bytes = vec![0; size];
                let count = file.read_at(&mut bytes, read.len() as u64).unwrap();
                assert!(count > 0, "{name}: the end at {}", read.len());
                read.extend_from_slice(&bytes[..count]);
            }
            assert_bytes(&format!("{name} by {size}"), &read, &expected);
        }
        let mut numbers = Numbers::new(11);
        for _ in 0..2000 {
            let offset = numbers.below(expected.len() as u64 - 8) as usize;
            let own = &expected[offset..offset + 8];
            assert_bytes(name, &pread_all(&file, offset, 8), own);
            assert_bytes(name, &pread_all(&space, region.start + offset, 8), own);
        }
    }
}

/// Each snapshot is one stop of each of its processes, and how long they stood still is counted.
fn stops_are_counted() {
    let target = Target::new();
    let mount = Mount::new("");
    let before = Stats::of(&mount);
    for name in ["1", "2", "3"] {
        take(&mount, target.pid(), name);
    }
    let after = Stats::of(&mount);
    assert_eq!(after.since(&before, "stops_total"), 3);
    assert_eq!(after.since(&before, "stop_duration_seconds_count"), 3);
}
