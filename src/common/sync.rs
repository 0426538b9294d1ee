//! What threads share: locks, condition variables, atomic numbers, and threads themselves.
//!
//! Whatever `common`, `target` (but for `target::live`), `files` and `server` share between threads they take from here.
//! That is what `parking_lot` and the standard library have, and in tests that are built with `--cfg shuttle` the same
//! of `shuttle`, whose scheduler decides at each use which thread goes on: `models` beside the code run them in very
//! many orders (docs/TESTING.md).
//!
//! Left as they are: [`Arc`](std::sync::Arc), which shuttle takes from the standard library, too;
//! [`OnceLock`](std::sync::OnceLock), where nothing else is used while it is filled; and the numbers of `common::metrics`,
//! by which nothing is decided.

#[cfg(not(all(test, shuttle)))]
pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};
#[cfg(not(all(test, shuttle)))]
pub(crate) use std::{sync::atomic, thread};

#[cfg(all(test, shuttle))]
pub(crate) use condvar::Condvar;
#[cfg(all(test, shuttle))]
pub(crate) use shuttle::{sync::atomic, thread};
#[cfg(all(test, shuttle))]
pub(crate) use shuttle_parking_lot::{Mutex, MutexGuard, RwLock};

#[cfg(all(test, shuttle))]
mod condvar {
    use std::collections::VecDeque;
    use std::sync::{Arc, PoisonError};
    use std::time::Duration;

    use shuttle::future::batch_semaphore::{BatchSemaphore, Fairness};
    use shuttle::rand::{Rng, thread_rng};
    use shuttle::thread::yield_now;

    use super::MutexGuard;

    /// How often another thread may go on, at most, before a wait that has an end comes to it.
    const PATIENCE: u32 = 4;

    /// A thread that waits: it is woken when there is a permit.
    type Waiting = Arc<BatchSemaphore>;

    /// As [`parking_lot::Condvar`], which `shuttle-parking_lot` does not have.
    #[derive(Debug, Default)]
    pub(crate) struct Condvar {
        /// Who waits, longest first. No thread is switched while it is locked.
        waiting: std::sync::Mutex<VecDeque<Waiting>>,
    }

    /// Whether a wait ended because its time was over.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct WaitTimeoutResult(bool);

    impl WaitTimeoutResult {
        pub(crate) fn timed_out(self) -> bool {
            self.0
        }
    }

    impl Condvar {
        pub(crate) fn new() -> Self {
            Self::default()
        }

        pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
            let waiting = self.begin();
            MutexGuard::unlocked(guard, || {
                waiting.acquire_blocking(1).expect("it is never closed");
            });
        }

        /// Nobody's time passes here: the end may come before anything else happens, and as late as
        /// [`PATIENCE`] says. [`Duration::MAX`] is without an end, so that nobody relies on it.
        pub(crate) fn wait_for<T>(
            &self,
            guard: &mut MutexGuard<'_, T>,
            timeout: Duration,
        ) -> WaitTimeoutResult {
            if timeout == Duration::MAX {
                self.wait(guard);
                return WaitTimeoutResult(false);
            }
            let waiting = self.begin();
            MutexGuard::unlocked(guard, || {
                for _ in 0..thread_rng().gen_range(0..=PATIENCE) {
                    yield_now();
                    if waiting.try_acquire(1).is_ok() {
                        return WaitTimeoutResult(false);
                    }
                }
                // One whom somebody woke at the last moment was woken.
                let mut all = self.all();
                let is_left = all.iter().position(|other| Arc::ptr_eq(other, &waiting));
                WaitTimeoutResult(is_left.and_then(|index| all.remove(index)).is_some())
            })
        }

        pub(crate) fn notify_one(&self) {
            let first = self.all().pop_front();
            first.into_iter().for_each(|waiting| waiting.release(1));
        }

        pub(crate) fn notify_all(&self) {
            let all = std::mem::take(&mut *self.all());
            all.iter().for_each(|waiting| waiting.release(1));
        }

        /// Begins to wait; the lock is still held.
        fn begin(&self) -> Waiting {
            let waiting = Arc::new(BatchSemaphore::new(0, Fairness::StrictlyFair));
            self.all().push_back(Arc::clone(&waiting));
            waiting
        }

        fn all(&self) -> std::sync::MutexGuard<'_, VecDeque<Waiting>> {
            self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }
}
