//! The command line, and what it asks for.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use super::map::MapArguments;
use super::restore::RestoreArguments;
use super::stats::StatsArguments;

const EXAMPLES: &str = "\
Options (-o):
  write              let memory be written (default: memory can be read only)
  ro                 make the whole mount read-only
  cache_ttl=TIME     the oldest data a read may return: 100ms, 2s; 0 sends every
                     read to the process (default: 100ms)
  cache_size=BYTES   budget of the page cache: 64M, 1G (default: 64M)
  fault=error|zero   unreadable bytes end the read, or read as zeros (default: error)
  force              write in spite of a mapping's protection (needs write)
  touch              let reads fault absent pages in, which changes the target's
                     memory use (default: absent pages are never touched)
  nostop             stop no process: core/PID has no registers then (default: it is
                     stopped for them, for a millisecond or less)
  inject             let snapshots have a thread of the process open a userfaultfd,
                     so that it stands still for milliseconds only (default: it
                     stands still while it is copied; see docs/SNAPSHOTS.md)
  fullcore           core/PID holds all that can be read (default: what the process's
                     coredump_filter and MADV_DONTDUMP say)
  allow_other        let other users in: each may read what the kernel would let
                     them read by themselves (default: the mounter alone)
  audit              log each open and each handle's writes: who, of what, and
                     whether it was granted (audit=stderr, syslog or journald)
  pid=PID[:PID...]   show these processes only (default: all)
  snap_size=BYTES    what all snapshots may take together (default: half of the memory)
  snap_dir=DIR       keep snapshots in files of DIR (default: in memory)
  threads=N          threads that serve requests (default: by the CPUs)
  nosuid, nodev, noexec, nosymfollow, fsname=NAME ... as every file system takes
                     them; rw is one of these and means nothing, since mount(8) passes it

Examples:
  procmemfs /mnt                        show all processes below /mnt
  ls -l /mnt/1234                       the mappings of process 1234
  grep -c secret /mnt/1234/heap         search its heap for a string
  dd if=/mnt/1234/stack bs=4K count=1 | xxd
  gdb -c /mnt/core/1234                 debug a copy of it while it goes on
  procmemfs -o write,pid=1234 /mnt      one process only, to be written
  mkdir /mnt/snap/1234@before           keep a copy of it as it is now (rmdir drops it)
  procmemfs restore /mnt/snap/1234@before 1234      write its memory back
  procmemfs map 1234                    draw the memory of a process (--live, --svg FILE)
  procmemfs stats /mnt                  what the mount is asked for, and how long it takes
  umount /mnt                           (or: fusermount3 -u /mnt)";

/// The command that mounts; it may be left out.
const MOUNT: &str = "mount";

/// The command that writes a snapshot back.
const RESTORE: &str = "restore";

/// The command that draws a process.
const MAP: &str = "map";

/// The command that shows what a mount does.
const STATS: &str = "stats";

/// Words that are commands, or may become some: none of them alone is a mount point, so that no command that
/// is added one day changes what an old line does.
const COMMANDS: [&str; 7] = [MOUNT, "doctor", MAP, RESTORE, STATS, "help", "snap"];

/// Show the memory of live processes as files.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = EXAMPLES,
    override_usage = "procmemfs [mount] [-f] [-d] [-o OPTION[,OPTION...]]... [SOURCE] MOUNTPOINT"
)]
struct Arguments {
    /// Stay in the foreground and log to standard error
    #[arg(short = 'f')]
    foreground: bool,

    /// As -f, and log each failure and what the kernel is asked for
    #[arg(short = 'd')]
    debug: bool,

    /// Mount options, see below
    #[arg(short = 'o', value_name = "OPTION[,OPTION...]")]
    options: Vec<String>,

