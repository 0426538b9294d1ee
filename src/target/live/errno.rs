//! The errno of an error, whoever's type it is.

use std::io;

use nix::errno::Errno;
use procfs::ProcError;

use crate::common::error::Error;

/// Errors that have an errno.
pub(super) trait HasErrno {
    fn errno(&self) -> Option<Errno>;
}

impl HasErrno for Errno {
    fn errno(&self) -> Option<Errno> {
        Some(*self)
    }
}

impl HasErrno for rustix::io::Errno {
    fn errno(&self) -> Option<Errno> {
        Some(Errno::from_raw(self.raw_os_error()))
    }
}

impl HasErrno for io::Error {
    fn errno(&self) -> Option<Errno> {
        self.raw_os_error().map(Errno::from_raw)
    }
}

/// None where it is missing or denied: `procfs` does not tell `ESRCH` from `ENOENT`, nor `EACCES` from `EPERM`.
impl HasErrno for ProcError {
    fn errno(&self) -> Option<Errno> {
        match self {
            Self::Io(error, _) => error.errno(),
            _ => None,
        }
    }
}

impl HasErrno for Error {
    fn errno(&self) -> Option<Errno> {
        match self {
            Self::System { errno, .. } => Some(*errno),
            // Also where a file below `/proc/PID` is missing, which every process has.
            Self::NoProcess(_) | Self::Ended(_) => Some(Errno::ESRCH),
            _ => None,
        }
    }
}
