//! Options of every file system, as mount(2) and as `fusermount3` take them.

use nix::mount::MsFlags;

use crate::config::{Mode, MountConfig};
use crate::target::live::SUBTYPE;

/// What a mount is made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AttachOptions {
    source: String,
    flags: MsFlags,
    /// What the kernel's file system is told beside.
    kernel: Vec<String>,
}

/// Flags, and their names for the helper.
const FLAGS: &[(MsFlags, &str)] = &[
    (MsFlags::MS_RDONLY, "ro"),
    (MsFlags::MS_NOSUID, "nosuid"),
    (MsFlags::MS_NODEV, "nodev"),
    (MsFlags::MS_NOEXEC, "noexec"),
    (MsFlags::MS_SYNCHRONOUS, "sync"),
    (MsFlags::MS_DIRSYNC, "dirsync"),
    (MsFlags::MS_NOATIME, "noatime"),
];

impl AttachOptions {
    /// Of two options that contradict each other the later one holds. Nothing that lies in memory is
    /// to be a device or to grant rights, unless that is asked for.
    pub(super) fn new(config: &MountConfig) -> Self {
        let mut options = Self {
            source: SUBTYPE.to_owned(),
            flags: MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
            kernel: Vec::new(),
        };
        options
            .flags
            .set(MsFlags::MS_RDONLY, config.mode == Mode::ReadOnly);
        for option in &config.generic {
            options.take(option);
        }
        options
    }

    fn take(&mut self, option: &str) {
        let (flag, on) = match option {
            "suid" => (MsFlags::MS_NOSUID, false),
            "nosuid" => (MsFlags::MS_NOSUID, true),
            "dev" => (MsFlags::MS_NODEV, false),
            "nodev" => (MsFlags::MS_NODEV, true),
            "exec" => (MsFlags::MS_NOEXEC, false),
            "noexec" => (MsFlags::MS_NOEXEC, true),
            "sync" => (MsFlags::MS_SYNCHRONOUS, true),
            "async" => (MsFlags::MS_SYNCHRONOUS, false),
            "dirsync" => (MsFlags::MS_DIRSYNC, true),
            "atime" => (MsFlags::MS_NOATIME, false),
            "noatime" => (MsFlags::MS_NOATIME, true),
            other => {
                match other.split_once('=') {
                    Some(("fsname", name)) => name.clone_into(&mut self.source),
                    // There is one type behind `fuse.`, whatever fstab calls it.
                    Some(("subtype", _)) | None => (),
                    Some(_) => self.kernel.push(other.to_owned()),
                }
                return;
            }
        };
        self.flags.set(flag, on);
    }

    /// What is shown as the mount's source.
    pub(super) fn source(&self) -> &str {
        &self.source
    }

    pub(super) fn flags(&self) -> MsFlags {
        self.flags
    }

    pub(super) fn kernel(&self) -> impl Iterator<Item = &str> {
        self.kernel.iter().map(String::as_str)
    }

    /// All of it as one list for `fusermount3 -o`.
    pub(super) fn for_helper(&self) -> String {
        let mut list = format!("subtype={SUBTYPE},fsname={}", self.source);
        let flags = FLAGS
            .iter()
            .filter(|(flag, _)| self.flags.contains(*flag))
            .map(|(_, name)| *name);
        for option in flags.chain(self.kernel()) {
            list.push(',');
            list.push_str(option);
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(list: &str) -> AttachOptions {
        AttachOptions::new(&MountConfig::parse([list]).unwrap())
    }

    #[test]
    fn the_kernel_and_the_helper_are_told_the_same() {
        let table = [
            ("", "nosuid,nodev"),
            ("rw,dev,suid", ""),
            ("ro,noexec,noatime", "ro,nosuid,nodev,noexec,noatime"),
            ("suid,nosuid,noexec,exec,dev", "nosuid"),
            (
                "max_read=65536,sync,dirsync,async",
                "nosuid,nodev,dirsync,max_read=65536",
            ),
            ("subtype=other", "nosuid,nodev"),
        ];
        for (list, expected) in table {
            let options = options(list);
            let mut said = options.for_helper();
            let rest = said.split_off("subtype=procmemfs,fsname=procmemfs".len());
            assert_eq!(rest.trim_start_matches(','), expected, "{list}");
            for (flag, name) in FLAGS {
                let told = expected.split(',').any(|option| option == *name);
                assert_eq!(options.flags().contains(*flag), told, "{name} of {list}");
            }
        }
        assert_eq!(options("fsname=a_name").source(), "a_name");
        assert_eq!(
            options("fsname=a_name").for_helper(),
            "subtype=procmemfs,fsname=a_name,nosuid,nodev"
        );
    }
}
