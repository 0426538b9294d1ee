//! Benchmarks of single parts: `cargo bench --bench units`
//!
//! What whole mounts do is measured by the script `throughput` beside this file.

mod probe;

use std::fmt::Write;
use std::hint::black_box;
use std::io::IoSlice;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use nix::sys::uio::{RemoteIoVec, process_vm_writev};
use nix::unistd::Pid;
use procmemfs::common::address::{Address, AddressRange, PAGE_SIZE};
use procmemfs::common::clock::{ManualClock, SystemClock};
use procmemfs::common::error::Result;
use procmemfs::common::metrics::Metrics;
use procmemfs::target::cache::{CachedMemory, Freshness, PageCache};
use procmemfs::target::fake::{self, FakeProcess};
use procmemfs::target::live::{LiveSource, SourceOptions};
use procmemfs::target::mapping::{AddressSpace, Mapping};
use procmemfs::target::page_state::{Extent, MemoryUsage, PageState};
use procmemfs::target::{
    ProcessId, ProcessIdentity, ProcessMemory, ProcessSource, ReadSegment, WriteMode, requested,
};
use procmemfs::view::{FaultPolicy, MappingFile, Short};

const PAGE: usize = PAGE_SIZE as usize;

/// Pages of the batching benchmark: the most iovecs that the kernel takes in one call.
const SCATTERED: usize = 1024;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if probe::run(&arguments) {
        return;
    }
    let mut criterion = Criterion::default().configure_from_args();
    parser(&mut criterion);
    cache(&mut criterion);
    batching(&mut criterion);
    views(&mut criterion);
    writes(&mut criterion);
    criterion.final_summary();
}

/// The text of `maps` with so many lines, of the kinds that a large process has.
fn maps(lines: u64) -> Vec<u8> {
    let mut text = String::new();
    for line in 0..lines {
        let start = 0x7f00_0000_0000 + line * 0x3000;
        let end = start + 0x2000;
        let rest = match line % 4 {
            0 => {
                "r-xp 00028000 fe:01 1835026                    /usr/lib/x86_64-linux-gnu/libc.so.6"
            }
            1 => "rw-p 00000000 00:00 0 ",
            2 => "rw-s 00000000 00:01 3079                       /memfd:pool (deleted)",
            _ => "---p 00000000 00:00 0                          [anon:guard]",
        };
        writeln!(text, "{start:x}-{end:x} {rest}").expect("text takes text");
    }
    text.into_bytes()
}

fn parser(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("maps parser");
    for lines in [1_000, 65_000] {
        let text = maps(lines);
        group.throughput(Throughput::Elements(lines));
        group.bench_with_input(
            BenchmarkId::from_parameter(lines),
            &text,
            |bencher, text| {
                bencher.iter(|| AddressSpace::parse(black_box(text)).expect("maps"));
            },
        );
    }
    group.finish();
}

/// Memory that costs no more than the copy, so that the cache itself is what is measured.
#[derive(Debug)]
struct Plain {
    identity: ProcessIdentity,
    bytes: Vec<u8>,
}

impl ProcessMemory for Plain {
    fn identity(&self) -> &ProcessIdentity {
        &self.identity
    }

    fn verify(&self) -> Result<()> {
        Ok(())
    }

    fn read(&self, segments: &mut [ReadSegment<'_>]) -> Result<usize> {
        for segment in &mut *segments {
            let start = segment.address.get() as usize;
            let bytes = &self.bytes[start..start + segment.buffer.len()];
            segment.buffer.copy_from_slice(bytes);
        }
        Ok(requested(segments))
    }

    fn extents(&self, _: &Mapping, range: AddressRange, _: usize) -> Result<Vec<Extent>> {
        let state = PageState::Resident;
        Ok(vec![Extent { range, state }])
    }

    fn memory_usage(&self, ranges: &[AddressRange]) -> Result<Vec<MemoryUsage>> {
        let whole = ranges.iter().map(|range| MemoryUsage {
            resident: range.len(),
            ..MemoryUsage::default()
        });
        Ok(whole.collect())
    }

    fn write(&self, _address: Address, data: &[u8], _mode: WriteMode) -> Result<usize> {
        Ok(data.len())
    }
}

/// A cache over plain memory, and the clock that makes it old.
struct Cached {
    clock: Arc<ManualClock>,
    memory: CachedMemory,
    mapping: Mapping,
}

impl Cached {
    const BOUND: Duration = Duration::from_millis(100);

