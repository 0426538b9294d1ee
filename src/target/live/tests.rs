//! The live backend on this very process, which needs no privilege.

use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::Arc;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, mprotect, munmap};
use nix::unistd::ftruncate;

use super::{Feature, LiveSource, SourceOptions, check_page_size};
use crate::common::address::{Address, AddressRange, PAGE_SIZE};
use crate::common::clock::SystemClock;
use crate::common::error::Error;
use crate::common::metrics::Metrics;
use crate::target::fake::conformance::{self, Layout};
use crate::target::mapping::{AddressSpace, Mapping};
use crate::target::page_state::{Extent, PageState};
use crate::target::{ProcessId, ProcessMemory, ProcessSource, ReadSegment, WriteMode};

const PAGE: usize = PAGE_SIZE as usize;

/// Shared pages of this process, each filled with its number and a pattern; after the last of
/// them the mapping goes on for one page, but its memory object does not.
struct Pages {
    start: NonNull<std::ffi::c_void>,
    len: NonZeroUsize,
    memory: OwnedFd,
}

impl Pages {
    fn new(count: usize) -> Self {
        let len = NonZeroUsize::new((count + 1) * PAGE).unwrap();
        let memory = memfd_create(c"pages", MFdFlags::MFD_CLOEXEC).unwrap();
        ftruncate(&memory, (count * PAGE) as i64).unwrap();
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no other memory.
        let start =
            unsafe { mmap(None, len, protection, MapFlags::MAP_SHARED, &memory, 0) }.unwrap();
        let pages = Self { start, len, memory };
        let bytes: Vec<u8> = (0..count).flat_map(Self::expected).collect();
        let written = nix::sys::uio::pwrite(&pages.memory, &bytes, 0).unwrap();
        assert_eq!(written, bytes.len());
        pages
    }

    fn mapping(&self, permissions: &str) -> Mapping {
        let start = self.start.as_ptr() as usize;
        let end = start + self.len.get();
        let line = format!("{start:x}-{end:x} {permissions} 00000000 00:00 0");
        AddressSpace::parse(line.as_bytes()).unwrap().mappings()[0].clone()
    }

    /// Makes the pages present in our page table.
    fn touch(&self) -> &Self {
        for page in 0..self.len.get() / PAGE - 1 {
            // SAFETY: the address lies in our mapping, before the end of its memory object.
            unsafe { (self.address(page).get() as *const u8).read_volatile() };
        }
        self
    }

    fn protect(&self, protection: ProtFlags) {
        // SAFETY: the mapping is ours alone, and no reference into it is alive.
        unsafe { mprotect(self.start, self.len.get(), protection) }.unwrap();
    }

    fn address(&self, page: usize) -> Address {
        Address::new(self.start.as_ptr() as u64 + (page * PAGE) as u64)
    }

    fn expected(page: usize) -> Vec<u8> {
        (page * PAGE..(page + 1) * PAGE)
            .map(|index| (index / PAGE * 7 + index % 251) as u8)
            .collect()
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours alone and nothing refers to it any more.
        unsafe { munmap(self.start, self.len.get()) }.unwrap();
    }
}

fn source() -> LiveSource {
    let clock = Arc::new(SystemClock::new());
    LiveSource::new(
        SourceOptions::default(),
        clock,
        Arc::new(Metrics::default()),
    )
    .unwrap()
}

fn myself(metrics: &Arc<Metrics>) -> Arc<dyn ProcessMemory> {
    open_myself(SourceOptions::default(), metrics)
}

fn writable() -> Arc<dyn ProcessMemory> {
    let options = SourceOptions {
        writable: true,
        ..SourceOptions::default()
    };
    open_myself(options, &Arc::new(Metrics::default()))
}

fn open_myself(options: SourceOptions, metrics: &Arc<Metrics>) -> Arc<dyn ProcessMemory> {
    let source =
        LiveSource::new(options, Arc::new(SystemClock::new()), Arc::clone(metrics)).unwrap();
    let pid = ProcessId::new(std::process::id()).unwrap();
    let info = source.describe(pid).unwrap();
    source.open(&info.identity).unwrap().memory().unwrap()
}

#[test]
fn a_live_process_keeps_to_the_contract() {
    let pages = Pages::new(2);
    let layout = Layout {
        mapping: pages.mapping("rw-s"),
        start: pages.address(0),
        first: Pages::expected(0),
        second: Pages::expected(1),
    };
    conformance::check(&*writable(), &layout);
}

#[test]
fn more_ranges_than_one_call_takes_are_read_in_batches() {
    let pages = Pages::new(2500);
    let mapping = pages.touch().mapping("rw-s");
    let metrics = Arc::new(Metrics::default());
    let memory = myself(&metrics);
    let mut buffers = vec![vec![0; 16]; 2500];
    let mut segments: Vec<ReadSegment<'_>> = buffers
        .iter_mut()
        .enumerate()
        .map(|(page, buffer)| ReadSegment {
            address: pages.address(page),
            buffer,
            mapping: &mapping,
        })
        .collect();
    assert_eq!(memory.read(&mut segments), Ok(2500 * 16));
    for (page, buffer) in buffers.iter().enumerate() {
        assert_eq!(*buffer, Pages::expected(page)[..16]);
    }
    assert_eq!(metrics.vm_readv_calls.get(), 3);
    assert_eq!(metrics.vm_readv_iovecs.get(), 2500);
}

