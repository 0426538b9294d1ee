//! A process that maps and unmaps all the time.

use std::time::Duration;

use crate::regions::PAGE;

/// Starts a thread that maps and unmaps pieces of the region, and writes into what it mapped.
pub(crate) fn start(start: usize, len: usize) {
    std::thread::spawn(move || {
        let pages = len / PAGE;
        let mut state = 1_u64;
        loop {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let number = (state >> 33) as usize;
            let first = number % pages;
            let count = (1 + (state >> 20) as usize % 64).min(pages - first);
            change(start + first * PAGE, count * PAGE, number.is_multiple_of(2));
            // Other tests want the CPU, too.
            std::thread::sleep(Duration::from_micros(100));
        }
    });
}

/// Unmaps memory of the region, or maps it anew and fills it.
fn change(at: usize, len: usize, unmap: bool) {
    if unmap {
        // SAFETY: the region holds no Rust object, and only this thread uses it.
        unsafe { libc::munmap(at as *mut _, len) };
        return;
    }
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    // SAFETY: as above; what is replaced is a part of the region or a gap in it.
    let mapped = unsafe { libc::mmap(at as *mut _, len, prot, flags, -1, 0) };
    if mapped != libc::MAP_FAILED {
        // SAFETY: it was mapped just now, readable and writable.
        unsafe { std::ptr::write_bytes(mapped.cast::<u8>(), 0xc5, len) };
    }
}
