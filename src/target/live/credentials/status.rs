//! What `/proc/TID/status` says of a thread's credentials.

use std::sync::Arc;

use nix::sys::signal::Signal;

use crate::target::Credentials;
use crate::target::live::text::field;

/// What `/proc/TID/status` shows of a thread.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) credentials: Credentials,
    pub(super) process: u32,
    /// Whether it is a thread of the kernel's that may act for others: its own credentials say nothing of who asks.
    pub(super) is_worker: bool,
}

/// Signals that no program can block or ignore, a bit each as `status` shows them.
const KILL_AND_STOP: u64 = 1 << (Signal::SIGKILL as u32 - 1) | 1 << (Signal::SIGSTOP as u32 - 1);

/// What `status` shows (proc_pid_status(5)).
pub(super) fn parse(status: &[u8]) -> Option<Status> {
    // Real, effective, saved, and that for files.
    let last_of = |name: &[u8]| -> Option<(u32, u32)> {
        let mut numbers = field(status, name)?.split_ascii_whitespace();
        let effective = numbers.nth(1)?.parse().ok()?;
        let for_files = numbers.nth(1)?.parse().ok()?;
        Some((effective, for_files))
    };
    let (effective_uid, uid) = last_of(b"Uid:")?;
    let (effective_gid, gid) = last_of(b"Gid:")?;
    let groups = field(status, b"Groups:")?.split_ascii_whitespace();
    let groups: std::result::Result<Arc<[u32]>, _> = groups.map(str::parse).collect();
    let set = |name: &[u8]| u64::from_str_radix(field(status, name)?, 16).ok();
    let credentials = Credentials {
        uid,
        gid,
        effective_uid,
        effective_gid,
        groups: groups.ok()?,
        capabilities: set(b"CapEff:")?,
        user_namespace: None,
    };
    Some(Status {
        credentials,
        process: field(status, b"Tgid:")?.trim().parse().ok()?,
        // A worker of a process blocks all else (`copy_process` in `kernel/fork.c`), those of the C library among them; a thread of the
        // kernel's own ignores what nobody else can (`ignore_signals` in `kernel/signal.c`).
        is_worker: set(b"SigBlk:")? == !KILL_AND_STOP || set(b"SigIgn:")? & KILL_AND_STOP != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &[u8] = b"\
Name:\tx\nTgid:\t7\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t9 10 \nSigBlk:\tfffffffe7ffbfeff\n\
SigIgn:\t0000000000001000\nCapPrm:\t0000000000000007\nCapEff:\t0000000000000003\n";

    #[test]
    fn credentials_are_what_status_shows() {
        let expected = Status {
            credentials: Credentials {
                uid: 4,
                gid: 8,
                effective_uid: 2,
                effective_gid: 6,
                groups: Arc::new([9, 10]),
                capabilities: 3,
                user_namespace: None,
            },
            process: 7,
            is_worker: false,
        };
        assert_eq!(parse(STATUS), Some(expected));
        let text = std::str::from_utf8(STATUS).unwrap();
        for (of_program, of_kernel) in [
            ("fffffffe7ffbfeff", "fffffffffffbfeff"),
            ("0000000000001000", "ffffffffffffffff"),
            ("0000000000001000", "fffffffffffffeff"),
        ] {
            let status = text.replace(of_program, of_kernel);
            assert!(parse(status.as_bytes()).unwrap().is_worker, "{of_kernel}");
        }
        for missing in [
            &b"Uid:"[..],
            b"Gid:",
            b"Groups:",
            b"CapEff:",
            b"SigBlk:",
            b"SigIgn:",
            b"Tgid:",
        ] {
            let lines = STATUS.split_inclusive(|byte| *byte == b'\n');
            let left: Vec<u8> = lines
                .filter(|line| !line.starts_with(missing))
                .flatten()
                .copied()
                .collect();
            assert_eq!(parse(&left), None);
        }
    }
}
