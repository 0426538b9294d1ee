//! The directory that is mounted on.

use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::MountError;
use crate::target::live::mount_of;

/// The mount point's true path, if it can be mounted on.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check(mountpoint: &Path) -> Result<PathBuf, MountError> {
    let given = || mountpoint.to_path_buf();
    let metadata = std::fs::metadata(mountpoint).map_err(|error| fault(mountpoint, error))?;
    if !metadata.is_dir() {
        return Err(MountError::NotADirectory(given()));
    }
    let path = mountpoint
        .canonicalize()
        .map_err(|error| fault(mountpoint, error))?;
    let below = mount_of(&path).map_err(|error| MountError::MountInfo(given(), error))?;
    match below.filter(|below| below.is_ours) {
        Some(ours) if ours.path == path => Err(MountError::Mounted(given())),
        Some(_) => Err(MountError::Inside(given())),
        None => Ok(path),
    }
}

fn fault(mountpoint: &Path, error: io::Error) -> MountError {
    let given = mountpoint.to_path_buf();
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT) => MountError::Missing(given),
        Some(Errno::ENOTCONN | Errno::ECONNABORTED) => MountError::Dead(given),
        Some(Errno::ENOTDIR) => MountError::NotADirectory(given),
        _ => MountError::Other(given, "its status cannot be read".to_owned(), error),
    }
}
