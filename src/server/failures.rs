//! What is logged of requests that failed.

use std::ffi::OsStr;
use std::sync::Arc;

use nix::errno::Errno;

use super::{FileSystem, Inode, Request};
use crate::common::clock::Clock;
use crate::common::error::Error;
use crate::common::log_limit::LogLimit;
use crate::common::metrics::Operation;
use crate::target::live::security_module_hint;
use crate::target::mapping::sanitized;

/// Logs failures: those of one kind once a minute, with their number.
#[derive(Debug)]
pub(super) struct Failures(LogLimit<(Operation, i32)>);

impl Failures {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self(LogLimit::new(clock))
    }

    /// Counts and logs one.
    pub(super) fn log(&self, fs: &FileSystem, request: &Request, error: &Error) -> Errno {
        let errno = error.errno();
        let operation = request.operation.counted();
        fs.context().metrics().count_error(errno);
        let mut level = level(error);
        let mut left_out = None;
        // What only who debugs wants to know is logged each time.
        if level <= log::Level::Info {
            left_out = self.0.admit((operation, errno as i32));
            if left_out.is_none() {
                level = log::Level::Debug;
            }
        }
        if log::log_enabled!(level) {
            let left_out = left_out.map_or_else(String::new, |count| count.to_string());
            let hint = match error {
                Error::ProcessDenied(_) => security_module_hint(),
                _ => "",
            };
            let Request { number, caller, .. } = request;
            log::log!(
                level,
                "{}: {errno:?}: {error}{hint}{left_out} [request {number} of PID {}, UID {}]",
                place(fs, request),
                caller.pid,
                caller.uid
            );
        }
        errno
    }

    /// Logs at the end how many were not.
    pub(super) fn log_rest(&self) {
        for ((operation, errno), count) in self.0.take_left_out() {
            log::info!(
                "failures of {} with {:?} that were not logged: {count}",
                operation.name(),
                Errno::from_raw(errno)
            );
        }
    }
}

/// What was asked, in which process, of which path.
fn place(fs: &FileSystem, request: &Request) -> String {
    let operation = &request.operation;
    let name = operation.counted().name();
    place_of(fs, name, operation.inode(), operation.name())
}

/// The path of `inode` from the mount point on, or that of `name` in it, and before it the process that
/// it belongs to: printable ASCII, whatever the names are.
fn place_of(fs: &FileSystem, operation: &str, inode: Inode, name: Option<&OsStr>) -> String {
    let node = fs.node(inode).ok();
    let path = match &node {
        Some(node) => node.path(),
        None => format!("inode {inode}"),
    };
    let name = name.map(|name| sanitized(name.as_encoded_bytes()));
    let path = match name {
        Some(name) if path == "." => name,
        Some(name) => format!("{path}/{name}"),
        None => path,
    };
    let process = node.as_ref().and_then(|node| node.process());
    match process {
        Some(info) => format!(
            "{} ({}): {operation} of {path}",
            info.identity.pid,
            sanitized(&info.command)
        ),
        None => format!("{operation} of {path}"),
    }
}

/// At which level a failure is logged: warnings for what a user may wonder about, debug for what is normal.
fn level(error: &Error) -> log::Level {
    match error {
        Error::ProcessDenied(_) | Error::Unwritable(_) | Error::BadHandle => log::Level::Warn,
        Error::System { .. } | Error::OwnMemory | Error::WrongProc => log::Level::Warn,
        Error::TooManyMappings(..) | Error::TimedOut(_) | Error::TooManyOpen(_) => log::Level::Warn,
        Error::Traced(_) | Error::Unstoppable(_) | Error::NoRoom { .. } => log::Level::Warn,
        Error::SnapshotName | Error::StopOff | Error::NotOwner => log::Level::Warn,
        Error::Protected | Error::WriteOff | Error::ReadOnlyMount | Error::MappedWrite => {
            log::Level::Info
        }
        Error::Unknown(..) | Error::CallerDenied(_) | Error::UnknownCaller => log::Level::Info,
        Error::NoEntry
        | Error::NoProcess(_)
        | Error::Ended(_)
        | Error::Replaced(_)
        | Error::Unreachable(_)
        | Error::Incomplete(_)
        | Error::NoMoreData
        | Error::NoAttribute
        | Error::NotSupported
        | Error::Untracked(..)
        | Error::PastEnd
        | Error::NotPermitted
        | Error::NotADirectory
        | Error::IsADirectory
        | Error::Interrupted
        | Error::Exists
        | Error::Invalid => log::Level::Debug,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::file_system::tests::{HEAP, bench};
    use crate::server::inodes::ROOT;
    use crate::target::fake::FakeProcess;

    #[test]
    fn a_place_names_process_mapping_and_path() {
        let bench = bench();
        let process = FakeProcess::new(8, b"ngi\nnx \x1b[31m");
        process.set_maps(b"10000-12000 rw-p 00000000 00:00 0 [heap]\n");
        bench.source.add(process);
        let inode = |path: &str| bench.find(path).unwrap().inode;
        let place = |path: &str| place_of(&bench.fs, "read", inode(path), None);
        assert_eq!(
            place(&format!("8/{HEAP}")),
            format!("8 (ngi_nx__[31m): read of 8/{HEAP}")
        );
        assert_eq!(place("8"), "8 (ngi_nx__[31m): read of 8");
        assert_eq!(place("8/heap"), "8 (ngi_nx__[31m): read of 8/heap");
        assert_eq!(place("mem/8"), "8 (ngi_nx__[31m): read of mem/8");
        for path in ["stats", "self", "mem", "by-name"] {
            assert_eq!(place(path), format!("read of {path}"));
        }
        let name = OsStr::new("a\n\u{7f}b");
        assert_eq!(
            place_of(&bench.fs, "lookup", ROOT, Some(name)),
            "lookup of a__b"
        );
        let process = inode("8");
        assert!(place_of(&bench.fs, "lookup", process, Some(name)).ends_with("lookup of 8/a__b"));
        assert_eq!(
            place_of(&bench.fs, "read", Inode(1 << 50), None),
            "read of inode 1125899906842624"
        );
    }
}
