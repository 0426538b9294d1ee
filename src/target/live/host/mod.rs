//! What this system lets this program do, before any process is asked for.

mod about;
mod proc_options;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::libc::O_PATH;
use nix::sys::ptrace;
use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, geteuid, getpid, pidfd_open};
use rustix::system::uname;
use rustix::thread::{
    CapabilitySet, SecureComputingMode, capabilities, no_new_privs, secure_computing_mode,
};

use super::credentials::OwnCredentials;
use super::kernel::{Feature, Kernel, ProcFault};
use super::memory_limit;
use super::security_modules::{Confinement, confinement};
use super::yama::Yama;

pub(crate) use about::About;
pub(crate) use proc_options::ProcOptions;

/// System calls that a filter may refuse, and that no [`Feature`] stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// Without it no process is pinned (`pidfd_open(2)`, Linux 5.3).
    PidfdOpen,
    /// Without it no process is stopped (`ptrace(2)`).
    Ptrace,
}

/// What the system lets this program do.
#[derive(Debug)]
pub(crate) struct Host {
    /// The kernel's release, as `uname -r` shows it.
    pub(crate) release: String,
    /// Bytes of a page.
    pub(crate) page_size: u64,
    /// Whether `/proc` shows the processes that the system calls speak of.
    pub(crate) proc: Result<(), ProcFault>,
    /// How it is mounted; `None` where that is not known.
    pub(crate) proc_options: Option<ProcOptions>,
    /// What the kernel has; empty where `/proc` is of no use.
    pub(crate) features: Vec<(Feature, bool)>,
    /// The effective user.
    pub(crate) user: u32,
    /// Its effective capabilities.
    pub(crate) capabilities: CapabilitySet,
    /// Whether it may take the credentials of others.
    pub(crate) may_act_as_others: bool,
    /// Whether its user namespace is the first one; `None` where `/proc` does not say.
    pub(crate) is_in_first_namespace: Option<bool>,
    /// Whether no program that it runs gets more rights by its file (`PR_SET_NO_NEW_PRIVS`).
    pub(crate) no_new_privileges: bool,
    /// Whether a filter judges its system calls (seccomp(2)).
    pub(crate) is_filtered: bool,
    /// Calls that are refused.
    pub(crate) refused: Vec<(Call, Errno)>,
    pub(crate) yama: Yama,
    /// Which security module confines it.
    pub(crate) confinement: Option<Confinement>,
    /// Whether the file of a mapping can be opened by the mapping's addresses (`map_files`); `None` where that is not known.
    pub(crate) opens_map_files: Option<bool>,
    /// All memory, and what can be had now, in bytes.
    pub(crate) memory: Option<(u64, u64)>,
    /// How many mappings a process may have (`vm.max_map_count`).
    pub(crate) most_mappings: Option<u64>,
    /// How many descriptors may be open at once.
    pub(crate) descriptors: u64,
    /// Whether new mounts may be served over io_uring; `None` where the kernel does not have that.
    pub(crate) fuse_over_uring: Option<bool>,
}

impl Host {
    /// As it is now. Nothing is changed.
    pub(crate) fn now() -> Self {
        let kernel = Kernel::probe(&[]);
        let features = match &kernel {
            Ok(kernel) => kernel.features().collect(),
            Err(_) => Vec::new(),
        };
        let mountinfo = fs::read("/proc/self/mountinfo").unwrap_or_default();
        Self {
            release: release(),
            page_size: procfs::page_size(),
            proc: kernel.map(drop),
            proc_options: ProcOptions::parse(&mountinfo),
            features,
            user: geteuid().as_raw(),
            capabilities: capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective),
            may_act_as_others: OwnCredentials::of_thread().may_be_left(),
            is_in_first_namespace: is_in_first_namespace(),
            no_new_privileges: no_new_privs().unwrap_or(false),
            is_filtered: is_filtered(),
            refused: refused_calls(),
            yama: Yama::now(),
            confinement: confinement(),
            opens_map_files: opens_map_files(),
            memory: memory_limit::total().zip(memory_limit::available()),
            most_mappings: number("/proc/sys/vm/max_map_count"),
            descriptors: getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(_, hard)| hard),
            fuse_over_uring: allows_fuse_over_uring().ok(),
        }
    }

    /// Whether the kernel has the feature; yes, where that is not known.
    pub(crate) fn has(&self, feature: Feature) -> bool {
        !self.features.contains(&(feature, false))
    }
}

