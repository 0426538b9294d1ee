//! Pinned processes: one pin and one cache for all that is asked of one program, and all handles on it.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use lru::LruCache;

use super::Services;
use crate::common::clock::Clock;
use crate::common::error::{Error, Result};
use crate::common::recent::{Recent, sooner};
use crate::common::sync::Mutex;
#[cfg(doc)]
use crate::target::ProcessSource;
use crate::target::cache::DeniedMemory;
use crate::target::cache::{CachedMemory, Epoch, Freshness, SpaceEpoch};
use crate::target::{Credentials, Process, ProcessId, ProcessIdentity, ProcessInfo, ProcessMemory};

/// Processes that wait to be closed by whoever may wait for that; more are closed at once.
const CLOSING: usize = 4;

/// Processes that stay pinned after their last handle is closed, for the next `open` of a walk.
const KEPT: NonZeroUsize = NonZeroUsize::new(12).expect("not zero");

/// So few pinned processes that it is not looked for those that are closed.
const FEW: usize = 64;

/// Time between two looks at least for those that were listed and nobody uses any more.
const SWEEP: Duration = Duration::from_millis(250);

/// Callers of different credentials for whom the memory of one process is kept.
const JUDGED: NonZeroUsize = NonZeroUsize::new(8).expect("not zero");

/// Who has opened memory, and whether for writing too.
type Judged = (Arc<Credentials>, bool);

/// A pinned process: one for all that is asked of one program, and all handles on it.
#[derive(Debug)]
pub(crate) struct OpenProcess {
    process: Arc<dyn Process>,
    /// Its memory, by way of the cache where there is one; made when somebody asks for it.
    memory: OnceLock<Arc<dyn ProcessMemory>>,
    /// The same for others, as the kernel let them have it. Guards which there are: nothing is locked inside it, no process is
    /// asked, and none is dropped.
    judged: Mutex<LruCache<Judged, Arc<dyn ProcessMemory>>>,
    /// The freshness of all that is read from it.
    pub(super) epoch: SpaceEpoch,
    services: Services,
}

impl OpenProcess {
    fn new(process: Arc<dyn Process>, services: &Services) -> Self {
        Self {
            process,
            memory: OnceLock::new(),
            judged: Mutex::new(LruCache::new(JUDGED)),
            epoch: services.freshness.new_space(),
            services: services.clone(),
        }
    }

    pub(crate) fn identity(&self) -> &ProcessIdentity {
        self.process.identity()
    }

    /// The epoch that what is read of it from now on belongs to.
    pub(crate) fn current_epoch(&self, freshness: &Freshness) -> Epoch {
        freshness.current(&self.epoch)
    }

    pub(super) fn process(&self) -> &dyn Process {
        &*self.process
    }

    /// Its memory, by way of the cache where there is one.
    ///
    /// # Errors
    /// As [`Process::memory`].
    pub(super) fn memory(&self) -> Result<&Arc<dyn ProcessMemory>> {
        if let Some(memory) = self.memory.get() {
            return Ok(memory);
        }
        let memory = self.new_memory()?;
        // Where two make it at a time, one of them counts.
        Ok(self.memory.get_or_init(|| memory))
    }

    /// Its memory for whoever has these credentials, by way of the cache where there is one. Each call has the kernel judge that
    /// anew; all to whom it says the same share what they hold.
    ///
    /// # Errors
    /// As [`Process::memory_for`].
    pub(super) fn memory_for(
        &self,
        who: &Arc<Credentials>,
        write: bool,
    ) -> Result<Arc<dyn ProcessMemory>> {
        let memory = self.decorated(self.process.memory_for(who, write)?, Some(who.uid));
        let key = (Arc::clone(who), write);
        let mut judged = self.judged.lock();
        if let Some(known) = judged.get(&key) {
            return Ok(Arc::clone(known));
        }
        let evicted = judged.push(key, Arc::clone(&memory));
        drop(judged);
        // Outside the lock: this closes descriptors.
        drop(evicted);
        Ok(memory)
    }

