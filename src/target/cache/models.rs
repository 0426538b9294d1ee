//! Models of the cache: what threads see that read while others write.
//!
//! The property of all of them: a read that begins after a write has ended sees it, or a later one, whatever other
//! reads are under way (SEMANTICS: a write is seen at once).

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use super::*;
use crate::common::address::{Address, AddressRange, PAGE_SIZE};
use crate::common::metrics::Metrics;
use crate::common::models::{ModelClock, exhaust, explore};
use crate::common::sync::{atomic, thread};
use crate::target::fake::{self, FakeProcess};
use crate::target::mapping::Mapping;
use crate::target::{ProcessMemory, ReadSegment, WriteMode};

const START: u64 = 0x10_0000;
const PAGES: u64 = 3;
/// Room for two of them.
const BUDGET: u64 = 2 * PAGE_SIZE + PAGE_SIZE / 2;
const TTL: Duration = Duration::from_millis(100);

/// A process whose pages count up: each is written by one thread, and holds the number of the write.
struct Bench {
    process: FakeProcess,
    cache: Arc<PageCache>,
    freshness: Arc<Freshness>,
    mapping: Mapping,
    /// For each page the last write that has ended. No thread is switched where it is used.
    written: [AtomicU8; PAGES as usize],
}

impl Bench {
    fn new() -> Arc<Self> {
        let process = FakeProcess::new(7, b"fake");
        process.map(START, &[0; (PAGES * PAGE_SIZE) as usize]);
        let metrics = Arc::new(Metrics::default());
        let clock = Arc::new(ModelClock::default());
        Arc::new(Self {
            process,
            cache: Arc::new(PageCache::new(BUDGET, metrics)),
            freshness: Arc::new(Freshness::new(TTL, clock)),
            mapping: fake::mapping(START, 64),
            written: Default::default(),
        })
    }

    /// The memory by way of the cache; the address space is one of its own.
    fn memory(&self) -> Arc<CachedMemory> {
        Arc::new(CachedMemory::new(
            self.process.open(),
            Arc::clone(&self.cache),
            Arc::clone(&self.freshness),
            self.freshness.new_space(),
        ))
    }

    fn write(&self, memory: &CachedMemory, page: u64, number: u8) {
        let at = Address::new(START + page * PAGE_SIZE);
        let written = memory.write(at, &[number], WriteMode::Obey);
        assert_eq!(written, Ok(1));
        self.written[page as usize].store(number, Ordering::SeqCst);
    }

    /// Reads the first byte of each page, from `page` on.
    fn read(&self, memory: &CachedMemory, page: u64) {
        thread::yield_now();
        let pages = page as usize..PAGES as usize;
        let least: Vec<u8> = self.written[pages.clone()]
            .iter()
            .map(|written| written.load(Ordering::SeqCst))
            .collect();
        let mut bytes = vec![0; pages.len() * PAGE_SIZE as usize];
        let segment = ReadSegment {
            address: Address::new(START + page * PAGE_SIZE),
            buffer: &mut bytes,
            mapping: &self.mapping,
        };
        assert_eq!(
            memory.read(&mut [segment]),
            Ok(pages.len() * PAGE_SIZE as usize)
        );
        for (page, (seen, least)) in bytes.chunks(PAGE_SIZE as usize).zip(least).enumerate() {
            assert!(seen[0] >= least, "page {page}: {} after {least}", seen[0]);
        }
    }
}

/// Two threads read through one memory, one through another, and two write, while the cache has no room for all.
#[test]
fn a_read_that_begins_after_a_write_sees_it() {
    explore(3_000, || {
        let bench = Bench::new();
        let (shared, other) = (bench.memory(), bench.memory());
        let mut threads = Vec::new();
        for (memory, page) in [(&shared, 0), (&shared, 2), (&other, 1)] {
            let (bench, memory) = (Arc::clone(&bench), Arc::clone(memory));
            threads.push(thread::spawn(move || {
                for _ in 0..3 {
                    bench.read(&memory, page);
                }
            }));
        }
        for (memory, page) in [(&shared, 1), (&other, 2)] {
            let (bench, memory) = (Arc::clone(&bench), Arc::clone(memory));
            threads.push(thread::spawn(move || {
                for number in 1..=2 {
                    bench.write(&memory, page, number);
                    bench.read(&memory, page);
                }
            }));
        }
        for thread in threads {
            thread.join().unwrap();
        }
        for memory in [&shared, &other] {
            bench.read(memory, 0);
        }
        drop((shared, other));
        let held = bench.cache.metrics().cache_bytes.get();
        assert_eq!(held, 0, "nothing is left of memory that nobody has open");
    });
}

