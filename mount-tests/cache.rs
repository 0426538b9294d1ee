//! The cache, the freshness bound and the counters.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::{
    Mount, Numbers, PAGE, Stats, Target, assert_bytes, drop_kernel_pages, open, open_rw, pattern,
    pread_all, tests,
};

tests![
    reading_again_does_not_touch_the_process,
    every_open_starts_fresh,
    without_a_bound_every_read_sees_the_value_at_once,
    no_read_is_older_than_the_bound,
    a_write_is_seen_through_every_other_file,
    a_write_is_seen_by_a_private_mapping_of_the_same_file,
    writes_and_reads_in_flight_agree,
    random_writes_and_reads_through_many_files_agree,
    a_direct_read_is_one_system_call_a_request,
    a_buffered_read_makes_at_most_one_system_call_a_request,
    one_write_of_one_mebibyte_is_one_system_call,
    the_cache_keeps_to_its_size,
    a_large_sequential_read_does_not_flush_the_cache,
    the_counters_are_prometheus_text,
];

fn value(file: &File, offset: usize) -> u64 {
    u64::from_le_bytes(pread_all(file, offset, 8).try_into().unwrap())
}

/// Within the bound, reading the same bytes again over an open file makes no
/// call to the process; the daemon's cache answers where the kernel's cannot.
fn reading_again_does_not_touch_the_process() {
    let target = Target::new();
    let mount = Mount::new("cache_ttl=1h");
    let expected = target.bytes("private");
    let file = open(&mount.file(&target, "private"));
    pread_all(&file, 0, expected.len());
    let before = Stats::of(&mount);
    let again = pread_all(&file, 0, expected.len());
    assert_bytes("again", &again, &expected);
    drop_kernel_pages(&file);
    let again = pread_all(&file, 0, expected.len());
    assert_bytes("without the kernel's pages", &again, &expected);
    let after = Stats::of(&mount);
    assert_eq!(after.since(&before, "vm_readv_calls_total"), 0);
    assert_eq!(after.since(&before, "mem_reads_total"), 0);
    assert_eq!(after.since(&before, "cache_misses_total"), 0);
    assert!(after.since(&before, "cache_hits_total") > 0);
}

/// A file that is opened anew shows the memory of now, however long the bound
/// and whatever is cached from an earlier open, which stays open meanwhile.
fn every_open_starts_fresh() {
    let mut target = Target::new();
    let mount = Mount::new("cache_ttl=1h");
    let region = target.region("private");
    let path = mount.file(&target, "private");
    let old = open(&path);
    pread_all(&old, 0, region.len());
    for round in 1..=20_u64 {
        for offset in [0, 5 * PAGE + 8] {
            target.write(region.start + offset, &round.to_le_bytes());
        }
        let file = open(&path);
        for offset in [0, 5 * PAGE + 8] {
            assert_eq!(value(&file, offset), round, "at {offset}");
        }
    }
}

/// With `cache_ttl=0` each read of an open file sees what the process wrote
/// before it.
fn without_a_bound_every_read_sees_the_value_at_once() {
    let mut target = Target::new();
    let mount = Mount::new("cache_ttl=0");
    for name in ["private", "memfd", "file_shared"] {
        let start = target.region(name).start;
        let files = [0, 1].map(|_| open(&mount.file(&target, name)));
        for round in 0..100_u64 {
            target.write(start + 4096, &round.to_le_bytes());
            for file in &files {
                assert_eq!(value(file, 4096), round, "{name}");
            }
        }
    }
    let stats = Stats::of(&mount);
    assert_eq!(stats.get("cache_hits_total"), 0);
}