    fn new_memory(&self) -> Result<Arc<dyn ProcessMemory>> {
        Ok(self.decorated(self.process.memory()?, None))
    }

    /// Memory by way of the cache, for a user, where that is not the mounter.
    fn decorated(
        &self,
        mut memory: Arc<dyn ProcessMemory>,
        user: Option<u32>,
    ) -> Arc<dyn ProcessMemory> {
        if self.identity().pid.get() == std::process::id() {
            memory = Arc::new(DeniedMemory::new(memory));
        }
        let Services {
            cache, freshness, ..
        } = &self.services;
        if freshness.bound().is_zero() {
            return memory;
        }
        let (cache, freshness) = (Arc::clone(cache), Arc::clone(freshness));
        let epoch = self.epoch.clone();
        Arc::new(CachedMemory::for_user(
            user, memory, cache, freshness, epoch,
        ))
    }

    /// Drops what is kept for speed alone: nobody has its memory open for now.
    pub(crate) fn drop_caches(&self) {
        if let Some(memory) = self.memory.get() {
            memory.drop_caches();
        }
        let judged = std::mem::replace(&mut *self.judged.lock(), LruCache::new(JUDGED));
        // Outside the lock: this closes descriptors.
        drop(judged);
    }
}

#[derive(Debug)]
struct State {
    /// All that are open, those in `recent`, `listed` and `closing` among them: one address space has one epoch. Some have been
    /// closed since.
    open: BTreeMap<ProcessIdentity, Weak<OpenProcess>>,
    /// So many of them that it is looked for those that are closed.
    many: usize,
    /// Those that were opened.
    recent: Recent<ProcessIdentity, Arc<OpenProcess>>,
    /// Those that were listed, and not opened: a walk looks up and lists them next.
    listed: Recent<ProcessIdentity, Arc<OpenProcess>>,
    /// Evicted from there, to be closed by whoever may wait for that; at most [`CLOSING`].
    closing: Vec<Arc<OpenProcess>>,
}

impl State {
    /// The one of this identity; `fresh` where there is none.
    fn add(&mut self, fresh: &Arc<OpenProcess>) -> Arc<OpenProcess> {
        let identity = *fresh.identity();
        if let Some(theirs) = self.get(&identity) {
            return theirs;
        }
        if self.open.len() >= self.many {
            self.open.retain(|_, process| process.strong_count() > 0);
            self.many = 2 * self.open.len().max(FEW);
        }
        self.open.insert(identity, Arc::downgrade(fresh));
        Arc::clone(fresh)
    }

    fn get(&self, identity: &ProcessIdentity) -> Option<Arc<OpenProcess>> {
        self.open.get(identity).and_then(Weak::upgrade)
    }

    /// Takes note that it is used.
    fn touch(&mut self, identity: &ProcessIdentity, now: Duration) {
        if self.listed.get(identity, now).is_none() {
            self.recent.get(identity, now);
        }
    }

    /// Keeps one that was opened. Returns one to be closed, outside the lock.
    #[must_use = "dropping it may close descriptors"]
    fn keep(&mut self, process: &Arc<OpenProcess>, now: Duration) -> Option<Arc<OpenProcess>> {
        let identity = *process.identity();
        let evicted = self.recent.push(identity, Arc::clone(process), now);
        self.closing.extend(evicted);
        let over = (self.closing.len() > CLOSING).then(|| self.closing.remove(0));
        debug_assert!(self.closing.len() <= CLOSING, "one more at a time");
        over
    }
}

/// The processes that are pinned.
#[derive(Debug)]
pub(super) struct OpenProcesses {
    services: Services,
    clock: Arc<dyn Clock>,
    /// Guards which processes are pinned. Nothing is locked inside it, no process is asked, and none is dropped:
    /// that closes descriptors and empties a cache.
    state: Mutex<State>,
}

impl OpenProcesses {
    pub(super) fn new(services: Services, clock: Arc<dyn Clock>) -> Self {
        let listed = NonZeroUsize::new(services.source.most_held()).unwrap_or(KEPT);
        Self {
            services,
            clock,
            state: Mutex::new(State {
                open: BTreeMap::new(),
                many: FEW,
                recent: Recent::new(KEPT),
                listed: Recent::new(listed),
                closing: Vec::new(),
            }),
        }
    }

