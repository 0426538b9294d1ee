//! Taking a snapshot: of one process, or of several at one moment.

use std::sync::Arc;
use std::time::Duration;

use super::budget::Budget;
use super::copy::copy;
use super::frozen::{FrozenMemory, FrozenProcess};
use super::layout::{Layout, Prepared};
use super::plan::plan;
use super::precopy::precopy;
use super::sharing::share;
use super::store::StoreSource;
use super::watch::Watch;
use crate::common::clock::Clock;
use crate::common::error::{Error, Result};
use crate::target::mapping::Mapping;
use crate::target::{
    DumpFacts, Process, ProcessInfo, ProcessMemory, ThreadRegisters, WriteTracker,
};

/// How often it is tried to stop a process of which a thread is in the kernel.
const ATTEMPTS: usize = 10;

/// How long it goes on between two attempts.
const BETWEEN: Duration = Duration::from_millis(50);

/// A process that is to be copied.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Which it is.
    pub info: Arc<ProcessInfo>,
    /// It, pinned.
    pub process: Arc<dyn Process>,
    /// Its memory, not by way of a cache.
    pub memory: Arc<dyn ProcessMemory>,
    /// A snapshot of the same program, with which pages that are the same are shared.
    pub earlier: Option<Arc<FrozenProcess>>,
}

/// A snapshot that is to be taken.
#[derive(Debug)]
pub struct Capture {
    /// The processes, all of them at one moment.
    pub subjects: Vec<Subject>,
    /// The thread that waits for it, in the kernel: it need not stop, since it does not run. 0 where there is none.
    pub waiting_thread: i32,
    /// The identification of the boot.
    pub boot: String,
    /// Where pages go.
    pub stores: Arc<dyn StoreSource>,
    /// How many of them there may be.
    pub budget: Arc<Budget>,
    /// Whether memory is copied while processes still run, where what they write can be tracked.
    pub tracks_writes: bool,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// What is known of a process that stands still.
struct Still {
    facts: DumpFacts,
    executable: Vec<u8>,
    mappings: Arc<[Arc<Mapping>]>,
    threads: Vec<ThreadRegisters>,
    layout: Layout,
}

impl Capture {
    /// Takes it. Nobody stands still any more when it is there, nor where it is not.
    ///
    /// # Errors
    /// `Traced`, `Unstoppable`, `NoRoom`, `Interrupted`, `Ended`, `Replaced`, and what the processes say.
    pub fn take(&self, watch: &Watch) -> Result<Vec<FrozenProcess>> {
        let taken = self.take_held(watch);
        watch.release();
        taken
    }

    fn take_held(&self, watch: &Watch) -> Result<Vec<FrozenProcess>> {
        // Memory is taken before anybody stands still: that takes longer than filling it.
        let prepared = self
            .subjects
            .iter()
            .map(|subject| self.prepare(subject, watch));
        let mut prepared: Vec<Prepared> = prepared.collect::<Result<_>>()?;
        // When all is prepared, since processes have some disadvantage for as long as they are tracked.
        let pairs = self.subjects.iter().zip(&mut prepared);
        let trackers = pairs.map(|(subject, prepared)| self.precopy(subject, prepared, watch));
        let trackers: Vec<_> = trackers.collect::<Result<_>>()?;
        let threads = self.stop_all(watch)?;
        let taken = self.clock.wall();
        let ready = prepared.into_iter().zip(&trackers);
        let subjects = self.subjects.iter().zip(ready).zip(threads);
        let still = subjects.map(|((subject, (prepared, tracker)), threads)| {
            self.look(subject, prepared, tracker.as_deref(), threads, watch)
        });
        let mut still: Vec<Still> = still.collect::<Result<_>>()?;
        let mut unreadable = Vec::new();
        for (still, subject) in still.iter_mut().zip(&self.subjects) {
            let targets = still.layout.targets();
            unreadable.push(copy(&*subject.memory, targets, watch)?);
            subject.memory.verify()?;
        }
        watch.release();
        // The kernel lifts what it protects then, for which the process need not stand still.
        drop(trackers);
        let parts = self.subjects.iter().zip(still).zip(unreadable);
        let frozen = parts.map(|((subject, still), unreadable)| {
            let mut runs = still.layout.finish(unreadable);
            if let Some(earlier) = &subject.earlier {
                runs = share(runs, &earlier.memory, watch)?;
            }
            let identity = subject.info.identity;
            Ok(FrozenProcess {
                info: Arc::clone(&subject.info),
                facts: still.facts,
                threads: still.threads,
                mappings: still.mappings,
                executable: still.executable,
                boot: self.boot.clone(),
                taken,
                memory: Arc::new(FrozenMemory::new(identity, runs)),
            })
        });
        frozen.collect()
    }

