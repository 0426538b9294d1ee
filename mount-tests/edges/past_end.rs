//! The last page of a file: what somebody has written there past the end, through a mapping.
//!
//! A file system on a disk fills that part with zeros whenever it writes the page back, which any `sync` of the
//! system brings about (`folio_zero_segment` in its writeback): then the byte is gone for everybody. A `tmpfs` writes nothing back.

use std::fs::File;
use std::num::NonZeroUsize;
use std::process::Command;

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::{compare, pages};
use crate::support::{Mount, PAGE, Region, Target, run, tests, unmount_lazily};

tests![bytes_past_the_end_are_those_of_the_page: [Need::Root]];

/// A file system in memory. Unmounted when dropped.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn new() -> Self {
        let tmpfs = Self(tempfile::tempdir().unwrap());
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "tmpfs"]).arg(tmpfs.0.path());
        run(&mut mount).success();
        tmpfs
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        unmount_lazily(self.0.path());
    }
}

/// The page in memory keeps them, and whoever maps the file sees them: so does the mount.
fn bytes_past_the_end_are_those_of_the_page() {
    let tmpfs = Tmpfs::new();
    for keep in [false, true] {
        let mut target = Target::new();
        let path = tmpfs.0.path().join(format!("tail-{keep}.bin"));
        std::fs::write(&path, [b'x'; 100]).unwrap();
        let region = Region::parse(&target.ask(&format!("reserve {PAGE} 0"))).unwrap();
        target.ask(&format!("open tail {}", path.display()));
        target.ask(&format!("lay tail {:x} {PAGE} private r", region.start));
        if !keep {
            target.ask("close tail");
        }
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let len = NonZeroUsize::new(PAGE).unwrap();
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no other memory.
        let start = unsafe { mmap(None, len, access, MapFlags::MAP_SHARED, &file, 0) }.unwrap();
        let byte = (start.as_ptr() as usize + 200) as *mut u8;
        // SAFETY: the byte lies in the page that was mapped just now.
        unsafe { byte.write_volatile(b'A') };
        let mount = Mount::new("");
        let found = pages(&mount, &target, &region);
        let bytes = found[0].as_ref().unwrap();
        assert_eq!(
            (bytes[99], bytes[100], bytes[200]),
            (b'x', 0, b'A'),
            "{keep}"
        );
        compare(&target, &region, &found, |_| false);
        // SAFETY: nothing refers to the mapping any more.
        unsafe { munmap(start, len.get()) }.unwrap();
    }
}
