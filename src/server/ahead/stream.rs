//! One open file that is read from front to back, and what was read of it ahead.

use std::collections::VecDeque;
use std::time::Duration;

use crate::common::sync::atomic::{AtomicU64, Ordering};
use crate::common::sync::{Condvar, Mutex, MutexGuard};
use crate::server::admission::Target;
use crate::target::cache::Epoch;

/// Bytes that are read ahead at a time. Four of these stay in the cache of a processor until they are taken.
pub(super) const WINDOW: usize = 256 << 10;

/// Windows that are filled, or are to be, at a time.
const WINDOWS: usize = 4;

/// How long a window that is being filled is waited for: longer than that takes, unless the target does not answer.
const PATIENCE: Duration = Duration::from_millis(5);

/// How often it is looked at before the thread sleeps: waking it costs more than to fill a window.
const LOOKS: u32 = 20_000;

/// Reads in a row before it is read ahead.
const IN_A_ROW: u32 = 2;

/// One open file.
#[derive(Debug)]
pub(in crate::server) struct Stream {
    /// The process that it waits for, and for whom.
    target: Target,
    /// Guards what was read. Nothing is locked inside it, and nothing is read.
    state: Mutex<State>,
    /// The last window that was filled, or given up: for whoever waits for it.
    done: AtomicU64,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Where the next read begins, if there is no jump.
    next: u64,
    /// Reads in a row.
    run: u32,
    /// How much the reader reads by itself before the next window, in bytes: what it has just read by itself, since
    /// a helper comes too late for what follows at once.
    lead: u64,
    /// Neighbours, the first of which holds `next` or begins there.
    windows: VecDeque<Window>,
    /// The number of the last window that there was.
    numbered: u64,
    /// Memory of windows that were taken.
    spare: Vec<Box<[u8]>>,
}

#[derive(Debug)]
struct Window {
    number: u64,
    offset: u64,
    content: Content,
}

#[derive(Debug)]
enum Content {
    /// Nobody has begun to fill it.
    Wanted,
    /// Somebody fills it.
    Filling,
    /// So many of its bytes were there, as of an epoch.
    Filled(Box<[u8]>, usize, Epoch),
}

/// A window that is to be filled.
#[derive(Debug)]
pub(super) struct Filling {
    pub(super) number: u64,
    pub(super) offset: u64,
    pub(super) bytes: Box<[u8]>,
}

impl Stream {
    /// A file that nothing was read of.
    pub(in crate::server) fn new(target: Target) -> Self {
        Self {
            target,
            state: Mutex::default(),
            done: AtomicU64::new(0),
            changed: Condvar::new(),
        }
    }

    /// The process that it waits for, and for whom.
    pub(super) fn target(&self) -> Target {
        self.target
    }

    /// Whether all of these bytes were read ahead, and are still `valid`.
    pub(in crate::server) fn holds(
        &self,
        offset: u64,
        len: usize,
        valid: impl Fn(Epoch) -> bool,
    ) -> bool {
        let Some(end) = offset.checked_add(len as u64) else {
            return false;
        };
        let state = self.state.lock();
        let mut at = offset;
        for window in &state.windows {
            match &window.content {
                Content::Filled(_, len, epoch) if window.offset <= at && valid(*epoch) => {
                    at = at.max(window.offset + *len as u64);
                }
                _ => break,
            }
        }
        offset == state.next && at >= end
    }

    /// Takes what was read ahead from `offset` on, and returns how many bytes that is. What is not `valid` any more is dropped.
    pub(super) fn take(
        &self,
        offset: u64,
        buffer: &mut [u8],
        valid: impl Fn(Epoch) -> bool,
    ) -> usize {
        let mut state = self.state.lock();
        if offset != state.next {
            state.jump(offset);
            return 0;
        }
        let mut taken = 0;
        while taken < buffer.len() {
            let at = offset + taken as u64;
            let Some(first) = state.windows.pop_front() else {
                break;
            };
            if first.offset > at {
                // The reader comes to it later.
                state.windows.push_front(first);
                break;
            }
            if at - first.offset >= WINDOW as u64 {
                // The reader has passed it.
                state.give_up(first);
                continue;
            }
            match first.content {
                Content::Filling => {
                    let number = first.number;
                    state.windows.push_front(first);
                    if self.wait(&mut state, number) {
                        continue;
                    }
                }
                Content::Filled(bytes, len, epoch) => {
                    // Copied outside the lock: a helper that had to wait for it would sleep.
                    let skipped = (at - first.offset) as usize;
                    let left = bytes[..len].get(skipped..);
                    let left = left.filter(|_| valid(epoch)).unwrap_or_default();
                    let count = left.len().min(buffer.len() - taken);
                    MutexGuard::unlocked(&mut state, || {
                        buffer[taken..taken + count].copy_from_slice(&left[..count]);
                    });
                    taken += count;
                    if skipped + count == WINDOW {
                        state.keep(bytes);
                        continue;
                    }
                    // The rest is for the next read.
                    if count > 0 && state.next == offset {
                        let content = Content::Filled(bytes, len, epoch);
                        state.windows.push_front(Window { content, ..first });
                        continue;
                    }
                    state.keep(bytes);
                }
                // Nobody has come to it: it is read here.
                Content::Wanted => state.lead = (buffer.len() - taken) as u64,
            }
            // It was not begun with, took too long, ended early, or is too old: what follows it is of no use, either.
            state.drop_windows();
            break;
        }
        taken
    }

