//! The threads that serve the rings.
//!
//! Each has a ring of its own, in which one entry waits for a request, on the processor whose requests come there: so it answers without
//! waking another processor, and a target that does not answer holds up one entry alone. Where the last thread of a processor is
//! busy another one is started. An entry whose request somebody else is to answer leaves its thread, which goes on with a
//! new entry; answered, it goes to a thread that has none.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use parking_lot::{Condvar, Mutex, MutexGuard};
use rustix::thread::{CpuSet, sched_setaffinity};

use super::entry::{Alias, Entry, EntryMemory, EntryNumber, Turn};
use super::reply::EntryReply;
use super::request::Asked;
use super::ring::{Command, Ring};
use crate::common::{other_work, threads};
use crate::server::{Buffers, Operation, Reply, Respond, Server};

/// Threads of a queue that wait for requests, at least: a new entry is given none that came before it
/// (`fuse_uring_do_register` in `fs/fuse/dev_uring.c`), so it has to be there in time. As many as the kernel sends at a time
/// where it reads ahead: else those that come last begin after the first ones have been given up.
const WAITING: usize = 8;

/// How long a thread that serves a request is given to return, before its payload is taken from it, which takes longer.
const LOOKS: u32 = 10_000;

/// How often a thread without an entry looks for one that somebody else has answered.
const LOOK: Duration = Duration::from_millis(100);

/// What this thread does.
#[derive(Debug, Default)]
enum Here {
    #[default]
    Waiting,
    /// It serves the request in this entry.
    Serving(EntryNumber),
    /// That request has its answer.
    Answered(Box<Entry>),
    /// The same, and the entry has another thread.
    Given,
}

thread_local! {
    static HERE: RefCell<Here> = const { RefCell::new(Here::Waiting) };
}

/// An entry, and what the kernel is to be told of it.
type Next = (Box<Entry>, Command);

/// The requests of one processor.
#[derive(Debug, Default)]
struct Queue {
    /// Threads that wait for one.
    waiting: AtomicUsize,
    /// Entries for them.
    entries: AtomicUsize,
    /// Those of them whose requests somebody else is to answer.
    lent: AtomicUsize,
    /// The entry that has served a small request last.
    nearest: AtomicU64,
}

impl Queue {
    /// Whether there are fewer entries than so many, besides those that are lent.
    fn has_fewer_than(&self, most: usize) -> bool {
        let lent = self.lent.load(Ordering::Relaxed);
        self.entries.load(Ordering::Relaxed).saturating_sub(lent) < most
    }

    /// Whether what is in this entry is best served near whoever asks: if it is small, since they have nothing else to do; else by the one
    /// thread that the kernel asks first, and far by all others.
    fn is_near(&self, is_large: bool, EntryNumber(entry): EntryNumber) -> bool {
        if !is_large {
            self.nearest.store(entry, Ordering::Relaxed);
        }
        self.nearest.load(Ordering::Relaxed) == entry
    }

    /// Whether too few threads wait for requests.
    fn is_lacking(&self) -> bool {
        self.waiting.load(Ordering::Acquire) < WAITING
    }
}

#[derive(Debug)]
struct State {
    /// Those that no thread has.
    rings: Vec<Ring>,
    /// Answered by somebody else, for a thread to go on with.
    late: VecDeque<Box<Entry>>,
    /// Queues that lack a thread.
    lacking: VecDeque<u16>,
    /// Threads that have no entry, and were not called yet.
    idle: usize,
}

/// What the threads share.
#[derive(Debug)]
pub(super) struct Threads {
    server: Arc<Server>,
    device: Arc<OwnedFd>,
    memory: EntryMemory,
    queues: Vec<Queue>,
    /// Entries of one queue, besides those that are lent.
    most: usize,
    /// Whether the mount is gone.
    has_ended: AtomicBool,
    /// There are as many rings as entries and as threads that targets may hold up, so that whatever entry comes back finds a thread. Nothing is
    /// locked inside it.
    state: Mutex<State>,
    changed: Condvar,
}