    /// Where to mount; a SOURCE before it is ignored, so that mount(8) and fstab can name one
    #[arg(num_args = 1..=3, required = true, value_name = "MOUNTPOINT")]
    paths: Vec<PathBuf>,
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum Command {
    /// Mount, and serve.
    Mount(MountArguments),
    /// Write a snapshot back.
    Restore(RestoreArguments),
    /// Draw a process.
    Map(MapArguments),
    /// Show what a mount does.
    Stats(StatsArguments),
}

/// What the command `mount` is given.
#[derive(Debug)]
pub(super) struct MountArguments {
    /// To stay there.
    pub(super) foreground: bool,
    /// To log each failure; this is done in the foreground.
    pub(super) debug: bool,
    /// The lists after each `-o`.
    pub(super) options: Vec<String>,
    pub(super) mountpoint: PathBuf,
    /// Whether mount(8) gave them, which adds `rw` by itself.
    pub(super) are_of_mount: bool,
}

impl Command {
    /// Reads the arguments of this process. Does not return where they ask for help or are no form of a call.
    ///
    /// # Errors
    /// Where they name no mount point or no command.
    pub(super) fn from_arguments() -> Result<Self> {
        let given = || std::env::args_os().skip(1);
        if is_called(RESTORE, given()) {
            return Ok(Self::Restore(RestoreArguments::parse_from(given())));
        }
        if is_called(MAP, given()) {
            return Ok(Self::Map(MapArguments::parse_from(given())));
        }
        if is_called(STATS, given()) {
            return Ok(Self::Stats(StatsArguments::parse_from(given())));
        }
        let arguments = Arguments::parse();
        if let Some(extra) = surplus(&arguments.paths) {
            // As clap has it for a fourth one.
            let extra = extra.display();
            let message = format!(
                "unexpected value '{extra}' for '<MOUNTPOINT>...' found; no more were expected"
            );
            Arguments::command()
                .error(ErrorKind::TooManyValues, message)
                .exit();
        }
        Ok(Self::Mount(MountArguments {
            mountpoint: mount_point(&arguments.paths)?.to_owned(),
            foreground: arguments.foreground || arguments.debug,
            debug: arguments.debug,
            options: arguments.options,
            are_of_mount: are_of_mount(std::env::args_os().skip(1)),
        }))
    }
}

/// Whether this command is called: the word alone could be the source of a mount, as mount(8) calls it, which gives
/// options, too.
fn is_called(command: &str, arguments: impl Iterator<Item = OsString>) -> bool {
    let arguments: Vec<OsString> = arguments.collect();
    let is_option = |argument: &OsString| {
        let bytes = argument.as_encoded_bytes();
        bytes.starts_with(b"-") && !bytes.starts_with(b"--") && bytes != b"-h"
    };
    arguments.len() > 1
        && arguments.first().is_some_and(|first| first == command)
        && !arguments.iter().any(is_option)
}

/// The path that is one too many: after the command `mount`, which is none, there are two at most.
fn surplus(paths: &[PathBuf]) -> Option<&Path> {
    let most = match paths {
        [first, ..] if first.as_os_str() == MOUNT => 3,
        _ => 2,
    };
    paths.get(most).map(PathBuf::as_path)
}

/// The last path. Of two the first one is a source, whatever it is called, since mount(8) passes any.
///
/// # Errors
/// Where there is one word alone that is, or may become, a command.
fn mount_point(paths: &[PathBuf]) -> Result<&Path> {
    match paths {
        [] => bail!("no mount point is given: see procmemfs --help"),
        [word] if word.as_os_str() == MOUNT => bail!(
            "mount: no mount point is given: write 'procmemfs mount MOUNTPOINT', and ./mount for a directory of that name"
        ),
        [word] if word.as_os_str() == RESTORE => bail!(
            "restore: no directory and no process is given: write 'procmemfs restore DIRECTORY PID', and ./restore to mount on a directory of that name"
        ),
        [word] if word.as_os_str() == MAP => bail!(
            "map: no process is given: write 'procmemfs map PID', and ./map to mount on a directory of that name"
        ),
        [word] if word.as_os_str() == STATS => bail!(
            "stats: no mount point is given: write 'procmemfs stats MOUNTPOINT', and ./stats to mount on a directory of that name"
        ),
        [word] if COMMANDS.iter().any(|command| word.as_os_str() == *command) => {
            let word = word.display();
            bail!(
                "there is no command '{word}' (see procmemfs --help): to mount on a directory of that name write ./{word}"
            )
        }
        [.., mountpoint] => Ok(mountpoint),
    }
}

/// Whether the arguments have the form in which mount(8) calls a file system: `SOURCE MOUNTPOINT -o OPTIONS`
/// (`mount.fuse.c` of libfuse). People give no source, or options first.
fn are_of_mount(arguments: impl Iterator<Item = OsString>) -> bool {
    let arguments: Vec<OsString> = arguments.collect();
    let is_flag = |argument: &OsString| argument.as_encoded_bytes().starts_with(b"-");
    match arguments.as_slice() {
        [source, mountpoint, flag, _] => !is_flag(source) && !is_flag(mountpoint) && flag == "-o",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_mount_are_told_from_those_of_people() {
        let table: [(&[&str], bool); 8] = [
            (&["none", "/mnt", "-o", "rw,dev,suid"], true),
            (&["procmemfs", "/mnt", "-o", "rw"], true),
            (&["mount", "/mnt", "-o", "rw"], true),
            (&["-o", "rw", "/mnt"], false),
            (&["/mnt", "-o", "rw"], false),
            (&["-o", "rw", "none", "/mnt"], false),
            (&["-f", "/mnt", "-o", "rw"], false),
            (&["none", "/mnt", "-orw"], false),
        ];
        for (arguments, expected) in table {
            let given = arguments.iter().map(OsString::from);
            assert_eq!(are_of_mount(given), expected, "{arguments:?}");
        }
    }

    #[test]
    fn restore_is_told_from_a_source_of_that_name() {
        let table: [(&[&str], bool); 8] = [
            (&["restore", "dir", "12"], true),
            (&["restore", "dir"], true),
            (&["restore", "--dry-run", "dir", "12"], true),
            (&["restore", "--help"], true),
            (&["restore"], false),
            (&["restore", "/mnt", "-o", "rw"], false),
            (&["none", "restore"], false),
            (&["-f", "restore", "/mnt"], false),
        ];
        for (arguments, expected) in table {
            let given = arguments.iter().map(OsString::from);
            assert_eq!(is_called(RESTORE, given), expected, "{arguments:?}");
        }
    }

    /// The mount point, or why there is none.
    fn read(paths: &[&str]) -> Result<String, String> {
        let paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
        if let Some(extra) = surplus(&paths) {
            return Err(format!("surplus {}", extra.display()));
        }
        mount_point(&paths)
            .map(|path| path.display().to_string())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_last_path_is_the_mount_point_whatever_the_source_is_called() {
        for paths in [
            &["/mnt"][..],
            &["none", "/mnt"],
            &["mount", "/mnt"],
            &["mount", "mount", "/mnt"],
            &["mount", "none", "/mnt"],
            &["doctor", "/mnt"],
            &["help", "/mnt"],
        ] {
            assert_eq!(read(paths).unwrap(), "/mnt", "{paths:?}");
        }
        for command in COMMANDS {
            for point in [format!("./{command}"), format!("{command}/")] {
                assert_eq!(read(&[&point]).unwrap(), point);
            }
            assert_eq!(read(&["mount", command]).unwrap(), command);
            assert_eq!(read(&["none", command]).unwrap(), command);
        }
    }

    #[test]
    fn a_command_alone_is_no_mount_point() {
        for command in COMMANDS {
            let message = read(&[command]).unwrap_err();
            assert!(message.contains(command), "{message}");
            assert!(message.contains(&format!("./{command}")), "{message}");
            assert!(!message.contains('\n'), "{message}");
        }
    }

    #[test]
    fn one_path_too_many_is_named() {
        assert_eq!(read(&["a", "b", "c"]).unwrap_err(), "surplus c");
        assert_eq!(read(&["a", "mount", "c"]).unwrap_err(), "surplus c");
        let paths = ["mount", "a", "b", "c"];
        assert_eq!(read(&paths).unwrap_err(), "surplus c");
    }
}
