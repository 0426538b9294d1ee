//! The invalidation queue: telling the kernel that a write has made the pages that it keeps stale.

use std::collections::BTreeSet;
use std::fmt::{self, Debug};
use std::io;
use std::sync::Arc;

use super::Inode;
use crate::common::contained::contained;
use crate::common::sync::{Condvar, Mutex, thread};

/// Tells the kernel, on whatever transport.
pub(crate) trait Invalidate: Send + 'static {
    /// Has the kernel forget the attributes of an inode.
    ///
    /// Without them the next read asks for the time of last modification, which the write has moved, and
    /// drops the pages itself. To have them dropped here would wait for each page that is being read just
    /// now, where no signal reaches: all writers would wait for a target that does not answer, and
    /// readers would wait for ever for a daemon that was killed meanwhile.
    ///
    /// # Errors
    /// `ENOENT` where the kernel has dropped the whole inode meanwhile.
    fn invalidate_attributes(&self, inode: Inode) -> io::Result<()>;
}

/// A kernel that keeps nothing.
#[cfg(any(test, feature = "fuzzing"))]
impl Invalidate for () {
    fn invalidate_attributes(&self, _inode: Inode) -> io::Result<()> {
        Ok(())
    }
}

/// Inodes that may wait to be told: each is that of a file that somebody has open, and is there once.
const MOST_INODES: usize = 1 << 16;

/// Writers that may wait.
const MOST_WRITERS: usize = 4096;

/// Answers a write; true where the kernel was told, or is about to be.
type Answer = Box<dyn FnOnce(bool) + Send>;

/// What the kernel has yet to be told.
#[derive(Default)]
struct Batch {
    stale: BTreeSet<Inode>,
    /// Writers to be answered then.
    writers: Vec<Answer>,
}

impl Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("stale", &self.stale)
            .field("writers", &self.writers.len())
            .finish()
    }
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.stale.is_empty() && self.writers.is_empty()
    }

    /// Takes inodes in; returns whether there is place for them.
    fn add(&mut self, stale: &[Inode]) -> bool {
        if self.stale.len() + stale.len() > MOST_INODES {
            return false;
        }
        self.stale.extend(stale);
        true
    }

    /// Tells the kernel what is stale, and answers the writers.
    fn invalidate(self, kernel: &impl Invalidate) {
        for inode in self.stale {
            if let Err(error) = kernel.invalidate_attributes(inode) {
                log::debug!("inode {inode} is not in the kernel's cache: {error}");
            }
        }
        for answer in self.writers {
            answer(true);
        }
    }
}

/// What waits for the thread that tells the kernel.
#[derive(Debug, Default)]
struct Pending {
    batch: Batch,
    /// Nobody will add to it any more.
    has_ended: bool,
}

#[derive(Debug, Default)]
struct Queue {
    /// Guards what waits. It is not held while the kernel is told or a writer is answered, and nothing is locked
    /// inside it.
    pending: Mutex<Pending>,
    /// Wakes the thread that waits for more.
    wake: Condvar,
}

/// Answers writes after the kernel was told what they made stale.
///
/// The kernel looks up the inode for that. Where it is about to drop the inode it waits until the last page that is
/// being read has come: from one of our threads. So the threads that serve requests never tell it themselves:
/// another one does, which nobody waits for. What comes up while that one waits is put together, each inode once.
#[derive(Debug)]
pub(crate) struct Invalidations(Arc<Queue>);

/// The other end of [`Invalidations`].
#[derive(Debug)]
pub(crate) struct InvalidationQueue(Arc<Queue>);

impl Invalidations {
    /// A pair of ends.
    pub(crate) fn new() -> (Self, InvalidationQueue) {
        let queue = Arc::new(Queue::default());
        (Self(Arc::clone(&queue)), InvalidationQueue(queue))
    }