/// Whether new mounts may be served over io_uring.
///
/// # Errors
/// Where the kernel does not have that.
pub(crate) fn allows_fuse_over_uring() -> io::Result<bool> {
    let setting = fs::read_to_string("/sys/module/fuse/parameters/enable_uring")?;
    Ok(setting.starts_with('Y'))
}

/// The kernel's release.
pub(crate) fn release() -> String {
    uname().release().to_string_lossy().into_owned()
}

/// Whether a filter judges the system calls of this program.
pub(crate) fn is_filtered() -> bool {
    matches!(secure_computing_mode(), Ok(SecureComputingMode::Filter))
}

fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// By what the first one alone maps: all numbers, each to itself (user_namespaces(7)).
fn is_in_first_namespace() -> Option<bool> {
    let map = fs::read_to_string("/proc/self/uid_map").ok()?;
    Some(maps_all(&map))
}

fn maps_all(map: &str) -> bool {
    map.split_ascii_whitespace().eq(["0", "0", "4294967295"])
}

/// Each is made in a form that does nothing and that the kernel answers in one way, unless a filter answers before it.
fn refused_calls() -> Vec<(Call, Errno)> {
    let pidfd = pidfd_open(getpid(), PidfdFlags::empty());
    let pidfd = pidfd.map_err(|errno| Errno::from_raw(errno.raw_os_error()));
    // Nobody traces itself, so there is nothing to let go of.
    let trace = match ptrace::detach(Pid::this(), None) {
        Err(Errno::ESRCH) | Ok(()) => Ok(()),
        Err(errno) => Err(errno),
    };
    let answers = [(Call::PidfdOpen, pidfd.map(drop)), (Call::Ptrace, trace)];
    let refusal = |(call, answer): (Call, Result<(), Errno>)| Some((call, answer.err()?));
    answers.into_iter().filter_map(refusal).collect()
}

/// By our own program: to open it in this way gives no access to it and breaks no lease, and is judged all the same
/// (`proc_map_files_get_link` in `fs/proc/base.c`).
fn opens_map_files() -> Option<bool> {
    let maps = fs::read("/proc/self/maps").ok()?;
    let range = first_file(&maps)?;
    let mut options = File::options();
    let options = options.read(true).custom_flags(O_PATH);
    match options.open(format!("/proc/self/map_files/{range}")) {
        Ok(_) => Some(true),
        Err(error) => match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EPERM | Errno::EACCES) => Some(false),
            _ => None,
        },
    }
}

/// The name in `map_files` of the first mapping of a file.
fn first_file(maps: &[u8]) -> Option<String> {
    let mut lines = maps.split(|byte| *byte == b'\n');
    let line = lines.find(|line| line.contains(&b'/'))?;
    let range = std::str::from_utf8(line.split(|byte| *byte == b' ').next()?).ok()?;
    let (start, end) = range.split_once('-')?;
    let bare = |number: &str| number.trim_start_matches('0').to_owned();
    Some(format!("{}-{}", bare(start), bare(end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_user_namespace_maps_every_number_to_itself() {
        assert!(maps_all("         0          0 4294967295\n"));
        for other in ["", "0 1000 1\n", "0 0 1\n1 100000 65535\n"] {
            assert!(!maps_all(other), "{other:?}");
        }
    }

    #[test]
    fn names_in_map_files_have_no_zeros_before_them() {
        let maps = b"00400000-00401000 r--p 00000000 00:00 0 \n\
                     00401000-7f0000402000 r--p 00000000 08:01 5 /bin/x\n";
        assert_eq!(first_file(maps).unwrap(), "401000-7f0000402000");
        assert_eq!(first_file(b"").as_deref(), None);
        let own = first_file(&fs::read("/proc/self/maps").unwrap()).unwrap();
        let path = format!("/proc/self/map_files/{own}");
        assert!(fs::symlink_metadata(path).is_ok(), "{own}");
    }

    #[test]
    fn what_tests_need_is_there() {
        let host = Host::now();
        assert!(host.proc.is_ok());
        assert_eq!(host.features.len(), Feature::ALL.len());
        assert!(
            !host
                .refused
                .iter()
                .any(|(call, _)| *call == Call::PidfdOpen)
        );
        assert!(host.descriptors > 0 && host.memory.is_some());
        assert!(host.proc_options.is_some());
    }
}