/// Where the bytes are: a page that has come into being before a write ended is seen, even where all that is kept is
/// dropped meanwhile.
#[test]
fn a_seek_that_begins_after_a_write_sees_it() {
    explore(5_000, || {
        let bench = Bench::new();
        let far = START + 8 * PAGE_SIZE;
        bench.process.reserve(far, 1);
        let (memory, other) = (bench.memory(), bench.memory());
        let is_there = Arc::new(AtomicU8::new(0));
        let seek = {
            let (bench, memory) = (Arc::clone(&bench), Arc::clone(&memory));
            let is_there = Arc::clone(&is_there);
            move || {
                thread::yield_now();
                let is_there = is_there.load(Ordering::SeqCst) > 0;
                let end = Address::new(far + PAGE_SIZE);
                let range = AddressRange::new(Address::new(far), end).unwrap();
                let seen = memory.extents(&bench.mapping, range, 1).unwrap();
                assert_eq!(seen.len(), 1);
                let is_data = seen[0].state.is_data();
                assert!(is_data || !is_there, "{seen:?}");
            }
        };
        let mut threads: Vec<_> = (0..2)
            .map(|_| {
                let seek = seek.clone();
                thread::spawn(move || (0..3).for_each(|_| seek()))
            })
            .collect();
        let dropped = Arc::clone(&memory);
        threads.push(thread::spawn(move || dropped.drop_caches()));
        let (writing, written) = (Arc::clone(&bench), Arc::clone(&is_there));
        threads.push(thread::spawn(move || {
            writing.process.map(far, b"data");
            writing.write(&other, 0, 1);
            written.store(1, Ordering::SeqCst);
        }));
        for thread in threads {
            thread.join().unwrap();
        }
        seek();
    });
}

/// One number of memory, and somebody who keeps what was read of it in an epoch.
struct Kept {
    freshness: Freshness,
    space: SpaceEpoch,
    memory: atomic::AtomicU8,
    /// The last write that has ended. No thread is switched where it is used.
    written: AtomicU8,
}

impl Kept {
    fn new() -> Arc<Self> {
        let freshness = Freshness::new(TTL, Arc::new(ModelClock::default()));
        Arc::new(Self {
            space: freshness.new_space(),
            freshness,
            memory: atomic::AtomicU8::new(0),
            written: AtomicU8::new(0),
        })
    }

    fn write(&self, number: u8) {
        self.memory.store(number, Ordering::SeqCst);
        self.freshness.end_all();
        self.written.fetch_max(number, Ordering::SeqCst);
    }

    /// Reads as long as `begin` says the same once from memory, and then from what was kept.
    fn read<E: PartialEq>(&self, times: usize, begin: impl Fn() -> E) {
        let mut kept = None;
        for _ in 0..times {
            thread::yield_now();
            let least = self.written.load(Ordering::SeqCst);
            let epoch = begin();
            let seen = match kept {
                Some((of, number)) if of == epoch => number,
                _ => self.memory.load(Ordering::SeqCst),
            };
            assert!(seen >= least, "{seen} after {least}");
            kept = Some((epoch, seen));
        }
    }
}

/// All orders there are of a write and two reads.
#[test]
fn no_order_of_a_write_and_two_reads_shows_what_was_before() {
    exhaust(|| {
        let kept = Kept::new();
        let writing = Arc::clone(&kept);
        let writer = thread::spawn(move || writing.write(1));
        kept.read(2, || kept.freshness.current(&kept.space));
        writer.join().unwrap();
    });
}

/// All orders there are of two that end all epochs: what had begun before stays over, whoever is the last.
#[test]
fn no_order_of_two_ends_brings_an_epoch_back() {
    exhaust(|| {
        let freshness = Arc::new(Freshness::new(TTL, Arc::new(ModelClock::default())));
        let end = |freshness: &Freshness| {
            let epoch = freshness.renew(&freshness.new_space());
            freshness.end_all();
            assert!(!freshness.is_valid(epoch));
        };
        let other = Arc::clone(&freshness);
        let thread = thread::spawn(move || end(&other));
        end(&freshness);
        thread.join().unwrap();
    });
}

/// The kernel keeps pages as long as the `mtime` of their file stays the same, and the same holds for it. So no two
/// epochs have one `mtime`.
#[test]
fn the_kernel_sees_a_write_too() {
    explore(10_000, || {
        let kept = Kept::new();
        let mut threads = Vec::new();
        for number in 1..=2_u8 {
            let kept = Arc::clone(&kept);
            // In order: what is overtaken by another write may be gone.
            threads.push(thread::spawn(move || {
                let before = kept.memory.fetch_max(number, Ordering::SeqCst);
                kept.freshness.end_all();
                kept.written.fetch_max(number.max(before), Ordering::SeqCst);
            }));
        }
        for _ in 0..2 {
            let kept = Arc::clone(&kept);
            threads.push(thread::spawn(move || {
                kept.read(3, || kept.freshness.for_kernel(&kept.space).0.modified());
            }));
        }
        let renewing = Arc::clone(&kept);
        threads.push(thread::spawn(move || {
            let first = renewing.freshness.renew(&renewing.space);
            let second = renewing.freshness.renew(&renewing.space);
            assert!(first.modified() < second.modified());
        }));
        for thread in threads {
            thread.join().unwrap();
        }
    });
}
