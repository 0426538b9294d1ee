//! The least that a sparse copy can cost: one look for the pages in memory, and one copy of each.

use std::fs::File;
use std::io::IoSliceMut;
use std::os::fd::AsRawFd;
use std::time::Instant;

use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

/// `struct page_region` of `include/uapi/linux/fs.h`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct PageRegion {
    start: u64,
    end: u64,
    categories: u64,
}

/// `struct pm_scan_arg` of `include/uapi/linux/fs.h`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct PmScanArg {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

mod ioctl {
    use super::PmScanArg;

    nix::ioctl_readwrite!(pagemap_scan, b'f', 16, PmScanArg);
}

const PRESENT: u64 = 1 << 3;

/// More than any target here has stretches of resident pages, so that one call walks the whole range.
const MOST_STRETCHES: usize = 1 << 16;

/// Ranges that one `process_vm_readv` takes at most (`UIO_MAXIOV`).
const BATCH: usize = 1024;

/// Copies what is resident of `len` bytes from `start` on, and tells how many
/// seconds that took and how many bytes it were.
pub(super) fn scan(pid: u64, start: u64, len: u64) {
    let pagemap = File::open(format!("/proc/{pid}/pagemap")).expect("pagemap");
    let pid = Pid::from_raw(i32::try_from(pid).expect("a process's number"));
    let began = Instant::now();
    let mut copied = 0;
    let mut buffer = Vec::new();
    for batch in resident(&pagemap, start, start + len).chunks(BATCH) {
        copied += copy(pid, batch, &mut buffer);
    }
    println!("{} {copied}", began.elapsed().as_secs_f64());
}

/// Copies `len` bytes from `start` on into memory that nobody has used yet, and tells how many seconds that took.
pub(super) fn copy_all(pid: u64, start: usize, len: usize) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a process's number"));
    // The kernel gives its pages as they are written to.
    let mut fresh = vec![0; len];
    let began = Instant::now();
    let mut done = 0;
    // One call takes 2 GiB at most.
    while done < len {
        let remote = RemoteIoVec {
            base: start + done,
            len: len - done,
        };
        let mut local = [IoSliceMut::new(&mut fresh[done..])];
        done += process_vm_readv(pid, &mut local, &[remote]).expect("process_vm_readv");
    }
    println!("{}", began.elapsed().as_secs_f64());
}

/// The stretches of resident pages.
fn resident(pagemap: &File, start: u64, end: u64) -> Vec<RemoteIoVec> {
    let mut regions = vec![PageRegion::default(); MOST_STRETCHES];
    let mut argument = PmScanArg {
        size: size_of::<PmScanArg>() as u64,
        start,
        end,
        vec: regions.as_mut_ptr() as u64,
        vec_len: regions.len() as u64,
        category_mask: PRESENT,
        return_mask: PRESENT,
        ..PmScanArg::default()
    };
    // SAFETY: the descriptor is open; the argument is laid out as the kernel's, names its own
    // size, and its vector is `vec_len` regions long and lives until after the call.
    let found = unsafe { ioctl::pagemap_scan(pagemap.as_raw_fd(), &raw mut argument) };
    let found = found.expect("PAGEMAP_SCAN (Linux 6.7)") as usize;
    // Not by `walk_end`: where the last of several rounds inside the kernel meets the
    // end, that still tells where the round before it stopped.
    assert!(found < MOST_STRETCHES, "too many stretches");
    regions[..found]
        .iter()
        .map(|region| RemoteIoVec {
            base: region.start as usize,
            len: (region.end - region.start) as usize,
        })
        .collect()
}

/// Copies one batch to the start of the buffer.
fn copy(pid: Pid, batch: &[RemoteIoVec], buffer: &mut Vec<u8>) -> usize {
    let wanted: usize = batch.iter().map(|stretch| stretch.len).sum();
    if buffer.len() < wanted {
        buffer.resize(wanted, 0);
    }
    let mut local = [IoSliceMut::new(&mut buffer[..wanted])];
    let copied = process_vm_readv(pid, &mut local, batch).expect("process_vm_readv");
    assert_eq!(copied, wanted, "all of it is resident");
    copied
}
