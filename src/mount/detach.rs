//! Taking a mount away: the daemon does it, or its supervisor in its place.

use std::io;
use std::path::Path;
use std::process::Stdio;

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

use super::{Unmounted, helper};

/// Answers all that wait for the mount whose device has this minor number, and all that comes, with
/// `ECONNABORTED`; where the kernel's file for that is there (`Documentation/filesystems/fuse.rst`).
pub(super) fn abort(device: u32) {
    let abort = format!("/sys/fs/fuse/connections/{device}/abort");
    if let Err(error) = std::fs::write(&abort, "1") {
        log::debug!("{abort}: {error}");
    }
}

/// Unmounts what lies on top of `path`; one that is in use leaves the tree at once.
///
/// # Errors
/// Where the kernel or the helper refuses.
pub(super) fn unmount(path: &Path) -> io::Result<Unmounted> {
    match umount2(path, MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) => Ok(Unmounted::Gone),
        Err(Errno::EBUSY) => {
            // By force: it answers all requests with an error first, so that nobody waits
            // for a thread of ours that waits for something else.
            let by_force = MntFlags::MNT_FORCE | MntFlags::MNT_DETACH;
            umount2(path, MntFlags::UMOUNT_NOFOLLOW | by_force)?;
            Ok(Unmounted::Detached)
        }
        Err(Errno::EPERM) => unmount_by_helper(path),
        Err(errno) => Err(errno.into()),
    }
}

fn unmount_by_helper(path: &Path) -> io::Result<Unmounted> {
    let run = |flags: &[&str]| {
        helper::run(|command| {
            command
                .args(flags)
                .arg("--")
                .arg(path)
                .stdin(Stdio::null())
                .output()
        })
    };
    if run(&["-u"])?.status.success() {
        return Ok(Unmounted::Gone);
    }
    let output = run(&["-u", "-z"])?;
    if output.status.success() {
        return Ok(Unmounted::Detached);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(
        said.lines().next().unwrap_or_default().to_owned(),
    ))
}
