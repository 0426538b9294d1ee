//! By what a mount can be made: `/dev/fuse`, and mount(2) or the helper `fusermount3`.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use rustix::fs::{Access, StatVfsMountFlags, access, getxattr, statvfs};

use super::attach::open_device;
use super::{MountError, helper};

/// Where the helper looks for what plain users may do.
const CONFIGURATION: &str = "/etc/fuse.conf";

/// The bit of a file that runs with the rights of its owner (inode(7)).
const SETUID: u32 = 0o4000;

/// By what a mount can be made.
#[derive(Debug)]
pub(crate) struct Means {
    /// Whether `/dev/fuse` can be opened.
    pub(crate) device: Result<(), MountError>,
    /// Why mount(2) is refused; `None` where it is not.
    pub(crate) refusal: Option<Errno>,
    pub(crate) helper: Helper,
    /// Whether plain users may give `allow_other` (`user_allow_other` in `/etc/fuse.conf`).
    pub(crate) lets_others_in: bool,
}

/// The program `fusermount3`, as this user finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Helper {
    Missing,
    /// This user may not run it.
    NotExecutable(PathBuf),
    /// It does not run as root: it is not set-user-ID, or its owner is not root.
    NotRoots(PathBuf),
    /// It lies on a mount with `nosuid`.
    OnNosuid(PathBuf),
    Ready(PathBuf),
}

impl Means {
    /// As they are now. Nothing is mounted.
    pub(crate) fn now() -> Self {
        let configuration = std::fs::read_to_string(CONFIGURATION).unwrap_or_default();
        Self {
            device: open_device().map(drop),
            refusal: refusal(),
            helper: helper::path().map_or(Helper::Missing, Helper::at),
            lets_others_in: lets_others_in(&configuration),
        }
    }
}

/// The kernel judges who may mount, then it finds that the options name no connection: `EINVAL` (`path_mount` in `fs/namespace.c`,
/// `fuse_get_tree` in `fs/fuse/inode.c`). So nothing is mounted in either case.
fn refusal() -> Option<Errno> {
    let none = None::<&str>;
    match mount(none, "/", Some("fuse"), MsFlags::empty(), none) {
        Ok(()) | Err(Errno::EINVAL) => None,
        Err(errno) => Some(errno),
    }
}

fn lets_others_in(configuration: &str) -> bool {
    let mut lines = configuration.lines();
    lines.any(|line| line.trim() == "user_allow_other")
}

impl Helper {
    fn at(path: PathBuf) -> Self {
        if access(&path, Access::EXEC_OK).is_err() {
            return Self::NotExecutable(path);
        }
        if !gives_rights(&path) {
            return Self::NotRoots(path);
        }
        let mount = statvfs(&path);
        if mount.is_ok_and(|mount| mount.f_flag.contains(StatVfsMountFlags::NOSUID)) {
            return Self::OnNosuid(path);
        }
        Self::Ready(path)
    }
}

/// Whether it runs as root, or with capabilities of its file.
fn gives_rights(path: &Path) -> bool {
    let runs_as_root = std::fs::metadata(path)
        .is_ok_and(|status| status.uid() == 0 && status.mode() & SETUID != 0);
    let mut none = [0_u8; 0];
    runs_as_root || getxattr(path, "security.capability", &mut none).is_ok()
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn others_are_let_in_by_a_line_of_its_own() {
        assert!(lets_others_in("# x\nmount_max = 5\n user_allow_other \n"));
        for none in ["", "#user_allow_other\n", "user_allow_other_not\n"] {
            assert!(!lets_others_in(none), "{none:?}");
        }
    }

    #[test]
    fn a_helper_without_rights_is_known() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fusermount3");
        std::fs::write(&path, "").unwrap();
        let found = |mode| {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            Helper::at(path.clone())
        };
        assert_eq!(found(0o644), Helper::NotExecutable(path.clone()));
        assert_eq!(found(0o755), Helper::NotRoots(path.clone()));
        let with_the_bit = found(0o4755);
        match nix::unistd::geteuid().is_root() {
            true => assert_ne!(with_the_bit, Helper::NotRoots(path.clone())),
            false => assert_eq!(with_the_bit, Helper::NotRoots(path.clone())),
        }
    }

    #[test]
    fn nothing_is_mounted_by_asking() {
        let mounts = || std::fs::read_to_string("/proc/self/mounts").unwrap();
        let count = |text: String| {
            text.lines()
                .filter(|line| line.contains(" / fuse "))
                .count()
        };
        let before = count(mounts());
        let _ = refusal();
        assert_eq!(count(mounts()), before);
    }
}
