//! Mounting, serving and unmounting.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use fuser::{Config, MountOption, Session, SessionUnmounter};
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{AccessFlags, access};
use parking_lot::Mutex;
use thiserror::Error;

use crate::admission::{Admission, Duties, Limits};
use crate::cache::{Freshness, PageCache};
use crate::clock::{Clock, SystemClock};
use crate::config::{Mode, MountConfig};
use crate::fs::{FileSystem, FsOptions, Services};
use crate::fuse::{Adapter, Jobs, Outdated};
use crate::linux::{
    LiveSource, LiveTasks, SUBTYPE, SourceOptions, check_page_size, mounts, raise_descriptor_limit,
};
use crate::mapping::Device;
use crate::metrics::Metrics;
use crate::supervisor;

/// Readahead of the mount, in KiB: two requests of the largest size, so that one is answered while
/// the other is waited for. More would not be faster, and waste more around what lies scattered.
const READAHEAD_KIB: &str = "2048";

/// Why there is no mount, and what would help.
#[derive(Debug, Error)]
pub enum MountError {
    /// The mount point is not there.
    #[error("{0}: no such directory: create it first (mkdir -p {0})")]
    Missing(PathBuf),
    /// It is no directory.
    #[error("{0}: not a directory: choose or create one")]
    NotADirectory(PathBuf),
    /// The daemon of a mount there is gone.
    #[error(
        "{0}: Transport endpoint is not connected: the daemon of what is mounted there has died: unmount it first (umount -l {0}, or fusermount3 -uz {0})"
    )]
    Dead(PathBuf),
    /// The same is mounted there.
    #[error(
        "{0}: procmemfs is mounted there already: unmount it first (umount {0}) or choose another directory"
    )]
    Mounted(PathBuf),
    /// Somebody else has it.
    #[error("{0}: busy: something else is being mounted there")]
    Busy(PathBuf),
    /// No FUSE in the kernel, or in the container.
    #[error(
        "no /dev/fuse: load the module (modprobe fuse), or let the container have it (--device /dev/fuse)"
    )]
    NoDevice,
    /// `/dev/fuse` is not for this user.
    #[error(
        "/dev/fuse may not be opened: ask root for 'chmod 0666 /dev/fuse' (which is udev's default), or mount as root"
    )]
    DeviceDenied,
    /// A plain user without the helper.
    #[error(
        "mounting needs root or the helper fusermount3: install the package fuse3, or mount as root"
    )]
    NoHelper,
    /// The kernel or the helper said no.
    #[error("{0}: may not be mounted on by this user: {1}")]
    Denied(PathBuf, String),
    /// No `/proc`.
    #[error("/proc is not mounted: mount it first (mount -t proc proc /proc)")]
    NoProc,
    /// Another page size.
    #[error("this kernel's pages have {0} bytes, and procmemfs knows pages of 4096 only")]
    PageSize(u64),
    /// Something else.
    #[error("{0}: {1}")]
    Other(PathBuf, io::Error),
}

/// A mount that answers once it is [started](Self::start).
#[derive(Debug)]
pub struct Mount {
    session: Session<Adapter>,
    jobs: Jobs,
    fs: Arc<FileSystem>,
    admission: Arc<Admission>,
    connection: Connection,
    device: Option<Device>,
    mountpoint: PathBuf,
}

