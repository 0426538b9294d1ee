//! The regions of the target: one of every kind of mapping, at fixed
//! addresses that lie apart, so that the kernel never merges two of them.

use std::ffi::{CStr, CString};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::pattern;

/// Where the first region lies: far from what a program, its libraries and
/// its stack use.
const BASE: usize = 0x1000_0000_0000;
/// Distance between the starts of two regions.
const STEP: usize = 0x1000_0000;
/// The page size that the regions are counted in.
pub(crate) const PAGE: usize = 4096;
/// Length of an ordinary region.
const SMALL: usize = 16 * PAGE;
/// Length of the file of `past_end`: ends in the middle of its second page.
pub(crate) const PAST_END_FILE: usize = 6000;

/// `PR_SET_VMA` of `prctl`, which older headers do not have.
const PR_SET_VMA: libc::c_int = 0x5356_4d41;

/// A mapping that the tests know by name.
#[derive(Debug, Clone)]
pub(crate) struct Region {
    pub(crate) name: String,
    pub(crate) start: usize,
    pub(crate) len: usize,
}

/// All regions, and what making another one needs.
#[derive(Debug)]
pub(crate) struct Regions {
    pub(crate) list: Vec<Region>,
    /// Descriptors of the memfds, by region name.
    pub(crate) memfds: Vec<(String, OwnedFd)>,
    /// Whether the kernel knows names for anonymous memory.
    pub(crate) anon_names: bool,
    next: usize,
    dir: PathBuf,
    generation: u64,
}

impl Regions {
    /// Makes one region of every kind; files go to `dir`.
    pub(crate) fn build(dir: &Path, generation: u64) -> io::Result<Self> {
        let mut regions = Self {
            list: Vec::new(),
            memfds: Vec::new(),
            anon_names: false,
            next: BASE,
            dir: dir.to_path_buf(),
            generation,
        };
        regions.anonymous()?;
        regions.shared()?;
        regions.files()?;
        regions.grow_heap("heap", 64 * PAGE)?;
        Ok(regions)
    }

    fn anonymous(&mut self) -> io::Result<()> {
        use libc::{PROT_EXEC, PROT_NONE, PROT_READ, PROT_WRITE};
        for (name, len, prot) in [
            ("private", SMALL, PROT_READ | PROT_WRITE),
            ("scratch", 2048 * PAGE, PROT_READ | PROT_WRITE),
            ("readonly", SMALL, PROT_READ),
            ("noaccess", SMALL, PROT_NONE),
            ("writeonly", SMALL, PROT_WRITE),
            ("exec", SMALL, PROT_READ | PROT_EXEC),
            ("victim", SMALL, PROT_READ | PROT_WRITE),
            ("victim2", SMALL, PROT_READ | PROT_WRITE),
            ("counter", PAGE, PROT_READ | PROT_WRITE),
            ("named", SMALL, PROT_READ | PROT_WRITE),
        ] {
            let start = self.map(name, len, None, true)?;
            self.fill(start, len);
            if prot != PROT_READ | PROT_WRITE {
                protect(start, len, prot)?;
            }
        }
        // Two pages of many are there; the others are zero.
        let start = self.map("sparse_private", 1024 * PAGE, None, true)?;
        self.fill(start, PAGE);
        self.fill(start + 512 * PAGE, PAGE);
        let named = self.region("named").start;
        self.anon_names = set_anon_name(named, SMALL, c"odd name");
        Ok(())
    }

    fn shared(&mut self) -> io::Result<()> {
        let start = self.map("shared", SMALL, None, false)?;
        self.fill(start, SMALL);

        let memfd = memfd(c"odd\nname", SMALL)?;
        let start = self.map("memfd", SMALL, Some(memfd.as_fd()), false)?;
        self.fill(start, SMALL);
        self.memfds.push(("memfd".into(), memfd));

        // Holds data that this process never touches through its mapping.
        let memfd = File::from(self::memfd(c"sparse", 1024 * PAGE)?);
        let start = self.map("sparse_shared", 1024 * PAGE, Some(memfd.as_fd()), false)?;
        for page in [0, 512] {
            let at = start + page * PAGE;
            let bytes = pattern::bytes(at as u64, PAGE, self.generation);
            memfd.write_all_at(&bytes, (page * PAGE) as u64)?;
        }
        self.memfds.push(("sparse_shared".into(), memfd.into()));

        let start = self.system_v()?;
        self.fill(start, SMALL);
        Ok(())
    }

    fn files(&mut self) -> io::Result<()> {
        let long = "n".repeat(255);
        let odd = std::ffi::OsString::from_vec(b"bad\xff\xfe name".to_vec());
        for (region, name, private) in [
            ("file_private", Path::new("private.bin"), true),
            ("file_shared", Path::new("shared.bin"), false),
            ("deleted", Path::new("deleted.bin"), true),
            ("nonutf8", Path::new(&odd), true),
            ("longname", Path::new(&long), false),
        ] {
            let file = self.file(name, SMALL, SMALL)?;
            let start = self.map(region, SMALL, Some(file.as_fd()), private)?;
            if region == "file_private" {
                // The first page differs from the file: a private copy.
                file.write_all_at(&[0; PAGE], 0)?;
                self.fill(start, PAGE);
            }
            if region == "deleted" {
                std::fs::remove_file(self.dir.join(name))?;
            }
        }
        let file = self.file(Path::new("past-end.bin"), PAST_END_FILE, PAST_END_FILE)?;
        self.map("past_end", 4 * PAGE, Some(file.as_fd()), true)?;
        let file = self.file(Path::new("shrinking.bin"), SMALL, SMALL)?;
        self.map("shrinking", SMALL, Some(file.as_fd()), false)?;

        let zero = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/zero")?;
        let start = self.map("devzero", SMALL, Some(zero.as_fd()), true)?;
        self.fill(start, SMALL);
        Ok(())
    }

