//! The command line, and what it asks for.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, ValueHint};

use super::doctor::DoctorArguments;
use super::help;
use super::map::MapArguments;
use super::mount_helper::{self, HelperArguments};
use super::restore::RestoreArguments;
use super::stats::StatsArguments;

/// The command that mounts; it may be left out.
const MOUNT: &str = "mount";

/// The command that writes a snapshot back.
const RESTORE: &str = "restore";

/// The command that says what keeps this program from working.
const DOCTOR: &str = "doctor";

/// The command that draws a process.
const MAP: &str = "map";

/// The command that shows what a mount does.
const STATS: &str = "stats";

/// Words that are commands, or may become some: none of them alone is a mount point, so that no command that
/// is added one day changes what an old line does.
const COMMANDS: [&str; 7] = [MOUNT, DOCTOR, MAP, RESTORE, STATS, "help", "snap"];

/// The commands but for `mount`, as clap knows them: help, manual pages and completions are made of this list.
pub(crate) fn commands() -> Vec<clap::Command> {
    vec![
        RestoreArguments::command().name(RESTORE),
        MapArguments::command().name(MAP),
        StatsArguments::command().name(STATS),
        DoctorArguments::command().name(DOCTOR),
    ]
}

const TEMPLATE: &str = "\
{about}

{usage-heading} {usage}

Options:
{options}{after-help}";

/// Show the memory of live processes as files
///
/// Below the mount point there is a directory for each process, and in it a file for each of its mappings, to be read, searched,
/// copied and (with -o write) written by any tool. The command returns once the mount answers. Unmount with umount or
/// fusermount3 -u; SIGTERM, SIGINT and SIGHUP unmount, too.
#[derive(Debug, Parser)]
#[command(
    version,
    help_template = TEMPLATE,
    after_help = help::short(&commands()),
    after_long_help = help::long(&commands()),
    override_usage = "procmemfs [mount] [-fd] [-o OPTION[,OPTION...]]... [SOURCE] MOUNTPOINT\n       procmemfs COMMAND [...]"
)]
pub(crate) struct Arguments {
    /// Stay in the foreground and log to standard error
    #[arg(short = 'f')]
    foreground: bool,

    /// As -f, and log each failure and each request
    #[arg(short = 'd')]
    debug: bool,

    /// Mount options: write, pid=PID and others (see --help)
    #[arg(short = 'o', value_name = "OPTION[,OPTION...]")]
    options: Vec<String>,

    /// Where to mount; a SOURCE before it is ignored, so that mount(8) and fstab can name one
    #[arg(num_args = 1..=3, required = true, value_name = "MOUNTPOINT", value_hint = ValueHint::DirPath)]
    paths: Vec<PathBuf>,
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum Command {
    /// Mount, and serve.
    Mount(MountArguments),
    /// Write a snapshot back.
    Restore(RestoreArguments),
    /// Say what keeps it from working.
    Doctor(DoctorArguments),
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
    /// Whether all is only to be checked, and nothing to be mounted.
    pub(super) only_check: bool,
}

impl Command {
    /// Reads the arguments of this process. Does not return where they ask for help or are no form of a call.
    ///
    /// # Errors
    /// Where they name no mount point or no command.
    pub(super) fn from_arguments() -> Result<Self> {
        if mount_helper::is_called(std::env::args_os().next().as_deref()) {
            return Ok(Self::Mount(HelperArguments::parse().into_mount()?));
        }
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
        if is_doctor(given()) {
            return Ok(Self::Doctor(DoctorArguments::parse_from(given())));
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
            are_of_mount: are_of_mount(given()),
            only_check: false,
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

/// Whether the command `doctor` is called: alone, with its own options or with a number. A path after the word makes it the source
/// of a mount.
fn is_doctor(arguments: impl Iterator<Item = OsString>) -> bool {
    let arguments: Vec<OsString> = arguments.collect();
    let is_its_own = |argument: &OsString| {
        let bytes = argument.as_encoded_bytes();
        bytes == b"-h"
            || bytes.starts_with(b"--")
            || !bytes.starts_with(b"-") && !bytes.contains(&b'/')
    };
    arguments.first().is_some_and(|first| first == DOCTOR) && arguments.iter().all(is_its_own)
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
        [word] if word.as_os_str() == DOCTOR => bail!(
            "doctor: no option of a mount is taken: write 'procmemfs doctor [PID]', and ./doctor to mount on a directory of that name"
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
    fn the_short_help_fits_a_terminal() {
        let text = Arguments::command().render_help().to_string();
        assert!(text.lines().count() <= 24, "{text}");
        for line in text.lines() {
            assert!(line.len() <= 80, "{line}");
        }
        for command in commands() {
            assert!(text.contains(command.get_name()), "{text}");
        }
    }

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

    #[test]
    fn doctor_is_told_from_a_source_of_that_name() {
        let table: [(&[&str], bool); 9] = [
            (&["doctor"], true),
            (&["doctor", "12"], true),
            (&["doctor", "--json"], true),
            (&["doctor", "--json", "12"], true),
            (&["doctor", "-h"], true),
            (&["doctor", "/mnt"], false),
            (&["doctor", "/mnt", "-o", "rw"], false),
            (&["doctor", "-o", "rw"], false),
            (&["none", "doctor"], false),
        ];
        for (arguments, expected) in table {
            let given = arguments.iter().map(OsString::from);
            assert_eq!(is_doctor(given), expected, "{arguments:?}");
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