impl Threads {
    pub(super) fn new(
        server: Arc<Server>,
        device: OwnedFd,
        memory: EntryMemory,
        rings: Vec<Ring>,
        queues: usize,
        most: usize,
    ) -> Self {
        Self {
            server,
            device: Arc::new(device),
            memory,
            queues: (0..queues).map(|_| Queue::default()).collect(),
            // One besides those that wait.
            most: most.max(WAITING + 1),
            has_ended: AtomicBool::new(false),
            state: Mutex::new(State {
                rings,
                late: VecDeque::new(),
                lacking: VecDeque::new(),
                idle: 0,
            }),
            changed: Condvar::new(),
        }
    }

    /// The connection.
    pub(super) fn device(&self) -> &Arc<OwnedFd> {
        &self.device
    }

    /// Starts a thread for each queue. The kernel uses the rings once it has an entry for each.
    ///
    /// # Errors
    /// Where the system has no thread or memory left.
    pub(super) fn start(self: &Arc<Self>) -> io::Result<()> {
        for queue in 0..self.queues.len() {
            let queue = u16::try_from(queue).map_err(io::Error::other)?;
            let first = self.fresh(queue)?;
            let first = first.ok_or_else(|| io::Error::other("no entry for each processor"))?;
            self.start_thread(&mut self.state.lock(), first)?;
        }
        Ok(())
    }

    fn queue(&self, number: u16) -> &Queue {
        &self.queues[usize::from(number)]
    }

    /// A new entry; `None` where there are enough.
    fn fresh(&self, queue: u16) -> io::Result<Option<Next>> {
        let entry = self.memory.entry(queue)?;
        Ok(entry.map(|entry| {
            self.queue(queue).entries.fetch_add(1, Ordering::Relaxed);
            (Box::new(entry), Command::Register)
        }))
    }

    /// Starts a thread, if there is a ring for it.
    fn start_thread(
        self: &Arc<Self>,
        state: &mut MutexGuard<'_, State>,
        first: Next,
    ) -> io::Result<()> {
        let ring = state.rings.pop();
        let ring = ring.ok_or_else(|| io::Error::other("no ring is left"))?;
        let name = format!("ring-{}", first.0.queue());
        // What does not become a thread's is not lost.
        let for_thread = Arc::new(Mutex::new(Some((ring, first))));
        let (shared, taken) = (Arc::clone(self), Arc::clone(&for_thread));
        let started = threads::start(&name, move || {
            let given = taken.lock().take();
            if let Some((ring, first)) = given {
                shared.run(ring, first);
            }
        });
        if started.is_err()
            && let Some((ring, (entry, command))) = for_thread.lock().take()
        {
            state.rings.push(ring);
            match command {
                Command::Commit => state.late.push_front(entry),
                Command::Register => {
                    self.queue(entry.queue())
                        .entries
                        .fetch_sub(1, Ordering::Relaxed);
                }
            }
        }
        started
    }

    /// What a thread does: it waits for a request in its entry, and serves it.
    fn run(self: &Arc<Self>, mut ring: Ring, first: Next) {
        let mut place = Place::default();
        let mut next = Some(first);
        let shared = Arc::clone(self);
        other_work::first(move || shared.hand_over());
        while let Some((mut entry, command)) = next.take() {
            let number = entry.queue();
            let queue = self.queue(number);
            queue.waiting.fetch_add(1, Ordering::AcqRel);
            let received = ring.exchange(self.device.as_fd(), &mut entry, command);
            let others = queue.waiting.fetch_sub(1, Ordering::AcqRel) - 1;
            if let Err(error) = received {
                queue.entries.fetch_sub(1, Ordering::Relaxed);
                // The request was given up, and the entry with it.
                if error.raw_os_error() != Some(Errno::ENOENT as i32) {
                    self.end(&error);
                }
                next = self.another(number);
                continue;
            }
            if others < WAITING {
                self.lack(number);
            }
            let answered = self.serve(entry, &mut place);
            next = match answered {
                Some(entry) => Some((entry, Command::Commit)),
                None => self.another(number),
            };
        }
    }

