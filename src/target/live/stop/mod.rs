//! Stopping a process: all its threads together, for as long as somebody needs them to stand still.
//!
//! A thread of its own traces them (`PTRACE_SEIZE`), since tracing belongs to one thread, and its end lets all of them go in
//! any case: also those that never stopped, which cannot be let go otherwise, and also where this program is killed.

#[cfg(target_arch = "x86_64")]
mod inject;
#[cfg(not(target_arch = "x86_64"))]
#[path = "no_inject.rs"]
mod inject;
mod ptrace;
#[cfg(test)]
mod tests;
mod tracking;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use rustix::fs::Dir;

use super::interrupted::retry;
use super::kernel::Kernel;
use super::pinned::Pinned;
use super::text::field;
use super::tracker::LiveTracker;
use crate::common::address::AddressRange;
use crate::common::error::{Error, Result};
use crate::common::metrics::Metrics;
use crate::common::room::has_room_for_a_thread;
use crate::target::mapping::{Mapping, Protection};
use crate::target::{RegisterSet, Stopped, ThreadRegisters, WriteTracker, register_kind as kind};
use ptrace::Waited;

/// How long threads that can run may take until the next of them has stopped: on a busy host each must get a processor first.
const LONGEST_RUN: Duration = Duration::from_secs(1);

/// How long the others stand still for threads that are all in the kernel and may not come out.
const LONGEST_WAIT: Duration = Duration::from_millis(50);

/// How long is looked again and again without sleeping: as long as an idle processor may take to wake.
const SPIN: Duration = Duration::from_micros(100);

/// How long is slept between two looks after that.
const PAUSE: Duration = Duration::from_micros(20);

/// Kinds of sets of registers that threads of this architecture may have; a thread has some of them.
const REGISTER_SETS: &[u32] = &[
    kind::PRSTATUS,
    kind::PRFPREG,
    kind::PRXFPREG,
    kind::X86_XSTATE,
    kind::X86_TLS,
    kind::X86_SHSTK,
    kind::ARM_TLS,
    kind::ARM_SVE,
    kind::ARM_PAC_MASK,
    kind::ARM_TAGGED_ADDR_CTRL,
];

/// Asks the thread that traces for a `userfaultfd` of the process, whose vDSO lies there.
#[derive(Debug)]
struct Wish {
    vdso: AddressRange,
    answer: Sender<std::result::Result<OwnedFd, Failure>>,
}

/// Why a process is left alone.
type Refusal = &'static str;

/// Why there is no `userfaultfd` of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    /// It is left alone.
    Refused(Refusal),
    /// One of its threads is in the middle of it, and comes back by itself when it is let go.
    #[cfg_attr(
        not(target_arch = "x86_64"),
        expect(dead_code, reason = "no thread is made to run anything")
    )]
    Lost,
}

/// A live process that stands still.
#[derive(Debug)]
struct Halted {
    pinned: Arc<Pinned>,
    kernel: Arc<Kernel>,
    threads: Vec<ThreadRegisters>,
    /// Dropped to let it go on.
    hold: Option<Sender<Wish>>,
    tracer: Option<JoinHandle<()>>,
}

impl Stopped for Halted {
    fn threads(&self) -> &[ThreadRegisters] {
        &self.threads
    }

    fn track_writes(
        &self,
        mappings: &[Arc<Mapping>],
        tracked: &[AddressRange],
        advance: &dyn Fn() -> Result<()>,
    ) -> Result<Box<dyn WriteTracker>> {
        let pid = self.pinned.identity().pid;
        let refused = |why| Error::Untracked(pid, why);
        let all = mappings.iter().map(|mapping| &**mapping);
        tracking::check(&self.pinned, &self.kernel, all.clone()).map_err(refused)?;
        let vdso = all.clone().find(|mapping| mapping.is_vdso());
        // As the kernel lays it out. Elsewhere nothing could be run.
        let vdso = vdso.filter(|it| it.protection() == CODE);
        let vdso = vdso.ok_or(refused("it has no vDSO"))?.range();
        advance()?;
        let userfault = self.userfaultfd(vdso).map_err(|failure| match failure {
            Failure::Refused(why) => refused(why),
            Failure::Lost => Error::Unstoppable(pid),
        })?;
        let pagemap = self.pinned.pagemap();
        let tracker = LiveTracker::new(userfault, pagemap, &self.kernel)
            .map_err(|_| refused("the kernel has no UFFD_FEATURE_WP_ASYNC (Linux 6.7)"))?;
        for range in tracked {
            tracker.track(*range, advance)?;
        }
        Ok(Box::new(tracker))
    }
}