/// A value that was overwritten longer ago than the bound is never read again,
/// though the kernel and the daemon both cache.
fn no_read_is_older_than_the_bound() {
    const BOUND: Duration = Duration::from_millis(200);
    // The kernel counts the time to live of attributes in ticks.
    const TICKS: Duration = Duration::from_millis(30);
    let mut target = Target::new();
    let mount = Mount::new("cache_ttl=200ms");
    let start = target.region("private").start;
    let path = mount.file(&target, "private");
    let files = [open(&path), open(&path)];
    let mut overwritten: Vec<Instant> = Vec::new();
    target.write(start, &0_u64.to_le_bytes());
    let begin = Instant::now();
    let mut round = 0_u64;
    // The kernel counts from when it takes the answer, which a busy machine does later than the daemon gives it.
    let mut longest = Duration::ZERO;
    while begin.elapsed() < Duration::from_secs(4) {
        if round.is_multiple_of(3) {
            let next = overwritten.len() as u64 + 1;
            target.write(start, &next.to_le_bytes());
            // Whatever was there before is old from here on.
            overwritten.push(Instant::now());
        }
        for (index, file) in files.iter().enumerate() {
            let asked = Instant::now();
            let seen = value(file, 0) as usize;
            longest = longest.max(asked.elapsed());
            if let Some(since) = overwritten.get(seen) {
                let age = asked.saturating_duration_since(*since);
                assert!(age <= BOUND + TICKS + longest, "a value {age:?} old");
            }
            // Now one file's pages go, now the other's, so that each cache
            // fills from the other at every age.
            if round % 7 == 3 * index as u64 {
                drop_kernel_pages(file);
            }
        }
        round += 1;
        std::thread::sleep(Duration::from_millis(9));
    }
    assert!(overwritten.len() > 10, "the test hardly ran");
}

/// What is written through one file of the mount is seen at once by a read of
/// another one that maps the same memory, in the same process or in another,
/// however long the bound.
fn a_write_is_seen_through_every_other_file() {
    for options in ["write,cache_ttl=1h", "write", "write,cache_ttl=0"] {
        let mut one = Target::new();
        let mut two = Target::of_generation(2);
        let len = one.region("memfd").len();
        let memfd = format!("/proc/{}/fd/{}", one.pid(), one.ask("memfd memfd"));
        one.map("again", &memfd, len, "shared rw");
        two.map("theirs", &memfd, len, "shared r");
        let mount = Mount::new(options);
        let writer = open_rw(&mount.file(&one, "memfd")).unwrap();
        let readers = [
            open(&mount.file(&one, "memfd")),
            open(&mount.file(&one, "again")),
            open(&mount.file(&two, "theirs")),
        ];
        for round in 0..20_u64 {
            for offset in [8, 3 * PAGE + 16] {
                for reader in &readers {
                    value(reader, offset);
                }
                writer
                    .write_all_at(&round.to_le_bytes(), offset as u64)
                    .unwrap();
                for (index, reader) in readers.iter().enumerate() {
                    let what = format!("file {index} at {offset} with {options}");
                    assert_eq!(value(reader, offset), round, "{what}");
                }
            }
        }
    }
}

/// So does a private mapping of a file whose page is still the file's.
fn a_write_is_seen_by_a_private_mapping_of_the_same_file() {
    for options in ["write,cache_ttl=1h", "write,cache_ttl=0"] {
        let one = Target::new();
        let mut two = Target::of_generation(2);
        let backing = one.dir().join("shared.bin");
        let len = one.region("file_shared").len();
        two.map("theirs", backing.to_str().unwrap(), len, "private r");
        let mount = Mount::new(options);
        let writer = open_rw(&mount.file(&one, "file_shared")).unwrap();
        let reader = open(&mount.file(&two, "theirs"));
        for round in 0..20_u64 {
            value(&reader, 8);
            writer.write_all_at(&round.to_le_bytes(), 8).unwrap();
            assert_eq!(value(&reader, 8), round, "{options}");
        }
    }
}

/// A read that was under way during a write never leaves the old bytes in a
/// cache: after the write every file gives the new ones.
fn writes_and_reads_in_flight_agree() {
    for options in ["write,cache_ttl=1h", "write"] {
        let target = Target::new();
        let mount = Mount::new(options);
        let path = mount.file(&target, "private");
        let writer = open_rw(&path).unwrap();
        let checker = open(&path);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let file = open(&path);
                    while !stop.load(Ordering::Relaxed) {
                        drop_kernel_pages(&file);
                        let _ = file.read_at(&mut [0; 4 * PAGE], 0);
                    }
                });
            }
            let result = std::panic::catch_unwind(|| {
                for round in 0..1000_u64 {
                    writer.write_all_at(&round.to_le_bytes(), 16).unwrap();
                    assert_eq!(value(&checker, 16), round, "{options}");
                }
            });
            stop.store(true, Ordering::Relaxed);
            if let Err(payload) = result {
                std::panic::resume_unwind(payload);
            }
        });
    }
}

