//! The live backend on this very process, which needs no privilege.

use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::Arc;

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

use super::{LiveSource, SourceOptions};
use crate::address::{Address, PAGE_SIZE};
use crate::error::Error;
use crate::metrics::Metrics;
use crate::process::conformance::{self, Layout};
use crate::process::{ProcessId, ProcessMemory, ProcessSource, ReadSegment, Reuse, Route};

const PAGE: usize = PAGE_SIZE as usize;

/// Anonymous pages of this process, each filled with its number and a pattern; the last has no protection bits.
struct Pages {
    start: NonNull<std::ffi::c_void>,
    count: usize,
}

impl Pages {
    fn new(count: usize) -> Self {
        let len = NonZeroUsize::new(count * PAGE).unwrap();
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no other memory.
        let start =
            unsafe { mmap_anonymous(None, len, protection, MapFlags::MAP_PRIVATE) }.unwrap();
        // SAFETY: the mapping is `len` bytes long, writable, and nobody else knows of it.
        let bytes =
            unsafe { std::slice::from_raw_parts_mut(start.as_ptr().cast::<u8>(), len.get()) };
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = (index / PAGE * 7 + index % 251) as u8;
        }
        let pages = Self { start, count };
        let last = NonNull::new(pages.address(count - 1).get() as *mut std::ffi::c_void).unwrap();
        // SAFETY: the page is the mapping's last, and no reference into it is alive.
        unsafe { mprotect(last, PAGE, ProtFlags::PROT_NONE) }.unwrap();
        pages
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
        unsafe { munmap(self.start, self.count * PAGE) }.unwrap();
    }
}

fn myself(metrics: &Arc<Metrics>) -> Arc<dyn ProcessMemory> {
    let source = LiveSource::new(SourceOptions::default(), Arc::clone(metrics)).unwrap();
    let pid = ProcessId::new(std::process::id()).unwrap();
    let info = source.describe(pid).unwrap();
    source.open(&info.identity).unwrap()
}

#[test]
fn a_live_process_keeps_to_the_contract() {
    let pages = Pages::new(3);
    let layout = Layout {
        start: pages.address(0),
        first: Pages::expected(0),
        second: Pages::expected(1),
    };
    conformance::check(&*myself(&Arc::new(Metrics::default())), &layout);
}

#[test]
fn more_ranges_than_one_call_takes_are_read_in_batches() {
    let pages = Pages::new(2501);
    let metrics = Arc::new(Metrics::default());
    let memory = myself(&metrics);
    let mut buffers = vec![vec![0; 16]; 2500];
    let mut segments: Vec<ReadSegment<'_>> = buffers
        .iter_mut()
        .enumerate()
        .map(|(page, buffer)| ReadSegment {
            address: pages.address(page),
            buffer,
            route: Route::Protected,
        })
        .collect();
    assert_eq!(memory.read(&mut segments, Reuse::Likely), Ok(2500 * 16));
    for (page, buffer) in buffers.iter().enumerate() {
        assert_eq!(*buffer, Pages::expected(page)[..16]);
    }
    assert_eq!(metrics.vm_readv_calls.get(), 3);
    assert_eq!(metrics.vm_readv_iovecs.get(), 2500);
}

#[test]
fn what_has_no_protection_bits_is_read_through_the_pinned_descriptor_alone() {
    let pages = Pages::new(2);
    let metrics = Arc::new(Metrics::default());
    let memory = myself(&metrics);
    let mut bytes = vec![0; PAGE];
    for (route, answer) in [
        (Route::Pinned, Ok(PAGE)),
        (Route::Protected, Err(Error::Unreachable(pages.address(1)))),
    ] {
        let segment = ReadSegment {
            address: pages.address(1),
            buffer: &mut bytes,
            route,
        };
        assert_eq!(memory.read(&mut [segment], Reuse::Likely), answer);
    }
    assert_eq!(bytes, Pages::expected(1));
    assert_eq!(metrics.mem_reads.get(), 1);
}

#[test]
fn routes_may_alternate_within_a_request() {
    let pages = Pages::new(3);
    let memory = myself(&Arc::new(Metrics::default()));
    let mut buffers = [[0; 8], [0; 8], [0; 8]];
    let routes = [Route::Protected, Route::Pinned, Route::Protected];
    let mut segments: Vec<ReadSegment<'_>> = buffers
        .iter_mut()
        .zip([(0, routes[0]), (2, routes[1]), (1, routes[2])])
        .map(|(buffer, (page, route))| ReadSegment {
            address: pages.address(page),
            buffer,
            route,
        })
        .collect();
    assert_eq!(memory.read(&mut segments, Reuse::Likely), Ok(24));
    for (buffer, page) in buffers.iter().zip([0, 2, 1]) {
        assert_eq!(buffer[..], Pages::expected(page)[..8]);
    }
}

#[test]
fn this_process_has_the_mappings_that_it_sees_itself() {
    let source = LiveSource::new(SourceOptions::default(), Arc::new(Metrics::default())).unwrap();
    let info = source
        .describe(ProcessId::new(std::process::id()).unwrap())
        .unwrap();
    let space = source.address_space(&info.identity).unwrap();
    let code = this_process_has_the_mappings_that_it_sees_itself as *const () as u64;
    let mapping = space
        .mappings()
        .iter()
        .find(|mapping| mapping.range().contains(Address::new(code)))
        .unwrap();
    assert!(mapping.protection().execute && mapping.has_file());
    assert!(source.processes().unwrap().contains(&info));
}

#[test]
fn a_thread_is_not_a_process_but_belongs_to_one() {
    let source = LiveSource::new(SourceOptions::default(), Arc::new(Metrics::default())).unwrap();
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
