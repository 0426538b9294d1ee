//! Memory and files at the edges: for each address the mount gives what `/proc/PID/mem` gives, or an error.

mod changing;
mod first_thread;
mod huge;
mod kernel_made;
mod lazy;
mod leases;
mod markers;
mod overlay;
mod past_end;
mod private_fuse;

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::support::{
    Footprint, Mount, PAGE, Region, Target, Test, assert_bytes, extents, open, page_or_hole,
};

/// The tests of all these modules.
pub(crate) fn tests() -> Vec<Test> {
    [
        changing::tests(),
        first_thread::tests(),
        huge::tests(),
        kernel_made::tests(),
        lazy::tests(),
        leases::tests(),
        markers::tests(),
        overlay::tests(),
        past_end::tests(),
        private_fuse::tests(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The page at `offset`; `None` where it is `EIO`.
#[track_caller]
fn page(file: &File, offset: usize) -> Option<Vec<u8>> {
    let page = page_or_hole(file, offset as u64);
    page.unwrap_or_else(|error| panic!("page at {offset:#x}: {error}"))
}

/// What `/proc/PID/mem` gives for a page. It faults the page in: to be asked last.
#[track_caller]
fn page_of_mem(pid: u32, address: usize) -> Option<Vec<u8>> {
    let mem = File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut bytes = vec![0xa5; PAGE];
    let read = mem.read_exact_at(&mut bytes, address as u64);
    read.is_ok().then_some(bytes)
}

/// Reads all pages of a region, through the kernel's cache and past it, and fails where the target's memory use moves.
#[track_caller]
fn pages(mount: &Mount, target: &Target, region: &Region) -> Vec<Option<Vec<u8>>> {
    let before = Footprint::of(target.pid());
    let path = mount.mapping(target.pid(), region.start, region.end);
    let file = open(&path);
    let len = file.metadata().unwrap().len() as usize;
    let pages: Vec<_> = (0..len).step_by(PAGE).map(|at| page(&file, at)).collect();
    for (data, hole) in extents(&file) {
        assert!(data < hole && hole <= len as u64);
    }
    let mut whole = vec![0; len];
    let direct = open(&mount.path(format!("mem/{}", target.pid())));
    for (index, known) in pages.iter().enumerate() {
        let at = index * PAGE;
        let part = &mut whole[at..at + PAGE];
        let read = direct.read_exact_at(part, (region.start + at) as u64);
        match known {
            Some(bytes) => {
                read.unwrap_or_else(|error| panic!("mem at {at:#x}: {error}"));
                assert_bytes("mem", part, bytes);
            }
            None => assert!(read.is_err(), "mem at {at:#x}"),
        }
    }
    assert_eq!(Footprint::of(target.pid()), before, "{path:?}");
    pages
}

/// Fails where a page is another one than `/proc/PID/mem` gives, and where more of them are errors than `unknown` says.
#[track_caller]
fn compare(
    target: &Target,
    region: &Region,
    pages: &[Option<Vec<u8>>],
    unknown: impl Fn(usize) -> bool,
) {
    for (index, got) in pages.iter().enumerate() {
        let address = region.start + index * PAGE;
        match got {
            None => assert!(
                unknown(index) || page_of_mem(target.pid(), address).is_none(),
                "page {index} of {region:?} is an error, and mem has it"
            ),
            Some(bytes) => {
                assert!(
                    !unknown(index),
                    "page {index} of {region:?} cannot be known"
                );
                let expected = page_of_mem(target.pid(), address);
                let expected = expected.unwrap_or_else(|| panic!("mem has no page {index}"));
                assert_bytes("what mem gives", bytes, &expected);
            }
        }
    }
}
