//! What is left to do where the daemon cannot do it: the end of the mount of one that was killed.
//!
//! The mount of a daemon that is gone stays, and is an error (`ENOTCONN`) to whoever comes. And a killed process keeps its descriptors until its last thread is gone. One of them can be
//! in a call that no signal ends (closing a file of a file system that does not answer), and then the
//! kernel goes on to wait for answers from `/dev/fuse`: all readers of the mount would, too. So a
//! second process watches it. It holds no descriptor of the mount, sleeps until the daemon's first thread
//! has ended, gives the others a moment, and takes away what is left of the mount.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal};
use procfs::process::Process;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::detach;
use super::hardening::{Needs, UnknownCalls, harden, may_unmount};
use crate::target::live::unique_id;

/// How the program is told to be a supervisor: number of the daemon, of the mount's device, of the
/// mount, and where it is.
const ORDER: &str = "PROCMEMFS_SUPERVISE";

/// As this it is seen by `ps`.
const NAME: &str = "procmemfs-supervisor";

/// How long a killed daemon may take to end by itself.
const LAST_BREATH: Duration = Duration::from_millis(300);

/// What a supervisor watches, and the mount that it ends.
#[derive(Debug, PartialEq, Eq)]
pub struct Supervisor {
    daemon: i32,
    device: u32,
    mount: u64,
    mountpoint: PathBuf,
}

/// Starts a supervisor of this process and of its mount, whose device has this minor number and which has a
/// number that no other mount ever gets. It watches the calling thread, which must be one that lives as
/// long as the process: the first.
///
/// # Errors
/// Where the program cannot be run again.
pub(super) fn start(device: u32, mount: u64, mountpoint: &Path) -> io::Result<()> {
    let unknown_calls = UnknownCalls::from_environment().unwrap_or_default();
    let mut order = OsString::from(format!("{} {device} {mount} ", std::process::id()));
    order.push(mountpoint);
    Command::new("/proc/self/exe")
        .arg0(NAME)
        // Whoever kills the daemon with its whole process group leaves this one.
        .process_group(0)
        .env_clear()
        .env(ORDER, order)
        .envs(unknown_calls.to_environment())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map(drop)
}

impl Supervisor {
    /// Whether this program was run to be a supervisor.
    pub fn wanted() -> Option<Self> {
        Self::parse(&std::env::var_os(ORDER)?)
    }

    fn parse(order: &OsStr) -> Option<Self> {
        let mut words = order.as_bytes().splitn(4, |byte| *byte == b' ');
        let mut number = || std::str::from_utf8(words.next()?).ok();
        let (daemon, device) = (number()?.parse().ok()?, number()?.parse().ok()?);
        let mount = number()?.parse().ok()?;
        let mountpoint = OsString::from_vec(words.next()?.to_vec()).into();
        Some(Self {
            daemon,
            device,
            mount,
            mountpoint,
        })
    }

    /// Watches until the daemon has ended.
    ///
    /// # Errors
    /// Where the kernel does not tell when that is.
    pub fn run(&self) -> io::Result<()> {
        // A terminal's are for the daemon, which then ends.
        SigSet::all().thread_block()?;
        let daemon = Pid::from_raw(self.daemon).ok_or(io::ErrorKind::InvalidInput)?;
        let pidfd = pidfd_open(daemon, PidfdFlags::empty())?;
        let told = Signal::SIGUSR1;
        set_pdeathsig(told)?;
        // That signal stays set where capabilities are only taken away (`commit_creds` in `kernel/cred.c`).
        harden(&Needs {
            unmounts_by_helper: !may_unmount(),
            unknown_calls: UnknownCalls::from_environment().unwrap_or_default(),
            ..Needs::default()
        })
        .map_err(io::Error::other)?;
        // It may have ended before it was asked for.
        if self.lives(&pidfd) {
            let mut ends = SigSet::empty();
            ends.add(told);
            ends.wait()?;
        }
        let mut ended = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(LAST_BREATH).unwrap_or(PollTimeout::ZERO);
        let waited = poll(&mut ended, timeout);
        self.end_mount();
        waited.map(drop).map_err(io::Error::from)
    }

    /// Whether the daemon's first thread has not ended. Where `/proc` does not show that to a plain user (`hidepid`)
    /// the daemon as a whole must do.
    fn lives(&self, pidfd: impl AsFd) -> bool {
        match Process::new(self.daemon).and_then(|process| process.stat()) {
            Ok(stat) => !matches!(stat.state, 'Z' | 'X'),
            Err(_) => {
                let mut ended = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
                poll(&mut ended, PollTimeout::ZERO) == Ok(0)
            }
        }
    }

    /// Ends the mount, if it is still there.
    fn end_mount(&self) {
        if unique_id(&self.mountpoint) != Some(self.mount) {
            return;
        }
        detach::abort(self.device);
        // Where that fails nobody is left to be told.
        let _ = detach::unmount(&self.mountpoint);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_names_daemon_device_and_mount_point() {
        let order = OsStr::from_bytes(b"12 34 56 /mnt/a b\xff");
        let supervisor = Supervisor::parse(order).unwrap();
        let numbers = (supervisor.daemon, supervisor.device, supervisor.mount);
        assert_eq!(numbers, (12, 34, 56));
        let mountpoint = supervisor.mountpoint.as_os_str();
        assert_eq!(mountpoint.as_bytes(), b"/mnt/a b\xff");
        for order in [
            "",
            "12",
            "12 34",
            "12 34 56",
            "x 34 56 /mnt",
            "12 x 56 /mnt",
            "12 34 x /mnt",
        ] {
            assert_eq!(Supervisor::parse(OsStr::new(order)), None, "{order}");
        }
    }
}