    fn new(bytes: usize) -> Self {
        let clock = Arc::new(ManualClock::new());
        let freshness = Arc::new(Freshness::new(Self::BOUND, Arc::clone(&clock) as _));
        let epoch = freshness.new_space();
        let plain = Plain {
            identity: FakeProcess::new(1, b"plain").identity(),
            bytes: (0..bytes).map(|at| (at / 7) as u8).collect(),
        };
        let cache = Arc::new(PageCache::new(64 << 20, Arc::new(Metrics::default())));
        Self {
            clock,
            memory: CachedMemory::new(Arc::new(plain), cache, freshness, epoch),
            mapping: fake::mapping(0, (bytes / PAGE) as u64),
        }
    }

    fn read(&self, address: usize, buffer: &mut [u8]) -> usize {
        let segment = ReadSegment {
            address: Address::new(address as u64),
            buffer,
            mapping: &self.mapping,
        };
        self.memory.read(&mut [segment]).expect("a read")
    }
}

fn cache(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cache");
    for len in [8, PAGE, 16 * PAGE] {
        group.throughput(Throughput::Bytes(len as u64));
        let mut buffer = vec![0; len];
        let cached = Cached::new(16 * PAGE);
        cached.read(0, &mut buffer);
        group.bench_function(BenchmarkId::new("hit", len), |bencher| {
            bencher.iter(|| cached.read(0, &mut buffer));
        });
        group.bench_function(BenchmarkId::new("miss", len), |bencher| {
            bencher.iter(|| {
                cached.clock.advance(Cached::BOUND);
                cached.read(0, &mut buffer)
            });
        });
    }
    // One large request of which every other run of 16 pages is held.
    let whole = 1 << 20;
    group.throughput(Throughput::Bytes(whole as u64));
    let cached = Cached::new(whole);
    let mut buffer = vec![0; whole];
    for start in (0..whole).step_by(32 * PAGE) {
        cached.read(start, &mut buffer[..16 * PAGE]);
    }
    group.bench_function(BenchmarkId::new("mixed", whole), |bencher| {
        bencher.iter(|| cached.read(0, &mut buffer));
    });
    // A pass over twice as much as the cache holds: each page pushes another one out.
    let (file, step) = (128 << 20, 64 << 10);
    group.throughput(Throughput::Bytes(step as u64));
    let cached = Cached::new(file);
    let mut buffer = vec![0; step];
    let mut at = 0;
    group.bench_function(BenchmarkId::new("pass", file), |bencher| {
        bencher.iter(|| {
            cached.read(at, &mut buffer);
            at = (at + step) % file;
        });
    });
    group.finish();
}

/// Every other page of a live process: in one call, and in a call for each.
fn batching(criterion: &mut Criterion) {
    let holder = probe::Holder::start(2 * SCATTERED * PAGE);
    let pid = ProcessId::new(holder.pid()).expect("a process's number");
    let (clock, metrics) = (Arc::new(SystemClock::new()), Arc::new(Metrics::default()));
    let source = LiveSource::new(SourceOptions::default(), clock, metrics).expect("/proc");
    let identity = source.describe(pid).expect("a live child").identity;
    let process = source.open(&identity).expect("a child may be read");
    let memory = process.memory().expect("it lives");
    let mut buffer = vec![0; SCATTERED * PAGE];
    let address = |index: usize| Address::new(holder.address + (2 * index * PAGE) as u64);
    let mapping = fake::mapping(holder.address, 2 * SCATTERED as u64);

    let mut group = criterion.benchmark_group("1024 scattered pages");
    group.throughput(Throughput::Bytes(buffer.len() as u64));
    group.bench_function("one call", |bencher| {
        bencher.iter(|| {
            let mut segments: Vec<ReadSegment<'_>> = buffer
                .chunks_mut(PAGE)
                .enumerate()
                .map(|(index, buffer)| segment(address(index), buffer, &mapping))
                .collect();
            let read = memory.read(&mut segments);
            assert_eq!(read.expect("resident pages"), SCATTERED * PAGE);
        });
    });
    group.bench_function("1024 calls", |bencher| {
        bencher.iter(|| {
            for (index, buffer) in buffer.chunks_mut(PAGE).enumerate() {
                let read = memory.read(&mut [segment(address(index), buffer, &mapping)]);
                assert_eq!(read.expect("resident pages"), PAGE);
            }
        });
    });
    group.finish();
}

/// Resident memory of a live process, from the view down to the system call, past the cache and
/// through one that holds nothing fresh.
fn views(criterion: &mut Criterion) {
    const WHOLE: usize = 1 << 20;
    let holder = probe::Holder::start(WHOLE);
    let pid = ProcessId::new(holder.pid()).expect("a process's number");
    let (clock, metrics) = (Arc::new(SystemClock::new()), Arc::new(Metrics::default()));
    let source = LiveSource::new(SourceOptions::default(), clock, metrics).expect("/proc");
    let identity = source.describe(pid).expect("a live child").identity;
    let process = source.open(&identity).expect("a child may be read");
    let memory = process.memory().expect("it lives");
    let clock = Arc::new(ManualClock::new());
    let freshness = Arc::new(Freshness::new(Cached::BOUND, Arc::clone(&clock) as _));
    let cache = Arc::new(PageCache::new(64 << 20, Arc::new(Metrics::default())));
    let epoch = freshness.new_space();
    let cached = CachedMemory::new(Arc::clone(&memory), cache, freshness, epoch);
    let mapping = Arc::new(fake::mapping(holder.address, (WHOLE / PAGE) as u64));
    let file = |memory| MappingFile::new(memory, Arc::clone(&mapping), FaultPolicy::Error);
    let (bare, cached) = (file(memory), file(Arc::new(cached)));
    let mut buffer = vec![0; WHOLE];

    let mut group = criterion.benchmark_group("view of a live process");
    for len in [8, PAGE, WHOLE] {
        group.throughput(Throughput::Bytes(len as u64));
        let buffer = &mut buffer[..len];
        group.bench_function(BenchmarkId::new("uncached", len), |bencher| {
            bencher.iter(|| bare.read_at(0, buffer, Short::Allowed).expect("a read"));
        });
        group.bench_function(BenchmarkId::new("missed", len), |bencher| {
            bencher.iter(|| {
                clock.advance(Cached::BOUND);
                cached.read_at(0, buffer, Short::Allowed).expect("a read")
            });
        });
    }
    group.finish();
}

/// Writes to a live process: through its pinned `mem`, as they are done, and by its number between two checks, which is what
/// that costs more than: an exec may come between check and call there.
fn writes(criterion: &mut Criterion) {
    const WHOLE: usize = 1 << 20;
    let holder = probe::Holder::start(WHOLE);
    let pid = ProcessId::new(holder.pid()).expect("a process's number");
    let (clock, metrics) = (Arc::new(SystemClock::new()), Arc::new(Metrics::default()));
    let options = SourceOptions {
        writable: true,
        ..SourceOptions::default()
    };
    let source = LiveSource::new(options, clock, metrics).expect("/proc");
    let identity = source.describe(pid).expect("a live child").identity;
    let process = source.open(&identity).expect("a child may be read");
    let memory = process.memory().expect("it lives");
    let address = Address::new(holder.address);
    let data = vec![0x5a; WHOLE];

    let mut group = criterion.benchmark_group("writes to a live process");
    for len in [8, PAGE, WHOLE] {
        group.throughput(Throughput::Bytes(len as u64));
        let data = &data[..len];
        group.bench_function(BenchmarkId::new("pinned mem", len), |bencher| {
            bencher.iter(|| {
                memory
                    .write(address, data, WriteMode::Obey)
                    .expect("a write")
            });
        });
        let base = holder.address as usize;
        group.bench_function(BenchmarkId::new("by number", len), |bencher| {
            bencher.iter(|| {
                memory.verify().expect("it lives");
                let (local, remote) = ([IoSlice::new(data)], [RemoteIoVec { base, len }]);
                let pid = Pid::from_raw(pid.as_pid_t());
                process_vm_writev(pid, &local, &remote).expect("a write");
                memory.verify().expect("it lives");
            });
        });
    }
    group.finish();
}

fn segment<'a>(address: Address, buffer: &'a mut [u8], mapping: &'a Mapping) -> ReadSegment<'a> {
    ReadSegment {
        address,
        buffer,
        mapping,
    }
}
