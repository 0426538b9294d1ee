//! Attaching a connection to FUSE to a directory, by mount(2), or by the helper `fusermount3` where only that
//! may; and the way back.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::errno::Errno;
use nix::mount::mount;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::{MountConfig, MountError, Unmounted, detach, helper, supervisor};
use crate::target::live::{SUBTYPE, device_at, mount_of, mounts, unique_id};
use crate::target::mapping::Device;
use crate::transport::MAX_READ;

const DEVICE: &str = "/dev/fuse";

/// A mount that this process made. Dropping it unmounts.
#[derive(Debug)]
pub(super) struct Attached {
    path: PathBuf,
    device: Device,
    /// The number of the mount that no other ever gets (Linux 6.8).
    id: Option<u64>,
    /// Tells whether it is still there.
    fuse: OwnedFd,
    /// Whether mount(2) made it, and not the helper.
    is_direct: bool,
}

/// Mounts on `path`, and returns the connection to answer on. The mount is known by its device
/// from now on: whatever else comes to lie on that path is left alone.
///
/// # Errors
/// Why there is no mount.
pub(super) fn attach(path: &Path, config: &MountConfig) -> Result<(OwnedFd, Attached), MountError> {
    let (fuse, is_direct) = match attach_directly(path, config)? {
        Some(fuse) => (fuse, true),
        None => (attach_by_helper(path, config)?, false),
    };
    let lost = |error| MountError::Lost(path.to_path_buf(), error);
    match mount_of(path) {
        Ok(Some(mount)) if mount.is_ours => {
            let attached = Attached {
                path: path.to_path_buf(),
                device: mount.device,
                id: unique_id(path),
                fuse: fuse.try_clone().map_err(lost)?,
                is_direct,
            };
            Ok((fuse, attached))
        }
        // That is somebody else's, and stays. Ours below it, if there is any, ends with its descriptor.
        Ok(Some(_)) => Err(lost(io::Error::other("something else lies there"))),
        unknown => {
            let error = unknown.err();
            if let Err(error) = detach::unmount(path) {
                log::error!("{}: not unmounted: {error}", path.display());
            }
            Err(lost(error.unwrap_or_else(|| {
                io::Error::other("/proc/self/mountinfo does not list it")
            })))
        }
    }
}

/// A connection to FUSE that nothing is mounted with.
///
/// # Errors
/// `NoDevice`, `DeviceDenied`, `Other`.
pub(super) fn open_device() -> Result<File, MountError> {
    let fuse = File::options().read(true).write(true).open(DEVICE);
    fuse.map_err(|error| match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT | Errno::ENODEV | Errno::ENXIO) => MountError::NoDevice(error),
        Some(Errno::EACCES | Errno::EPERM) => MountError::DeviceDenied(error),
        _ => MountError::Other(DEVICE.into(), "cannot be opened".to_owned(), error),
    })
}

/// `None` where this user may not call mount(2).
fn attach_directly(path: &Path, config: &MountConfig) -> Result<Option<OwnedFd>, MountError> {
    let other = |what: &str, error| MountError::Other(path.to_path_buf(), what.to_owned(), error);
    let fuse = open_device()?;
    let mode = std::fs::metadata(path)
        .map_err(|error| other("its status cannot be read", error))?
        .mode();
    let mut data = format!(
        "fd={},rootmode={mode:o},user_id={},group_id={}",
        fuse.as_raw_fd(),
        nix::unistd::getuid(),
        nix::unistd::getgid()
    );
    for option in config.kernel().chain(max_read(config)) {
        data.push(',');
        data.push_str(&option);
    }
    let kind = format!("fuse.{SUBTYPE}");
    let mounted = mount(
        Some(config.generic.source()),
        path,
        Some(kind.as_str()),
        config.flags(),
        Some(data.as_str()),
    );
    match mounted {
        Ok(()) => Ok(Some(fuse.into())),
        Err(Errno::EPERM) => Ok(None),
        Err(Errno::EBUSY) => Err(MountError::Busy(path.to_path_buf())),
        Err(errno @ Errno::ENODEV) => Err(MountError::NoDevice(errno.into())),
        Err(errno) => Err(other("mount", errno.into())),
    }
}

/// The largest read, where the user has not chosen one.
fn max_read(config: &MountConfig) -> Option<String> {
    let is_chosen = config.generic.max_read().is_some();
    (!is_chosen).then(|| format!("max_read={MAX_READ}"))
}

