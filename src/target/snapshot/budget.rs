//! How much memory all snapshots may take together.

use std::sync::Arc;

use crate::common::error::{Error, Result};
use crate::common::sync::atomic::{AtomicU64, Ordering};

/// So many bytes, and how many of them are taken.
#[derive(Debug)]
pub struct Budget {
    limit: u64,
    taken: AtomicU64,
}

impl Budget {
    /// So many bytes, none of which is taken.
    pub fn new(limit: u64) -> Self {
        Self {
            limit,
            taken: AtomicU64::new(0),
        }
    }

    /// Bytes that there are, taken or not.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes that are taken.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Takes so many bytes, which are given back when the answer is dropped.
    ///
    /// # Errors
    /// `NoRoom` where they are more than are left.
    pub fn reserve(self: &Arc<Self>, bytes: u64) -> Result<Reservation> {
        let more = |taken: u64| taken.checked_add(bytes).filter(|all| *all <= self.limit);
        let order = Ordering::Relaxed;
        match self.taken.fetch_update(order, order, more) {
            Ok(_) => Ok(Reservation {
                budget: Arc::clone(self),
                bytes: AtomicU64::new(bytes),
            }),
            Err(taken) => Err(Error::NoRoom {
                needed: bytes,
                left: self.limit.saturating_sub(taken),
            }),
        }
    }
}

/// Bytes that are taken.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<Budget>,
    bytes: AtomicU64,
}

impl Reservation {
    /// How many.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Gives some of them back, as many as there are.
    pub fn give_back(&self, bytes: u64) {
        let fewer = |held: u64| Some(held.saturating_sub(bytes));
        let order = Ordering::Relaxed;
        if let Ok(held) = self.bytes.fetch_update(order, order, fewer) {
            self.budget.taken.fetch_sub(held.min(bytes), order);
        }
    }

    /// Takes another one's bytes over.
    pub(super) fn join(&self, other: &Self) {
        self.bytes
            .fetch_add(other.bytes.swap(0, Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Splits so many bytes off.
    pub(super) fn split(&self, bytes: u64) -> Self {
        let fewer = |held: u64| Some(held.saturating_sub(bytes));
        let order = Ordering::Relaxed;
        let held = self.bytes.fetch_update(order, order, fewer).unwrap_or(0);
        Self {
            budget: Arc::clone(&self.budget),
            bytes: AtomicU64::new(held.min(bytes)),
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.give_back(u64::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_taken_than_there_is_and_all_comes_back() {
        let budget = Arc::new(Budget::new(100));
        assert_eq!((budget.limit(), budget.taken()), (100, 0));
        let first = budget.reserve(60).unwrap();
        let refused = budget.reserve(41).unwrap_err();
        assert_eq!(
            refused,
            Error::NoRoom {
                needed: 41,
                left: 40
            }
        );
        assert!(budget.reserve(u64::MAX).is_err());
        let second = budget.reserve(40).unwrap();
        assert_eq!(budget.taken(), 100);
        first.give_back(10);
        assert_eq!((first.bytes(), budget.taken()), (50, 90));
        let part = first.split(20);
        assert_eq!((first.bytes(), part.bytes(), budget.taken()), (30, 20, 90));
        drop((first, second));
        assert_eq!(budget.taken(), 20);
        part.give_back(1000);
        drop(part);
        assert_eq!(budget.taken(), 0);
    }
}