impl Mount {
    /// Mounts. No thread is started yet, so that the caller may still `fork`;
    /// whoever comes to the mount meanwhile waits.
    ///
    /// # Errors
    /// See [`MountError`].
    pub fn new(config: &MountConfig, mountpoint: &Path) -> Result<Self, MountError> {
        check_page_size().map_err(MountError::PageSize)?;
        let mountpoint = check_mountpoint(mountpoint)?;
        raise_descriptor_limit();

        let metrics = Arc::new(Metrics::default());
        let source_options = SourceOptions {
            writable: config.mode == Mode::Write,
            only: config.only.clone(),
            touch: config.touch,
            without_scan: config.without_scan,
        };
        let source = LiveSource::new(source_options, Arc::clone(&metrics))
            .map_err(|_| MountError::NoProc)?;
        let source = Arc::new(source);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let services = Services {
            source: Arc::clone(&source) as _,
            cache: Arc::new(PageCache::new(config.cache_size, Arc::clone(&metrics))),
            freshness: Arc::new(Freshness::new(config.cache_ttl, Arc::clone(&clock))),
            metrics,
        };
        let options = FsOptions {
            writable: config.mode == Mode::Write,
            force: config.force,
            faults: config.faults,
            uid: nix::unistd::getuid().as_raw(),
            gid: nix::unistd::getgid().as_raw(),
        };
        let admission = Admission::new(
            Arc::clone(&clock),
            Arc::new(LiveTasks),
            Limits::for_threads(config.threads),
        );
        let admission = Arc::new(admission);
        let fs = Arc::new(FileSystem::new(services, options, clock));
        let (outdated, jobs) = Outdated::new();
        let session = Session::new(
            Adapter::new(Arc::clone(&fs), outdated, Arc::clone(&admission)),
            &mountpoint,
            &session_config(config),
        )
        .map_err(|error| explain(&mountpoint, error))?;
        let device = own_device(&mountpoint);
        if let Some(device) = device {
            source.set_own_device(device);
            raise_readahead(device);
        }
        let connection = Connection::of(&session).map_err(|error| explain(&mountpoint, error))?;
        Ok(Self {
            session,
            jobs,
            fs,
            admission,
            connection,
            device,
            mountpoint,
        })
    }

    /// Starts a process that ends the mount where this one is killed and cannot end. To be
    /// called by the first thread.
    ///
    /// # Errors
    /// Where this program cannot be run again.
    pub fn supervise(&self) -> io::Result<()> {
        let device = self.device.ok_or(io::ErrorKind::NotFound)?;
        supervisor::start(device.minor, &self.mountpoint)
    }

    /// Starts the threads that answer.
    ///
    /// # Errors
    /// Where the system has no thread left.
    pub fn start(mut self) -> io::Result<Serving> {
        self.jobs.serve(self.session.notifier())?;
        let (ending, end) = channel();
        let duties: Arc<dyn Duties> = Arc::new(Upkeep {
            fs: self.fs,
            connection: self.connection.clone(),
            ending: Mutex::new(ending.clone()),
        });
        let admission = self.admission;
        std::thread::Builder::new()
            .name("watchdog".to_owned())
            .spawn(move || admission.watch(&duties))?;
        let unmounter = Unmounter {
            session: self.session.unmount_callable(),
            connection: self.connection,
            device: self.device,
            mountpoint: self.mountpoint,
        };
        let session = self.session;
        std::thread::Builder::new()
            .name("session".to_owned())
            .spawn(move || {
                let served = catch_unwind(AssertUnwindSafe(|| session.run()));
                let panicked = |_| Err(io::Error::other("a thread that serves requests panicked"));
                // Where nobody waits nobody is to be told.
                let _ = ending.send(served.unwrap_or_else(panicked));
            })?;
        Ok(Serving { end, unmounter })
    }
}

/// The kernel's connection to this daemon.
#[derive(Clone, Debug)]
struct Connection(Arc<OwnedFd>);

impl Connection {
    fn of(session: &Session<Adapter>) -> io::Result<Self> {
        let device = session.as_fd().try_clone_to_owned()?;
        Ok(Self(Arc::new(device)))
    }

    /// Whether requests can still come: the device is in error once the mount is gone (`fuse_dev_poll`).
    fn is_alive(&self) -> bool {
        let mut device = [PollFd::new(self.0.as_fd(), PollFlags::empty())];
        let polled = poll(&mut device, PollTimeout::ZERO);
        let found = device[0].revents().unwrap_or(PollFlags::empty());
        polled.is_err() || !found.contains(PollFlags::POLLERR)
    }
}

