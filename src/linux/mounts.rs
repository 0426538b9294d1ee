//! What is mounted where (`/proc/self/mountinfo`, proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

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
            path: unescaped(&mount.mount_point),
        })
    });
    Ok(mounts.collect())
}

/// The kernel writes white space and backslashes in paths as three octal digits.
fn unescaped(path: &Path) -> PathBuf {
    let bytes = path.as_os_str().as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [first, behind @ ..] = rest {
        let digits = (*first == b'\\').then(|| behind.get(..3)).flatten();
        let code = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        plain.push(code.unwrap_or(*first));
        rest = if code.is_some() { &behind[3..] } else { behind };
    }
    PathBuf::from(OsString::from_vec(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_mounted() {
        let mounts = mounts().unwrap();
        let proc = mounts
            .iter()
            .find(|mount| mount.path == Path::new("/proc"))
            .unwrap();
        assert!(!proc.is_ours);
    }

    #[test]
    fn white_space_in_paths_is_read_back() {
        let path = unescaped(Path::new("/a\\040b\\134c\\011d\\9"));
        assert_eq!(path, Path::new("/a b\\c\td\\9"));
    }
}
