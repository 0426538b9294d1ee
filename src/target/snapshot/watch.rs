//! Who takes a snapshot, and who sees to it that no process stands still for longer than that takes.

use crate::common::error::{Error, Result};
use crate::common::sync::Mutex;
use crate::common::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::target::Stopped;

/// What the thread that copies and the one that waits for it share.
#[derive(Debug, Default)]
pub struct Watch {
    is_given_up: AtomicBool,
    /// What was done so far, in steps of no given size.
    progress: AtomicU64,
    /// The processes that stand still. Nothing else is locked while this is, and none is let go meanwhile.
    stopped: Mutex<Vec<Box<dyn Stopped>>>,
}

impl Watch {
    /// Takes note that something was done.
    ///
    /// # Errors
    /// `Interrupted` where it was given up.
    pub fn advance(&self) -> Result<()> {
        self.progress.fetch_add(1, Ordering::Relaxed);
        match self.is_given_up.load(Ordering::Acquire) {
            true => Err(Error::Interrupted),
            false => Ok(()),
        }
    }

    /// What was done so far: it has moved where something was done since.
    pub fn progress(&self) -> u64 {
        self.progress.load(Ordering::Relaxed)
    }

    /// Holds a process until all are released.
    ///
    /// # Errors
    /// `Interrupted` where it was given up, and then it goes on.
    pub(super) fn hold(&self, process: Box<dyn Stopped>) -> Result<()> {
        self.stopped.lock().push(process);
        // Given up meanwhile: nobody else would let it go.
        self.advance().inspect_err(|_| self.release())
    }

    /// Lets all go on.
    pub(super) fn release(&self) {
        let stopped = std::mem::take(&mut *self.stopped.lock());
        // Outside the lock: whoever is let go is waited for.
        drop(stopped);
    }

    /// Lets all go on, and has the copy end as soon as it notices.
    pub fn give_up(&self) {
        self.is_given_up.store(true, Ordering::Release);
        self.release();
    }
}