/// What the watchdog sees to.
#[derive(Debug)]
struct Upkeep {
    fs: Arc<FileSystem>,
    connection: Connection,
    ending: Mutex<Sender<io::Result<()>>>,
}

impl Duties for Upkeep {
    fn sweep(&self) -> Option<Duration> {
        self.fs.close_unused()
    }

    fn is_connected(&self) -> bool {
        self.connection.is_alive()
    }

    fn end(&self) {
        // A thread that waits for a target is not waited for.
        let _ = self.ending.lock().send(Ok(()));
    }
}

/// A mount that answers. Dropping it unmounts.
#[derive(Debug)]
pub struct Serving {
    end: Receiver<io::Result<()>>,
    unmounter: Unmounter,
}

impl Serving {
    /// Waits until the mount is gone, and calls `ready` with what can end it before.
    ///
    /// # Errors
    /// Where talking to the kernel failed.
    pub fn wait(self, ready: impl FnOnce(Unmounter)) -> io::Result<()> {
        ready(self.unmounter);
        ended(&self.end)
    }

    /// Unmounts, and waits until the mount is gone; whoever uses it gets errors from then on.
    ///
    /// # Errors
    /// Where the kernel or `fusermount3` refuses.
    pub fn unmount(mut self) -> io::Result<()> {
        match self.unmounter.unmount()? {
            Unmounted::Gone => ended(&self.end),
            Unmounted::Detached => Ok(()),
        }
    }
}

fn ended(end: &Receiver<io::Result<()>>) -> io::Result<()> {
    end.recv()
        .unwrap_or_else(|_| Err(io::Error::other("the threads that serve requests are gone")))
}

/// What came of unmounting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmounted {
    /// The mount is gone.
    Gone,
    /// It was in use: it has left the tree, and its users get errors (`ECONNABORTED`, `ENOTCONN`).
    Detached,
}

/// Ends a mount from any thread. Dropping it unmounts, too.
#[derive(Debug)]
pub struct Unmounter {
    session: SessionUnmounter,
    connection: Connection,
    device: Option<Device>,
    mountpoint: PathBuf,
}

impl Unmounter {
    /// Unmounts.
    ///
    /// # Errors
    /// Where the kernel or `fusermount3` refuses.
    pub fn unmount(&mut self) -> io::Result<Unmounted> {
        match self.session.unmount() {
            // The helper of a plain user detaches what is in use.
            Ok(()) if self.connection.is_alive() => {
                if let Some(device) = self.device {
                    supervisor::abort(device.minor);
                }
                Ok(Unmounted::Detached)
            }
            Ok(()) => Ok(Unmounted::Gone),
            Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) => {
                // By force: it answers all requests with an error first, so that nobody waits
                // for a thread of ours that waits for something else.
                let flags = MntFlags::MNT_FORCE | MntFlags::MNT_DETACH;
                umount2(&self.mountpoint, flags)?;
                Ok(Unmounted::Detached)
            }
            Err(error) => Err(error),
        }
    }
}

fn session_config(config: &MountConfig) -> Config {
    let mut options = vec![MountOption::CUSTOM(format!("subtype={SUBTYPE}"))];
    if !config
        .generic
        .iter()
        .any(|option| option.starts_with("fsname="))
    {
        options.push(MountOption::FSName(SUBTYPE.to_owned()));
    }
    options.push(match config.mode {
        Mode::ReadOnly => MountOption::RO,
        Mode::Look | Mode::Write => MountOption::RW,
    });
    options.extend(
        config
            .generic
            .iter()
            .filter_map(|option| generic_option(option)),
    );
    let mut session = Config::default();
    session.mount_options = options;
    session.n_threads = Some(config.threads);
    session.clone_fd = true;
    session
}

