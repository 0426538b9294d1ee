//! One open file that is read from front to back, and what was read of it ahead.

use std::collections::VecDeque;
use std::ops::{Deref, Range};
use std::sync::Arc;
use std::time::Duration;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

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
/// In models each look is a step.
const LOOKS: u32 = if cfg!(all(test, shuttle)) { 3 } else { 20_000 };

/// Reads in a row before it is read ahead.
const IN_A_ROW: u32 = 2;

/// One open file.
#[derive(Debug)]
pub(in crate::server) struct Stream {
    /// The process that it waits for, and for whom.
    target: Target,
    /// Guards what was read. Nothing is locked inside it, and nothing is read.
    state: Mutex<State>,
    /// How many windows were filled, or given up: for whoever waits for one.
    ended: AtomicU64,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Where the next read begins, if there is no jump.
    next: u64,
    /// Reads in a row.
    run: u32,
    /// Neighbours, the first of which holds `next` or begins there.
    windows: VecDeque<Window>,
    /// The number of the last window that there was.
    numbered: u64,
    /// Memory of windows that were taken, and may be [lent](Lent) still.
    spare: Vec<Arc<[Page]>>,
}

#[derive(Debug)]
struct Window {
    number: u64,
    offset: u64,
    content: Content,
}

impl Window {
    fn end(&self) -> u64 {
        self.offset.saturating_add(WINDOW as u64)
    }

    fn is_filled(&self) -> bool {
        matches!(self.content, Content::Filled(..))
    }

    fn is_wanted(&self) -> bool {
        matches!(self.content, Content::Wanted)
    }
}

#[derive(Debug)]
enum Content {
    /// Nobody has begun to fill it.
    Wanted,
    /// Somebody fills it.
    Filling,
    /// So many of its bytes were there, as of an epoch.
    Filled(Arc<[Page]>, usize, Epoch),
}

/// A window that is to be filled.
#[derive(Debug)]
pub(super) struct Filling {
    number: u64,
    pub(super) offset: u64,
    /// Nobody else has them.
    pages: Arc<[Page]>,
}

impl Filling {
    /// Where its bytes go.
    pub(super) fn bytes(&mut self) -> &mut [u8] {
        Arc::make_mut(&mut self.pages).as_mut_bytes()
    }
}

/// Memory of a window: it is filled faster where pages go to pages.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C, align(4096))]
struct Page([u8; 4096]);

impl Page {
    fn of_a_window() -> Arc<[Self]> {
        vec![Self([0; 4096]); WINDOW / size_of::<Self>()].into()
    }
}

/// Bytes of a window, for whoever answers with them: they are not copied. Until it is dropped no other window is filled in their place.
#[derive(Debug)]
pub(in crate::server) struct Lent {
    window: Arc<[Page]>,
    range: Range<usize>,
}

impl Deref for Lent {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.window.as_bytes()[self.range.clone()]
    }
}