    /// Waits until this window was filled, or given up; returns whether it was in time. The reader has nothing else to do: it
    /// sleeps only where that takes long.
    fn wait(&self, state: &mut MutexGuard<'_, State>, number: u64) -> bool {
        let is_done = || self.done.load(Ordering::Acquire) >= number;
        let in_time = MutexGuard::unlocked(state, || {
            (0..LOOKS).any(|_| {
                std::hint::spin_loop();
                is_done()
            })
        });
        in_time || is_done() || {
            self.changed.wait_for(state, PATIENCE);
            is_done()
        }
    }

    /// Takes note that bytes up to `end` were answered, all that were asked for, or fewer; returns how many windows are
    /// wanted now.
    pub(super) fn answered(&self, end: u64, is_whole: bool) -> usize {
        let mut state = self.state.lock();
        state.next = end;
        state.run = if is_whole {
            state.run.saturating_add(1)
        } else {
            0
        };
        if !is_whole {
            state.drop_windows();
        }
        if state.run < IN_A_ROW {
            return 0;
        }
        // One more with each read: who reads a little and no more has little read in vain.
        let most = WINDOWS.min((state.run - IN_A_ROW + 1) as usize);
        let mut wanted = 0;
        while state.windows.len() < most {
            let last = state.windows.back();
            let (from, by) = last.map_or((end, state.lead), |last| (last.offset, WINDOW as u64));
            let Some(offset) = from.checked_add(by) else {
                break;
            };
            state.lead = 0;
            state.numbered += 1;
            let number = state.numbered;
            state.windows.push_back(Window {
                number,
                offset,
                content: Content::Wanted,
            });
            wanted += 1;
        }
        wanted
    }

    /// The first window that nobody has begun to fill.
    pub(super) fn begin(&self) -> Option<Filling> {
        let mut state = self.state.lock();
        let is_wanted = |window: &&mut Window| matches!(window.content, Content::Wanted);
        let window = state.windows.iter_mut().find(is_wanted)?;
        window.content = Content::Filling;
        let (number, offset) = (window.number, window.offset);
        let bytes = state.spare.pop();
        drop(state);
        Some(Filling {
            number,
            offset,
            bytes: bytes.unwrap_or_else(|| vec![0; WINDOW].into_boxed_slice()),
        })
    }

    /// The end of that: so many bytes of the window were there, as of `epoch`; `None` where it was given up.
    pub(super) fn end(&self, filling: Filling, filled: Option<(usize, Epoch)>) {
        let Filling { number, bytes, .. } = filling;
        let mut state = self.state.lock();
        let window = state.windows.iter_mut().find(|it| it.number == number);
        match (window, filled) {
            (Some(window), Some((len, epoch))) => {
                window.content = Content::Filled(bytes, len, epoch);
            }
            (Some(_), None) => {
                state.keep(bytes);
                state.drop_windows();
            }
            // There was a jump meanwhile.
            (None, _) => state.keep(bytes),
        }
        self.done.fetch_max(number, Ordering::AcqRel);
        self.changed.notify_all();
    }

    /// Drops all that was read ahead, and its memory.
    pub(super) fn drop_windows(&self) {
        let mut state = self.state.lock();
        state.windows.clear();
        state.spare.clear();
    }
}

impl State {
    fn jump(&mut self, offset: u64) {
        self.next = offset;
        self.run = 0;
        self.lead = 0;
        self.drop_windows();
    }

    fn drop_windows(&mut self) {
        for window in std::mem::take(&mut self.windows) {
            self.give_up(window);
        }
    }

    fn give_up(&mut self, window: Window) {
        if let Content::Filled(bytes, ..) = window.content {
            self.keep(bytes);
        }
    }

    /// Keeps memory for the next window: what was used last is used first, since it is in the cache.
    fn keep(&mut self, bytes: Box<[u8]>) {
        if self.spare.len() < WINDOWS {
            self.spare.push(bytes);
        }
    }
}