/// What the vDSO may be used for.
const CODE: Protection = Protection {
    read: true,
    write: false,
    execute: true,
    shared: false,
};

impl Halted {
    fn userfaultfd(&self, vdso: AddressRange) -> std::result::Result<OwnedFd, Failure> {
        const DIED: Failure = Failure::Refused("the thread that traces it has ended");
        let (answer, answered) = channel();
        let hold = self.hold.as_ref().ok_or(DIED)?;
        hold.send(Wish { vdso, answer }).map_err(|_| DIED)?;
        answered.recv().map_err(|_| DIED)?
    }
}

impl Drop for Halted {
    fn drop(&mut self) {
        drop(self.hold.take());
        // It goes on once that thread has let it go.
        if let Some(tracer) = self.tracer.take() {
            let _ = tracer.join();
        }
    }
}

/// Stops all threads of a process; a thread that does not stop has no registers.
///
/// # Errors
/// `Traced`, `OwnMemory` for this program itself, `ProcessDenied`, `NoProcess`, `Replaced`, `System`.
pub(super) fn stop(
    pinned: &Arc<Pinned>,
    kernel: &Arc<Kernel>,
    metrics: &Arc<Metrics>,
) -> Result<Box<dyn Stopped>> {
    if pinned.identity().pid.get() == std::process::id() {
        return Err(Error::OwnMemory);
    }
    if !has_room_for_a_thread() {
        return Err(Error::system("a thread that traces", Errno::ENOMEM));
    }
    let (hold, wishes) = channel();
    let (answer, answered) = channel();
    let tracer = {
        let (pinned, metrics) = (Arc::clone(pinned), Arc::clone(metrics));
        std::thread::Builder::new()
            .name("tracer".to_owned())
            .spawn(move || trace(&pinned, &metrics, &answer, &wishes))
            .map_err(|error| Error::system("a thread that traces", super::errno_of(&error)))?
    };
    let mut halted = Halted {
        pinned: Arc::clone(pinned),
        kernel: Arc::clone(kernel),
        threads: Vec::new(),
        hold: Some(hold),
        tracer: Some(tracer),
    };
    let died = Error::system("a thread that traces", Errno::EIO);
    halted.threads = answered.recv().map_err(|_| died)??;
    Ok(Box::new(halted))
}

/// Stops the process, tells of its registers, and holds it until nobody needs that any more.
fn trace(
    pinned: &Pinned,
    metrics: &Metrics,
    answer: &Sender<Result<Vec<ThreadRegisters>>>,
    wishes: &Receiver<Wish>,
) {
    let begun = Instant::now();
    let mut tracees = Tracees::default();
    let stopped = tracees.stop_all(pinned);
    let threads = stopped.map(|()| tracees.registers());
    let is_held = threads.is_ok();
    if answer.send(threads).is_ok() && is_held {
        // It ends when the other side is dropped.
        while let Ok(Wish { vdso, answer }) = wishes.recv() {
            let _ = answer.send(inject::userfaultfd(pinned, &mut tracees.0, vdso));
        }
    }
    tracees.release();
    if is_held {
        metrics.stops.increment();
        metrics.stop_duration.observe(begun.elapsed());
    }
}

/// A thread that is traced.
#[derive(Debug)]
struct Tracee {
    tid: i32,
    state: Waited,
}

/// The threads of one process.
#[derive(Debug, Default)]
struct Tracees(Vec<Tracee>);

impl Tracees {
    /// Stops all threads, and those that these have started meanwhile, but for those that do not stop.
    ///
    /// # Errors
    /// `Traced`, `ProcessDenied`, and where it is not the pinned process.
    fn stop_all(&mut self, pinned: &Pinned) -> Result<()> {
        loop {
            let known = self.0.len();
            for tid in threads(pinned)? {
                if self.0.iter().all(|tracee| tracee.tid != tid) {
                    self.seize(pinned, tid)?;
                }
            }
            if self.0.len() == known {
                break;
            }
            self.wait(pinned);
        }
        // A number that was a thread's when it was listed is one still: else it was given to another process.
        let alive = threads(pinned)?;
        self.0.retain(|tracee| alive.contains(&tracee.tid));
        pinned.confirm()
    }

    fn seize(&mut self, pinned: &Pinned, tid: i32) -> Result<()> {
        let pid = pinned.identity().pid;
        match ptrace::seize(tid) {
            Ok(()) => (),
            Err(Errno::ESRCH) => return Ok(()),
            Err(Errno::EPERM) => {
                return match tracer_of(pinned, tid) {
                    Tracer::Nobody => Err(Error::ProcessDenied(pid)),
                    Tracer::Somebody => Err(Error::Traced(pid)),
                    // It ends, and has no registers any more.
                    Tracer::NotThere => Ok(()),
                };
            }
            Err(errno) => return Err(Error::system("PTRACE_SEIZE", errno)),
        }
        let state = match ptrace::interrupt(tid) {
            Ok(()) => Waited::Running,
            Err(_) => Waited::Ended,
        };
        self.0.push(Tracee { tid, state });
        Ok(())
    }

