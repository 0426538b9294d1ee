//! Why there is no mount.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::target::live::ProcFault;

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
    /// It lies in a mount of this kind, whose directories come and go with processes.
    #[error("{0}: lies inside a procmemfs mount: choose another directory")]
    Inside(PathBuf),
    /// Somebody else has it.
    #[error("{0}: busy: something else is being mounted there")]
    Busy(PathBuf),
    /// No FUSE in the kernel, or in the container.
    #[error(
        "no /dev/fuse: load the module (modprobe fuse), or let the container have it (--device /dev/fuse)"
    )]
    NoDevice(#[source] io::Error),
    /// `/dev/fuse` is not for this user.
    #[error(
        "/dev/fuse may not be opened: ask root for 'chmod 0666 /dev/fuse' (which is udev's default), or mount as root"
    )]
    DeviceDenied(#[source] io::Error),
    /// A plain user without the helper.
    #[error(
        "mounting needs root or the helper fusermount3: install the package fuse3, or mount as root"
    )]
    NoHelper(#[source] io::Error),
    /// The kernel or the helper said no.
    #[error("{0}: may not be mounted on by this user: {1}")]
    Denied(PathBuf, String),
    /// A directory for snapshots that takes no files.
    #[error(
        "option snap_dir: no file can be made in {0} ({1}): choose a directory of a file system with unnamed files (ext4, xfs, btrfs, tmpfs) that may be written"
    )]
    SnapshotDirectory(PathBuf, String),
    /// `allow_other` without the rights that it takes.
    #[error(
        "option allow_other: needs root (CAP_SETUID and CAP_SETGID): without that no caller can be judged as themselves"
    )]
    CannotJudge,
    /// `allow_other` where Yama looks at the wrong process.
    #[error(
        "option allow_other: Yama (kernel.yama.ptrace_scope is {0}) would judge this daemon and not each caller: set it to 0, or accept that with -o allow_other,yama=ignore"
    )]
    YamaJudgesUs(String),
    /// The helper does not know an option that the kernel does.
    #[error("{0}: {1}: leave that option out, or mount as root")]
    HelperOption(PathBuf, String),
    /// `io_uring=on` where the kernel offers none.
    #[error(
        "option io_uring: the kernel serves no file system over io_uring (Linux 6.14 has it): allow it for new mounts (echo Y > /sys/module/fuse/parameters/enable_uring), or leave the option out"
    )]
    NoRings(#[source] io::Error),
    /// `io_uring=on` where this program gets none.
    #[error(
        "option io_uring: this program gets no rings: see kernel.io_uring_disabled, what a container allows (--security-opt seccomp=...), and the limit of open files (ulimit -n), or leave the option out"
    )]
    NoRingsHere(#[source] io::Error),
    /// `/proc` is of no use.
    #[error(transparent)]
    Proc(#[from] ProcFault),
    /// What is mounted where cannot be read.
    #[error("/proc/self/mountinfo does not tell what is mounted on {0}")]
    MountInfo(PathBuf, #[source] io::Error),
    /// Without its own device it could be made to read its own files, and wait for itself.
    #[error("{0}: the new mount cannot be found, so it was given up")]
    Lost(PathBuf, #[source] io::Error),
    /// Something else.
    #[error("{0}: {1}")]
    Other(PathBuf, String, #[source] io::Error),
}
