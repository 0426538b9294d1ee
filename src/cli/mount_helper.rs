//! The program as `mount.fuse.procmemfs`, which mount(8) runs for file systems of the type `fuse.procmemfs`.
//!
//! Without it mount(8) runs `mount.fuse` of the package fuse3, which builds a line for the shell of its arguments and adds `dev`
//! and `suid`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::{ArgAction, Parser};

use super::arguments::MountArguments;

/// Mount the memory of live processes; called by mount(8)
#[allow(dead_code, reason = "what mount(8) may give and is of no effect here")]
#[derive(Debug, Parser)]
#[command(version, disable_help_flag = true, disable_version_flag = true)]
pub(super) struct HelperArguments {
    /// Any name
    source: String,

    /// Where to mount
    mountpoint: PathBuf,

    /// Check everything, and mount nothing
    #[arg(short = 'f')]
    fake: bool,

    /// Mount options
    #[arg(short = 'o', value_name = "OPTION[,OPTION...]")]
    options: Vec<String>,

    /// The mount namespace of mount --namespace
    #[arg(short = 'N', value_name = "NAMESPACE")]
    namespace: Option<String>,

    /// The type with its subtype
    #[arg(short = 't', value_name = "TYPE")]
    kind: Option<String>,

    /// Tolerate unknown options; none are
    #[arg(short = 's')]
    sloppy: bool,

    /// Write no /etc/mtab; none is written
    #[arg(short = 'n')]
    no_mtab: bool,

    /// Say more; there is no more to say
    #[arg(short = 'v', action = ArgAction::Count)]
    verbose: u8,
}

impl HelperArguments {
    /// What the command `mount` is given for this.
    ///
    /// # Errors
    /// Where it asks for what cannot be done.
    pub(super) fn into_mount(self) -> Result<MountArguments> {
        if self.namespace.is_some() {
            bail!(
                "mount --namespace is not supported: enter the namespace first (nsenter --mount)"
            );
        }
        Ok(MountArguments {
            foreground: false,
            debug: false,
            options: self.options,
            mountpoint: self.mountpoint,
            are_of_mount: true,
            only_check: self.fake,
        })
    }
}

/// Whether the program is called by a name that begins as those of mount's helpers do.
pub(super) fn is_called(name: Option<&OsStr>) -> bool {
    let name = name.and_then(|name| Path::new(name).file_name());
    name.is_some_and(|name| name.as_encoded_bytes().starts_with(b"mount."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> MountArguments {
        let name = ["/sbin/mount.fuse.procmemfs"];
        let given = name.iter().chain(arguments);
        let arguments = HelperArguments::try_parse_from(given).unwrap();
        arguments.into_mount().unwrap()
    }

    #[test]
    fn the_name_tells_a_helper() {
        for (name, expected) in [
            ("/sbin/mount.fuse.procmemfs", true),
            ("mount.procmemfs", true),
            ("/usr/bin/procmemfs", false),
            ("/home/mount.d/procmemfs", false),
            ("", false),
        ] {
            assert_eq!(is_called(Some(OsStr::new(name))), expected, "{name}");
        }
        assert!(!is_called(None));
    }

    /// What `exec_helper` of libmount (`libmount/src/context_mount.c`) gives.
    #[test]
    fn the_arguments_are_those_of_mount() {
        let given = read(&["none", "/mnt", "-o", "rw,cache_ttl=1s"]);
        assert_eq!(given.mountpoint, Path::new("/mnt"));
        assert_eq!(given.options, ["rw,cache_ttl=1s"]);
        assert!(given.are_of_mount && !given.only_check && !given.foreground);
        let given = read(&["mount", "/mnt", "-s", "-f", "-n", "-v", "-o", "ro"]);
        assert!(given.only_check && !given.debug);
        read(&["none", "/mnt", "-sfnvv"]);
        read(&["none", "/mnt", "-o", "ro", "-t", "fuse.procmemfs"]);
    }

    #[test]
    fn another_namespace_is_refused_in_one_line() {
        let given = [
            "mount.fuse.procmemfs",
            "none",
            "/mnt",
            "-N",
            "/proc/1/ns/mnt",
        ];
        let arguments = HelperArguments::try_parse_from(given).unwrap();
        let message = arguments.into_mount().unwrap_err().to_string();
        assert!(message.contains("--namespace") && !message.contains('\n'));
    }
}
