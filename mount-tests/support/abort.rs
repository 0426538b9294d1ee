//! The last resort: a daemon that waits for its own mount cannot even be killed.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// The kernel's connection to a daemon, by the device of its mount.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Connection(u64);

impl Connection {
    /// The connection of what is mounted on `point`.
    pub(crate) fn of(point: &Path) -> Option<Self> {
        Some(Self(libc::minor(point.metadata().ok()?.dev()).into()))
    }

    /// Answers all requests with `ECONNABORTED` and ends the connection. Only
    /// root can, unless the control file system is mounted already.
    pub(crate) fn abort(self) {
        let file = format!("{}/abort", self.0);
        let usual = Path::new("/sys/fs/fuse/connections");
        if std::fs::write(usual.join(&file), "1").is_ok() {
            return;
        }
        let Ok(dir) = tempfile::tempdir() else {
            return;
        };
        let none = None::<&str>;
        if mount(none, dir.path(), Some("fusectl"), MsFlags::empty(), none).is_ok() {
            let _ = std::fs::write(dir.path().join(&file), "1");
            let _ = umount2(dir.path(), MntFlags::MNT_DETACH);
        }
    }
}
