//! Whether what a process writes can be tracked: without harm to it, and seeing all.

use std::os::fd::AsFd;

use nix::libc;
use rustix::fs::{Dir, readlinkat};

use super::inject::Refusal;
use crate::target::live::interrupted::retry;
use crate::target::live::kernel::{Feature, Kernel};
use crate::target::live::pinned::Pinned;
use crate::target::live::text::field;
use crate::target::mapping::Mapping;

/// Open files that are looked at: who has more is left out.
const MOST_FILES: usize = 1 << 16;

/// `enum kcmp_type` in `include/uapi/linux/kcmp.h`.
const KCMP_VM: libc::c_long = 1;

/// Makes sure that nothing forbids it. All threads stand still.
///
/// # Errors
/// What does.
pub(super) fn check<'a>(
    pinned: &Pinned,
    kernel: &Kernel,
    mut mappings: impl Iterator<Item = &'a Mapping>,
) -> Result<(), Refusal> {
    if !kernel.has(Feature::PagemapScan) || !kernel.has(Feature::PidfdGetfd) {
        return Err("the kernel has no PAGEMAP_SCAN (Linux 6.7)");
    }
    // Buffers of these are written by the kernel or a device while the process stands still, past its page tables.
    if mappings.any(|mapping| mapping.path() == b"/[aio]") {
        return Err("it reads asynchronously (io_setup)");
    }
    let status = pinned.contents("status").map_err(|_| "it has ended")?;
    if field(&status, b"VmPin:").is_some_and(|pinned| pinned != "0 kB") {
        return Err("a device may write to its memory (VmPin)");
    }
    check_files(pinned)?;
    let parent = field(&status, b"PPid:").and_then(|parent| parent.parse().ok());
    if parent.is_some_and(|parent| shares_memory(pinned.identity().pid.as_pid_t(), parent)) {
        return Err("it has the memory of its parent (vfork)");
    }
    Ok(())
}

fn check_files(pinned: &Pinned) -> Result<(), Refusal> {
    const UNKNOWN: Refusal = "its open files cannot be listed";
    let directory = pinned.open_file("fd").map_err(|_| UNKNOWN)?;
    let mut names = Dir::read_from(&directory).map_err(|_| UNKNOWN)?;
    let mut left = MOST_FILES;
    while let Some(entry) = retry(|| names.read().transpose()).map_err(|_| UNKNOWN)? {
        left = left.checked_sub(1).ok_or("it has too many open files")?;
        let Ok(link) = retry(|| readlinkat(directory.as_fd(), entry.file_name(), Vec::new()))
        else {
            continue;
        };
        match link.as_bytes() {
            b"anon_inode:[userfaultfd]" => return Err("it has a userfaultfd of its own"),
            b"anon_inode:[io_uring]" => return Err("it reads asynchronously (io_uring)"),
            _ => (),
        }
    }
    Ok(())
}

/// Whether two processes have one memory, also where that cannot be known (kcmp(2)).
fn shares_memory(one: i32, other: i32) -> bool {
    if other == 0 {
        return false;
    }
    // SAFETY: takes no pointer.
    let order = unsafe { libc::syscall(libc::SYS_kcmp, one, other, KCMP_VM, 0_u64, 0_u64) };
    // 0: the same; 1, 2, 3: not; less: an error.
    order <= 0
}
