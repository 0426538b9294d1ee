//! The command `procmemfs`: arguments, the daemon and its log.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use nix::sys::signal::{SigSet, Signal};
use procmemfs::mount::{Mode, Mount, MountConfig, Supervisor, Unmounted, Unmounter};

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
  pid=PID[:PID...]   show these processes only (default: all)
  threads=N          threads that serve requests (default: by the CPUs)
  nosuid, nodev, noexec, nosymfollow, fsname=NAME ... as every file system takes
                     them; rw is one of these and means nothing, since mount(8) passes it

Examples:
  procmemfs /mnt                        show all processes below /mnt
  ls -l /mnt/1234                       the mappings of process 1234
  grep -c secret /mnt/1234/heap         look for a string in its heap
  dd if=/mnt/1234/stack bs=4K count=1 | xxd
  procmemfs -o write,pid=1234 /mnt      one process only, to be written
  umount /mnt                           (or: fusermount3 -u /mnt)";

/// Show the memory of live processes as files.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = EXAMPLES,
    override_usage = "procmemfs [-f] [-d] [-o OPTION[,OPTION...]]... [SOURCE] MOUNTPOINT"
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
    #[arg(num_args = 1..=2, required = true, value_name = "MOUNTPOINT")]
    paths: Vec<PathBuf>,
}

fn main() -> ExitCode {
    if let Some(supervisor) = Supervisor::wanted() {
        return match supervisor.run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("procmemfs: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let config = MountConfig::parse(arguments.options.iter().map(String::as_str))?;
    let mountpoint = arguments.paths.last().context("no mount point")?;
    if config.rw && config.mode == Mode::Look && !is_called_by_mount(std::env::args_os().skip(1)) {
        eprintln!(
            "procmemfs: hint: rw means nothing here and memory cannot be written: -o write lets it be"
        );
    }
    let foreground = arguments.foreground || arguments.debug;
    if foreground {
        log_to_stderr(arguments.debug);
    }
    let mount = Mount::new(&config, mountpoint)?;
    if !foreground {
        // The mount is there and whoever comes waits for an answer: the shell may have its prompt back.
        nix::unistd::daemon(false, false).context("going to the background")?;
        log_to_syslog();
    }
    serve(mount)
}

/// Whether the arguments have the form in which mount(8) calls a file system, which adds `rw` by itself:
/// `SOURCE MOUNTPOINT -o OPTIONS` (`mount.fuse.c` of libfuse). People give no source, or options first.
fn is_called_by_mount(arguments: impl Iterator<Item = OsString>) -> bool {
    let arguments: Vec<OsString> = arguments.collect();
    let is_flag = |argument: &OsString| argument.as_encoded_bytes().starts_with(b"-");
    match arguments.as_slice() {
        [source, mountpoint, flag, _] => !is_flag(source) && !is_flag(mountpoint) && flag == "-o",
        _ => false,
    }
}

/// Answers until somebody unmounts or a signal asks for the end.
fn serve(mount: Mount) -> Result<()> {
    let mut ends = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        ends.add(signal);
    }
    // Before the first thread is started, so that all of them leave the signals to the one below.
    ends.thread_block().context("blocking signals")?;
    if let Err(error) = mount.supervise() {
        log::info!("nobody will end the mount where this daemon is killed and cannot end: {error}");
    }
    let serving = mount.start().context("starting threads")?;
    let mut waiting = Ok(());
    serving
        .wait(|unmounter| waiting = wait_for_signals(ends, unmounter))
        .context("serving requests")?;
    waiting
}

/// How long the end waits for threads that serve requests: the mount is gone by then.
const LAST_CALLS: Duration = Duration::from_millis(300);

/// Unmounts when a signal comes.
fn wait_for_signals(ends: SigSet, unmounter: Unmounter) -> Result<()> {
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            if let Ok(signal) = ends.wait() {
                log::info!("{signal}: unmounting");
                match unmounter.unmount() {
                    // The other threads see the end and `main` returns, unless one is left behind
                    // in the memory of a target that does not answer.
                    Ok(Unmounted::Gone) => {
                        std::thread::sleep(LAST_CALLS);
                        std::process::exit(0);
                    }
                    // Whoever still has a file open gets ENOTCONN, as when any daemon ends.
                    Ok(Unmounted::Detached) => std::process::exit(0),
                    Err(error) => {
                        log::error!("unmounting: {error}");
                        std::process::exit(1);
                    }
                }
            }
        })
        .map(drop)
        .context("starting threads")
}

fn log_to_stderr(debug: bool) {
    // `fuser` tells at the level of info what we tell better.
    let filter = if debug { "debug" } else { "info,fuser=warn" };
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(filter)).init();
}

/// A daemon has no terminal: it tells the system's log, if there is one.
fn log_to_syslog() {
    let _ = syslog::init_unix(syslog::Facility::LOG_DAEMON, log::LevelFilter::Info);
    // Its standard error leads nowhere.
    std::panic::set_hook(Box::new(|info| log::error!("{info}")));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_mount_are_told_from_those_of_people() {
        let table: [(&[&str], bool); 7] = [
            (&["none", "/mnt", "-o", "rw,dev,suid"], true),
            (&["procmemfs", "/mnt", "-o", "rw"], true),
            (&["-o", "rw", "/mnt"], false),
            (&["/mnt", "-o", "rw"], false),
            (&["-o", "rw", "none", "/mnt"], false),
            (&["-f", "/mnt", "-o", "rw"], false),
            (&["none", "/mnt", "-orw"], false),
        ];
        for (arguments, expected) in table {
            let given = arguments.iter().map(OsString::from);
            assert_eq!(is_called_by_mount(given), expected, "{arguments:?}");
        }
    }
}
