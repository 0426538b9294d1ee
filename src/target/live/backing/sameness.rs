//! Whether the file that opens under a mapping's name is the file that is mapped.
//!
//! On overlayfs it need not be: a file of a lower layer that is written for the first time is copied up, and from then
//! on its name opens the copy, while what was mapped before still maps the lower file (`ovl_mmap`,
//! `backing_file_mmap`). `maps`, `stat` and `map_files` show the same numbers for both. Two things prove more:
//!
//! - A page frame belongs to one file. If a page of the mapping has the same frame as that page of
//!   the opened file, both are one, and otherwise they are two.
//! - The copy's `ctime` is the time of copying. If that lies before any mapping of the process
//!   can have been made, the file has not been copied since.

use std::fs::File;
use std::time::Duration;

use rustix::fs::Statx;

use super::own_page::OwnPage;
use crate::target::live::kernel::{Feature, Kernel, boot_time};
use crate::target::live::pagemap::Pagemap;
use crate::target::live::pinned::Pinned;
use crate::target::live::task::earliest_mapping;
use crate::target::live::vma::Vma;

/// File times are taken from a clock that may be one tick late (`current_time` in `fs/inode.c`).
const CLOCK_TICK: Duration = Duration::from_millis(10);

/// Pages that are compared until one shows it: a page can move to another frame meanwhile.
const MOST_TRIES: usize = 4;

/// Whether the status of the file has not changed since before the process can have mapped anything, by
/// the time of day. A clock that was set forward meanwhile can deceive it.
pub(in crate::target::live) fn is_older_than_mappings(status: &Statx, pinned: &Pinned) -> bool {
    let (Some(boot), Some(earliest)) = (boot_time(), earliest_mapping(pinned.identity().pid))
    else {
        return false;
    };
    let changed = Duration::new(
        u64::try_from(status.stx_ctime.tv_sec).unwrap_or(0),
        status.stx_ctime.tv_nsec,
    );
    changed + CLOCK_TICK < boot + earliest
}

/// Whether a page of the mapping has the same frame as that page of `file`; `None` where none can be compared.
/// Needs `CAP_SYS_ADMIN`.
pub(super) fn shares_a_frame(
    vma: &Vma,
    file: &File,
    pagemap: &Pagemap,
    kernel: &Kernel,
) -> Option<bool> {
    if !kernel.has(Feature::PageFrames) {
        return None;
    }
    let mut answer = None;
    for page in pagemap.pages_of_file(vma.range, MOST_TRIES).ok()? {
        let before = pagemap.frame(page)?;
        let ours = OwnPage::map(file, vma.offset + page.since(vma.range.start()))?;
        // Both at once: else it could have been freed by the one and given to the other meanwhile.
        if Some(before) == ours.frame() && pagemap.frame(page) == Some(before) {
            return Some(true);
        }
        answer = Some(false);
    }
    answer
}

/// When a file was last changed, in seconds and nanoseconds.
pub(super) fn last_change(status: &Statx) -> (i64, u32) {
    (status.stx_ctime.tv_sec, status.stx_ctime.tv_nsec)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::common::address::PAGE_SIZE;

    #[test]
    fn pages_of_one_file_share_frames_and_those_of_copies_do_not() {
        let bytes = [7; 2 * PAGE_SIZE as usize];
        let file = |bytes: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(bytes).unwrap();
            file
        };
        let (one, copy) = (file(&bytes), file(&bytes));
        let page = |file: &File| OwnPage::map(file, PAGE_SIZE).unwrap();
        let (first, second, other) = (page(&one), page(&one), page(&copy));
        if first.frame().is_none() {
            return; // The kernel shows frames to root alone.
        }
        assert_eq!(first.frame(), second.frame());
        assert_ne!(first.frame(), other.frame());
        let past_end = OwnPage::map(&one, 2 * PAGE_SIZE).unwrap();
        assert_eq!(past_end.frame(), None);
        assert!(past_end.read(0, &mut [0; 8]).is_err());
    }
}
