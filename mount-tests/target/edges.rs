//! Memory that is neither plainly there nor plainly absent.

use std::io;

use crate::regions::check;
use crate::userfault::{Mode, Userfault};
use crate::{address, number, pattern, rings};

/// Where the first of them lies, past all others.
const BASE: usize = 0x6000_0000_0000;
/// Distance between the starts of two of them.
const STEP: usize = 0x20_0000_0000;
const PAGE: usize = 4096;
const HUGE_PAGE: usize = 2 << 20;

/// `MADV_GUARD_INSTALL`, which older headers do not have.
const GUARD_INSTALL: libc::c_int = 102;

/// What was made so far.
#[derive(Debug)]
pub(crate) struct Edges {
    generation: u64,
    next: usize,
    userfaults: Vec<Userfault>,
}

impl Edges {
    pub(crate) fn new(generation: u64) -> Self {
        Self {
            generation,
            next: BASE,
            userfaults: Vec::new(),
        }
    }

    /// Registers a range with a `userfaultfd`.
    pub(crate) fn register(&mut self, mode: &str, start: usize, len: usize) -> io::Result<()> {
        let mode = Mode::parse(mode).ok_or_else(|| io::Error::other("no such mode"))?;
        self.userfaults.push(Userfault::register(mode, start, len)?);
        Ok(())
    }

    /// Carries out one command.
    pub(crate) fn obey(&mut self, words: &[&str]) -> io::Result<String> {
        match *words {
            ["register", mode, at, len] => self.register(mode, address(at), number(len))?,
            // Under the `userfaultfd` that was made last.
            ["write-protect", at, len] => self.last()?.protect(address(at), number(len))?,
            ["poison", at, len] => self.last()?.poison(address(at), number(len))?,
            ["guard", at, len] => advise(address(at), number(len), GUARD_INSTALL)?,
            ["advise", at, len, advice] => advise(address(at), number(len), number(advice) as _)?,
            ["come-and-go", at, len] => come_and_go(address(at), number(len)),
            ["huge", kind, len] => {
                let start = self.huge(kind, number(len))?;
                return Ok(format!("{start:x}-{:x}", start + number(len)));
            }
            ["ring", kind] => {
                let (start, len) = rings::make(kind)?;
                return Ok(format!("{start:x}-{:x}", start + len));
            }
            _ => return Err(io::Error::other("unknown command")),
        }
        Ok(String::new())
    }

    fn last(&self) -> io::Result<Userfault> {
        let last = self.userfaults.last().copied();
        last.ok_or_else(|| io::Error::other("no userfaultfd"))
    }

    /// Reserves huge pages, of which only the third is there.
    fn huge(&mut self, kind: &str, len: usize) -> io::Result<usize> {
        let at = self.next as *mut libc::c_void;
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_ANONYMOUS
            | libc::MAP_HUGETLB
            | libc::MAP_NORESERVE
            | libc::MAP_FIXED_NOREPLACE;
        let start = match kind {
            // SAFETY: MAP_FIXED_NOREPLACE never replaces an existing mapping.
            "private" => unsafe { libc::mmap(at, len, prot, flags | libc::MAP_PRIVATE, -1, 0) },
            // SAFETY: as above.
            "shared" => unsafe { libc::mmap(at, len, prot, flags | libc::MAP_SHARED, -1, 0) },
            _ => {
                let flags = 0o600 | libc::IPC_CREAT | libc::SHM_HUGETLB | libc::SHM_NORESERVE;
                // SAFETY: no pointer is passed.
                let id = unsafe { libc::shmget(libc::IPC_PRIVATE, len, flags) };
                check(id)?;
                // SAFETY: without SHM_REMAP an existing mapping is never replaced.
                let start = unsafe { libc::shmat(id, at, 0) };
                // SAFETY: IPC_RMID takes no buffer; the segment lives until detached.
                unsafe { libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()) };
                start
            }
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        self.next += STEP;
        let third = start as usize + 2 * HUGE_PAGE;
        // SAFETY: the page was mapped writable just now, and nothing else refers to it.
        let bytes = unsafe { std::slice::from_raw_parts_mut(third as *mut u8, PAGE) };
        pattern::fill(bytes, third as u64, self.generation);
        Ok(start as usize)
    }
}

/// Starts a thread that touches one page after the other, and gives all of them back, for ever.
fn come_and_go(start: usize, len: usize) {
    std::thread::spawn(move || {
        loop {
            for page in (start..start + len).step_by(PAGE) {
                // SAFETY: the test names writable memory that nothing else uses.
                unsafe { (page as *mut u8).write_volatile(b'x') };
            }
            let _ = advise(start, len, libc::MADV_DONTNEED);
        }
    });
}

fn advise(start: usize, len: usize, advice: libc::c_int) -> io::Result<()> {
    // SAFETY: the test names a region that holds no Rust object.
    check(unsafe { libc::madvise(start as *mut _, len, advice) })
}