    /// Has a write answered once the kernel was told; at once where there is nothing to tell, and with `false` where
    /// there is no place for it.
    pub(super) fn answer(&self, stale: &[Inode], answer: impl FnOnce(bool) + Send + 'static) {
        if stale.is_empty() {
            return answer(true);
        }
        let mut pending = self.0.pending.lock();
        let batch = &mut pending.batch;
        if batch.writers.len() < MOST_WRITERS && batch.add(stale) {
            batch.writers.push(Box::new(answer));
            self.0.wake.notify_one();
            return;
        }
        drop(pending);
        answer(false);
    }

    /// As [`answer`](Self::answer), for a write that nobody waits for any more.
    pub(super) fn add(&self, stale: &[Inode]) {
        let mut pending = self.0.pending.lock();
        if pending.batch.add(stale) {
            self.0.wake.notify_one();
        }
    }
}

impl Drop for Invalidations {
    fn drop(&mut self) {
        self.0.pending.lock().has_ended = true;
        self.0.wake.notify_one();
    }
}

impl InvalidationQueue {
    /// Starts the thread that does it; it ends with the file system.
    ///
    /// # Errors
    /// Where the system has no thread left.
    pub(crate) fn serve(self, kernel: impl Invalidate) -> io::Result<()> {
        thread::Builder::new()
            .name("invalidation".to_owned())
            .spawn(move || {
                while let Some(batch) = self.next() {
                    contained(|| batch.invalidate(&kernel));
                }
            })
            .map(drop)
    }

    /// Tells the kernel what there is to tell by now.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn tell(&self, kernel: &impl Invalidate) {
        let batch = std::mem::take(&mut self.0.pending.lock().batch);
        batch.invalidate(kernel);
    }

    /// What there is to tell; waits for it. `None` at the end.
    fn next(&self) -> Option<Batch> {
        let mut pending = self.0.pending.lock();
        while pending.batch.is_empty() {
            if pending.has_ended {
                return None;
            }
            self.0.wake.wait(&mut pending);
        }
        Some(std::mem::take(&mut pending.batch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inodes(numbers: impl IntoIterator<Item = u64>) -> Vec<Inode> {
        numbers.into_iter().map(Inode).collect()
    }

    #[test]
    fn what_is_not_told_yet_is_held_once_and_bounded() {
        let (invalidations, queue) = Invalidations::new();
        for _ in 0..1000 {
            invalidations.add(&inodes(0..100));
        }
        assert_eq!(invalidations.0.pending.lock().batch.stale.len(), 100);
        for from in 0..100 {
            invalidations.add(&inodes(from * 10_000..(from + 1) * 10_000));
        }
        let waiting = invalidations.0.pending.lock().batch.stale.len();
        assert!((10_000..=MOST_INODES).contains(&waiting), "{waiting}");
        assert_eq!(queue.next().unwrap().stale.len(), waiting);
        drop(invalidations);
        assert!(queue.next().is_none());
    }

    /// A kernel that notes what it is told.
    #[derive(Default)]
    struct Kernel(Mutex<Vec<Inode>>);

    impl Invalidate for Kernel {
        fn invalidate_attributes(&self, inode: Inode) -> io::Result<()> {
            self.0.lock().push(inode);
            Ok(())
        }
    }

    #[test]
    fn writers_are_answered_once_the_kernel_was_told() {
        let (invalidations, queue) = Invalidations::new();
        let answers = Arc::new(Mutex::new(Vec::new()));
        let answer = || {
            let answers = Arc::clone(&answers);
            move |is_told| answers.lock().push(is_told)
        };
        invalidations.answer(&[], answer());
        assert_eq!(*answers.lock(), [true], "there is nothing to tell");
        invalidations.answer(&inodes([5, 6]), answer());
        invalidations.answer(&inodes([6]), answer());
        assert_eq!(answers.lock().len(), 1);
        let kernel = Kernel::default();
        queue.next().unwrap().invalidate(&kernel);
        assert_eq!(*kernel.0.lock(), [Inode(5), Inode(6)]);
        assert_eq!(*answers.lock(), [true; 3]);
        let most = MOST_INODES as u64;
        invalidations.answer(&inodes(0..=most), answer());
        assert_eq!(answers.lock().last(), Some(&false), "there is no place");
    }
}