fn generic_option(option: &str) -> Option<MountOption> {
    Some(match option {
        "suid" => MountOption::Suid,
        "nosuid" => MountOption::NoSuid,
        "dev" => MountOption::Dev,
        "nodev" => MountOption::NoDev,
        "exec" => MountOption::Exec,
        "noexec" => MountOption::NoExec,
        "sync" => MountOption::Sync,
        "async" => MountOption::Async,
        "dirsync" => MountOption::DirSync,
        "atime" => MountOption::Atime,
        "noatime" => MountOption::NoAtime,
        other => match other.split_once('=')? {
            ("fsname", name) => MountOption::FSName(name.to_owned()),
            // There is one type behind `fuse.`, whatever fstab calls it.
            ("subtype", _) => return None,
            _ => MountOption::CUSTOM(other.to_owned()),
        },
    })
}

/// The mount point's true path, if it can be mounted on.
fn check_mountpoint(mountpoint: &Path) -> Result<PathBuf, MountError> {
    let given = mountpoint.to_path_buf();
    let metadata = match std::fs::metadata(mountpoint) {
        Ok(metadata) => metadata,
        Err(error) => {
            return Err(match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::ENOENT) => MountError::Missing(given),
                Some(Errno::ENOTCONN | Errno::ECONNABORTED) => MountError::Dead(given),
                Some(Errno::ENOTDIR) => MountError::NotADirectory(given),
                _ => MountError::Other(given, error),
            });
        }
    };
    if !metadata.is_dir() {
        return Err(MountError::NotADirectory(given));
    }
    let path = mountpoint
        .canonicalize()
        .map_err(|error| MountError::Other(given.clone(), error))?;
    let mounts = mounts().map_err(|_| MountError::NoProc)?;
    let topmost = mounts.iter().rfind(|mount| mount.path == path);
    if topmost.is_some_and(|mount| mount.is_ours) {
        return Err(MountError::Mounted(given));
    }
    Ok(path)
}

/// What a failure of `fuser`'s means, which tells the kernel's and the helper's apart by their text alone.
fn explain(mountpoint: &Path, error: io::Error) -> MountError {
    let path = mountpoint.to_path_buf();
    if !Path::new("/dev/fuse").exists() {
        return MountError::NoDevice;
    }
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENODEV | Errno::ENXIO) => return MountError::NoDevice,
        // Where the device may be opened, it is the helper that may not be run.
        Some(Errno::EACCES | Errno::EPERM) => {
            let wanted = AccessFlags::R_OK | AccessFlags::W_OK;
            return match access("/dev/fuse", wanted) {
                Ok(()) => MountError::NoHelper,
                Err(_) => MountError::DeviceDenied,
            };
        }
        Some(Errno::EBUSY) => return MountError::Busy(path),
        // The only file that is opened or run then.
        Some(Errno::ENOENT) => return MountError::NoHelper,
        _ => (),
    }
    let said = error.to_string();
    let said = said.trim();
    if said.contains("EBUSY") || said.contains("busy") {
        MountError::Busy(path)
    } else if said.starts_with("fusermount") {
        MountError::Denied(path, said.lines().next().unwrap_or_default().to_owned())
    } else {
        MountError::Other(path, error)
    }
}

/// The mount's device, without asking its file system, which does not answer yet.
fn own_device(mountpoint: &Path) -> Option<Device> {
    let mounts = mounts().ok()?;
    let mount = mounts.iter().rfind(|mount| mount.path == mountpoint)?;
    Some(mount.device)
}

/// Lets the kernel read ahead in requests of the largest size; for root only, and nothing is lost without.
fn raise_readahead(device: Device) {
    let path = format!(
        "/sys/class/bdi/{}:{}/read_ahead_kb",
        device.major, device.minor
    );
    if let Err(error) = std::fs::write(&path, READAHEAD_KIB) {
        log::debug!("{path} stays as it is: {error}");
    }
}
