//! Which files are opened past the kernel's page cache.

use super::*;
use crate::common::choice::Choice;
use crate::files::DirectReads;
use crate::target::ReadCounts;

const LARGE: &str = "7/000010000000-000014000000.rw-p.anon";
const SMALL: &str = "7/000000010000-000000012000.rw-p.heap";

const DIRECT: DirectReads = DirectReads {
    least_block: 32 << 10,
    is_first_choice: true,
    can_be_mapped: true,
};

fn bench_of(direct: Choice, granted: Option<DirectReads>) -> Bench {
    let options = FileOptions {
        direct,
        ..FileOptions::default()
    };
    let bench = bench_with(options, TTL);
    let mut maps = MAPS.to_vec();
    maps.extend_from_slice(b"10000000-14000000 rw-p 00000000 00:00 0\n");
    bench.process.set_maps(&maps);
    bench.process.map(0x1000_0000, &[b'l'; PAGE_SIZE as usize]);
    if let Some(granted) = granted {
        bench.fs.context().set_direct_reads(granted);
    }
    bench
}

impl Bench {
    fn is_direct(&self, path: &str) -> bool {
        let opened = self.open(path, READ).unwrap();
        self.fs.release(opened.handle);
        opened.direct
    }

    /// What the program that asks has read so far.
    fn has_read(&self, calls: u64, block: u64) {
        let bytes = calls * block;
        self.process.set_reads(ReadCounts { calls, bytes });
    }
}

/// SEMANTICS: large files are read past the page cache where the program reads in large blocks.
#[test]
fn it_goes_by_the_size_of_the_file_and_of_the_blocks() {
    let bench = bench_of(Choice::Auto, Some(DIRECT));
    assert!(bench.is_direct(LARGE), "nothing is known of it");
    assert!(!bench.is_direct(SMALL));
    bench.has_read(31, 4096);
    assert!(bench.is_direct(LARGE), "that says nothing yet");
    bench.has_read(1000, 4096);
    assert!(!bench.is_direct(LARGE));
    bench.has_read(1000, 128 << 10);
    assert!(bench.is_direct(LARGE));
    assert!(!bench.is_direct(SMALL));
    assert!(bench.is_direct("mem/7"));
}

/// The next process of a program reads as the last one did.
#[test]
fn programs_are_remembered() {
    let bench = bench_of(Choice::Auto, Some(DIRECT));
    let read = |len: usize, count: usize| {
        let opened = bench.open(LARGE, READ).unwrap();
        for _ in 0..count {
            let mut bytes = vec![0; len];
            bench.fs.read(opened.handle, 0, &mut bytes, None).ok();
        }
        bench.fs.release(opened.handle);
        opened.direct
    };
    // As each read past the cache shows.
    assert!(read(1024, 31));
    assert!(read(1024, 32));
    assert!(!read(128 << 10, 7));
    // Where the kernel asks for its own pages it says what it was asked for.
    bench.has_read(31, 1 << 10);
    assert!(!read(128 << 10, 7));
    let opened = bench.open(LARGE, READ).unwrap();
    bench.has_read(100, 256 << 10);
    for _ in 0..8 {
        bench.read(&opened, 0, 4096).unwrap();
    }
    bench.fs.release(opened.handle);
    bench.has_read(3, 832);
    assert!(read(128 << 10, 1), "another process of that program");
}

#[test]
fn it_is_chosen_for_all_by_the_option() {
    for (choice, large, small) in [(Choice::On, true, true), (Choice::Off, false, false)] {
        let bench = bench_of(choice, Some(DIRECT));
        bench.has_read(1000, if large { 1 } else { 1 << 20 });
        assert_eq!(bench.is_direct(LARGE), large);
        assert_eq!(bench.is_direct(SMALL), small);
    }
}

#[test]
fn without_what_it_takes_the_kernel_keeps_all_pages() {
    let unmapped = DirectReads {
        can_be_mapped: false,
        ..DIRECT
    };
    let last = DirectReads {
        is_first_choice: false,
        ..DIRECT
    };
    for granted in [None, Some(unmapped), Some(last)] {
        let bench = bench_of(Choice::Auto, granted);
        assert!(!bench.is_direct(LARGE));
    }
    let bench = bench_of(Choice::Auto, Some(last));
    bench.has_read(100, 128 << 10);
    assert!(
        bench.is_direct(LARGE),
        "it is known to read in large blocks"
    );
}

/// Whoever asks for that by `O_DIRECT` has the kernel ask for several parts at a time.
#[test]
fn what_the_kernel_does_by_itself_is_left_to_it() {
    let bench = bench_of(Choice::On, Some(DIRECT));
    let access = Access {
        is_direct: true,
        ..READ
    };
    assert!(!bench.open(LARGE, access).unwrap().direct);
}

/// What is fresh for long may be read again from the kernel's cache.
#[test]
fn a_long_bound_keeps_files_in_the_cache() {
    let bench = bench_with(FileOptions::default(), Duration::from_secs(600));
    let mut maps = MAPS.to_vec();
    maps.extend_from_slice(b"10000000-14000000 rw-p 00000000 00:00 0\n");
    bench.process.set_maps(&maps);
    bench.fs.context().set_direct_reads(DIRECT);
    assert!(!bench.is_direct(LARGE));
}
