//! Work in pieces, by all processors at once.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::error::{Error, Result};

/// Does pieces 0 to `count`, each once and in no order; returns what they return. Where one fails no more are begun.
///
/// # Errors
/// That of a piece.
pub(super) fn in_parallel<T: Send>(
    count: usize,
    piece: impl Fn(usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(done);
            }
            let result = piece(number);
            if result.is_err() {
                next.store(count, Ordering::Relaxed);
            }
            done.push(result?);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let threads = threads.min(count).max(1);
    std::thread::scope(|scope| {
        // Where no thread can be had the others do it.
        let others: Vec<_> = (1..threads)
            .filter_map(|_| std::thread::Builder::new().spawn_scoped(scope, work).ok())
            .collect();
        let mut all = work();
        for other in others {
            let theirs = other.join().unwrap_or(Err(Error::Interrupted));
            all = all.and_then(|mut all: Vec<T>| {
                all.extend(theirs?);
                Ok(all)
            });
        }
        all
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_piece_is_done_once() {
        for count in [0, 1, 2, 1000] {
            let mut done = in_parallel(count, Ok).unwrap();
            done.sort_unstable();
            assert_eq!(done, (0..count).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_error_of_a_piece_ends_all() {
        let begun = AtomicUsize::new(0);
        let answer = in_parallel(1 << 40, |number| {
            begun.fetch_add(1, Ordering::Relaxed);
            match number {
                5 => Err(Error::Invalid),
                _ => Ok(()),
            }
        });
        assert_eq!(answer, Err(Error::Invalid));
    }
}