    /// The process, pinned now or before.
    ///
    /// # Errors
    /// Whatever pinning it says; `Ended`, `Replaced` where it was pinned and is not the same any more.
    pub(super) fn open(&self, identity: &ProcessIdentity) -> Result<Arc<OpenProcess>> {
        if let Some(known) = self.known(identity) {
            if let Err(error) = known.process.verify() {
                self.keep_no_longer(identity);
                return Err(error);
            }
            let mut state = self.state.lock();
            let was_listed = state.listed.pop(identity);
            let over = was_listed.and_then(|process| state.keep(&process, self.clock.now()));
            drop(state);
            // Outside the lock, as below.
            drop(over);
            return Ok(known);
        }
        self.pin(identity)
    }

    /// Pins a process that was not.
    fn pin(&self, identity: &ProcessIdentity) -> Result<Arc<OpenProcess>> {
        let process = self.retry(|| self.services.source.open(identity))?;
        let fresh = Arc::new(OpenProcess::new(process, &self.services));
        let mut state = self.state.lock();
        // Somebody else may have pinned it meanwhile: theirs counts.
        let process = state.add(&fresh);
        let over = state.keep(&process, self.clock.now());
        drop(state);
        // Outside the lock: this may close descriptors and empty a cache.
        drop((over, fresh));
        Ok(process)
    }

    /// Does not keep a process for speed that is gone.
    fn keep_no_longer(&self, identity: &ProcessIdentity) {
        let mut state = self.state.lock();
        let gone = (state.recent.pop(identity), state.listed.pop(identity));
        drop(state);
        // Outside the lock: this may close descriptors and empty a cache.
        drop(gone);
    }

    /// What is to be known of the process that has this number, as [`ProcessSource::describe_for`] finds it. It stays
    /// pinned for a moment.
    ///
    /// # Errors
    /// As [`ProcessSource::describe_for`].
    pub(super) fn describe(
        &self,
        who: Option<&Credentials>,
        pid: ProcessId,
        timeout: Duration,
    ) -> Result<ProcessInfo> {
        for known in self.pinned_as(pid) {
            let process = known.process();
            let told = who
                .map_or(Ok(()), |who| process.check_visible(who))
                .and_then(|()| process.describe());
            // Any other error is that of a program that is gone, or about to go.
            if let Ok(_) | Err(Error::CallerDenied(_)) = told {
                return told;
            }
        }
        let describe = || self.services.source.describe_pinned(who, pid, timeout);
        let (info, process) = self.retry(describe)?;
        let fresh = Arc::new(OpenProcess::new(process, &self.services));
        let now = self.clock.now();
        let mut state = self.state.lock();
        // The first that are listed are walked through first: they stay, where there are more than there is room for.
        let process = (!state.listed.is_full()).then(|| state.add(&fresh));
        let pushed_out = process.and_then(|process| {
            let is_kept = state.recent.get(&info.identity, now).is_some();
            let listed = &mut state.listed;
            (!is_kept).then(|| listed.push(info.identity, process, now))
        });
        drop(state);
        // Outside the lock, as above.
        drop((pushed_out, fresh));
        Ok(info)
    }

    /// Programs that are pinned of whichever process had this number when it was.
    fn pinned_as(&self, pid: ProcessId) -> Vec<Arc<OpenProcess>> {
        let mut state = self.state.lock();
        let first = ProcessIdentity {
            pid,
            start_time: 0,
            pidfd_inode: 0,
            layout: [0; 2],
            random: 0,
        };
        let of_pid = state.open.range(first..);
        let pinned: Vec<_> = of_pid
            .take_while(|(identity, _)| identity.pid == pid)
            .filter_map(|(_, process)| process.upgrade())
            .collect();
        let now = self.clock.now();
        for process in &pinned {
            // They count as used.
            state.touch(process.identity(), now);
        }
        pinned
    }

