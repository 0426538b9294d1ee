//! What the daemon gives up once it has mounted, so that whoever takes it over through a bug gets little.
//!
//! All of this is of a thread and inherited by those that it starts (capabilities(7), seccomp(2)): it is done by the
//! first thread while there is no other.

mod capabilities;
mod filter;

use std::ffi::OsStr;
use std::io;

use nix::sys::resource::{Resource, setrlimit};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use thiserror::Error;

pub(super) use capabilities::may_unmount;
pub(crate) use capabilities::missing;
pub use capabilities::{MissingCapabilities, missing_capabilities};

/// The variable that says what becomes of system calls that the daemon has no use for: `kill` or `off`.
const VARIABLE: &str = "PROCMEMFS_SECCOMP";

/// What becomes of a system call that the daemon has no use for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownCalls {
    /// `ENOSYS`, as on a kernel that lacks it: a newer C library then does without.
    #[default]
    Refused,
    /// The process is killed by `SIGSYS`: for tests, which then find what is missing in the list.
    Fatal,
    /// There is no filter.
    Allowed,
}

/// Why the daemon is not as it was asked to be.
#[derive(Debug, Error)]
pub enum HardeningError {
    /// The variable has another value.
    #[error("{VARIABLE}={0}: must be 'kill' or 'off', or not be set")]
    Variable(String),
    /// A filter was asked for by `kill`, and there is none.
    #[error("{VARIABLE}=kill: no seccomp filter: {0}")]
    NoFilter(String),
}

impl UnknownCalls {
    /// What the environment variable `PROCMEMFS_SECCOMP` says.
    ///
    /// # Errors
    /// `Variable`.
    pub fn from_environment() -> Result<Self, HardeningError> {
        Self::parse(std::env::var_os(VARIABLE).as_deref())
    }

    fn parse(value: Option<&OsStr>) -> Result<Self, HardeningError> {
        match value.map(|value| value.to_string_lossy()).as_deref() {
            None | Some("") => Ok(Self::Refused),
            Some("kill") => Ok(Self::Fatal),
            Some("off") => Ok(Self::Allowed),
            Some(other) => Err(HardeningError::Variable(other.to_owned())),
        }
    }

    /// The variable and its value for a program that is to do the same.
    pub(super) fn to_environment(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Refused => None,
            Self::Fatal => Some((VARIABLE, "kill")),
            Self::Allowed => Some((VARIABLE, "off")),
        }
    }
}

/// What a process still has to do.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Needs {
    /// Whether it writes to the memory of others.
    pub(super) writes: bool,
    /// Whether its threads take on the credentials of callers: the permitted set then stays, since the effective
    /// sets of callers are taken from it, and a process that may not be ptraced by a set is not one of it.
    pub(super) judges_callers: bool,
    /// Whether it stops processes (ptrace(2)).
    pub(super) stops: bool,
    /// Whether it unmounts by `fusermount3`, which gets its rights from its file.
    pub(super) unmounts_by_helper: bool,
    /// Whether it reads memory at all: a supervisor does not.
    pub(super) serves: bool,
    /// Whether requests come over io_uring. The rings are made by then.
    pub(super) rings: bool,
    pub(super) unknown_calls: UnknownCalls,
}

/// Gives up all but what is needed, as far as the system lets it. To be called by the first thread, while there
/// is no other. What is not given up is told to who debugs, and why.
///
/// # Errors
/// `NoFilter`.
pub(super) fn harden(needs: &Needs) -> Result<(), HardeningError> {
    not_given_up(
        "that others trace it and that it dumps core",
        dump_nothing(),
    );
    if let Err(error) = capabilities::reduce(needs) {
        not_given_up("capabilities", Err(error));
    }
    if needs.unmounts_by_helper {
        // Without no_new_privs only CAP_SYS_ADMIN could install a filter; who has that mounts and unmounts without
        // the helper.
        let why = "fusermount3 -u needs the rights of its file to unmount";
        log::debug!("no_new_privs is not set and no seccomp filter installed: {why}");
        return Ok(());
    }
    not_given_up("new privileges", no_new_privileges());
    match (filter::install(needs), needs.unknown_calls) {
        (Err(why), UnknownCalls::Fatal) => Err(HardeningError::NoFilter(why)),
        (Err(why), _) => {
            log::info!("there is no seccomp filter: {why}");
            Ok(())
        }
        (Ok(()), _) => Ok(()),
    }
}

fn not_given_up(what: &str, done: io::Result<()>) {
    if let Err(error) = done {
        log::info!("{what}: not given up: {error}");
    }
}

/// No memory of ours, and so no copy of anybody's, goes into a file or to another process of this user
/// (`PR_SET_DUMPABLE` in prctl(2)). It also makes the files below `/proc/self` root's.
fn dump_nothing() -> io::Result<()> {
    // A core that is piped to a program is only prevented by the second.
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

fn no_new_privileges() -> io::Result<()> {
    Ok(rustix::thread::set_no_new_privs(true)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_has_two_values() {
        let parse = |value: &str| UnknownCalls::parse(Some(OsStr::new(value)));
        assert_eq!(UnknownCalls::parse(None).unwrap(), UnknownCalls::Refused);
        assert_eq!(parse("").unwrap(), UnknownCalls::Refused);
        assert_eq!(parse("kill").unwrap(), UnknownCalls::Fatal);
        assert_eq!(parse("off").unwrap(), UnknownCalls::Allowed);
        let message = parse("Kill").unwrap_err().to_string();
        for word in ["PROCMEMFS_SECCOMP", "Kill", "'off'"] {
            assert!(message.contains(word), "{message}");
        }
        for calls in [
            UnknownCalls::Refused,
            UnknownCalls::Fatal,
            UnknownCalls::Allowed,
        ] {
            let value = calls.to_environment().map(|(_, value)| OsStr::new(value));
            assert_eq!(UnknownCalls::parse(value).unwrap(), calls);
        }
    }
}
