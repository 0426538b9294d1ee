//! Memory that the kernel shares with a process: rings of asynchronous I/O, of sockets and of counters.

use std::io;

use crate::regions::check;

/// Makes a mapping of this kind; returns where it lies and its length. What it is of stays open.
pub(crate) fn make(kind: &str) -> io::Result<(usize, usize)> {
    match kind {
        "aio" => aio(),
        "io_uring" => io_uring(),
        "packet" => packet(),
        "perf" => perf(),
        _ => Err(io::Error::other("unknown ring")),
    }
}

fn map(fd: libc::c_int, len: usize) -> io::Result<(usize, usize)> {
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice touches no other memory.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, libc::MAP_SHARED, fd, 0) };
    if at == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok((at as usize, len))
}

fn aio() -> io::Result<(usize, usize)> {
    let mut context: libc::c_ulong = 0;
    // SAFETY: `context` is valid for writing.
    let made = unsafe { libc::syscall(libc::SYS_io_setup, 64, &raw mut context) };
    check(made as libc::c_int)?;
    // The context is the address of the ring; its header begins with a number and the count of events.
    Ok((context as usize, 4096))
}

fn io_uring() -> io::Result<(usize, usize)> {
    // `struct io_uring_params`: numbers only, all zero by default.
    let mut parameters = [0_u32; 30];
    // SAFETY: the structure has 120 bytes.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 8, parameters.as_mut_ptr()) };
    let fd = fd as libc::c_int;
    check(fd)?;
    // More than the ring has: its last pages are none.
    map(fd, 4096)
}

fn packet() -> io::Result<(usize, usize)> {
    // SAFETY: no pointer is passed.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0) };
    check(fd)?;
    // `struct tpacket_req`: block size, blocks, frame size, frames.
    let request: [libc::c_uint; 4] = [4096, 4, 2048, 8];
    // SAFETY: the option's value is the structure that it takes.
    check(unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_PACKET,
            libc::PACKET_RX_RING,
            request.as_ptr().cast(),
            size_of_val(&request) as libc::socklen_t,
        )
    })?;
    map(fd, 4 * 4096)
}

fn perf() -> io::Result<(usize, usize)> {
    // `struct perf_event_attr`, version 0: type (software), size, config (CPU clock).
    let mut attributes = [0_u64; 8];
    attributes[0] = 1 | 64 << 32;
    // SAFETY: the structure has 64 bytes, as it says.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            attributes.as_mut_ptr(),
            0,
            -1,
            -1,
            0,
        )
    };
    let fd = fd as libc::c_int;
    check(fd)?;
    map(fd, 2 * 4096)
}