#[test]
fn memory_without_protection_bits_is_read_through_the_pinned_descriptor() {
    let pages = Pages::new(2);
    pages.touch().protect(ProtFlags::PROT_NONE);
    // As it is, and as it was when somebody opened it.
    for permissions in ["---s", "rw-s"] {
        let metrics = Arc::new(Metrics::default());
        let memory = myself(&metrics);
        let mapping = pages.mapping(permissions);
        let mut bytes = vec![0; 2 * PAGE];
        let segment = ReadSegment {
            address: pages.address(0),
            buffer: &mut bytes,
            mapping: &mapping,
        };
        assert_eq!(memory.read(&mut [segment]), Ok(2 * PAGE));
        assert_eq!(bytes, [Pages::expected(0), Pages::expected(1)].concat());
        assert_eq!(metrics.mem_reads.get(), 1);
    }
}

/// SEMANTICS: a write that meets a page without `w` later writes the bytes before it.
#[test]
fn a_write_ends_where_the_protection_does() {
    let pages = Pages::new(4);
    let memory = writable();
    let only_read = |page: usize| {
        let start = NonNull::new(pages.address(page).get() as *mut std::ffi::c_void).unwrap();
        // SAFETY: the page lies in our mapping, and no reference into it is alive.
        unsafe { mprotect(start, PAGE, ProtFlags::PROT_READ) }.unwrap();
    };
    let write = |page, len| {
        let data = vec![0xa5; len];
        memory.write(pages.address(page).plus(10), &data, WriteMode::Obey)
    };
    assert_eq!(write(0, 2 * PAGE), Ok(2 * PAGE));
    only_read(1);
    assert_eq!(write(0, 2 * PAGE), Ok(PAGE - 10));
    let address = pages.address(1).plus(10);
    assert_eq!(write(1, 1), Err(Error::Unreachable(address)));
    assert_eq!(write(2, 1), Ok(1));
    // The object ends there, the mapping does not.
    assert_eq!(write(3, PAGE), Ok(PAGE - 10));
    let address = pages.address(4).plus(10);
    assert_eq!(write(4, 1), Err(Error::Unreachable(address)));
    // Shared memory without `w` takes nothing by force either: it would change for all who share it.
    let forced = memory.write(pages.address(1), &[1], WriteMode::Force);
    assert_eq!(forced, Err(Error::Unreachable(pages.address(1))));
}

#[test]
fn nothing_is_written_where_mem_is_not_open_for_writing() {
    let pages = Pages::new(1);
    let pid = ProcessId::new(std::process::id()).unwrap();
    let memory = myself(&Arc::new(Metrics::default()));
    for mode in [WriteMode::Obey, WriteMode::Force] {
        let answer = memory.write(pages.address(0), b"x", mode);
        assert_eq!(answer, Err(Error::Unwritable(pid)));
    }
}

fn scanning(without_scan: bool) -> Arc<dyn ProcessMemory> {
    let without = without_scan.then_some(Feature::PagemapScan);
    let options = SourceOptions {
        without: without.into_iter().collect(),
        ..SourceOptions::default()
    };
    open_myself(options, &Arc::new(Metrics::default()))
}

/// SEMANTICS: kernels before 6.7 show the same bytes and the same holes.
#[test]
fn both_ways_of_scanning_pages_see_the_same() {
    let pages = Pages::new(64);
    for page in [3, 4, 9, 63] {
        // SAFETY: the address lies in our mapping, before the end of its memory object.
        unsafe { (pages.address(page).get() as *const u8).read_volatile() };
    }
    let mapping = pages.mapping("rw-s");
    let (scan, entries) = (scanning(false), scanning(true));
    let by_scan = scan.extents(&mapping, mapping.range(), 1000).unwrap();
    assert_eq!(
        entries.extents(&mapping, mapping.range(), 1000).unwrap(),
        by_scan
    );
    assert_eq!(
        entries.memory_usage(&[mapping.range()]),
        scan.memory_usage(&[mapping.range()])
    );
    let resident: u64 = by_scan
        .iter()
        .filter(|extent| extent.state == PageState::Resident)
        .map(|extent| extent.range.len())
        .sum();
    // The kernel maps neighbours of a page that it finds in its cache along (fault-around).
    assert!(resident >= 4 * PAGE_SIZE);
    assert_eq!(
        scan.memory_usage(&[mapping.range()]).unwrap()[0].resident,
        resident
    );
    let last = by_scan.last().unwrap();
    assert_eq!(
        (last.state, last.range.start()),
        (PageState::Unreadable, pages.address(64))
    );
}

