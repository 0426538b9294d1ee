//! What the command does: reads its arguments, mounts, and serves until the end.

mod arguments;
mod daemon;
mod logging;
mod map;
mod progress;
mod restore;
mod stats;
mod terminal;
mod units;

use std::process::ExitCode;

use anyhow::Result;
use procmemfs::mount::{
    Mode, MountConfig, Prepared, Supervisor, UnknownCalls, missing_capabilities,
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
        Command::Mount(arguments) => mount(&arguments),
        Command::Restore(arguments) => restore::run(&arguments),
        Command::Map(arguments) => map::run(&arguments),
        Command::Stats(arguments) => stats::run(&arguments),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("procmemfs: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn mount(arguments: &MountArguments) -> Result<()> {
    let config = MountConfig::parse(arguments.options.iter().map(String::as_str))?;
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
    let prepared = Prepared::new(&config, &arguments.mountpoint)?;
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
    let mount = prepared.mount()?;
    if !arguments.foreground {
        daemon::go_to_background(&ends)?;
        logging::to_syslog(&audit);
    }
    daemon::serve(mount, &ends, unknown_calls)
}
