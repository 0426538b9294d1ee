//! Reading ahead: what follows is read by another thread while the reader takes what was read.
//!
//! The kernel reads ahead by itself into its page cache. To fill that costs the reader more than a read of `/proc/PID/mem` does,
//! so large files are opened past it, and this takes its place: a few windows that stay in the processor's cache.
//! A helper begins with a window where the reader has not come to it, and the reader reads by itself what no helper has begun
//! with. So nothing is lost where all processors are busy but the order in which things are done.

mod stream;

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::admission::Admission;
use super::file_system::FileSystem;
use crate::common::contained::contained;
use crate::common::error::Result;
use crate::common::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::common::sync::{Condvar, Mutex, MutexGuard};
use crate::files::OpenFile;

pub(super) use stream::{Lent, Stream};

use stream::Filling;

/// The most threads that read ahead.
const MOST: usize = 8;

/// How long a helper looks for more work before it sleeps: to wake it takes as long as to fill a window.
const POLL: Duration = Duration::from_micros(200);

/// How often it looks at most, whatever the clock says. In models each look is a step.
const LOOKS: u32 = if cfg!(all(test, shuttle)) { 3 } else { 20_000 };

/// After so long without work a helper ends.
const LINGER: Duration = Duration::from_secs(1);

/// After so long without a read a file makes place for another one.
const UNUSED: Duration = Duration::from_millis(10);

/// A file of which a window is to be read.
#[derive(Debug)]
struct Job {
    stream: Arc<Stream>,
    file: Arc<dyn OpenFile>,
}

#[derive(Debug, Default)]
struct State {
    jobs: VecDeque<Job>,
    /// Helpers that are not at a target that does not answer.
    helpers: usize,
    /// Those of them that sleep.
    asleep: usize,
    /// Those that are there besides.
    stuck: usize,
    /// Files that could be read ahead, longest known first, and when they were read last: at most one more than there are
    /// processors.
    streams: Vec<(Weak<Stream>, Duration)>,
    has_ended: bool,
}

/// The files that are read ahead, and who does that.
#[derive(Debug)]
pub(super) struct ReadAhead {
    fs: Arc<FileSystem>,
    admission: Arc<Admission>,
    processors: usize,
    /// Helpers that may be at work at a time: there is a processor for each, besides that of a reader.
    most: usize,
    /// Guards what there is to do. Nothing is locked inside it, and nothing is read.
    state: Mutex<State>,
    /// Jobs that nobody has taken.
    waiting: AtomicUsize,
    work: Condvar,
}

impl ReadAhead {
    /// With so many processors.
    pub(super) fn new(fs: Arc<FileSystem>, admission: Arc<Admission>, processors: usize) -> Self {
        Self {
            fs,
            admission,
            processors,
            most: processors.saturating_sub(1).min(MOST),
            state: Mutex::default(),
            waiting: AtomicUsize::new(0),
            work: Condvar::new(),
        }
    }

