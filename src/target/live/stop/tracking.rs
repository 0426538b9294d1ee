//! Whether what a process writes can be tracked: without harm to it, and seeing all.

use std::os::fd::AsFd;

use nix::libc;
use rustix::fs::{Dir, readlinkat};

use super::{Refusal, threads};
use crate::target::live::interrupted::retry;
use crate::target::live::kernel::{Feature, Kernel};
use crate::target::live::pinned::Pinned;
use crate::target::live::text::field;
use crate::target::mapping::Mapping;

/// Open files that are looked at: who has more is left out.
const MOST_FILES: usize = 1 << 16;

/// `enum kcmp_type` in `include/uapi/linux/kcmp.h`.
const KCMP_VM: libc::c_long = 1;
const KCMP_FILES: libc::c_long = 2;

/// Devices that never write to the memory of who has them open, but by its own system calls, or by its page tables (KVM).
const HARMLESS_DEVICES: [&[u8]; 12] = [
    b"null", b"zero", b"full", b"random", b"urandom", b"tty", b"pts/", b"ptmx", b"console",
    b"shm/", b"fuse", b"kvm",
];

/// Files without a name for which the same holds.
const HARMLESS_FILES: [&[u8]; 10] = [
    b"[eventfd]",
    b"[eventpoll]",
    b"[timerfd]",
    b"[signalfd]",
    b"[pidfd]",
    b"[fanotify]",
    b"[perf_event]",
    b"inotify",
    b"bpf",
    b"kvm-",
];

/// Makes sure that nothing forbids it. All threads stand still.
///
/// What cannot be seen from outside is an io_uring that was made without a mapping and a descriptor
/// (`IORING_SETUP_NO_MMAP` with `IORING_SETUP_REGISTERED_FD_ONLY`).
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
    let is_asynchronous =
        |mapping: &Mapping| matches!(mapping.path(), b"/[aio]" | b"anon_inode:[io_uring]");
    if mappings.any(is_asynchronous) {
        return Err(ASYNCHRONOUS);
    }
    let status = pinned.contents("status").map_err(|_| ENDED)?;
    if field(&status, b"VmPin:").is_some_and(|pinned| pinned != "0 kB") {
        return Err("a device may write to its memory (VmPin)");
    }
    check_files(pinned)?;
    check_sockets(pinned)?;
    let parent = field(&status, b"PPid:").and_then(|parent| parent.parse().ok());
    if parent.is_some_and(|parent| may_share_memory(pinned, parent)) {
        return Err("it may have the memory of its parent (vfork)");
    }
    Ok(())
}

const ENDED: Refusal = "it has ended";
const ASYNCHRONOUS: Refusal = "it reads asynchronously (io_uring, io_setup)";

fn check_files(pinned: &Pinned) -> Result<(), Refusal> {
    const UNKNOWN: Refusal = "its open files cannot be listed";
    let pid = pinned.identity().pid.as_pid_t();
    let others = threads(pinned).map_err(|_| UNKNOWN)?;
    let has_others_files = |tid: &i32| *tid != pid && compare(KCMP_FILES, pid, *tid) != Some(0);
    if others.iter().any(has_others_files) {
        return Err("a thread of it has open files of its own");
    }
    let directory = pinned.open_file("fd").map_err(|_| UNKNOWN)?;
    let mut names = Dir::read_from(&directory).map_err(|_| UNKNOWN)?;
    let mut left = MOST_FILES;
    while let Some(entry) = retry(|| names.read().transpose()).map_err(|_| UNKNOWN)? {
        left = left.checked_sub(1).ok_or("it has too many open files")?;
        let Ok(link) = retry(|| readlinkat(directory.as_fd(), entry.file_name(), Vec::new()))
        else {
            continue;
        };
        check_file(link.as_bytes())?;
    }
    Ok(())
}

