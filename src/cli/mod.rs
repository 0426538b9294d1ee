//! What the command does: reads its arguments, mounts, and serves until the end.

pub(crate) mod arguments;
mod daemon;
mod doctor;
pub(crate) mod help;
mod logging;
mod map;
mod mount_helper;
mod progress;
mod restore;
mod stats;
mod terminal;
mod units;

use std::env::VarError;
use std::ffi::CStr;
use std::process::ExitCode;

use anyhow::{Result, anyhow};
use procmemfs::diagnosis;
use procmemfs::mount::{
    Mode, MountConfig, MountError, Prepared, Supervisor, UnknownCalls, missing_capabilities,
};
use procmemfs::target::live::Feature;

use arguments::{Command, MountArguments};
use daemon::Ends;
use logging::Audit;

/// Does what the command line asks for.
pub(crate) fn run() -> ExitCode {
    if let Some(supervisor) = Supervisor::wanted() {
        return match supervisor.run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
    let done = Command::from_arguments().and_then(|command| match command {
        Command::Mount(arguments) => mount(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Restore(arguments) => restore::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Map(arguments) => map::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Stats(arguments) => stats::run(&arguments).map(|()| ExitCode::SUCCESS),
    });
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("procmemfs: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The name of this program, as `ps` shows it.
const NAME: &CStr = c"procmemfs";

/// Why there is no mount, with what the checks of `procmemfs doctor` say to that, on one line.
fn explained(error: MountError) -> anyhow::Error {
    let help = diagnosis::help(&error);
    let error = anyhow::Error::new(error);
    match help {
        Some(help) => anyhow!("{error:#}; {help}"),
        None => error,
    }
}

/// Options for every mount, which those of the command override.
const OPTIONS: &str = "PROCMEMFS_OPTIONS";

fn options_of_environment() -> Result<Option<String>> {
    match std::env::var(OPTIONS) {
        Ok(options) => Ok(Some(options).filter(|it| !it.is_empty())),
        Err(VarError::NotPresent) => Ok(None),
        Err(error) => Err(anyhow!("{OPTIONS}: {error}")),
    }
}

fn mount(arguments: &MountArguments) -> Result<()> {
    // Called as a helper of mount(8) it has another one, cut short.
    if let Err(error) = rustix::thread::set_name(NAME) {
        log::debug!("the name of this process stays as it is: {error}");
    }
    let first = options_of_environment()?;
    let lists = first.iter().chain(&arguments.options).map(String::as_str);
    let config = MountConfig::parse(lists)?;
    if config.rw && config.mode == Mode::NoWrite && !arguments.are_of_mount {
        eprintln!(
            "procmemfs: hint: rw means nothing here and memory cannot be written: -o write lets it be"
        );
    }
    let audit = Audit::check(config.audit, arguments.foreground)?;
    let unknown_calls = UnknownCalls::from_environment()?;
    if arguments.foreground {
        logging::to_stderr(arguments.debug, &audit);
    }
    let prepared = Prepared::new(&config, &arguments.mountpoint).map_err(explained)?;
    if arguments.only_check {
        return Ok(());
    }
    if let Some(missing) = missing_capabilities(config.mode == Mode::Write) {
        eprintln!("procmemfs: hint: {missing}");
    }
    if config.force && !prepared.has(Feature::ForcedAccess) {
        eprintln!(
            "procmemfs: hint: force: this kernel was started with proc_mem.force_override and does not let writes pass over protection"
        );
    }
    // A signal that ended the process with the mount just made would leave a dead one. Until here one
    // ends a check of a mount point that does not answer.
    let ends = Ends::hold()?;
    let mount = prepared.mount().map_err(explained)?;
    if !arguments.foreground {
        daemon::go_to_background(&ends)?;
        logging::to_system(&audit);
    }
    daemon::serve(mount, &ends, unknown_calls)
}
