//! What is mounted where (`/proc/self/mountinfo`, proc_pid_mountinfo(5)).
//!
//! The text is read as bytes: paths, and types after `fuse.`, may hold any. What stands between
//! blanks has its own blanks, tabs, newlines and backslashes written as three octal digits
//! (`show_mountinfo` in `fs/proc_namespace.c`).

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use linux_raw_sys::general::STATX_MNT_ID_UNIQUE;
use rustix::fs::{AtFlags, CWD, Statx, StatxFlags, statx};

use crate::target::mapping::Device;

/// The file system type of this program's mounts, after `fuse.`.
pub(crate) const SUBTYPE: &str = "procmemfs";

/// The type of this program's mounts, as `mountinfo` shows it.
const TYPE: &[u8] = b"fuse.procmemfs";

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MountPoint {
    /// Its number, which is its own while it lasts.
    pub id: u64,
    /// Where.
    pub path: PathBuf,
    /// The device number that its files show.
    pub device: Device,
    /// Whether it is one of this program's.
    pub is_ours: bool,
}

/// The mounts that this process sees and `wanted` picks.
///
/// # Errors
/// Where `/proc/self/mountinfo` cannot be read.
pub(crate) fn mounts(wanted: impl Fn(&MountPoint) -> bool) -> io::Result<Vec<MountPoint>> {
    mounts_in(File::open("/proc/self/mountinfo")?, wanted)
}

/// As [`mounts`], of the process whose `mountinfo` this is.
///
/// # Errors
/// Where it cannot be read.
pub(super) fn mounts_in(
    mountinfo: File,
    wanted: impl Fn(&MountPoint) -> bool,
) -> io::Result<Vec<MountPoint>> {
    let text = BufReader::new(mountinfo);
    let mut found = Vec::new();
    for line in text.split(b'\n') {
        match parse(&line?) {
            Some(mount) if wanted(&mount) => found.push(mount),
            Some(_) => (),
            None => log::debug!("a line of mountinfo is not understood"),
        }
    }
    Ok(found)
}

/// The device number that files at `path` show, without asking their file system, which may not answer.
///
/// # Errors
/// Where there is no such path.
pub(crate) fn device_at(path: &Path) -> io::Result<Device> {
    Ok(device_of(&statx_at(path, StatxFlags::empty())?))
}

/// The number of the mount at `path` that no other mount ever gets; `None` before Linux 6.8.
pub(crate) fn unique_id(path: &Path) -> Option<u64> {
    const UNIQUE: StatxFlags = StatxFlags::from_bits_retain(STATX_MNT_ID_UNIQUE);

    let status = statx_at(path, UNIQUE).ok()?;
    (status.stx_mask & UNIQUE.bits() != 0).then_some(status.stx_mnt_id)
}

/// `statx` that does not ask the file system.
fn statx_at(path: &Path, wanted: StatxFlags) -> io::Result<Statx> {
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    Ok(statx(CWD, path, flags, wanted)?)
}

/// The device number that a file shows.
pub(super) fn device_of(status: &Statx) -> Device {
    Device {
        major: status.stx_dev_major,
        minor: status.stx_dev_minor,
    }
}

/// The mount that `path` lies on, without asking its file system, which may not answer; `None` where
/// `mountinfo` does not list it, as with the mount that lies around a chroot(2).
///
/// # Errors
/// Where there is no such path, and as [`mounts`].
pub(crate) fn mount_of(path: &Path) -> io::Result<Option<MountPoint>> {
    let status = statx_at(path, StatxFlags::MNT_ID)?;
    let device = device_of(&status);
    let has_id = status.stx_mask & StatxFlags::MNT_ID.bits() != 0;
    let mut found = mounts(|mount| match has_id {
        true => mount.id == status.stx_mnt_id,
        // Linux before 5.8.
        false => mount.device == device && path.starts_with(&mount.path),
    })?;
    Ok(found.pop())
}

