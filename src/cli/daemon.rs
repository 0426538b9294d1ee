//! The daemon: in the background, and until somebody unmounts or a signal asks for the end.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use procfs::process::Process;
use procmemfs::mount::{Mount, UnknownCalls, Unmounted, Unmounter};
use sd_notify::NotifyState;

/// How long the end waits for threads that serve requests: the mount is gone by then.
const LAST_CALLS: Duration = Duration::from_millis(300);

/// Signals that ask for the end.
#[derive(Debug)]
pub(super) struct Ends(SigSet);

impl Ends {
    /// Holds them back from now on, in this thread and in those that it starts. What was ignored when the
    /// program was started, as `nohup` has it for SIGHUP, stays ignored.
    ///
    /// # Errors
    /// Where the system does not hold them back.
    pub(super) fn hold() -> Result<Self> {
        let ignored = Process::myself()
            .and_then(|process| process.status())
            .map_or(0, |status| status.sigign);
        let mut ends = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            // Held back it would not be ignored any more.
            if ignored & mask(signal) == 0 {
                ends.add(signal);
            }
        }
        ends.thread_block().context("blocking signals")?;
        Ok(Self(ends))
    }

    /// Takes one that has come, if there is any.
    ///
    /// # Errors
    /// The system's refusal.
    pub(super) fn came(&self) -> nix::Result<Option<Signal>> {
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let signals = SignalFd::with_flags(&self.0, flags)?;
        let number = signals.read_signal()?.map(|told| told.ssi_signo);
        Ok(number.and_then(|number| Signal::try_from(number as i32).ok()))
    }
}

/// The bit of a signal in the masks of `/proc/PID/status`.
fn mask(signal: Signal) -> u64 {
    1 << (signal as i32 - 1)
}

/// Goes on as a process without a terminal. The mount is there and whoever comes waits for an answer: the
/// shell may have its prompt back.
///
/// # Errors
/// Where the system has no process left, or a signal came while mounting.
pub(super) fn go_to_background(ends: &Ends) -> Result<()> {
    // A fork does not take along what came to the parent: that is dealt with here. What comes after this
    // check finds a process that is about to end, and a mount that answers.
    if let Some(signal) = ends.came().context("checking for signals")? {
        bail!("{signal} came while mounting: unmounted");
    }
    nix::unistd::daemon(false, false).context("going to the background")
}

/// Answers until somebody unmounts or a signal asks for the end.
///
/// # Errors
/// Where a thread cannot be started, or talking to the kernel fails.
pub(super) fn serve(mount: Mount, ends: &Ends, unknown_calls: UnknownCalls) -> Result<()> {
    if let Err(error) = mount.supervise() {
        log::info!("nobody will end the mount where this daemon is killed and cannot end: {error}");
    }
    // The supervisor could not be started after this, and a thread that is there already would be left out.
    mount.harden(unknown_calls)?;
    let serving = mount.start().context("starting threads")?;
    tell_service_manager(NotifyState::Ready);
    let ends = ends.0;
    let mut waiting = Ok(());
    serving
        .wait(|unmounter| waiting = wait_for_signals(ends, unmounter))
        .context("serving requests")?;
    tell_service_manager(NotifyState::Stopping);
    waiting
}

/// Tells whoever has started this as a service (sd_notify(3)): nobody, where `NOTIFY_SOCKET` is not set.
fn tell_service_manager(state: NotifyState<'_>) {
    let what = state.to_string();
    if let Err(error) = sd_notify::notify(&[state]) {
        log::warn!("the service manager could not be told {what}: {error}");
    }
}

/// Unmounts when a signal comes.
fn wait_for_signals(ends: SigSet, unmounter: Unmounter) -> Result<()> {
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            if let Ok(signal) = ends.wait() {
                log::info!("{signal}: unmounting");
                tell_service_manager(NotifyState::Stopping);
                match unmounter.unmount() {
                    // The other threads see the end and `main` returns, unless one still waits
                    // for the memory of a target that does not answer.
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