    /// What `ask` says, asked again where it lacked descriptors or memory, after what is kept for speed alone was
    /// given up for it.
    ///
    /// # Errors
    /// What `ask` says.
    pub(super) fn retry<T>(&self, ask: impl Fn() -> Result<T>) -> Result<T> {
        match ask() {
            Err(error) if error.is_shortage() && self.close_kept() => ask(),
            answer => answer,
        }
    }

    /// Closes what is kept for speed alone; returns whether that was anything.
    fn close_kept(&self) -> bool {
        let mut state = self.state.lock();
        let mut kept = std::mem::take(&mut state.closing);
        kept.extend(state.recent.take_all());
        kept.extend(state.listed.take_all());
        drop(state);
        // Outside the lock: this closes descriptors.
        !kept.is_empty()
    }

    /// Closes what nobody has used for long; returns how long it is until there is more to close.
    pub(super) fn close_unused(&self) -> Option<Duration> {
        let mut state = self.state.lock();
        let evicted = std::mem::take(&mut state.closing);
        let now = self.clock.now();
        let (opened, next) = state.recent.take_unused(now);
        let (listed, next_listed) = state.listed.take_unused(now);
        drop(state);
        drop((evicted, opened, listed));
        // A walk uses one after another: they are not closed one by one.
        sooner(next, next_listed.map(|next| next.max(SWEEP)))
    }

    /// The process, if it is pinned.
    pub(super) fn known(&self, identity: &ProcessIdentity) -> Option<Arc<OpenProcess>> {
        let mut state = self.state.lock();
        let open = state.get(identity);
        if open.is_some() {
            // It counts as used.
            state.touch(identity, self.clock.now());
        }
        open
    }

    /// Whether the process that was seen as `identity` is still the same.
    ///
    /// # Errors
    /// `Ended`, `Replaced`, or why it cannot be known.
    pub(super) fn verify(&self, identity: &ProcessIdentity) -> Result<()> {
        if let Some(known) = self.known(identity) {
            return known.process.verify();
        }
        let source = &self.services.source;
        match source.describe_for(None, identity.pid, Duration::ZERO) {
            Ok(info) if info.identity == *identity => Ok(()),
            // In the middle of an exec it is not the program any more that it was.
            Ok(_) | Err(Error::TimedOut(_)) => Err(Error::Replaced(identity.pid)),
            Err(Error::NoProcess(pid)) => Err(Error::Ended(pid)),
            Err(error) => Err(error),
        }
    }

    /// What `ask` finds out of the process that was seen as `identity`.
    ///
    /// # Errors
    /// What pinning it and `ask` say; `NoProcess` where it has ended.
    pub(super) fn ask<T>(
        &self,
        identity: &ProcessIdentity,
        ask: impl Fn(&dyn Process) -> Result<T>,
    ) -> Result<T> {
        self.ask_pinned(identity, |process| ask(&**process))
    }

    /// As [`ask`](Self::ask), of who wants to keep it.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub(super) fn ask_pinned<T>(
        &self,
        identity: &ProcessIdentity,
        ask: impl Fn(&Arc<dyn Process>) -> Result<T>,
    ) -> Result<T> {
        // What is asked ends with a verification: it need not begin with one.
        let known = self.known(identity).map(|known| {
            let check = known.process.check_space();
            check.map(|()| known)
        });
        let answer = known
            .unwrap_or_else(|| self.pin(identity))
            .and_then(|open| self.retry(|| ask(&open.process)));
        if let Err(Error::Ended(_) | Error::Replaced(_) | Error::NoProcess(_)) = answer {
            self.keep_no_longer(identity);
        }
        answer.map_err(|error| match error {
            Error::Ended(pid) => Error::NoProcess(pid),
            error => error,
        })
    }

    /// Whether `identity` still runs, as far as a check of what is pinned, or its number alone, tells.
    pub(super) fn is_current(&self, identity: &ProcessIdentity) -> bool {
        match self.known(identity) {
            Some(known) => known.process.verify().is_ok(),
            None => self.services.source.is_current(identity),
        }
    }
}

#[cfg(test)]
mod tests;
