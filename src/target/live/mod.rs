//! Live processes of this system: the one place that talks to `/proc` and to `process_vm_readv`.

mod accessible;
mod arguments;
mod backing;
#[cfg(test)]
mod child;
mod credentials;
mod dump;
mod errno;
mod heap;
mod host;
mod interrupted;
mod kernel;
mod mem;
mod memory;
mod memory_limit;
mod mounts;
mod pagemap;
mod pinned;
mod probe;
mod process;
mod random;
mod resolver;
mod security_modules;
mod shortage;
mod smaps;
mod source;
mod stop;
mod store;
mod task;
mod text;
mod tracker;
mod userfault;
mod vdso;
mod vm;
mod vma;
mod yama;

/// Parsers of what the kernel tells, for the fuzzer.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod parsers {
    pub(crate) use super::mounts::{MountPoint, parse as mountinfo_line};
    pub(crate) use super::pagemap::fuzzing::check as check_pagemap;
    pub(crate) use super::smaps::Smaps;
    pub(crate) use super::task::Stat;
}

pub(crate) use heap::trim_heap;
#[cfg(test)]
pub(crate) use host::ProcOptions;
pub(crate) use host::{About, Call, Host, allows_fuse_over_uring, is_filtered, release};
pub use kernel::{Feature, Kernel, ProcFault};
pub(crate) use mounts::{SUBTYPE, device_at, mount_of, mounts, unique_id};
pub(crate) use pinned::instance;
pub(crate) use process::MOST_MAPPINGS;
pub use process::SourceOptions;
#[cfg(test)]
pub(crate) use security_modules::Confinement;
pub(crate) use security_modules::security_module_hint;
pub use source::LiveSource;
pub use store::LiveStores;
pub(crate) use task::own_activity;
pub(crate) use yama::Yama;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use procfs::ProcError;

use errno::HasErrno;

use crate::common::address::PAGE_SIZE;
use crate::common::error::Error;
use crate::target::ProcessId;

/// Whether pages of `size` bytes are those that this program was built for.
///
/// # Errors
/// Where they are not.
fn check_page_size(size: u64) -> std::result::Result<(), ProcFault> {
    match size {
        PAGE_SIZE => Ok(()),
        other => Err(ProcFault::PageSize(other)),
    }
}

/// Raises the limit of open descriptors as far as this user may: each open process holds a few of them.
pub(crate) fn raise_descriptor_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(errno) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        log::debug!("the limit of open descriptors stays at {soft}: {errno}");
    }
}

/// How many descriptors this program may have open.
fn descriptor_limit() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft)
}

/// What an error of the `procfs` crate says of the process.
fn from_proc(pid: ProcessId, what: &'static str, error: &ProcError) -> Error {
    match error {
        ProcError::PermissionDenied(_) => Error::ProcessDenied(pid),
        ProcError::NotFound(_) => Error::NoProcess(pid),
        ProcError::Io(error, _) => from_io(pid, what, error),
        ProcError::Incomplete(_) | ProcError::Other(_) | ProcError::InternalError(_) => {
            log::debug!("{what} of process {pid}: {error}");
            Error::system(what, Errno::EIO)
        }
    }
}

/// The errno of an error of the system's.
fn errno_of(error: &std::io::Error) -> Errno {
    error.errno().unwrap_or(Errno::EIO)
}

/// What an error of a file below `/proc/PID` says of the process.
fn from_io(pid: ProcessId, what: &'static str, error: &std::io::Error) -> Error {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ESRCH | Errno::ENOENT) => Error::NoProcess(pid),
        Some(Errno::EACCES | Errno::EPERM) => Error::ProcessDenied(pid),
        Some(errno) => Error::system(what, errno),
        None => Error::system(what, Errno::EIO),
    }
}

#[cfg(test)]
mod tests;