/// Reads a line: ID, parent, device, root, mount point, options, any number of optional fields, `-`, type, ...
pub(crate) fn parse(line: &[u8]) -> Option<MountPoint> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = decimal(fields.next()?)?;
    let _parent = fields.next()?;
    let mut device = fields.next()?.split(|byte| *byte == b':');
    let device = Device {
        major: u32::try_from(decimal(device.next()?)?).ok()?,
        minor: u32::try_from(decimal(device.next()?)?).ok()?,
    };
    let _root = fields.next()?;
    let path = fields.next().filter(|path| !path.is_empty())?;
    let _options = fields.next()?;
    let mut fields = fields.skip_while(|field| *field != b"-");
    let _separator = fields.next()?;
    let kind = fields.next()?;
    Some(MountPoint {
        id,
        path: PathBuf::from(OsString::from_vec(unescaped(path))),
        device,
        is_ours: unescaped(kind) == TYPE,
    })
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Turns three octal digits after a backslash back into the byte that they stand for.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, after @ ..] = rest {
        (rest, _) = match (first, after) {
            (
                b'\\',
                [
                    a @ b'0'..=b'3',
                    b @ b'0'..=b'7',
                    c @ b'0'..=b'7',
                    after @ ..,
                ],
            ) => {
                let digit = |digit: &u8| digit - b'0';
                (after, plain.push(digit(a) << 6 | digit(b) << 3 | digit(c)))
            }
            _ => (after, plain.push(*first)),
        };
    }
    plain
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    fn mount(id: u64, path: &[u8], device: (u32, u32), is_ours: bool) -> MountPoint {
        MountPoint {
            id,
            path: PathBuf::from(OsStr::from_bytes(path)),
            device: Device {
                major: device.0,
                minor: device.1,
            },
            is_ours,
        }
    }

    #[test]
    fn lines_are_read_whatever_bytes_they_hold() {
        let table: [(&[u8], MountPoint); 7] = [
            (
                b"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue",
                mount(36, b"/mnt2", (98, 0), false),
            ),
            (
                b"7 1 0:51 / /mnt rw,nosuid - fuse.procmemfs procmemfs rw,user_id=0",
                mount(7, b"/mnt", (0, 51), true),
            ),
            (
                b"7 1 0:51 / /mnt rw shared:1 master:2 propagate_from:3 - fuse.procmemfs a\\040b rw",
                mount(7, b"/mnt", (0, 51), true),
            ),
            // No UTF-8, and all that the kernel escapes.
            (
                b"9 1 0:5 /a\\040- /\xff\xfe\\040b\\011c\\012d\\134e rw - tmpfs \xc3( rw",
                mount(9, b"/\xff\xfe b\tc\nd\\e", (0, 5), false),
            ),
            // Types with blanks and any bytes after `fuse.`.
            (
                b"9 1 0:5 / /x rw - fuse.procmemfs\\040 none rw",
                mount(9, b"/x", (0, 5), false),
            ),
            (
                b"9 1 0:5 / /x rw - fuse.\xff\\043 none rw",
                mount(9, b"/x", (0, 5), false),
            ),
            (
                b"4294967297 1 0:1048575 mnt:[4026531840] /run/ns rw - nsfs nsfs rw",
                mount(4_294_967_297, b"/run/ns", (0, 1_048_575), false),
            ),
        ];
        for (line, expected) in table {
            assert_eq!(
                parse(line),
                Some(expected),
                "{}",
                String::from_utf8_lossy(line)
            );
        }
    }

    #[test]
    fn what_is_no_line_is_none() {
        for line in [
            &b""[..],
            b"36",
            b"36 35 98 /mnt1 /mnt2 rw - ext3 x rw",
            b"36 35 98:x /mnt1 /mnt2 rw - ext3 x rw",
            b"+36 35 98:0 /mnt1 /mnt2 rw - ext3 x rw",
            b"36 35 98:0 /mnt1 /mnt2 rw shared:1",
            b"36 35 98:0 /mnt1 /mnt2 rw -",
            b"36 35 98:0 /mnt1  rw - ext3 x rw",
        ] {
            assert_eq!(parse(line), None, "{}", String::from_utf8_lossy(line));
        }
    }

    #[test]
    fn only_octal_digits_are_an_escape() {
        assert_eq!(unescaped(b"a\\040b\\134c\\011d"), b"a b\\c\td");
        for plain in [&b"\\9"[..], b"\\04", b"\\+12", b"\\ 12", b"\\777", b"\\"] {
            assert_eq!(unescaped(plain), plain);
        }
        assert_eq!(unescaped(b"\\377\\000"), b"\xff\0");
    }

    #[test]
    fn the_mount_of_a_path_is_found() {
        let proc = mount_of(Path::new("/proc/self")).unwrap().unwrap();
        assert_eq!(proc.path, Path::new("/proc"));
        assert!(!proc.is_ours);
        let all = mounts(|_| true).unwrap();
        assert!(all.contains(&proc));
    }
}