impl Stream {
    /// A file that nothing was read of.
    pub(in crate::server) fn new(target: Target) -> Self {
        Self {
            target,
            state: Mutex::default(),
            ended: AtomicU64::new(0),
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

    /// All of these bytes, where they were read ahead in one window, and are still `valid`. They are taken by that.
    pub(super) fn lend(
        &self,
        offset: u64,
        len: usize,
        valid: impl Fn(Epoch) -> bool,
    ) -> Option<Lent> {
        let mut state = self.state.lock();
        let first = state.windows.front().filter(|_| offset == state.next)?;
        let Content::Filled(bytes, filled, epoch) = &first.content else {
            return None;
        };
        let start = usize::try_from(offset.checked_sub(first.offset)?).ok()?;
        let end = start.checked_add(len).filter(|end| end <= filled)?;
        if !valid(*epoch) {
            return None;
        }
        let lent = Lent {
            window: Arc::clone(bytes),
            range: start..end,
        };
        if end == WINDOW
            && let Some(taken) = state.windows.pop_front()
        {
            state.give_up(taken);
        }
        Some(lent)
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
            // Another request may have read on meanwhile.
            while let Some(passed) = state.pop_if(|first| first.end() <= at) {
                state.give_up(passed);
            }
            let Some(first) = state.pop_if(|first| first.is_filled() && first.offset <= at) else {
                break;
            };
            let Content::Filled(bytes, len, epoch) = first.content else {
                break;
            };
            // Copied outside the lock: a helper that had to wait for it would sleep.
            let skipped = (at - first.offset) as usize;
            let left = bytes.as_bytes()[..len].get(skipped..);
            let left = left.filter(|_| valid(epoch)).unwrap_or_default();
            let count = left.len().min(buffer.len() - taken);
            MutexGuard::unlocked(&mut state, || {
                buffer[taken..taken + count].copy_from_slice(&left[..count]);
            });
            taken += count;
            let is_alone = state.next == at;
            if is_alone {
                state.next = at + count as u64;
            }
            if skipped + count == WINDOW {
                state.keep(bytes);
            } else if count > 0 && is_alone {
                // The rest is for the next read.
                let content = Content::Filled(bytes, len, epoch);
                state.windows.push_front(Window { content, ..first });
            } else {
                // It ended early, or is too old: what follows it is of no use, either.
                state.keep(bytes);
                state.drop_windows();
                break;
            }
        }
        taken
    }

    /// Whether the byte at `at` is to lie in a window that is not filled yet; where it is, how many were ended until now.
    pub(super) fn awaited(&self, at: u64) -> Option<u64> {
        let state = self.state.lock();
        let first = state.windows.front()?;
        let is_in_it = first.offset <= at && at < first.end();
        (is_in_it && !first.is_filled()).then(|| self.ended.load(Ordering::Acquire))
    }

    /// Waits until another window was ended than those `ended`; gives up all of them where that takes long. The reader has nothing else
    /// to do: it sleeps only then.
    pub(super) fn wait(&self, ended: u64) {
        let is_done = || self.ended.load(Ordering::Acquire) != ended;
        let is_soon = (0..LOOKS).any(|_| {
            std::hint::spin_loop();
            is_done()
        });
        if is_soon {
            return;
        }
        let mut state = self.state.lock();
        if !is_done() {
            self.changed.wait_for(&mut state, PATIENCE);
        }
        if !is_done() {
            state.drop_windows();
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
            let offset = last.map_or(end, Window::end);
            if offset.checked_add(WINDOW as u64).is_none() {
                break;
            }
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
        self.begin_at(|windows| windows.iter().position(Window::is_wanted))
    }

    /// A window for the reader to fill, rather than to wait: the first one, if nobody has begun with it; else the last, if that leaves work for
    /// helpers: one that finds none sleeps, and to wake it takes as long as to fill a window.
    pub(super) fn begin_beside_helpers(&self) -> Option<Filling> {
        self.begin_at(|windows| {
            if windows.front()?.is_wanted() {
                return Some(0);
            }
            let wanted = windows.iter().filter(|window| window.is_wanted());
            let last = windows.iter().rposition(Window::is_wanted);
            last.filter(|_| wanted.count() > 1)
        })
    }

    fn begin_at(&self, choose: impl FnOnce(&VecDeque<Window>) -> Option<usize>) -> Option<Filling> {
        let mut state = self.state.lock();
        let chosen = choose(&state.windows)?;
        let window = &mut state.windows[chosen];
        window.content = Content::Filling;
        let (number, offset) = (window.number, window.offset);
        let pages = state.spare();
        drop(state);
        Some(Filling {
            number,
            offset,
            pages: pages.unwrap_or_else(Page::of_a_window),
        })
    }

    /// The end of that: so many bytes of the window were there, as of `epoch`; `None` where it was given up.
    pub(super) fn end(&self, filling: Filling, filled: Option<(usize, Epoch)>) {
        let Filling { number, pages, .. } = filling;
        let mut state = self.state.lock();
        let window = state.windows.iter_mut().find(|it| it.number == number);
        match (window, filled) {
            (Some(window), Some((len, epoch))) => {
                window.content = Content::Filled(pages, len, epoch);
            }
            (Some(_), None) => {
                state.keep(pages);
                state.drop_windows();
            }
            // There was a jump meanwhile.
            (None, _) => state.keep(pages),
        }
        self.ended.fetch_add(1, Ordering::AcqRel);
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
        self.drop_windows();
    }

    /// The first window, if it is one of these.
    fn pop_if(&mut self, is_meant: impl FnOnce(&Window) -> bool) -> Option<Window> {
        let is_meant = self.windows.front().is_some_and(is_meant);
        is_meant.then(|| self.windows.pop_front()).flatten()
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

    /// Memory for a window that nobody has: what was used last, since it is in the cache.
    fn spare(&mut self) -> Option<Arc<[Page]>> {
        let is_free = |pages: &mut Arc<[Page]>| Arc::get_mut(pages).is_some();
        let last = self.spare.iter_mut().rposition(is_free)?;
        Some(self.spare.remove(last))
    }

    /// Keeps memory for another window.
    fn keep(&mut self, pages: Arc<[Page]>) {
        if self.spare.len() < WINDOWS {
            self.spare.push(pages);
        }
    }
}
