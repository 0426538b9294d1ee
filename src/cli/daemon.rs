//! The daemon: in the background, and until somebody unmounts or a signal asks for the end.

use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use procmemfs::mount::{Mount, Unmounted, Unmounter};

/// How long the end waits for threads that serve requests: the mount is gone by then.
const LAST_CALLS: Duration = Duration::from_millis(300);

/// Goes on as a process without a terminal. The mount is there and whoever comes waits for an answer: the
/// shell may have its prompt back.
///
/// # Errors
/// Where the system has no process left.
pub(super) fn go_to_background() -> Result<()> {
    nix::unistd::daemon(false, false).context("going to the background")
}

/// Answers until somebody unmounts or a signal asks for the end.
///
/// # Errors
/// Where a thread cannot be started, or talking to the kernel fails.
pub(super) fn serve(mount: Mount) -> Result<()> {
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