/// What the link of a descriptor says (proc_pid_fd(5)).
fn check_file(link: &[u8]) -> Result<(), Refusal> {
    let is_one_of = |name: &[u8], all: &[&[u8]]| all.iter().any(|it| name.starts_with(it));
    match link {
        b"anon_inode:[userfaultfd]" => Err("it has a userfaultfd of its own"),
        b"anon_inode:[io_uring]" => Err(ASYNCHRONOUS),
        _ => match (
            link.strip_prefix(b"/dev/"),
            link.strip_prefix(b"anon_inode:"),
        ) {
            (Some(name), _) if !is_one_of(name, &HARMLESS_DEVICES) => {
                Err("it has a device open that may write to its memory")
            }
            (_, Some(name)) if !is_one_of(name, &HARMLESS_FILES) => {
                Err("it has a file open that may write to its memory")
            }
            _ => Ok(()),
        },
    }
}

/// Sockets that put packets into the memory of a process by themselves: the whole network namespace is asked.
fn check_sockets(pinned: &Pinned) -> Result<(), Refusal> {
    // Without a network there is no such file.
    let protocols = pinned.contents("net/protocols").unwrap_or_default();
    match has_xdp(&protocols) {
        true => Err("it may have a socket that writes to its memory (AF_XDP)"),
        false => Ok(()),
    }
}

/// Whether a line of `net/protocols` counts sockets of AF_XDP: name, size, sockets.
fn has_xdp(protocols: &[u8]) -> bool {
    let text = String::from_utf8_lossy(protocols);
    text.lines().any(|line| {
        let mut words = line.split_ascii_whitespace();
        words.next() == Some("XDP") && words.nth(1) != Some("0")
    })
}

fn may_share_memory(pinned: &Pinned, parent: i32) -> bool {
    if parent == 0 {
        return false;
    }
    match compare(KCMP_VM, pinned.identity().pid.as_pid_t(), parent) {
        Some(order) => order == 0,
        // Another's. One memory has one size.
        None => {
            let own = pinned.contents("statm").ok();
            let theirs = std::fs::read(format!("/proc/{parent}/statm")).ok();
            own.is_none() || theirs.is_none() || own == theirs
        }
    }
}

/// How what two tasks have compares (kcmp(2)): 0 where it is the same; `None` where this user may not know.
fn compare(kind: libc::c_long, one: i32, other: i32) -> Option<libc::c_long> {
    // SAFETY: takes no pointer.
    let order = unsafe { libc::syscall(libc::SYS_kcmp, one, other, kind, 0_u64, 0_u64) };
    (order >= 0).then_some(order)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_may_write_to_memory_are_known() {
        let harmless = [
            &b"/dev/null"[..],
            b"/dev/pts/3",
            b"/home/x/file",
            b"socket:[123]",
            b"pipe:[5]",
            b"anon_inode:[eventpoll]",
            b"anon_inode:inotify",
            b"anon_inode:kvm-vcpu:0",
            b"/memfd:x (deleted)",
        ];
        for link in harmless {
            assert_eq!(check_file(link), Ok(()), "{}", link.escape_ascii());
        }
        let others = [
            &b"/dev/vfio/12"[..],
            b"/dev/video0",
            b"/dev/nvidia0",
            b"/dev/mem",
            b"anon_inode:[io_uring]",
            b"anon_inode:[userfaultfd]",
            b"anon_inode:[vfio-device]",
        ];
        for link in others {
            assert!(check_file(link).is_err(), "{}", link.escape_ascii());
        }
    }

    #[test]
    fn sockets_of_xdp_are_counted() {
        let line = |count| {
            format!(
                "protocol  size sockets  memory\nXDP       1088 {count:>6}      -1   NI\nTCP 2 5\n"
            )
        };
        assert!(!has_xdp(line(0).as_bytes()));
        assert!(has_xdp(line(2).as_bytes()));
        assert!(!has_xdp(b""));
    }
}