    /// Reads a file from `offset` on: what was read ahead, and the rest now. Has read what follows.
    ///
    /// # Errors
    /// As [`OpenFile::read_at`], where not one byte was there.
    pub(super) fn read(
        self: &Arc<Self>,
        stream: &Arc<Stream>,
        file: &Arc<dyn OpenFile>,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<usize> {
        let context = self.fs.context();
        let freshness = context.freshness();
        let mut taken = 0;
        loop {
            let (at, rest) = (offset + taken as u64, &mut buffer[taken..]);
            taken += stream.take(at, rest, |epoch| freshness.is_valid(epoch));
            if taken == buffer.len() {
                break;
            }
            let Some(ended) = stream.awaited(offset + taken as u64) else {
                break;
            };
            // Rather than to wait for a helper, the reader does the work of one.
            match stream.begin_beside_helpers() {
                Some(filling) => {
                    self.fill(stream, file, filling);
                }
                None => stream.wait(ended),
            }
        }
        context.metrics().ahead_bytes.add(taken as u64);
        let rest = &mut buffer[taken..];
        let wanted = rest.len();
        let more = match wanted {
            0 => Ok(0),
            _ => file.read_at(context, offset + taken as u64, rest),
        };
        let (read, is_whole) = match more {
            Ok(more) => (taken + more, more == wanted),
            Err(_) if taken > 0 => (taken, false),
            Err(error) => return Err(error),
        };
        self.answered(stream, file, offset + read as u64, is_whole);
        Ok(read)
    }

    /// Bytes of a file, if all of them were read ahead in one window; has read what follows. Waits for nobody.
    pub(super) fn lend(
        self: &Arc<Self>,
        stream: &Arc<Stream>,
        file: &Arc<dyn OpenFile>,
        offset: u64,
        len: usize,
    ) -> Option<Lent> {
        let context = self.fs.context();
        let lent = stream.lend(offset, len, |epoch| context.freshness().is_valid(epoch))?;
        context.metrics().ahead_bytes.add(len as u64);
        self.answered(stream, file, offset + len as u64, true);
        Some(lent)
    }

    /// Takes bytes of a file, if all of them were read ahead, and has read what follows; returns whether that was so. Waits for
    /// nobody.
    pub(super) fn take_all(
        self: &Arc<Self>,
        stream: &Arc<Stream>,
        file: &Arc<dyn OpenFile>,
        offset: u64,
        buffer: &mut [u8],
    ) -> bool {
        let context = self.fs.context();
        let is_fresh = |epoch| context.freshness().is_valid(epoch);
        if !stream.holds(offset, buffer.len(), is_fresh)
            || stream.take(offset, buffer, is_fresh) < buffer.len()
        {
            return false;
        }
        context.metrics().ahead_bytes.add(buffer.len() as u64);
        self.answered(stream, file, offset + buffer.len() as u64, true);
        true
    }

    /// Takes note that the bytes of a file up to `end` were answered, all that were asked for, or fewer; has read what
    /// follows.
    fn answered(
        self: &Arc<Self>,
        stream: &Arc<Stream>,
        file: &Arc<dyn OpenFile>,
        end: u64,
        is_whole: bool,
    ) {
        let has_place = is_whole && self.has_place(stream);
        let wanted = stream.answered(end, has_place);
        if wanted == 0 {
            return;
        }
        let mut state = self.state.lock();
        for _ in 0..wanted {
            let (stream, file) = (Arc::clone(stream), Arc::clone(file));
            state.jobs.push_back(Job { stream, file });
        }
        self.waiting.store(state.jobs.len(), Ordering::Release);
        if state.asleep > 0 {
            self.work.notify_one();
        } else if state.helpers < self.most && !state.has_ended {
            state.helpers += 1;
            MutexGuard::unlocked(&mut state, || self.start_helper());
        }
    }

    /// Whether this file may be read ahead: as many at a time as there are helpers, and none where each processor has a reader of its
    /// own. More would take turns, and have nothing of it.
    fn has_place(&self, stream: &Arc<Stream>) -> bool {
        let now = self.fs.context().clock().now();
        let mut state = self.state.lock();
        let is_it = |known: &Weak<Stream>| std::ptr::eq(known.as_ptr(), Arc::as_ptr(stream));
        let is_unused = |(known, used): &mut (Weak<Stream>, Duration)| {
            let is_old = known.strong_count() == 0 || now.saturating_sub(*used) >= UNUSED;
            is_old && !is_it(known)
        };
        let unused: Vec<_> = state.streams.extract_if(.., is_unused).collect();
        let known = state.streams.iter().position(|(known, _)| is_it(known));
        let place = known.or_else(|| {
            let is_free = state.streams.len() <= self.processors;
            is_free.then(|| {
                state.streams.push((Arc::downgrade(stream), now));
                state.streams.len() - 1
            })
        });
        if let Some(place) = place {
            state.streams[place].1 = now;
        }
        let is_crowded = state.streams.len() > self.processors;
        drop(state);
        for gone in unused.iter().filter_map(|(stream, _)| stream.upgrade()) {
            gone.drop_windows();
        }
        !is_crowded && place.is_some_and(|place| place < self.most)
    }

    fn start_helper(self: &Arc<Self>) {
        let ahead = Arc::clone(self);
        let work = Box::new(move || ahead.help());
        if let Err(error) = self.admission.start("ahead", work) {
            log::debug!("no thread to read ahead: {error}");
            self.state.lock().helpers -= 1;
        }
    }

    /// What a helper does, until the end of the file system, or until it has waited for a target for too long.
    fn help(self: &Arc<Self>) {
        while let Some(job) = self.next_job() {
            let Some(filling) = job.stream.begin() else {
                continue;
            };
            let is_stuck = self.fill_attended(&job, filling);
            if is_stuck {
                // Another one has taken its place.
                self.state.lock().stuck -= 1;
                return;
            }
        }
        self.state.lock().helpers -= 1;
    }

    /// The next job, as soon as there is one; `None` where there is none for long, or at the end.
    fn next_job(&self) -> Option<Job> {
        let clock = self.fs.context().clock();
        let begun = clock.now();
        for _ in 0..LOOKS {
            if self.waiting.load(Ordering::Acquire) > 0 || clock.now() >= begun + POLL {
                break;
            }
            for _ in 0..50 {
                std::hint::spin_loop();
            }
        }
        let mut state = self.state.lock();
        loop {
            if state.has_ended {
                return None;
            }
            if let Some(job) = state.jobs.pop_front() {
                self.waiting.store(state.jobs.len(), Ordering::Release);
                return Some(job);
            }
            state.asleep += 1;
            let timed_out = self.work.wait_for(&mut state, LINGER).timed_out();
            state.asleep -= 1;
            if timed_out && state.jobs.is_empty() {
                return None;
            }
        }
    }

    /// Fills a window.
    fn fill(&self, stream: &Stream, file: &Arc<dyn OpenFile>, mut filling: Filling) -> bool {
        let mut filled = None;
        contained(|| {
            let Some(epoch) = self.fs.epoch(&**file) else {
                return;
            };
            let offset = filling.offset;
            let read = file.read_at(self.fs.context(), offset, filling.bytes());
            filled = read.ok().map(|read| (read, epoch));
        });
        stream.end(filling, filled);
        filled.is_some()
    }

    /// The same, if that may be begun now; returns whether it took too long.
    fn fill_attended(self: &Arc<Self>, job: &Job, filling: Filling) -> bool {
        let is_late = Arc::new(AtomicBool::new(false));
        let expire = {
            let (ahead, is_late) = (Arc::clone(self), Arc::clone(&is_late));
            move || ahead.replace_stuck(&is_late)
        };
        let target = job.stream.target();
        let Some(permit) = self.admission.enter_ahead(target, expire) else {
            job.stream.end(filling, None);
            return false;
        };
        let is_filled = self.fill(&job.stream, &job.file, filling);
        self.admission.leave_ahead(permit, is_filled);
        is_late.load(Ordering::Acquire)
    }

    /// A helper waits for a target that does not answer: another one takes its place, if there are not too many already.
    fn replace_stuck(self: &Arc<Self>, is_late: &AtomicBool) {
        let mut state = self.state.lock();
        if state.stuck >= self.most || state.has_ended {
            return;
        }
        is_late.store(true, Ordering::Release);
        state.stuck += 1;
        drop(state);
        self.start_helper();
    }

    /// The end of the file system: ends the helpers.
    pub(super) fn end(&self) {
        let mut state = self.state.lock();
        state.has_ended = true;
        state.jobs.clear();
        state.streams.clear();
        drop(state);
        self.work.notify_all();
    }
}

#[cfg(all(test, shuttle))]
mod models;
#[cfg(test)]
mod tests;
