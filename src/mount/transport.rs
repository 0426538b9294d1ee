//! What brings requests: `/dev/fuse` by itself, or io_uring beside it.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use fuser::{Config, Notifier, Session, SessionACL};

use super::{Mode, MountConfig, MountError};
use crate::common::choice::Choice;
use crate::files::{Context, DirectReads};
use crate::server::Server;
use crate::target::live::allows_fuse_over_uring;
use crate::transport::fuser::{Adapter, Features};
use crate::transport::uring::Rings;

/// Threads of one processor where requests come over io_uring: those that the kernel sends at a time where it reads ahead, and as many
/// again. They are started as they are needed.
const OF_A_PROCESSOR: usize = 16;

/// Rings, where the mount is to be served over them, made while the program may still make them.
///
/// # Errors
/// `NoRings`, `NoRingsHere` where there must be some.
pub(super) fn rings(config: &MountConfig) -> Result<Option<Rings>, MountError> {
    if config.io_uring == Choice::Off {
        return Ok(None);
    }
    let threads = config.threads.max(OF_A_PROCESSOR);
    let rings = match allows_fuse_over_uring() {
        Ok(true) => Rings::new(threads).map_err(MountError::NoRingsHere),
        Ok(false) => Err(MountError::NoRings(io::Error::other("it is N"))),
        Err(error) => Err(MountError::NoRings(error)),
    };
    match rings {
        Err(error) if config.io_uring == Choice::Auto => {
            log::debug!("served through /dev/fuse: {error}");
            Ok(None)
        }
        rings => rings.map(Some),
    }
}

/// Threads that serve requests, at most: those of one processor where they come over io_uring.
pub(super) fn threads(config: &MountConfig, rings: Option<&Rings>) -> usize {
    rings.map_or(config.threads, Rings::threads)
}

/// A connection to the kernel that the two sides have agreed on.
#[derive(Debug)]
pub(super) struct Transport {
    session: Session<Adapter>,
    server: Arc<Server>,
    rings: Option<(Rings, OwnedFd)>,
}

impl Transport {
    /// Agrees with the kernel. Nothing is answered until it is [started](Self::start).
    ///
    /// # Errors
    /// `Other`, and `NoRings` where rings are a must and the kernel has none to give.
    pub(super) fn new(
        server: Server,
        fuse: OwnedFd,
        rings: Option<Rings>,
        config: &MountConfig,
        mountpoint: &Path,
        context: &Context,
    ) -> Result<Self, MountError> {
        let failed =
            |what: &str, error| MountError::Other(mountpoint.to_path_buf(), what.to_owned(), error);
        let server = Arc::new(server);
        let wishes = Features {
            rings: rings.is_some(),
            // Where memory can be written, pages of such a map would come back and undo what the process has written since.
            direct_maps: config.mode != Mode::Write,
        };
        let granted = Arc::new(OnceLock::new());
        let adapter = Adapter::new(Arc::clone(&server), wishes, Arc::clone(&granted));
        let device = fuse
            .try_clone()
            .map_err(|error| failed("a second descriptor of the connection", error))?;
        let mut session_config = Config::default();
        let threads = threads(config, rings.as_ref());
        session_config.n_threads = Some(threads);
        session_config.clone_fd = true;
        let acl = match config.allow_other {
            true => SessionACL::All,
            false => SessionACL::Owner,
        };
        // `fuser` is given the connection alone: it would unmount by path, and that may be another's
        // by then.
        let session = Session::from_fd(adapter, fuse, acl, session_config)
            .map_err(|error| failed("agreeing with FUSE", error))?;
        let granted = granted.get().copied().unwrap_or_default();
        if config.io_uring == Choice::On && !granted.rings {
            let refused = io::Error::other("it grants none to this mount");
            return Err(MountError::NoRings(refused));
        }
        let rings = rings.filter(|_| granted.rings).map(|rings| (rings, device));
        context.metrics().io_uring.set(rings.is_some().into());
        context.set_direct_reads(DirectReads {
            least_block: if rings.is_some() { 32 << 10 } else { 64 << 10 },
            is_first_choice: rings.is_some(),
            can_be_mapped: granted.direct_maps,
        });
        let by = if rings.is_some() {
            "io_uring"
        } else {
            "/dev/fuse"
        };
        log::debug!("requests come through {by}");
        Ok(Self {
            session,
            server,
            rings,
        })
    }

    /// Whether requests come over io_uring.
    pub(super) fn has_rings(&self) -> bool {
        self.rings.is_some()
    }

    /// What tells the kernel that it must not believe something any more.
    pub(super) fn notifier(&self) -> Notifier {
        self.session.notifier()
    }

    /// Starts the threads of the rings, where there are some. The rest of the requests is answered by [`run`](Self::run).
    ///
    /// # Errors
    /// Where the system has no thread left.
    pub(super) fn start(&mut self) -> io::Result<()> {
        match self.rings.take() {
            Some((rings, device)) => rings.serve(Arc::clone(&self.server), device),
            None => Ok(()),
        }
    }

    /// Answers until the mount is gone.
    ///
    /// # Errors
    /// Where talking to the kernel failed.
    pub(super) fn run(self) -> io::Result<()> {
        self.session.run()
    }
}