/// The helper opens `/dev/fuse`, mounts, and sends the descriptor through the socket that it has as
/// its standard input (`_FUSE_COMMFD`, `util/fusermount.c` of libfuse).
fn attach_by_helper(path: &Path, config: &MountConfig) -> Result<OwnedFd, MountError> {
    let other = |what: &str, error| MountError::Other(path.to_path_buf(), what.to_owned(), error);
    let (ours, theirs) = UnixStream::pair().map_err(|error| other("socketpair", error))?;
    let theirs = OwnedFd::from(theirs);
    let options = [config.for_helper()].into_iter().chain(max_read(config));
    let options = options.collect::<Vec<_>>().join(",");
    let child = helper::run(|command| {
        command
            .args(["-o", &options, "--"])
            .arg(path)
            .env("_FUSE_COMMFD", "0")
            .stdin(theirs.try_clone()?)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
    });
    // The helper alone holds it from now on, so that its end is seen.
    drop(theirs);
    let child = child.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => MountError::NoHelper(error),
        _ => other("fusermount3", error),
    })?;
    let received = receive(&ours);
    let output = child
        .wait_with_output()
        .map_err(|error| other("fusermount3", error))?;
    if let Ok(Some(fuse)) = received {
        return Ok(fuse);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().next().unwrap_or("no reason given").trim();
    if said.contains("busy") {
        return Err(MountError::Busy(path.to_path_buf()));
    }
    if said.contains("unknown option") {
        return Err(MountError::HelperOption(
            path.to_path_buf(),
            said.to_owned(),
        ));
    }
    Err(MountError::Denied(path.to_path_buf(), said.to_owned()))
}

/// A descriptor, or `None` where the other end was closed without one.
fn receive(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let buffers = &mut [io::IoSliceMut::new(&mut byte)];
    rustix::io::retry_on_intr(|| recvmsg(socket, buffers, &mut control, RecvFlags::CMSG_CLOEXEC))?;
    let mut messages = control.drain();
    Ok(messages.find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    }))
}

impl Attached {
    /// The device number that the mount's files show.
    pub(super) fn device(&self) -> Device {
        self.device
    }

    /// Whether mount(2) made it; else the helper did, and has to unmount it.
    pub(super) fn is_direct(&self) -> bool {
        self.is_direct
    }

    /// Starts a process that ends the mount where this one cannot.
    ///
    /// # Errors
    /// As [`supervisor::start`].
    pub(super) fn supervise(&self) -> io::Result<()> {
        let id = self.id.ok_or(io::ErrorKind::Unsupported)?;
        supervisor::start(self.device.minor, id, &self.path)
    }

    /// Takes the mount out of the tree, wherever it was moved or bound to; nothing where that is done already.
    ///
    /// # Errors
    /// Where the kernel or the helper refuses.
    pub(super) fn detach(&self) -> io::Result<Unmounted> {
        // Once the last of it is gone its device number is given to the next mount.
        if !self.is_connected() {
            return match unique_id(&self.path) {
                // The connection was aborted.
                Some(id) if Some(id) == self.id => detach::unmount(&self.path),
                _ => Ok(Unmounted::Gone),
            };
        }
        let ours = match mounts(|mount| mount.device == self.device) {
            Ok(ours) => ours,
            // Without `/proc`: where it was made, if it still lies there.
            Err(_) if device_at(&self.path)? == self.device => return detach::unmount(&self.path),
            Err(error) => return Err(error),
        };
        let mut outcome = Unmounted::Gone;
        // Those that came last lie on top.
        for mount in ours.iter().rev() {
            let on_top = mount_of(&mount.path)?;
            if on_top.is_some_and(|on_top| on_top.id == mount.id) {
                if detach::unmount(&mount.path)? == Unmounted::Detached {
                    outcome = Unmounted::Detached;
                }
            } else if mount.path == self.path && !mounts(|other| other.id == mount.id)?.is_empty() {
                return Err(io::Error::other("something else is mounted over it"));
            }
        }
        // The helper of a plain user leaves those that use it waiting.
        if outcome == Unmounted::Detached && self.is_connected() {
            detach::abort(self.device.minor);
        }
        Ok(outcome)
    }

    /// Whether the file system is there: `poll` gives an error where it is not (`fuse_dev_poll` in `fs/fuse/dev.c`).
    pub(super) fn is_connected(&self) -> bool {
        let mut polled = [PollFd::new(self.fuse.as_fd(), PollFlags::empty())];
        match poll(&mut polled, PollTimeout::ZERO) {
            Ok(_) => !polled[0]
                .revents()
                .is_some_and(|events| events.contains(PollFlags::POLLERR)),
            // A signal: that is no answer, and unmounting what is gone does nothing.
            Err(_) => true,
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if let Err(error) = self.detach() {
            log::warn!("{}: not unmounted: {error}", self.path.display());
        }
    }
}
