//! A command line that the target lays where it likes (`PR_SET_MM` in prctl(2)).

use std::io;

use crate::regions::check;
use crate::userfault::{Mode, Userfault};

/// `struct prctl_mm_map` of `include/uapi/linux/prctl.h`.
#[repr(C)]
struct MmMap {
    start_code: u64,
    end_code: u64,
    start_data: u64,
    end_data: u64,
    start_brk: u64,
    brk: u64,
    start_stack: u64,
    arg_start: u64,
    arg_end: u64,
    env_start: u64,
    env_end: u64,
    auxv: *mut u64,
    auxv_size: u32,
    exe_fd: u32,
}

const PR_SET_MM_MAP: libc::c_ulong = 14;

/// A field of `/proc/self/stat`, counted as in proc_pid_stat(5).
fn field(number: usize) -> io::Result<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, rest) = stat.rsplit_once(") ").ok_or(io::ErrorKind::InvalidData)?;
    let field = rest.split_whitespace().nth(number - 3);
    let number = field.and_then(|field| field.parse().ok());
    number.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Lays the command line onto memory that nobody has touched: in plain memory, or in memory whose absent
/// pages a `userfaultfd` would have to bring that nobody answers. Answers with where it is.
pub(crate) fn lay(place: &str, len: usize) -> io::Result<String> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping, at a place that the kernel chooses.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let start = start as u64;
    if place == "userfault" {
        let mode = Mode::parse("missing").expect("a known mode");
        Userfault::register(mode, start as usize, len)?;
    }
    // SAFETY: asks where the heap ends.
    let brk = unsafe { libc::sbrk(0) } as u64;
    let end = start + len as u64;
    let map = MmMap {
        start_code: field(26)?,
        end_code: field(27)?,
        start_data: field(45)?,
        end_data: field(46)?,
        start_brk: field(47)?,
        brk,
        start_stack: field(28)?,
        arg_start: start,
        arg_end: end,
        env_start: end,
        env_end: end,
        auxv: std::ptr::null_mut(),
        auxv_size: 0,
        exe_fd: u32::MAX,
    };
    let size = size_of::<MmMap>() as libc::c_ulong;
    // SAFETY: the argument is the structure that this request takes, and names its size.
    check(unsafe {
        libc::prctl(
            libc::PR_SET_MM,
            PR_SET_MM_MAP,
            &raw const map,
            size,
            0 as libc::c_ulong,
        )
    })?;
    Ok(format!("{start:x}-{end:x}"))
}

/// Writes a title of `len` bytes over the arguments, as `setproctitle` does.
pub(crate) fn retitle(len: usize) -> io::Result<()> {
    let (start, end) = (field(48)?, field(51)?);
    let mut title = vec![b'T'; len];
    title.push(0);
    if start + title.len() as u64 > end {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: arguments and environment lie here, one after the other, are writable, and nobody reads them any more.
    unsafe { std::ptr::copy_nonoverlapping(title.as_ptr(), start as *mut u8, title.len()) };
    Ok(())
}
