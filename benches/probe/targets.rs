//! Processes to look at. Each tells where its memory starts, and lives until its standard input closes.

use std::io::{Read, Write};
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, mprotect};
use nix::sys::signal::Signal;

use super::scattered::scattered;
use super::{Noise, PAGE, SEED};

/// Holds one mapping of `bytes` of resident memory, rounded up to pages.
pub(super) fn hold(bytes: usize) {
    let region = Region::new(bytes.next_multiple_of(PAGE));
    region.protect(0, region.len, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE);
    let mut noise = Noise(SEED);
    for offset in (0..region.len).step_by(PAGE) {
        region.fill(offset, &mut noise);
    }
    wait(region.address());
}

/// Holds `bytes` as [`hold`] does, and writes to one page of a hundred, one after the other, again and again.
pub(super) fn busy(bytes: usize) {
    let region = Region::new(bytes.next_multiple_of(PAGE));
    region.protect(0, region.len, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE);
    let mut noise = Noise(SEED);
    for offset in (0..region.len).step_by(PAGE) {
        region.fill(offset, &mut noise);
    }
    let address = region.address();
    std::thread::spawn(move || {
        loop {
            for offset in (0..region.len).step_by(100 * PAGE) {
                region.fill(offset, &mut noise);
            }
            // As a program that has other things to do, too: it leaves a processor to who copies.
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    });
    wait(address);
}

/// Holds `bytes` of resident memory in the heap that `brk` grows.
pub(super) fn heap(bytes: usize) {
    // SAFETY: no pointer is passed, and nothing else allocates meanwhile.
    assert_eq!(unsafe { libc::mallopt(libc::M_MMAP_MAX, 0) }, 1, "mallopt");
    let mut noise = Noise(SEED);
    let memory: Vec<u64> = (0..bytes / size_of::<u64>())
        .map(|_| noise.next())
        .collect();
    wait(memory.as_ptr() as usize);
    std::hint::black_box(&memory);
}

/// Reserves `bytes`, and uses so many scattered pages of them.
pub(super) fn reserve(bytes: usize, pages: u64) {
    let region = Region::new(bytes);
    region.protect(0, region.len, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE);
    let mut noise = Noise(SEED);
    for offset in scattered(bytes as u64, pages) {
        region.fill(offset as usize, &mut noise);
    }
    wait(region.address());
}

/// Makes so many mappings of one page each, side by side, by alternating protections.
pub(super) fn many(count: usize) {
    let region = Region::new(count * PAGE);
    region.protect(0, region.len, ProtFlags::PROT_READ);
    for page in (1..count).step_by(2) {
        let writable = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        region.protect(page * PAGE, PAGE, writable);
    }
    wait(region.address());
}

/// Tells the address, and waits.
fn wait(address: usize) {
    // Standard input may stay open in another child of a parent that is killed.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).expect("prctl");
    writeln!(std::io::stdout(), "{address}").expect("standard output");
    let _ = std::io::stdin().read(&mut [0]);
}

// SAFETY: it is memory of this process, which any of its threads may use.
unsafe impl Send for Region {}

/// Memory between two pages that nobody can use, so that the kernel does not
/// merge it with a neighbour: its file begins and ends where it does.
struct Region {
    start: NonNull<u8>,
    len: usize,
}

impl Region {
    fn new(len: usize) -> Self {
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
        let whole = NonZeroUsize::new(len + 2 * PAGE).expect("not zero");
        // SAFETY: the kernel chooses the address, so nothing is replaced.
        let guard = unsafe { mmap_anonymous(None, whole, ProtFlags::PROT_NONE, flags) };
        Self {
            // SAFETY: the first page is within the mapping.
            start: unsafe { guard.expect("memory").cast::<u8>().add(PAGE) },
            len,
        }
    }

    fn address(&self) -> usize {
        self.start.as_ptr() as usize
    }

    fn at(&self, offset: usize, len: usize) -> NonNull<u8> {
        assert!(offset + len <= self.len, "within the region");
        // SAFETY: that is within the region, as was just checked.
        unsafe { self.start.add(offset) }
    }

    fn protect(&self, offset: usize, len: usize, protection: ProtFlags) {
        let start = self.at(offset, len).cast();
        // SAFETY: the region is ours, and nothing refers to its bytes.
        let done = unsafe { mprotect(start, len, protection) };
        done.expect("mprotect (is vm.max_map_count too low?)");
    }

    /// Fills one page.
    fn fill(&self, offset: usize, noise: &mut Noise) {
        let page = self
            .at(offset, PAGE)
            .cast::<[u64; PAGE / size_of::<u64>()]>();
        let words = std::array::from_fn(|_| noise.next());
        // SAFETY: the page is ours and writable, and nothing refers to its bytes.
        unsafe { page.write(words) };
    }
}
