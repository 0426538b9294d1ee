//! Mounting, serving and unmounting.

mod attach;
mod detach;
mod error;
mod hardening;
mod helper;
mod means;
mod options;
mod others;
mod point;
mod supervisor;
mod transport;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use parking_lot::Mutex;

pub use crate::common::choice::Choice;
pub use crate::server::AUDIT;
pub use error::MountError;
pub(crate) use hardening::missing;
pub use hardening::{HardeningError, MissingCapabilities, UnknownCalls, missing_capabilities};
pub(crate) use means::{Helper, Means};
pub use options::{AuditSink, GenericOptions, Mode, MountConfig, OptionError};
pub use supervisor::Supervisor;

use attach::{Attached, attach};
use hardening::{Needs, harden};
use transport::Transport;

use crate::common::clock::{Clock, SystemClock};
use crate::common::metrics::Metrics;
use crate::files::{Context, FileOptions, Services};
use crate::server::admission::{Admission, Duties, Limits, LiveTasks};
use crate::server::{FileSystem, InvalidationQueue, Invalidations, Server};
use crate::target::cache::{Freshness, PageCache};
use crate::target::live::{
    Feature, LiveSource, LiveStores, SourceOptions, Yama, raise_descriptor_limit,
};
use crate::target::mapping::Device;
use crate::target::snapshot::Budget;
use crate::transport::uring::Rings;

/// Readahead of the mount, in KiB: two requests of the largest size, so that one is answered while
/// the other is waited for. More would not be faster, and waste more around what lies scattered.
const READAHEAD_KIB: &str = "2048";

/// All that a mount needs, checked: nothing is mounted yet.
///
/// What is checked until here may be on a file system that does not answer, and mounting takes a
/// moment: a program that blocks signals does so between the two.
#[derive(Debug)]
pub struct Prepared {
    config: MountConfig,
    mountpoint: PathBuf,
    source: Arc<LiveSource>,
    fs: Arc<FileSystem>,
    admission: Arc<Admission>,
    server: Server,
    invalidations: InvalidationQueue,
    rings: Option<Rings>,
}

/// A mount that answers once it is [started](Self::start).
#[derive(Debug)]
pub struct Mount {
    transport: Transport,
    invalidations: InvalidationQueue,
    fs: Arc<FileSystem>,
    admission: Arc<Admission>,
    attached: Arc<Attached>,
    writes: bool,
    judges_callers: bool,
    stops: bool,
}

impl Prepared {
    /// Checks the system and the mount point.
    ///
    /// # Errors
    /// See [`MountError`].
    pub fn new(config: &MountConfig, mountpoint: &Path) -> Result<Self, MountError> {
        let metrics = Arc::new(Metrics::default());
        let source_options = SourceOptions {
            writable: config.mode == Mode::Write,
            only: config.only.clone(),
            touch: config.touch,
            without: config.without.clone(),
        };
        // Before anything else is asked of `/proc`.
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let source = LiveSource::new(source_options, Arc::clone(&clock), Arc::clone(&metrics))?;
        let source = Arc::new(source);
        others::check(config, &source, Yama::now())?;
        let mountpoint = point::check(mountpoint)?;
        raise_descriptor_limit();
        let stores = LiveStores::new(config.snap_dir.clone()).map_err(|error| {
            let directory = config.snap_dir.clone().unwrap_or_default();
            MountError::SnapshotDirectory(directory, error.to_string())
        })?;
        let room = config.snap_size.unwrap_or_else(|| stores.default_budget());
        let services = Services {
            stores: Arc::new(stores),
            budget: Arc::new(Budget::new(room)),
            source: Arc::clone(&source) as _,
            cache: Arc::new(PageCache::new(config.cache_size, Arc::clone(&metrics))),
            freshness: Arc::new(Freshness::new(config.cache_ttl, Arc::clone(&clock))),
            metrics,
        };
        let options = FileOptions {
            writable: config.mode == Mode::Write,
            read_only: config.mode == Mode::ReadOnly,
            force: config.force,
            allow_other: config.allow_other,
            no_stop: config.no_stop,
            inject: config.inject,
            full_core: config.full_core,
            faults: config.faults,
            direct: config.direct,
            uid: nix::unistd::getuid().as_raw(),
            gid: nix::unistd::getgid().as_raw(),
        };
        let rings = transport::rings(config)?;
        let threads = transport::threads(config, rings.as_ref());
        let admission = Admission::new(
            Arc::clone(&clock),
            Arc::new(LiveTasks),
            Limits::for_threads(threads),
        );
        let admission = Arc::new(admission);
        let fs = FileSystem::new(Context::new(services, options));
        let fs = Arc::new(match config.audit {
            Some(_) => fs.with_audit(),
            None => fs,
        });
        let (invalidations, queue) = Invalidations::new();
        let server = Server::new(Arc::clone(&fs), invalidations, Arc::clone(&admission));
        Ok(Self {
            config: config.clone(),
            mountpoint,
            source,
            fs,
            admission,
            server,
            invalidations: queue,
            rings,
        })
    }

    /// Whether the kernel has the feature.
    pub fn has(&self, feature: Feature) -> bool {
        self.source.kernel().has(feature)
    }