/// SEMANTICS: `st_blocks` counts the memory held, whatever the number of runs that one scan finds.
#[test]
fn scattered_pages_are_counted_once() {
    let pages = Pages::new(2 * 1600);
    let mapping = pages.mapping("rw-s");
    let memory = scanning(false);
    let mut held = 0;
    for upto in [511, 512, 513, 700, 1023, 1024, 1025, 1600] {
        for page in held..upto {
            let byte = pages.address(2 * page).get() as *mut u8;
            // SAFETY: the address lies in our mapping, before the end of its memory object. The
            // page gets the byte that it has: a write brings in this page and no neighbour.
            unsafe { byte.write_volatile(Pages::expected(2 * page)[0]) };
        }
        held = upto;
        let range = AddressRange::new(pages.address(0), pages.address(2 * 1600)).unwrap();
        let resident = memory.memory_usage(&[range]).unwrap()[0].resident;
        assert_eq!(resident / PAGE_SIZE, held as u64);
        let mut at = range.start();
        let mut seen = 0;
        while at < range.end() {
            let rest = AddressRange::new(at, range.end()).unwrap();
            let extents = memory.extents(&mapping, rest, usize::MAX).unwrap();
            let is_resident = |extent: &&Extent| extent.state == PageState::Resident;
            let lengths = extents.iter().filter(is_resident);
            seen += lengths.map(|extent| extent.range.len()).sum::<u64>();
            at = extents.last().unwrap().range.end();
        }
        assert_eq!(seen / PAGE_SIZE, held as u64);
    }
}

/// SEMANTICS: `st_blocks` counts the memory held, of each mapping its own.
#[test]
fn ranges_that_are_counted_together_have_their_own_pages() {
    let pages = Pages::new(512);
    for page in [0, 1, 2, 3, 100, 300, 511] {
        let byte = pages.address(page).get() as *mut u8;
        // SAFETY: as above.
        unsafe { byte.write_volatile(Pages::expected(page)[0]) };
    }
    let range = |(start, end)| AddressRange::new(pages.address(start), pages.address(end));
    // Next to each other in the middle of a run, a little apart, and further than is scanned in one.
    let ranges = [
        (0, 2),
        (2, 50),
        (60, 100),
        (100, 101),
        (300, 510),
        (510, 512),
    ]
    .map(|range_of| range(range_of).unwrap());
    for memory in [scanning(false), scanning(true)] {
        let held = memory.memory_usage(&ranges).unwrap();
        let counted: Vec<_> = held.iter().map(|held| held.resident / PAGE_SIZE).collect();
        assert_eq!(counted, [2, 2, 0, 1, 1, 1]);
        assert_eq!(memory.memory_usage(&[]).unwrap(), []);
    }
}

#[test]
fn a_scan_stops_after_as_many_runs_as_were_asked_for() {
    let pages = Pages::new(8);
    pages.touch();
    let mapping = pages.mapping("rw-s");
    for without_scan in [false, true] {
        let memory = scanning(without_scan);
        let mut at = mapping.range().start();
        let mut seen = 0;
        while at < mapping.range().end() {
            let rest = AddressRange::new(at, mapping.range().end()).unwrap();
            let extents = memory.extents(&mapping, rest, 1).unwrap();
            assert_eq!(extents[0].range.start(), at);
            at = extents.last().unwrap().range.end();
            seen += 1;
        }
        assert!(seen <= 3);
    }
}

#[test]
fn this_process_has_the_mappings_that_it_sees_itself() {
    let source = source();
    let info = source
        .describe(ProcessId::new(std::process::id()).unwrap())
        .unwrap();
    let process = source.open(&info.identity).unwrap();
    let space = process.address_space().unwrap();
    let code = this_process_has_the_mappings_that_it_sees_itself as *const () as u64;
    let mapping = space
        .mappings()
        .iter()
        .find(|mapping| mapping.range().contains(Address::new(code)))
        .unwrap();
    assert!(mapping.protection().execute && mapping.has_file());
    assert!(source.numbers().unwrap().contains(&info.identity.pid));
}

#[test]
fn a_thread_is_not_a_process_but_belongs_to_one() {
    let source = source();
    let pid = ProcessId::new(std::process::id()).unwrap();
    std::thread::spawn(move || {
        let tid = nix::unistd::gettid().as_raw().unsigned_abs();
        assert_ne!(tid, pid.get());
        assert_eq!(source.process_of_thread(tid), Ok(pid));
        let thread = ProcessId::new(tid).unwrap();
        assert_eq!(source.describe(thread), Err(Error::NoProcess(thread)));
    })
    .join()
    .unwrap();
}

#[test]
fn pages_of_another_size_are_refused_in_one_line() {
    assert!(check_page_size(4096).is_ok());
    for size in [16 << 10, 64 << 10] {
        let message = check_page_size(size).unwrap_err().to_string();
        for word in [&size.to_string(), "4096", "kernel"] {
            assert!(message.contains(word), "{message}");
        }
        assert!(!message.contains('\n'), "{message}");
    }
}