    /// Waits until all have stopped, or those that have not are not likely to.
    fn wait(&mut self, pinned: &Pinned) {
        let begun = Instant::now();
        let mut progress = begun;
        loop {
            let mut running = false;
            for tracee in &mut self.0 {
                if tracee.state == Waited::Running {
                    tracee.state = ptrace::poll(tracee.tid);
                    match tracee.state {
                        Waited::Running => running = true,
                        _ => progress = Instant::now(),
                    }
                }
            }
            let waited = progress.elapsed();
            if !running || waited >= LONGEST_RUN {
                return;
            }
            if waited >= LONGEST_WAIT && !self.can_run(pinned) {
                return;
            }
            // Not by giving the processor up: where others want it, too, it comes back some milliseconds later. Whoever sleeps
            // goes before them.
            match begun.elapsed() < SPIN {
                true => std::hint::spin_loop(),
                false => std::thread::sleep(PAUSE),
            }
        }
    }

    /// Whether any that has not stopped yet is not waiting in the kernel.
    fn can_run(&self, pinned: &Pinned) -> bool {
        let running = self.0.iter().filter(|it| it.state == Waited::Running);
        running
            .filter_map(|tracee| status(pinned, tracee.tid))
            .any(|status| !field(&status, b"State:").is_some_and(|state| state.starts_with('D')))
    }

    /// The registers of all that live, the first thread first; none of those that have not stopped.
    fn registers(&self) -> Vec<ThreadRegisters> {
        let alive = self.0.iter().filter(|it| it.state != Waited::Ended);
        let registers = alive.map(|tracee| {
            let tid = tracee.tid;
            if tracee.state == Waited::Running {
                return ThreadRegisters {
                    tid,
                    ..ThreadRegisters::default()
                };
            }
            let sets = REGISTER_SETS.iter().filter_map(|kind| {
                let bytes = ptrace::register_set(tid, *kind)?;
                Some(RegisterSet { kind: *kind, bytes })
            });
            let signal = match tracee.state {
                Waited::Signal(_) => ptrace::signal_info(tid).ok(),
                Waited::Stopped | Waited::Running | Waited::Ended => None,
            };
            ThreadRegisters {
                tid,
                sets: sets.collect(),
                signal,
            }
        });
        registers.collect()
    }

    /// Lets all go on that have stopped.
    fn release(&mut self) {
        for Tracee { tid, state } in self.0.drain(..) {
            match state {
                Waited::Stopped => ptrace::detach(tid, 0),
                Waited::Signal(signal) => ptrace::detach(tid, signal),
                // The end of this thread lets them go.
                Waited::Running | Waited::Ended => (),
            }
        }
    }
}

/// Who traces a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tracer {
    Nobody,
    Somebody,
    /// The thread is not there any more.
    NotThere,
}

fn tracer_of(pinned: &Pinned, tid: i32) -> Tracer {
    let Some(status) = status(pinned, tid) else {
        return Tracer::NotThere;
    };
    let state = field(&status, b"State:").unwrap_or("X");
    match field(&status, b"TracerPid:") {
        _ if state.starts_with(['Z', 'X']) => Tracer::NotThere,
        Some("0") | None => Tracer::Nobody,
        Some(_) => Tracer::Somebody,
    }
}

fn status(pinned: &Pinned, tid: i32) -> Option<Vec<u8>> {
    pinned.thread_contents(tid, "status").ok()
}

/// The numbers of the threads of a process, lowest first.
///
/// # Errors
/// As [`Pinned::open_file`].
pub(super) fn threads(pinned: &Pinned) -> Result<Vec<i32>> {
    let system = |errno: rustix::io::Errno| {
        Error::system("listing threads", Errno::from_raw(errno.raw_os_error()))
    };
    let mut names = Dir::new(pinned.open_file("task")?).map_err(system)?;
    let mut tids = Vec::new();
    while let Some(entry) = retry(|| names.read().transpose()).map_err(system)? {
        let name = entry.file_name().to_str().ok();
        tids.extend(name.and_then(|name| name.parse::<i32>().ok()));
    }
    let first = pinned.identity().pid.as_pid_t();
    tids.sort_unstable_by_key(|tid| (*tid != first, *tid));
    Ok(tids)
}
