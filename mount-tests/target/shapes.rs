//! Memory that is larger than what it holds, and memory that is laid over
//! itself: made when a test asks for it.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;

use crate::regions::check;
use crate::{address, number, pattern, protection, scatter};

/// Where the first of them lies, after all regions that are always there.
const BASE: usize = 0x2000_0000_0000;
/// Distance between the starts of two of them.
const STEP: usize = 0x200_0000_0000;
const PAGE: usize = 4096;

/// What was made so far.
#[derive(Debug)]
pub(crate) struct Shapes {
    next: usize,
    generation: u64,
    files: HashMap<String, File>,
}

impl Shapes {
    /// None yet; they will hold the bytes of `generation`.
    pub(crate) fn new(generation: u64) -> Self {
        Self {
            next: BASE,
            generation,
            files: HashMap::new(),
        }
    }

    /// Carries out one command.
    pub(crate) fn obey(&mut self, words: &[&str]) -> io::Result<String> {
        match *words {
            // Private memory of which COUNT scattered pages are there.
            ["reserve", len, count] => {
                let (len, count) = (number(len), number(count));
                let start = self.map(len, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)?;
                for offset in scatter::offsets(len, count.max(1)).iter().take(count) {
                    self.fill(start + offset, PAGE);
                }
                Ok(range(start, len))
            }
            // Shared memory without a name, nothing of it allocated.
            ["shared", len] => {
                let start = self.map(number(len), libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1)?;
                Ok(range(start, number(len)))
            }
            // A memfd, nothing of it allocated.
            ["object", name, len] => {
                // SAFETY: the name is a C string.
                let fd = unsafe { libc::memfd_create(c"object".as_ptr(), 0) };
                check(fd)?;
                // SAFETY: the descriptor was made just now and belongs to nobody else.
                let file = unsafe { File::from_raw_fd(fd) };
                file.set_len(number(len) as u64)?;
                let start = self.map(number(len), libc::MAP_SHARED, fd)?;
                self.files.insert(name.to_string(), file);
                Ok(range(start, number(len)))
            }
            // Bytes for the object, which its mapping is not touched for.
            ["put", name, start, offset, len] => {
                let offset = number(offset);
                let at = (address(start) + offset) as u64;
                let bytes = pattern::bytes(at, number(len), self.generation);
                self.file(name)?.write_all_at(&bytes, offset as u64)?;
                Ok(String::new())
            }
            ["fill", at, len] => {
                self.fill(address(at), number(len));
                Ok(String::new())
            }
            ["forget", at, len] => {
                // SAFETY: the test names a region that holds no Rust object.
                check(unsafe {
                    libc::madvise(address(at) as *mut _, number(len), libc::MADV_DONTNEED)
                })?;
                Ok(String::new())
            }
            ["open", name, path] => {
                self.files.insert(name.to_string(), File::open(path)?);
                Ok(String::new())
            }
            ["close", name] => {
                self.file(name)?;
                self.files.remove(name);
                Ok(String::new())
            }
            // Replaces memory of ours by a file that was opened before.
            ["lay", name, at, len, kind, prot] => {
                let kind = match kind {
                    "shared" => libc::MAP_SHARED,
                    _ => libc::MAP_PRIVATE,
                };
                let fd = self.file(name)?.as_raw_fd();
                let flags = kind | libc::MAP_FIXED;
                // SAFETY: the test names a region that holds no Rust object.
                let at = unsafe {
                    libc::mmap(
                        address(at) as *mut _,
                        number(len),
                        protection(prot),
                        flags,
                        fd,
                        0,
                    )
                };
                if at == libc::MAP_FAILED {
                    return Err(io::Error::last_os_error());
                }
                Ok(String::new())
            }
            // How a child of ours ends that touches the byte.
            ["poke", at] => poke(address(at)),
            _ => Err(io::Error::other("unknown command")),
        }
    }

    /// A file that was opened before.
    pub(crate) fn file(&self, name: &str) -> io::Result<&File> {
        let file = self.files.get(name);
        file.ok_or_else(|| io::Error::other(format!("no file {name}")))
    }

    /// Reserves `len` bytes at the next place.
    fn map(&mut self, len: usize, flags: libc::c_int, fd: libc::c_int) -> io::Result<usize> {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let flags = flags | libc::MAP_NORESERVE | libc::MAP_FIXED_NOREPLACE;
        // SAFETY: MAP_FIXED_NOREPLACE never replaces an existing mapping.
        let at = unsafe { libc::mmap(self.next as *mut _, len, prot, flags, fd, 0) };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        if at as usize != self.next {
            return Err(io::Error::other(format!("it landed at {at:p}")));
        }
        self.next += STEP.max(len.next_multiple_of(STEP));
        // One page that is touched is to be one page.
        // SAFETY: the range was mapped just now.
        unsafe { libc::madvise(at, len, libc::MADV_NOHUGEPAGE) };
        Ok(at as usize)
    }

    fn fill(&self, start: usize, len: usize) {
        // SAFETY: the memory is mapped writable and holds no Rust object.
        let bytes = unsafe { std::slice::from_raw_parts_mut(start as *mut u8, len) };
        pattern::fill(bytes, start as u64, self.generation);
    }
}

fn range(start: usize, len: usize) -> String {
    format!("{start:x}-{:x}", start + len)
}

/// Touches a byte in a child: `exit 0`, or `signal N`.
fn poke(at: usize) -> io::Result<String> {
    // SAFETY: the child reads a byte and ends; it calls nothing that takes a lock.
    let child = unsafe { libc::fork() };
    check(child)?;
    if child == 0 {
        // SAFETY: where the byte cannot be had, the child is killed, as it is meant to be.
        unsafe { std::ptr::read_volatile(at as *const u8) };
        // SAFETY: ends the child without running what the parent has set up.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: `status` is valid for writing.
    check(unsafe { libc::waitpid(child, &raw mut status, 0) })?;
    if libc::WIFSIGNALED(status) {
        return Ok(format!("signal {}", libc::WTERMSIG(status)));
    }
    Ok(format!("exit {}", libc::WEXITSTATUS(status)))
}