    /// Serves the request in an entry, where this thread serves it best; `None` where somebody else has answered it, or is to.
    fn serve(self: &Arc<Self>, mut entry: Box<Entry>, place: &mut Place) -> Option<Box<Entry>> {
        let number = entry.queue();
        let incoming = entry.receive();
        let (asked, len) = (incoming.asked(), incoming.payload.len());
        let is_near = self
            .queue(number)
            .is_near(incoming.is_large(), entry.number());
        place.choose(number, is_near, self.queues.len());
        let alias = entry.alias();
        HERE.set(Here::Serving(entry.number()));
        let reply = |size| EntryReply::new(entry, Arc::clone(self), size);
        let mut turn = None;
        match asked {
            Asked::Serve(request, size) => {
                let reply = reply(size);
                let buffers = buffers(&alias, &request.operation, len, &mut turn);
                self.server.serve(request, buffers, reply);
            }
            Asked::Release(handle) => {
                reply(0).respond(Ok(Reply::Done));
                self.server.release(handle);
            }
            Asked::Done => {
                reply(0).respond(Ok(Reply::Done));
            }
            Asked::Refused(errno) => {
                reply(0).respond(Err(errno));
            }
        }
        let here = HERE.take();
        // Last: until then whoever answers leaves the entry here.
        let left = turn.and_then(|turn| alias.release(turn));
        match here {
            Here::Answered(entry) => Some(entry),
            Here::Given => None,
            Here::Waiting | Here::Serving(_) if left.is_some() => left,
            Here::Waiting | Here::Serving(_) => {
                self.queue(number).lent.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }

    /// Gives away what this thread has answered: it goes on with the work of others, which may take for ever.
    fn hand_over(self: &Arc<Self>) {
        match HERE.take() {
            Here::Answered(entry) => {
                HERE.set(Here::Given);
                entry.alias().end_turn();
                self.queue(entry.queue())
                    .lent
                    .fetch_add(1, Ordering::Relaxed);
                self.late(entry);
            }
            Here::Given => HERE.set(Here::Given),
            // What it served is somebody else's to answer, and nothing that it answers now is in an entry of its own.
            Here::Waiting | Here::Serving(_) => (),
        }
    }

    /// Takes an entry whose request has its answer: for the thread that serves it, or any other.
    pub(super) fn answered(self: &Arc<Self>, entry: Box<Entry>) {
        let is_ours = HERE
            .with_borrow(|here| matches!(here, Here::Serving(number) if *number == entry.number()));
        if is_ours {
            HERE.set(Here::Answered(entry));
            return;
        }
        let alias = entry.alias();
        if let Some(entry) = alias.leave(entry) {
            return self.late(entry);
        }
        // The thread that serves it is about to return, or waits for the target.
        for _ in 0..LOOKS {
            std::hint::spin_loop();
        }
        let Some(mut entry) = alias.take_back() else {
            return;
        };
        let parted = entry.part(&self.memory);
        let late = match parted {
            Ok(()) => Some(entry),
            Err(error) => {
                log::debug!("an answer waits for its thread: {error}");
                alias.leave(entry)
            }
        };
        if let Some(entry) = late {
            self.late(entry);
        }
    }

    /// Takes an entry that has its answer and no thread.
    fn late(self: &Arc<Self>, entry: Box<Entry>) {
        self.queue(entry.queue())
            .lent
            .fetch_sub(1, Ordering::Relaxed);
        let mut state = self.state.lock();
        state.late.push_back(entry);
        self.employ(state);
    }

    /// Another entry for a thread that has lost its own, as soon as there is one that needs a thread; `None` once the mount is gone.
    fn another(self: &Arc<Self>, number: u16) -> Option<Next> {
        let mut state = self.state.lock();
        if self.queue(number).is_lacking() {
            state.lacking.push_back(number);
        }
        loop {
            if self.has_ended.load(Ordering::Acquire) {
                return None;
            }
            if let Some(next) = self.next(&mut state) {
                return Some(next);
            }
            state.idle += 1;
            // Looks by itself while something is to come, should nobody have been able to call it.
            let is_awaited = |queue: &Queue| queue.lent.load(Ordering::Relaxed) > 0;
            if !self.queues.iter().any(is_awaited) {
                self.changed.wait(&mut state);
            } else if self.changed.wait_for(&mut state, LOOK).timed_out() {
                state.idle -= 1;
            }
        }
    }

    /// What a thread is to go on with: an entry that has its answer, or a new one for a queue that lacks a thread.
    fn next(&self, state: &mut MutexGuard<'_, State>) -> Option<Next> {
        if let Some(entry) = state.late.pop_front() {
            return Some((entry, Command::Commit));
        }
        while let Some(number) = state.lacking.pop_front() {
            let queue = self.queue(number);
            // Somebody may have come back meanwhile.
            if !queue.is_lacking() || !queue.has_fewer_than(self.most) {
                continue;
            }
            match self.fresh(number) {
                Ok(Some(next)) => return Some(next),
                Ok(None) => log::debug!("as many requests as there can be at a time"),
                Err(error) => log::debug!("no memory for more requests: {error}"),
            }
        }
        None
    }

    /// Sees to it that a queue has a thread that waits, as its last one is busy now.
    fn lack(self: &Arc<Self>, number: u16) {
        if self.queue(number).has_fewer_than(self.most) {
            let mut state = self.state.lock();
            state.lacking.push_back(number);
            self.employ(state);
        }
    }

    /// Has an idle thread see to what there is to do, or starts one.
    fn employ(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        if state.idle > 0 {
            // Counted by whoever calls it: two calls are for two threads.
            state.idle -= 1;
            drop(state);
            self.changed.notify_one();
            return;
        }
        // Where every ring has a thread, one was called that has not come to it yet, or is about to lose its entry.
        while !state.rings.is_empty()
            && let Some(next) = self.next(&mut state)
        {
            if let Err(error) = self.start_thread(&mut state, next) {
                log::error!("no thread for more requests: {error}");
                return;
            }
        }
    }

    /// The end of the mount: for all of them.
    fn end(&self, error: &io::Error) {
        if !self.has_ended.swap(true, Ordering::AcqRel) {
            log::debug!("the rings have ended: {error}");
        }
        // Whoever is about to wait has looked before, or waits by now.
        drop(self.state.lock());
        self.changed.notify_all();
    }
}

/// The payload, as the server is to use it.
fn buffers<'a>(
    alias: &'a Alias,
    operation: &Operation,
    len: usize,
    turn: &mut Option<Turn>,
) -> Buffers<'a> {
    if !matches!(operation, Operation::Read { .. } | Operation::Write { .. }) {
        return Buffers::none();
    }
    // SAFETY: this thread alone serves the request, once, and releases it after that.
    let (bytes, begun) = unsafe { alias.bytes() };
    *turn = Some(begun);
    match operation {
        Operation::Write { .. } => Buffers::of(&bytes[..len]),
        _ => Buffers {
            data: &[],
            room: bytes,
        },
    }
}

/// Where a thread runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// Anywhere.
    #[default]
    Anywhere,
    /// On the processor whose requests it serves: no other one is woken for it.
    Near(u16),
    /// On any but that: whoever asks goes on there meanwhile, where the kernel reads ahead.
    Far(u16),
}

impl Place {
    /// Has this thread run on this processor, or on the others of so many.
    fn choose(&mut self, processor: u16, is_near: bool, processors: usize) {
        let wanted = match is_near {
            true => Self::Near(processor),
            false => Self::Far(processor),
        };
        if *self == wanted {
            return;
        }
        *self = wanted;
        let mut set = CpuSet::new();
        for each in 0..processors.min(CpuSet::MAX_CPU) {
            if (each == usize::from(processor)) == is_near {
                set.set(each);
            }
        }
        // There may be none, or none that this program may use. Elsewhere it serves as well, and more slowly.
        if let Err(errno) = sched_setaffinity(None, &set) {
            log::debug!("a thread is not bound to processor {processor}: {errno}");
        }
    }
}
