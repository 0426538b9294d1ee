//! Telling the kernel that a write has outdated the pages that it keeps.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use fuser::{INodeNo, Notifier, ReplyWrite};
use parking_lot::{Condvar, Mutex};

use crate::common::contained::contained;
use crate::fs::Written;
use crate::tree::Inode;

/// An offset that stands for the attributes alone (`fuse_reverse_inval_inode` in `fs/fuse/inode.c`).
///
/// Without them the next read asks for the time of last modification, which the write has moved, and
/// drops the pages itself. To have them dropped here would wait for each page that is being read just
/// now, where no signal reaches: all writers would wait for a target that does not answer, and
/// readers would wait for ever for a daemon that was killed meanwhile.
const ATTRIBUTES: i64 = -1;

/// Inodes that may wait to be told: each is that of a file that somebody has open, and is there once.
const MOST_INODES: usize = 1 << 16;

/// Writers that may wait.
const MOST_WRITERS: usize = 4096;

/// What the kernel has yet to be told.
#[derive(Debug, Default)]
struct Batch {
    outdated: BTreeSet<Inode>,
    /// Writers to be answered then, and how many bytes they wrote.
    writers: Vec<(ReplyWrite, u32)>,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.outdated.is_empty() && self.writers.is_empty()
    }

    /// Takes inodes in; returns whether there is place for them.
    fn add(&mut self, outdated: &[Inode]) -> bool {
        if self.outdated.len() + outdated.len() > MOST_INODES {
            return false;
        }
        self.outdated.extend(outdated);
        true
    }

    fn work(self, notifier: &Notifier) {
        for Inode(inode) in self.outdated {
            // ENOENT: the kernel has dropped the whole inode meanwhile.
            if let Err(error) = notifier.inval_inode(INodeNo(inode), ATTRIBUTES, 0) {
                log::debug!("inode {inode} is not in the kernel's cache: {error}");
            }
        }
        for (reply, bytes) in self.writers {
            reply.written(bytes);
        }
    }
}

#[derive(Debug, Default)]
struct Queue {
    next: Mutex<(Batch, bool)>,
    wake: Condvar,
}

/// Answers writes after the kernel was told what they outdated.
///
/// It looks up the inode for that, and waits where it is just letting go of it, which takes until the
/// last page that is being read has come: from one of our threads. So the threads that serve
/// requests never tell it themselves: another one does, which nobody waits for. What comes up while
/// that waits is put together, each inode once.
#[derive(Debug)]
pub struct Outdated(Arc<Queue>);

/// The other end of [`Outdated`].
#[derive(Debug)]
pub struct Jobs(Arc<Queue>);

impl Outdated {
    /// A pair of ends.
    pub fn new() -> (Self, Jobs) {
        let queue = Arc::new(Queue::default());
        (Self(Arc::clone(&queue)), Jobs(queue))
    }

    /// Answers a write, at once where no file is buffered.
    pub(super) fn answer(&self, reply: ReplyWrite, written: &Written) {
        let bytes = written.bytes as u32;
        if written.outdated.is_empty() {
            return reply.written(bytes);
        }
        let mut next = self.0.next.lock();
        let batch = &mut next.0;
        if batch.writers.len() < MOST_WRITERS && batch.add(&written.outdated) {
            batch.writers.push((reply, bytes));
            self.0.wake.notify_one();
            return;
        }
        drop(next);
        // The bytes are there, and nobody can promise that all readers see them yet.
        reply.error(fuser::Errno::EAGAIN);
    }

    /// As [`answer`](Self::answer), for a write that nobody waits for any more.
    pub(super) fn tell(&self, written: &Written) {
        let mut next = self.0.next.lock();
        if next.0.add(&written.outdated) {
            self.0.wake.notify_one();
        }
    }
}

impl Drop for Outdated {
    fn drop(&mut self) {
        self.0.next.lock().1 = true;
        self.0.wake.notify_one();
    }
}

impl Jobs {
    /// Starts the thread that does it; it ends with the file system.
    ///
    /// # Errors
    /// Where the system has no thread left.
    pub(crate) fn serve(self, notifier: Notifier) -> io::Result<()> {
        std::thread::Builder::new()
            .name("outdate".to_owned())
            .spawn(move || {
                while let Some(batch) = self.next() {
                    contained(|| batch.work(&notifier));
                }
            })
            .map(drop)
    }

    /// What there is to tell; waits for it. `None` at the end.
    fn next(&self) -> Option<Batch> {
        let mut next = self.0.next.lock();
        while next.0.is_empty() {
            if next.1 {
                return None;
            }
            self.0.wake.wait(&mut next);
        }
        Some(std::mem::take(&mut next.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(inodes: impl IntoIterator<Item = u64>) -> Written {
        let outdated = inodes.into_iter().map(Inode).collect();
        Written { bytes: 1, outdated }
    }

    #[test]
    fn what_is_not_told_yet_is_held_once_and_bounded() {
        let (outdated, jobs) = Outdated::new();
        for _ in 0..1000 {
            outdated.tell(&written(0..100));
        }
        assert_eq!(outdated.0.next.lock().0.outdated.len(), 100);
        for from in 0..100 {
            outdated.tell(&written(from * 10_000..(from + 1) * 10_000));
        }
        let waiting = outdated.0.next.lock().0.outdated.len();
        assert!((10_000..=MOST_INODES).contains(&waiting), "{waiting}");
        assert_eq!(jobs.next().unwrap().outdated.len(), waiting);
        drop(outdated);
        assert!(jobs.next().is_none());
    }
}
