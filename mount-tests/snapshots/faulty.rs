//! System calls of the daemon that fail while a snapshot is taken, by `strace -e inject`.

use super::{at, file_of, mkdir, names, nothing_is_left, runs_on};
use crate::faults::{Injection, unfiltered};
use crate::support::{
    Mount, Target, assert_bytes, current_test, errno_name, rounds, tests, thread_call,
};

tests![whatever_fails_a_snapshot_is_whole_or_none: [Need::Root, Need::Tool("strace")]];

/// What makes threads, whatever its name is (`thread_call`).
const THREADS: &str = "threads";

/// System calls, the first one that fails, each how many-th after it, and how.
const FAULTS: &[(&str, u32, u32, &[&str])] = &[
    ("memfd_create", 1, 2, &["EMFILE", "ENOMEM", "EINTR"]),
    ("ftruncate", 1, 2, &["ENOMEM", "EPERM", "EINTR"]),
    // Gives pages back that two have in common.
    ("fallocate", 1, 2, &["ENOSPC", "EINTR", "EOPNOTSUPP"]),
    ("fcntl", 1, 2, &["EPERM"]),
    ("madvise", 1, 3, &["ENOMEM", "EFAULT", "EINVAL"]),
    ("mmap", 3, 2, &["ENOMEM"]),
    (THREADS, 1, 2, &["EAGAIN"]),
    ("ioctl", 1, 3, &["ENOMEM", "EINTR"]),
    ("process_vm_readv", 1, 3, &["ENOMEM", "ESRCH"]),
    ("pread64", 1, 7, &["ENOMEM", "EINTR"]),
    ("openat", 1, 7, &["EMFILE", "ENOMEM"]),
    ("getdents64", 1, 2, &["ENOMEM"]),
    ("ptrace", 1, 3, &["EPERM", "ESRCH"]),
];

/// What is injected.
const ERRNOS: [i32; 10] = [
    libc::EMFILE,
    libc::ENOMEM,
    libc::EINTR,
    libc::EPERM,
    libc::ENOSPC,
    libc::EOPNOTSUPP,
    libc::EFAULT,
    libc::EINVAL,
    libc::EAGAIN,
    libc::ESRCH,
];

/// What a `mkdir` may give then, besides what was injected.
const ALLOWED: [i32; 8] = [
    libc::EIO,
    libc::EAGAIN,
    libc::ENOMEM,
    libc::ESRCH,
    libc::EACCES,
    libc::EBUSY,
    libc::ETIMEDOUT,
    libc::ENOENT,
];

/// All snapshots that there are show what the target holds; they are dropped.
#[track_caller]
fn all_are_whole(mount: &Mount, target: &Target) -> usize {
    let listed = names(&mount.path("snap"));
    for name in &listed {
        let copy = at(mount, name);
        for region in ["scratch", "private", "sparse_private", "memfd", "sysv"] {
            let shown = std::fs::read(file_of(&copy, &target.region(region))).unwrap();
            assert_bytes(
                &format!("{region} of {name}"),
                &shown,
                &target.bytes(region),
            );
        }
    }
    for name in &listed {
        std::fs::remove_dir(at(mount, name)).unwrap();
    }
    listed.len()
}

/// SEMANTICS: whatever fails, a snapshot shows all that there was, or there is none; then nothing of it is left, and the target runs on.
fn whatever_fails_a_snapshot_is_whole_or_none() {
    let mut target = Target::new();
    // Room for one more than there is, but not for many that were lost.
    let mount = unfiltered("snap_size=40m");
    let (mut total, mut taken, mut number) = (0, 0, 0);
    for (call, first, step, errors) in FAULTS {
        let call = match *call {
            THREADS => thread_call(),
            call => call,
        };
        for error in *errors {
            let inject = format!("inject={call}:error={error}:when={first}+{step}");
            let arguments = ["-e".into(), format!("trace={call}"), "-e".into(), inject];
            let injection = Injection::begin(&mount, &arguments);
            let mut failed = Vec::new();
            for _ in 0..rounds(4, 200) {
                number += 1;
                let name = format!("{}@{number}", target.pid());
                if let Err(error) = mkdir(&mount, &name) {
                    failed.push(error.raw_os_error().unwrap());
                }
            }
            let injected = injection.end();
            assert!(injected > 0, "{call} is never called");
            let own = *ERRNOS
                .iter()
                .find(|errno| errno_name(**errno) == *error)
                .unwrap();
            for errno in &failed {
                let is_allowed = ALLOWED.contains(errno) || (*errno == own && own != libc::EINTR);
                assert!(is_allowed, "{call} {error}: {}", errno_name(*errno));
            }
            let whole = all_are_whole(&mount, &target);
            eprintln!(
                "[{}] {call} {error}: {injected} injected, {} errors, {whole} taken",
                current_test(),
                failed.len()
            );
            (total, taken) = (total + injected, taken + whole);
            nothing_is_left(&mount);
            runs_on(&mut target);
        }
    }
    assert!(total > 0 && taken > 0, "{total} {taken}");
    // No room was lost.
    mkdir(&mount, &format!("{}@last", target.pid())).unwrap();
    assert_eq!(all_are_whole(&mount, &target), 1);
    let log = mount.log();
    for word in ["panicked", "defect"] {
        assert!(!log.contains(word), "{log}");
    }
}