    /// Mounts. No thread is started yet, so that the caller may still `fork`;
    /// whoever comes to the mount meanwhile waits.
    ///
    /// # Errors
    /// See [`MountError`].
    pub fn mount(self) -> Result<Mount, MountError> {
        let (fuse, attached) = attach(&self.mountpoint, &self.config)?;
        self.source.set_own_device(attached.device());
        let transport = Transport::new(
            self.server,
            fuse,
            self.rings,
            &self.config,
            &self.mountpoint,
            self.fs.context(),
        )?;
        // After the two have agreed: the kernel sets it then.
        raise_readahead(attached.device());
        Ok(Mount {
            transport,
            invalidations: self.invalidations,
            fs: self.fs,
            admission: self.admission,
            attached: Arc::new(attached),
            writes: self.config.mode == Mode::Write,
            judges_callers: self.config.allow_other,
            stops: !self.config.no_stop,
        })
    }
}

impl Mount {
    /// Prepares to mount, and [mounts](Prepared::mount).
    ///
    /// # Errors
    /// See [`MountError`].
    pub fn new(config: &MountConfig, mountpoint: &Path) -> Result<Self, MountError> {
        Prepared::new(config, mountpoint)?.mount()
    }

    /// Starts a process that ends the mount where this one is killed and cannot end. To be
    /// called by the first thread.
    ///
    /// # Errors
    /// Where this program cannot be run again, or the kernel gives mounts no numbers of their own.
    pub fn supervise(&self) -> io::Result<()> {
        self.attached.supervise()
    }

    /// Gives up what this process does not need any more to serve and to unmount: capabilities, new ones, system
    /// calls, and that others of this user may look at its memory. To be called by the first thread,
    /// after [`supervise`](Self::supervise), while there is no other one; it holds for the whole process.
    ///
    /// # Errors
    /// Where `unknown_calls` asks for a filter by all means and there is none.
    pub fn harden(&self, unknown_calls: UnknownCalls) -> Result<(), HardeningError> {
        harden(&Needs {
            writes: self.writes,
            judges_callers: self.judges_callers,
            stops: self.stops,
            unmounts_by_helper: !self.attached.is_direct(),
            serves: true,
            rings: self.transport.has_rings(),
            unknown_calls,
        })
    }

    /// Starts the threads that answer.
    ///
    /// # Errors
    /// Where the system has no thread left.
    pub fn start(self) -> io::Result<Serving> {
        let attached = Arc::clone(&self.attached);
        self.start_threads().inspect_err(|_| {
            // Those that run already hold it, too.
            if let Err(error) = attached.detach() {
                log::warn!("not unmounted: {error}");
            }
        })
    }

    fn start_threads(mut self) -> io::Result<Serving> {
        self.invalidations.serve(self.transport.notifier())?;
        let (ending, end) = channel();
        let duties: Arc<dyn Duties> = Arc::new(Upkeep {
            fs: self.fs,
            attached: Arc::clone(&self.attached),
            ending: Mutex::new(ending.clone()),
        });
        let admission = self.admission;
        std::thread::Builder::new()
            .name("watchdog".to_owned())
            .spawn(move || admission.run_watchdog(&duties))?;
        let attached = self.attached;
        self.transport.start()?;
        let transport = self.transport;
        std::thread::Builder::new()
            .name("session".to_owned())
            .spawn(move || {
                let served = catch_unwind(AssertUnwindSafe(|| transport.run()));
                let panicked = |_| Err(io::Error::other("a thread that serves requests panicked"));
                // Where nobody waits nobody is to be told.
                let _ = ending.send(served.unwrap_or_else(panicked));
            })?;
        Ok(Serving { end, attached })
    }
}

/// The watchdog's duties.
#[derive(Debug)]
struct Upkeep {
    fs: Arc<FileSystem>,
    attached: Arc<Attached>,
    /// Guards the sender, which threads may not share. Nothing is locked inside it.
    ending: Mutex<Sender<io::Result<()>>>,
}

impl Duties for Upkeep {
    fn sweep(&self) -> Option<Duration> {
        self.fs.context().close_unused()
    }

    fn is_connected(&self) -> bool {
        self.attached.is_connected()
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
    attached: Arc<Attached>,
}

impl Serving {
    /// Waits until the mount is gone, and calls `ready` with what can end it before.
    ///
    /// # Errors
    /// Where talking to the kernel failed.
    pub fn wait(self, ready: impl FnOnce(Unmounter)) -> io::Result<()> {
        ready(Unmounter(Arc::clone(&self.attached)));
        let served = ended(&self.end);
        // Where it is the connection that has ended, the mount is still there, and dead.
        self.attached.detach().and(served)
    }

    /// Unmounts, and waits until the mount is gone; whoever uses it gets errors from then on.
    ///
    /// # Errors
    /// Where the kernel or `fusermount3` refuses.
    pub fn unmount(self) -> io::Result<()> {
        match self.attached.detach()? {
            Unmounted::Gone => ended(&self.end),
            Unmounted::Detached => Ok(()),
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // The watchdog holds it, too.
        if let Err(error) = self.attached.detach() {
            log::warn!("not unmounted: {error}");
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
pub struct Unmounter(Arc<Attached>);

impl Unmounter {
    /// Unmounts; nothing where that is done already.
    ///
    /// # Errors
    /// Where the kernel or `fusermount3` refuses.
    pub fn unmount(&self) -> io::Result<Unmounted> {
        self.0.detach()
    }
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