    /// A file whose bytes are those of the region that is mapped next.
    fn file(&self, name: &Path, len: usize, filled: usize) -> io::Result<File> {
        let path = self.dir.join(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)?;
        file.set_len(len as u64)?;
        let bytes = pattern::bytes(self.next as u64, filled, self.generation);
        file.write_all_at(&bytes, 0)?;
        Ok(file)
    }

    /// Maps `len` readable and writable bytes at the next fixed address.
    pub(crate) fn map(
        &mut self,
        name: &str,
        len: usize,
        file: Option<BorrowedFd<'_>>,
        private: bool,
    ) -> io::Result<usize> {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        self.map_as(name, len, file, private, prot)
    }

    /// Maps `len` bytes with protection `prot` at the next fixed address.
    pub(crate) fn map_as(
        &mut self,
        name: &str,
        len: usize,
        file: Option<BorrowedFd<'_>>,
        private: bool,
        prot: libc::c_int,
    ) -> io::Result<usize> {
        let mut flags = libc::MAP_FIXED_NOREPLACE;
        flags |= if private {
            libc::MAP_PRIVATE
        } else {
            libc::MAP_SHARED
        };
        if file.is_none() {
            flags |= libc::MAP_ANONYMOUS;
        }
        let fd = file.map_or(-1, |file| file.as_raw_fd());
        // SAFETY: MAP_FIXED_NOREPLACE never replaces an existing mapping.
        let at = unsafe { libc::mmap(self.next as *mut _, len, prot, flags, fd, 0) };
        self.placed(name, at, len)
    }

    fn system_v(&mut self) -> io::Result<usize> {
        // SAFETY: no pointer is passed.
        let id = unsafe { libc::shmget(libc::IPC_PRIVATE, SMALL, 0o600 | libc::IPC_CREAT) };
        if id < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: without SHM_REMAP an existing mapping is never replaced.
        let at = unsafe { libc::shmat(id, self.next as *const _, 0) };
        // SAFETY: IPC_RMID takes no buffer; the segment lives until detached.
        unsafe { libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()) };
        self.placed("sysv", at, SMALL)
    }

    fn placed(&mut self, name: &str, at: *mut libc::c_void, len: usize) -> io::Result<usize> {
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        if at as usize != self.next {
            return Err(io::Error::other(format!("{name} landed at {at:p}")));
        }
        self.next += STEP;
        self.list.push(Region {
            name: name.into(),
            start: at as usize,
            len,
        });
        Ok(at as usize)
    }

    /// Grows the heap by `len` bytes and fills them.
    pub(crate) fn grow_heap(&mut self, name: &str, len: usize) -> io::Result<Region> {
        // SAFETY: sbrk only adds memory; nothing points there yet.
        let at = unsafe { libc::sbrk(len as isize) } as usize;
        if at == usize::MAX {
            return Err(io::Error::last_os_error());
        }
        // The words of the pattern begin at multiples of 8.
        let start = at.next_multiple_of(16);
        let region = Region {
            name: name.into(),
            start,
            len: len - 16,
        };
        self.fill(region.start, region.len);
        self.list.push(region.clone());
        Ok(region)
    }

    /// Writes the pattern over `len` bytes from `start`.
    fn fill(&self, start: usize, len: usize) {
        // SAFETY: every caller passes memory that it mapped writable just now.
        let bytes = unsafe { std::slice::from_raw_parts_mut(start as *mut u8, len) };
        pattern::fill(bytes, start as u64, self.generation);
    }

    /// The region called `name`.
    pub(crate) fn region(&self, name: &str) -> &Region {
        self.list
            .iter()
            .find(|region| region.name == name)
            .unwrap_or_else(|| panic!("no region {name}"))
    }

    /// Makes `count` mappings next to each other by alternating protections.
    pub(crate) fn many(&mut self, count: usize) -> io::Result<usize> {
        let start = self.map_as("many", count * PAGE, None, true, libc::PROT_READ)?;
        for page in (1..count).step_by(2) {
            protect(
                start + page * PAGE,
                PAGE,
                libc::PROT_READ | libc::PROT_WRITE,
            )?;
        }
        Ok(start)
    }
}

/// `mprotect`.
pub(crate) fn protect(start: usize, len: usize, prot: libc::c_int) -> io::Result<()> {
    // SAFETY: the caller names a region of its own, which holds no Rust object.
    check(unsafe { libc::mprotect(start as *mut _, len, prot) })
}

/// `munmap`.
pub(crate) fn unmap(start: usize, len: usize) -> io::Result<()> {
    // SAFETY: the caller names a region of its own, which holds no Rust object.
    check(unsafe { libc::munmap(start as *mut _, len) })
}

/// Turns the result of a system call into a `Result`.
pub(crate) fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Opens `path` for reading, and for writing where that is allowed.
pub(crate) fn open_any(path: &str) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .or_else(|_| File::open(path))
}

fn memfd(name: &CStr, len: usize) -> io::Result<OwnedFd> {
    // SAFETY: the name is a C string.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), 0) };
    check(fd)?;
    // SAFETY: the descriptor was made just now and belongs to nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    File::from(fd.try_clone()?).set_len(len as u64)?;
    Ok(fd)
}

fn set_anon_name(start: usize, len: usize, name: &CStr) -> bool {
    // SAFETY: the arguments are an address range and a C string.
    unsafe { libc::prctl(PR_SET_VMA, 0, start, len, name.as_ptr()) == 0 }
}

/// A path as a C string.
pub(crate) fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("no NUL in a path")
}
