//! Readers that jump about in one place, whom the kernel is given more than it asks for.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::{
    Mount, Numbers, PAGE, Stats, Target, assert_bytes, drop_kernel_pages, open, open_rw, pread_all,
    tests,
};

tests![
    the_second_read_of_a_neighbourhood_brings_all_of_it,
    a_jumping_reader_sees_nothing_older_than_the_bound,
    what_is_opened_among_jumping_readers_starts_fresh,
    a_write_among_jumping_readers_is_seen_at_once,
    nothing_is_given_where_reads_touch_memory,
];

/// Pages of a neighbourhood.
const PAGES: u64 = 64;

/// Where the tests look: a neighbourhood that is not at the start of the file, where the kernel
/// reads ahead by itself.
const START: usize = PAGES as usize * PAGE;

fn value(file: &File, page: u64) -> u64 {
    let bytes = pread_all(file, START + page as usize * PAGE, 8);
    u64::from_le_bytes(bytes.try_into().unwrap())
}

/// Waits until the kernel was given something more than before.
fn wait_for_more(mount: &Mount, before: &Stats) -> u64 {
    let limit = Instant::now() + Duration::from_secs(10);
    loop {
        let given = Stats::of(mount).since(before, "given_bytes_total");
        if given >= (PAGES - 2) * PAGE as u64 {
            return given;
        }
        assert!(Instant::now() < limit, "{given} bytes were given");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn the_second_read_of_a_neighbourhood_brings_all_of_it() {
    let target = Target::new();
    let mount = Mount::new("cache_ttl=1h");
    let expected = target.bytes("scratch");
    let file = open(&mount.file(&target, "scratch"));
    let before = Stats::of(&mount);
    for page in [3, 9] {
        value(&file, page);
    }
    assert_eq!(wait_for_more(&mount, &before), (PAGES - 2) * PAGE as u64);
    let before = Stats::of(&mount);
    for page in (0..PAGES as usize).rev() {
        let at = START + page * PAGE;
        assert_bytes(
            "a page",
            &pread_all(&file, at, PAGE),
            &expected[at..at + PAGE],
        );
    }
    let after = Stats::of(&mount);
    for counter in ["vm_readv_calls_total", "cache_hits_total", "cache_misses_total"] {
        assert_eq!(after.since(&before, counter), 0, "{counter}");
    }
}

/// As `cache::no_read_is_older_than_the_bound`, over a whole neighbourhood.
fn a_jumping_reader_sees_nothing_older_than_the_bound() {
    const BOUND: Duration = Duration::from_millis(200);
    // The kernel counts the time to live of attributes in ticks.
    const TICKS: Duration = Duration::from_millis(30);
    let mut target = Target::new();
    let mount = Mount::new("cache_ttl=200ms");
    let start = target.region("scratch").start + START;
    let path = mount.file(&target, "scratch");
    let files = [open(&path), open(&path)];
    // For each page and each value that it had, when that was overwritten.
    let mut overwritten = vec![Vec::<Instant>::new(); PAGES as usize];
    for page in 0..PAGES as usize {
        target.write(start + page * PAGE, &0_u64.to_le_bytes());
    }
    let mut numbers = Numbers::new(5);
    let before = Stats::of(&mount);
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(4) {
        let page = numbers.below(PAGES) as usize;
        let next = overwritten[page].len() as u64 + 1;
        target.write(start + page * PAGE, &next.to_le_bytes());
        overwritten[page].push(Instant::now());
        for file in &files {
            for _ in 0..8 {
                let page = numbers.below(PAGES);
                let asked = Instant::now();
                let seen = value(file, page) as usize;
                if let Some(since) = overwritten[page as usize].get(seen) {
                    let age = asked.saturating_duration_since(*since);
                    assert!(age <= BOUND + TICKS, "a value {age:?} old");
                }
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    wait_for_more(&mount, &before);
}

/// Jumps about in the neighbourhood while `check` runs.
fn among_jumping_readers(path: &Path, check: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for seed in 1..=2 {
            let stop = &stop;
            scope.spawn(move || {
                let file = open(path);
                let mut numbers = Numbers::new(seed);
                while !stop.load(Ordering::Relaxed) {
                    for _ in 0..8 {
                        let at = START as u64 + numbers.below(PAGES) * PAGE as u64;
                        let _ = file.read_at(&mut [0; 8], at);
                    }
                    drop_kernel_pages(&file);
                }
            });
        }
        let result = catch_unwind(AssertUnwindSafe(check));
        stop.store(true, Ordering::Relaxed);
        if let Err(payload) = result {
            resume_unwind(payload);
        }
    });
}

/// As `cache::every_open_starts_fresh`.
fn what_is_opened_among_jumping_readers_starts_fresh() {
    let mut target = Target::new();
    let mount = Mount::new("cache_ttl=1h");
    let start = target.region("scratch").start + START;
    let path = mount.file(&target, "scratch");
    let before = Stats::of(&mount);
    among_jumping_readers(&path, || {
        let mut numbers = Numbers::new(3);
        for round in 1..=1500_u64 {
            let page = numbers.below(PAGES);
            target.write(start + page as usize * PAGE, &round.to_le_bytes());
            assert_eq!(value(&open(&path), page), round);
        }
    });
    wait_for_more(&mount, &before);
}

/// As `cache::writes_and_reads_in_flight_agree`.
fn a_write_among_jumping_readers_is_seen_at_once() {
    for options in ["rw,cache_ttl=1h", "rw"] {
        let target = Target::new();
        let mount = Mount::new(options);
        let path = mount.file(&target, "scratch");
        let writer = open_rw(&path).unwrap();
        let checker = open(&path);
        let before = Stats::of(&mount);
        among_jumping_readers(&path, || {
            let mut numbers = Numbers::new(4);
            for round in 1..=1000_u64 {
                let page = numbers.below(PAGES);
                let at = START as u64 + page * PAGE as u64;
                writer.write_all_at(&round.to_le_bytes(), at).unwrap();
                assert_eq!(value(&checker, page), round, "{options}");
            }
        });
        wait_for_more(&mount, &before);
    }
}

/// With `-o touch` a read faults pages in: no other than those asked for.
fn nothing_is_given_where_reads_touch_memory() {
    let target = Target::new();
    let mount = Mount::new("touch,cache_ttl=1h");
    let file = open(&mount.file(&target, "scratch"));
    for page in [3, 9, 12] {
        value(&file, page);
    }
    assert_eq!(Stats::of(&mount).get("given_bytes_total"), 0);
}