/// Random writes through two files of a mapping, random reads through files
/// that were opened before for reading (buffered), for both, and anew: each
/// read gives what was written last.
fn random_writes_and_reads_through_many_files_agree() {
    for (options, seed) in [
        ("write", 1),
        ("write,cache_ttl=1h", 2),
        ("write,cache_size=64K", 3),
    ] {
        let target = Target::new();
        let mount = Mount::new(options);
        let path = mount.file(&target, "scratch");
        let writers = [open_rw(&path).unwrap(), open_rw(&path).unwrap()];
        let readers = [open(&path), open(&path), open_rw(&path).unwrap()];
        let mut expected = target.bytes("scratch");
        let mut numbers = Numbers::new(seed);
        let area = 256 << 10;
        for round in 0..2000_u64 {
            let offset = numbers.below(area) as usize;
            let len = numbers.below((area - offset as u64).min(40_000)) as usize;
            let what = format!("{len} bytes at {offset} in round {round} with {options}");
            match numbers.below(8) {
                0..3 => {
                    let data = pattern::bytes(offset as u64 * 8, len, round);
                    let writer = &writers[numbers.below(2) as usize];
                    writer.write_all_at(&data, offset as u64).unwrap();
                    expected[offset..offset + len].copy_from_slice(&data);
                }
                3..7 => {
                    let reader = &readers[numbers.below(3) as usize];
                    let got = pread_all(reader, offset, len);
                    assert_bytes(&what, &got, &expected[offset..offset + len]);
                }
                _ => {
                    let got = pread_all(&open(&path), offset, len);
                    assert_bytes(&what, &got, &expected[offset..offset + len]);
                }
            }
        }
        let bytes = std::fs::read(&path).unwrap();
        assert_bytes(options, &bytes, &expected);
    }
}

/// A buffer whose first byte lies at the start of a page, as the kernel needs
/// it for a request of 256 pages.
fn aligned(buffer: &mut [u8], len: usize) -> &mut [u8] {
    let skip = buffer.as_ptr().align_offset(PAGE);
    &mut buffer[skip..skip + len]
}

/// With `cache_ttl=0` an aligned read of memory that is there is one `process_vm_readv` for each request, and the kernel makes one for
/// each 256 KiB.
fn a_direct_read_is_one_system_call_a_request() {
    let target = Target::new();
    let mount = Mount::new("cache_ttl=0");
    let expected = target.bytes("scratch");
    let file = open(&mount.file(&target, "scratch"));
    let mut buffer = vec![0; (1 << 20) + PAGE];
    for mebibyte in [0, 3, 7] {
        let before = Stats::of(&mount);
        let bytes = aligned(&mut buffer, 1 << 20);
        let offset = mebibyte << 20;
        let count = file.read_at(bytes, offset as u64).unwrap();
        assert_eq!(count, 1 << 20);
        assert_bytes("one MiB", bytes, &expected[offset..offset + (1 << 20)]);
        let after = Stats::of(&mount);
        assert_eq!(after.since(&before, "vm_readv_calls_total"), 4);
        assert_eq!(after.since(&before, "mem_reads_total"), 0);
        assert!(after.since(&before, "read_bytes_total") >= 1 << 20);
    }
}

/// A cold read through the kernel's cache makes at most one call to the
/// process for each request, never one a page.
fn a_buffered_read_makes_at_most_one_system_call_a_request() {
    let target = Target::new();
    let mount = Mount::new("");
    let file = open(&mount.file(&target, "scratch"));
    let before = Stats::of(&mount);
    pread_all(&file, 0, 8 << 20);
    let after = Stats::of(&mount);
    let calls = after.since(&before, "vm_readv_calls_total");
    let requests = after.since(&before, "requests_total{operation=\"read\"}");
    assert!(calls >= 1, "no call was counted");
    assert!(
        calls <= requests,
        "{calls} calls for {requests} read requests"
    );
    assert!(calls <= 256, "{calls} calls for 8 MiB");
}

/// A write of 1 MiB is not cut into pages either.
fn one_write_of_one_mebibyte_is_one_system_call() {
    let target = Target::new();
    let mount = Mount::new("write,cache_ttl=0");
    let file = open_rw(&mount.file(&target, "scratch")).unwrap();
    let mut buffer = vec![0x5a; (1 << 20) + PAGE];
    let before = Stats::of(&mount);
    let bytes = aligned(&mut buffer, 1 << 20);
    assert_eq!(file.write_at(bytes, 1 << 20).unwrap(), 1 << 20);
    let after = Stats::of(&mount);
    // Over io_uring a request holds less.
    let expected = if after.get("io_uring") == 1 { 4 } else { 1 };
    assert_eq!(after.since(&before, "mem_writes_total"), expected);
    assert_eq!(after.since(&before, "written_bytes_total"), 1 << 20);
    // Nothing was read for it.
    assert_eq!(after.since(&before, "vm_readv_calls_total"), 0);
}

