//! The invalidation queue: telling the kernel that a write has outdated the pages that it keeps.

use std::collections::BTreeSet;
use std::fmt::{self, Debug};
use std::io;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::Inode;
use crate::common::contained::contained;

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

/// Inodes that may wait to be told: each is that of a file that somebody has open, and is there once.
const MOST_INODES: usize = 1 << 16;

/// Writers that may wait.
const MOST_WRITERS: usize = 4096;

/// Answers a write; true where the kernel was told, or is about to be.
type Answer = Box<dyn FnOnce(bool) + Send>;

/// What the kernel has yet to be told.
#[derive(Default)]
struct Batch {
    outdated: BTreeSet<Inode>,
    /// Writers to be answered then.
    writers: Vec<Answer>,
}

impl Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("outdated", &self.outdated)
            .field("writers", &self.writers.len())
            .finish()
    }
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

    fn work(self, kernel: &impl Invalidate) {
        for inode in self.outdated {
            if let Err(error) = kernel.invalidate_attributes(inode) {
                log::debug!("inode {inode} is not in the kernel's cache: {error}");
            }
        }
        for answer in self.writers {
            answer(true);
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
    pub(super) fn answer(&self, outdated: &[Inode], answer: impl FnOnce(bool) + Send + 'static) {
        if outdated.is_empty() {
            return answer(true);
        }
        let mut next = self.0.next.lock();
        let batch = &mut next.0;
        if batch.writers.len() < MOST_WRITERS && batch.add(outdated) {
            batch.writers.push(Box::new(answer));
            self.0.wake.notify_one();
            return;
        }
        drop(next);
        answer(false);
    }

    /// As [`answer`](Self::answer), for a write that nobody waits for any more.
    pub(super) fn add(&self, outdated: &[Inode]) {
        let mut next = self.0.next.lock();
        if next.0.add(outdated) {
            self.0.wake.notify_one();
        }
    }
}

impl Drop for Invalidations {
    fn drop(&mut self) {
        self.0.next.lock().1 = true;
        self.0.wake.notify_one();
    }
}

impl InvalidationQueue {
    /// Starts the thread that does it; it ends with the file system.
    ///
    /// # Errors
    /// Where the system has no thread left.
    pub(crate) fn serve(self, kernel: impl Invalidate) -> io::Result<()> {
        std::thread::Builder::new()
            .name("invalidation".to_owned())
            .spawn(move || {
                while let Some(batch) = self.next() {
                    contained(|| batch.work(&kernel));
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

    fn inodes(numbers: impl IntoIterator<Item = u64>) -> Vec<Inode> {
        numbers.into_iter().map(Inode).collect()
    }

    #[test]
    fn what_is_not_told_yet_is_held_once_and_bounded() {
        let (invalidations, queue) = Invalidations::new();
        for _ in 0..1000 {
            invalidations.add(&inodes(0..100));
        }
        assert_eq!(invalidations.0.next.lock().0.outdated.len(), 100);
        for from in 0..100 {
            invalidations.add(&inodes(from * 10_000..(from + 1) * 10_000));
        }
        let waiting = invalidations.0.next.lock().0.outdated.len();
        assert!((10_000..=MOST_INODES).contains(&waiting), "{waiting}");
        assert_eq!(queue.next().unwrap().outdated.len(), waiting);
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
        queue.next().unwrap().work(&kernel);
        assert_eq!(*kernel.0.lock(), [Inode(5), Inode(6)]);
        assert_eq!(*answers.lock(), [true; 3]);
        let most = MOST_INODES as u64;
        invalidations.answer(&inodes(0..=most), answer());
        assert_eq!(answers.lock().last(), Some(&false), "there is no place");
    }
}
