//! `procmemfs restore`: writes the memory of a snapshot, or of a copy of one, back into its process.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::{Parser, ValueHint};
use procmemfs::backup::Backup;
use procmemfs::common::clock::SystemClock;
use procmemfs::common::metrics::Metrics;
use procmemfs::restore::{Options, Report, restore};
use procmemfs::target::ProcessSource;
use procmemfs::target::live::{LiveSource, SourceOptions};

use super::progress::Progress;
use super::units::process_number;

const EXAMPLES: &str = "\
Memory alone is restored: registers, open files and whatever else the kernel knows of the process stay as
they are. So all of its threads must be where they were (waiting for the same call, say), and its mappings
must be the same; else nothing is written. It stands still meanwhile.

Examples:
  mkdir /mnt/snap/1234@before                 take a snapshot
  procmemfs restore /mnt/snap/1234@before 1234
  cp -r --sparse=always /mnt/snap/1234@before backup
  procmemfs restore --dry-run backup 1234     say what would be written";

/// Write the memory of a snapshot back into its process
#[derive(Debug, Parser)]
#[command(bin_name = "procmemfs restore", after_help = EXAMPLES)]
pub(super) struct RestoreArguments {
    /// Write nothing, and say what would be written
    #[arg(long)]
    dry_run: bool,

    /// Restore shared memory, too: other processes, and files that are mapped, see it
    #[arg(long)]
    shared: bool,

    /// The directory of a snapshot, or a copy of it
    #[arg(value_name = "SNAPSHOT-OR-BACKUP-DIR", value_hint = ValueHint::DirPath)]
    directory: PathBuf,

    /// The process
    #[arg(value_name = "PID")]
    pid: String,
}

/// Does it.
///
/// # Errors
/// Why nothing was restored.
pub(super) fn run(arguments: &RestoreArguments) -> Result<()> {
    let pid = process_number("restore", &arguments.pid)?;
    let backup = Backup::open(&arguments.directory)?;
    let options = SourceOptions {
        writable: !arguments.dry_run,
        ..SourceOptions::default()
    };
    let clock = Arc::new(SystemClock::new());
    let source = LiveSource::new(options, clock, Arc::new(Metrics::default()))?;
    let info = source.describe(pid).context("nothing was written")?;
    let process = source.open(&info.identity).context("nothing was written")?;
    let options = Options {
        dry_run: arguments.dry_run,
        shared: arguments.shared,
    };
    let bar = Progress::of_bytes();
    let mut progress = |done, total| bar.at(done, total);
    let restored = restore(&backup, &*process, &source.boot(), options, &mut progress);
    drop(bar);
    tell(&restored?, arguments);
    Ok(())
}

fn tell(report: &Report, arguments: &RestoreArguments) {
    for line in &report.left {
        eprintln!("procmemfs: not restored: {line}");
    }
    let verb = if arguments.dry_run {
        "would be written"
    } else {
        "written"
    };
    println!(
        "process {}: {} bytes in {} mappings {verb}, of {} compared",
        arguments.pid, report.written, report.mappings, report.compared
    );
}