    fn prepare(&self, subject: &Subject, watch: &Watch) -> Result<Prepared> {
        let mappings = mappings(&*subject.process)?;
        let plans = plan(&*subject.memory, &mappings, watch)?;
        Prepared::new(&plans, &*self.stores, &self.budget, watch)
    }

    /// Copies what can be copied of a process while it runs; returns what tells what of that is good still.
    fn precopy(
        &self,
        subject: &Subject,
        prepared: &mut Prepared,
        watch: &Watch,
    ) -> Result<Option<Box<dyn WriteTracker>>> {
        match self.tracks_writes {
            true => precopy(subject, prepared, self.waiting_thread, watch),
            false => Ok(None),
        }
    }

    /// What there is to be known of a process, now that nothing of it changes, and where its pages go.
    fn look(
        &self,
        subject: &Subject,
        prepared: Prepared,
        tracker: Option<&dyn WriteTracker>,
        threads: Vec<ThreadRegisters>,
        watch: &Watch,
    ) -> Result<Still> {
        let process = &*subject.process;
        let mappings = mappings(process)?;
        let plans = plan(&*subject.memory, &mappings, watch)?;
        Ok(Still {
            facts: process.dump_facts()?,
            executable: process.executable()?,
            layout: Layout::new(plans, prepared, tracker, &*self.stores, &self.budget)?,
            mappings,
            threads,
        })
    }

    /// Stops all processes; returns the registers of their threads.
    fn stop_all(&self, watch: &Watch) -> Result<Vec<Vec<ThreadRegisters>>> {
        let mut attempt = 1;
        loop {
            match self.try_to_stop_all(watch) {
                // A thread that did not stop may have been let go a moment ago only.
                Err(Error::Traced(_)) if self.tracks_writes && attempt == 1 => {
                    watch.release();
                    std::thread::sleep(BETWEEN);
                    attempt += 1;
                }
                Err(Error::Unstoppable(_)) if attempt < ATTEMPTS => {
                    // Nobody waits for who waits.
                    watch.release();
                    watch.advance()?;
                    std::thread::sleep(BETWEEN);
                    attempt += 1;
                }
                answer => return answer,
            }
        }
    }

    fn try_to_stop_all(&self, watch: &Watch) -> Result<Vec<Vec<ThreadRegisters>>> {
        let registers = self.subjects.iter().map(|subject| {
            let stopped = subject.process.stop()?;
            let threads = stopped.threads().to_vec();
            let stands_still = stopped.stands_still(self.waiting_thread);
            watch.hold(stopped)?;
            match stands_still {
                true => Ok(threads),
                false => Err(Error::Unstoppable(subject.info.identity.pid)),
            }
        });
        registers.collect()
    }
}

/// All mappings of a process.
///
/// # Errors
/// As [`Process::address_space`].
pub(super) fn mappings(process: &dyn Process) -> Result<Arc<[Arc<Mapping>]>> {
    let space = process.address_space()?;
    Ok(space.into_mappings().into_iter().map(Arc::new).collect())
}
