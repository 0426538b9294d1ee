//! One probe for each feature. None of them asks for another process.

use std::fs::File;
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use linux_raw_sys::general::PID_FS_MAGIC;
use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use rustix::fs::{FsWord, fstatfs};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

use super::backing::{OwnPage, can_probe_huge_pages};
use super::errno_of;
use super::kernel::{Feature, Files, Kernel, ProcFault};
use super::mounts::unique_id;
use super::pagemap::{Pagemap, try_scan};
use super::vma;
use crate::common::address::{Address, PAGE_SIZE};

impl Kernel {
    /// Probes each feature, but for those that are to be done `without`, as on an older kernel.
    ///
    /// # Errors
    /// Where `/proc` does not show the processes that the system calls speak of.
    pub fn probe(without: &[Feature]) -> Result<Self, ProcFault> {
        Self::new(without, is_there)
    }
}

/// Whether the feature is there, as far as this process can tell by itself.
fn is_there(feature: Feature, files: &Files) -> bool {
    match feature {
        Feature::ProcessVm => copies_own_memory(),
        Feature::PagemapScan => own("pagemap").is_none_or(|file| has_scan(&file)),
        Feature::ScannedGuards => own("pagemap").is_none_or(|file| has_scanned_guards(&file)),
        Feature::ProcmapQuery => own("maps").is_none_or(|file| has_query(&file)),
        Feature::PageFrames => own("pagemap").is_some_and(|file| shows_frames(&file)),
        Feature::PageFlags => Files::has_page_flags(),
        Feature::UserfaultSlabs => files.has_userfault_slabs(),
        Feature::MinorFaults => can_probe_huge_pages(),
        Feature::PidfdGetfd => copies_own_descriptor(),
        Feature::PidfdInodes => {
            pidfd_open(getpid(), PidfdFlags::empty()).is_ok_and(|pidfd| is_on_pidfs(&pidfd))
        }
        Feature::UniqueMounts => unique_id(Path::new("/proc")).is_some(),
        Feature::ForcedAccess => own("mem").is_none_or(|file| passes_over_protection(&file)),
    }
}

fn own(name: &str) -> Option<File> {
    File::open(format!("/proc/self/{name}")).ok()
}

/// A kernel or a seccomp filter that refuses this refuses it for every process (`__ptrace_may_access` in
/// `kernel/ptrace.c` always lets a process access itself).
fn copies_own_memory() -> bool {
    let (byte, mut copy) = (0x5a_u8, [0_u8]);
    let remote = RemoteIoVec {
        base: &raw const byte as usize,
        len: 1,
    };
    let copied = process_vm_readv(Pid::this(), &mut [IoSliceMut::new(&mut copy)], &[remote]);
    copied == Ok(1)
}

fn has_scan(pagemap: &File) -> bool {
    try_scan(pagemap, false) != Err(Errno::ENOTTY)
}

fn has_scanned_guards(pagemap: &File) -> bool {
    !matches!(try_scan(pagemap, true), Err(Errno::ENOTTY | Errno::EINVAL))
}

fn has_query(maps: &File) -> bool {
    !matches!(
        vma::query(maps, Address::new(0)),
        Err(Errno::ENOTTY | Errno::EINVAL)
    )
}

/// By the page that this function's own variable lies in.
fn shows_frames(pagemap: &File) -> bool {
    let byte = 0_u8;
    let page = &raw const byte as u64 / PAGE_SIZE * PAGE_SIZE;
    Pagemap::frame_in(pagemap, Address::new(page)).is_some()
}

fn copies_own_descriptor() -> bool {
    pidfd_open(getpid(), PidfdFlags::empty())
        .is_ok_and(|pidfd| pidfd_getfd(&pidfd, pidfd.as_raw_fd(), PidfdGetfdFlags::empty()).is_ok())
}

/// By a page of our own that nobody may access.
fn passes_over_protection(mem: &File) -> bool {
    OwnPage::without_access().is_none_or(|page| is_shown(mem, page.address()))
}

/// Whether there is a byte; anything but `EIO` and a byte is no answer.
fn is_shown(mem: &File, address: Address) -> bool {
    let read = mem.read_at(&mut [0], address.get());
    !read.is_err_and(|error| errno_of(&error) == Errno::EIO)
}

/// Before, all pidfds had one inode.
fn is_on_pidfs(pidfd: impl AsFd) -> bool {
    fstatfs(pidfd).is_ok_and(|found| found.f_type == PID_FS_MAGIC as FsWord)
}

#[cfg(test)]
mod tests {
    use super::super::vm;
    use super::*;

    /// A file that knows none of the requests of `/proc`.
    fn plain_file() -> File {
        tempfile::tempfile().unwrap()
    }

    #[test]
    fn a_file_that_knows_no_request_has_no_feature() {
        let file = plain_file();
        assert!(!has_scan(&file));
        assert!(!has_scanned_guards(&file));
        assert!(!has_query(&file));
        assert!(!shows_frames(&file));
        assert!(!is_on_pidfs(&file));
    }

    /// A kernel that does not pass over protection answers `EIO`, as for an address at which there is nothing.
    #[test]
    fn a_page_that_is_not_shown_is_found() {
        let mem = own("mem").unwrap();
        let byte = 0_u8;
        assert!(is_shown(&mem, Address::new(&raw const byte as u64)));
        assert!(!is_shown(&mem, Address::new(1 << 60)));
        assert!(is_shown(&plain_file(), Address::new(0)), "no answer");
    }

    #[test]
    fn frames_are_shown_where_an_entry_has_one() {
        let file = plain_file();
        // An entry for each page that this stack can lie in is too much; the one of our page will do.
        let near = 0_u8;
        let page = &raw const near as u64 / PAGE_SIZE;
        for entry in [1_u64 << 63, 1 << 63 | 0x1234] {
            for page in page - 16..page + 16 {
                file.write_all_at(&entry.to_ne_bytes(), page * 8).unwrap();
            }
            assert_eq!(shows_frames(&file), entry & 0x1234 != 0);
        }
    }

    /// What the probes find is what use finds.
    #[test]
    fn what_is_there_can_be_used() {
        let files = Files::open();
        let has = |feature| is_there(feature, &files);
        let pagemap = own("pagemap").unwrap();
        if has(Feature::PagemapScan) {
            assert_eq!(try_scan(&pagemap, false), Ok(()));
        }
        if has(Feature::ScannedGuards) {
            assert!(has(Feature::PagemapScan));
            assert_eq!(try_scan(&pagemap, true), Ok(()));
        }
        if has(Feature::ProcmapQuery) {
            let first = vma::query(&own("maps").unwrap(), Address::new(0)).unwrap();
            assert!(first.is_some());
        }
        assert_eq!(has(Feature::PageFlags), files.page_flags().is_some());
        assert_eq!(has(Feature::UserfaultSlabs), files.has_userfault_slabs());
        assert_eq!(
            has(Feature::UniqueMounts),
            unique_id(Path::new("/")).is_some()
        );
        if has(Feature::PidfdInodes) {
            assert!(has(Feature::PidfdGetfd), "the older one");
        }
        let page = OwnPage::without_access().unwrap();
        let read = vm::read_own(page.address(), &mut [0]);
        assert!(read.is_err(), "process_vm_readv never passes over it");
        let forced = is_shown(&own("mem").unwrap(), page.address());
        assert_eq!(has(Feature::ForcedAccess), forced);
        if has(Feature::MinorFaults) {
            assert!(can_probe_huge_pages(), "again");
        }
        assert!(has(Feature::ProcessVm) && has(Feature::ProcessVm));
    }
}
