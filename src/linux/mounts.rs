//! What is mounted where (`/proc/self/mountinfo`, proc_pid_mountinfo(5)).

use std::path::PathBuf;

use procfs::ProcResult;
use procfs::process::Process;

use crate::mapping::Device;

/// The file system type of this program's mounts, behind `fuse.`.
pub const SUBTYPE: &str = "procmemfs";

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountPoint {
    /// Where.
    pub path: PathBuf,
    /// The device number that its files show.
    pub device: Device,
    /// Whether it is one of this program's.
    pub is_ours: bool,
}

/// All mounts that this process sees, a later one covering an earlier.
///
/// # Errors
/// Where `/proc` is not mounted.
pub fn mounts() -> ProcResult<Vec<MountPoint>> {
    let mounts = Process::myself()?.mountinfo()?;
    let ours = format!("fuse.{SUBTYPE}");
    let mounts = mounts.0.into_iter().filter_map(|mount| {
        let (major, minor) = mount.majmin.split_once(':')?;
        Some(MountPoint {
            device: Device {
                major: major.parse().ok()?,
                minor: minor.parse().ok()?,
            },
            is_ours: mount.fs_type == ours,
            path: mount.mount_point,
        })
    });
    Ok(mounts.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_mounted() {
        let mounts = mounts().unwrap();
        let proc = mounts
            .iter()
            .find(|mount| mount.path == PathBuf::from("/proc"))
            .unwrap();
        assert!(!proc.is_ours);
    }
}