/// `cache_bytes` stays within `cache_size`, down to no cache at all.
fn the_cache_keeps_to_its_size() {
    let target = Target::new();
    let expected = target.bytes("scratch");
    for (size, limit) in [("1M", 1 << 20), ("64K", 64 << 10), ("0", 0)] {
        let mount = Mount::new(&format!("cache_ttl=1h,cache_size={size}"));
        let file = open(&mount.file(&target, "scratch"));
        for offset in (0..expected.len()).step_by(3 * PAGE) {
            let len = PAGE.min(expected.len() - offset);
            let got = pread_all(&file, offset, len);
            assert_bytes(size, &got, &expected[offset..offset + len]);
        }
        let bytes = std::fs::read(mount.file(&target, "scratch")).unwrap();
        assert_bytes(size, &bytes, &expected);
        let held = Stats::of(&mount).get("cache_bytes");
        assert!(held <= limit, "{held} bytes in a cache of {size}");
        assert!(held > 0 || limit == 0, "nothing in a cache of {size}");
    }
}

/// Reading a mapping that is larger than the cache from start to end leaves
/// what was read again and again in it.
fn a_large_sequential_read_does_not_flush_the_cache() {
    let target = Target::new();
    let mount = Mount::new("cache_ttl=1h,cache_size=4M");
    // Both at first: what is read after an `open` is not older than it.
    let file = open(&mount.file(&target, "private"));
    let large = open(&mount.file(&target, "scratch"));
    let expected = target.bytes("private");
    for _ in 0..3 {
        drop_kernel_pages(&file);
        pread_all(&file, 0, expected.len());
    }
    let everything = target.bytes("scratch");
    for offset in (0..everything.len()).step_by(128 << 10) {
        let got = pread_all(&large, offset, 128 << 10);
        assert_bytes("scratch", &got, &everything[offset..offset + (128 << 10)]);
    }
    let before = Stats::of(&mount);
    drop_kernel_pages(&file);
    let got = pread_all(&file, 0, expected.len());
    assert_bytes("private", &got, &expected);
    let after = Stats::of(&mount);
    assert_eq!(after.since(&before, "vm_readv_calls_total"), 0);
}

/// `stats` is Prometheus text with every promised counter, and the counters
/// count.
fn the_counters_are_prometheus_text() {
    let target = Target::new();
    let mount = Mount::new("write,cache_ttl=0");
    let before = Stats::of(&mount);
    let path = mount.file(&target, "noaccess");
    pread_all(&open(&path), 0, PAGE);
    let writer = open_rw(&mount.file(&target, "private")).unwrap();
    writer.write_all_at(b"counted", 0).unwrap();
    let _ = mount.path("99999999").metadata();
    let after = Stats::of(&mount);
    for name in [
        "read_bytes_total",
        "written_bytes_total",
        "vm_readv_calls_total",
        "vm_readv_iovecs_total",
        "mem_reads_total",
        "mem_writes_total",
        "maps_reads_total",
        "cache_hits_total",
        "cache_misses_total",
        "cache_bytes",
    ] {
        after.get(name);
    }
    for operation in ["read", "write", "lookup", "open", "getattr", "readdir"] {
        let name = format!("requests_total{{operation=\"{operation}\"}}");
        let found = after.names().any(|full| {
            full.starts_with(&format!(
                "procmemfs_requests_total{{operation=\"{operation}"
            ))
        });
        assert!(found, "no {name}");
    }
    assert!(after.since(&before, "requests_total{operation=\"read\"}") >= 1);
    assert_eq!(after.since(&before, "written_bytes_total"), 7);
    assert_eq!(after.since(&before, "mem_writes_total"), 1);
    assert!(
        after.since(&before, "mem_reads_total") >= 1,
        "a page without r"
    );
    assert!(after.since(&before, "maps_reads_total") >= 1);
    let text = std::fs::read_to_string(mount.path("stats")).unwrap();
    assert!(text.contains("# TYPE procmemfs_requests_total counter"));
    assert!(text.contains("# TYPE procmemfs_cache_bytes gauge"));
    assert!(text.ends_with('\n'));
}
