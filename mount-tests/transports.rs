//! How requests come, and how the bytes of large files go: the user sees the same, and `stats` says which it is.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;

use memmap2::MmapOptions;

use crate::support::{Mount, Stats, Target, has_rings, tests};

tests![
    rings_serve_where_they_are_asked_for: [Need::Rings],
    all_bytes_are_those_of_the_process_over_both: [Need::Rings],
    what_is_read_ahead_are_the_bytes_of_the_process,
    files_that_go_past_the_page_cache_can_be_mapped,
    what_was_read_ahead_is_no_older_than_the_bound,
];

/// Blocks that are read, in bytes.
const BLOCKS: [usize; 5] = [1000, 4096, 65_536, 100_000, 1 << 20];

/// All bytes of a file, by reads of so many.
#[track_caller]
fn by_blocks(file: &mut File, block: usize) -> Vec<u8> {
    let mut found = Vec::new();
    let mut buffer = vec![0; block];
    loop {
        match file.read(&mut buffer).unwrap() {
            0 => return found,
            read => found.extend_from_slice(&buffer[..read]),
        }
    }
}

fn rings_serve_where_they_are_asked_for() {
    if !has_rings() {
        return eprintln!("NOT CHECKED: this machine cannot have FUSE over io_uring");
    }
    for (option, expected) in [("io_uring=on", 1), ("io_uring", 1), ("io_uring=off", 0)] {
        let mount = Mount::new(option);
        assert_eq!(Stats::of(&mount).get("io_uring"), expected, "{option}");
    }
}

fn all_bytes_are_those_of_the_process_over_both() {
    if !has_rings() {
        return eprintln!("NOT CHECKED: this machine cannot have FUSE over io_uring");
    }
    let mut target = Target::new();
    for transport in ["io_uring=on", "io_uring=off"] {
        for direct in ["on", "off"] {
            let mount = Mount::new(&format!("write,{transport},direct={direct}"));
            let path = mount.file(&target, "scratch");
            let expected = target.bytes("scratch");
            for block in BLOCKS {
                let found = by_blocks(&mut File::open(&path).unwrap(), block);
                assert!(found == expected, "{transport} {direct} {block}");
            }
            // As much as a request holds, and more.
            let file = File::options().read(true).write(true).open(&path).unwrap();
            let written = vec![0x5a; (300 << 10).min(expected.len())];
            file.write_all_at(&written, 0).unwrap();
            let start = target.region("scratch").start;
            assert!(target.read(start, written.len()) == written);
            file.write_all_at(&expected[..written.len()], 0).unwrap();
        }
    }
}

/// SEMANTICS: what is read ahead are the bytes of the process.
fn what_is_read_ahead_are_the_bytes_of_the_process() {
    let target = Target::new();
    let mount = Mount::new("direct=on");
    let path = mount.file(&target, "scratch");
    let expected = target.bytes("scratch");
    for block in BLOCKS {
        let mut file = File::open(&path).unwrap();
        assert!(by_blocks(&mut file, block) == expected, "{block}");
        // Elsewhere than where it would go on.
        let mut there = [0; 100];
        let at = expected.len() as u64 / 2;
        file.read_exact_at(&mut there, at).unwrap();
        assert_eq!(there[..], expected[at as usize..][..100]);
    }
    let off = Mount::new("direct=off");
    let found = by_blocks(
        &mut File::open(off.file(&target, "scratch")).unwrap(),
        65_536,
    );
    assert!(found == expected);
    assert_eq!(Stats::of(&off).get("ahead_bytes_total"), 0);
}

/// SEMANTICS: a file that is read past the page cache can be mapped.
fn files_that_go_past_the_page_cache_can_be_mapped() {
    let target = Target::new();
    let mount = Mount::new("direct=on");
    let file = File::open(mount.file(&target, "scratch")).unwrap();
    let expected = target.bytes("scratch");
    // SAFETY: the mapping is only read, and the bytes of the target stay as they are.
    let private = unsafe { MmapOptions::new().map_copy_read_only(&file) }.unwrap();
    assert!(private[..] == expected[..]);
    // SAFETY: as above.
    let shared = unsafe { MmapOptions::new().map(&file) }.unwrap();
    assert!(shared[..] == expected[..]);
}

/// SEMANTICS: what was read ahead is no older than the freshness bound.
fn what_was_read_ahead_is_no_older_than_the_bound() {
    let target = Target::new();
    let mount = Mount::new("write,direct=on,cache_ttl=10m");
    let path = mount.file(&target, "scratch");
    let mut file = File::open(&path).unwrap();
    let mut first = vec![0; 8192];
    for _ in 0..3 {
        file.read_exact(&mut first).unwrap();
    }
    // Through another file: it is seen at once, whatever was read ahead.
    let at = 3 * 8192;
    let other = File::options().write(true).open(&path).unwrap();
    other.write_all_at(b"written!", at).unwrap();
    let mut found = [0; 8];
    file.read_exact(&mut found).unwrap();
    assert_eq!(&found, b"written!");
}
