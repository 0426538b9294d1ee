//! In which blocks programs read large files: that decides whether it pays to go past the kernel's page cache.
//!
//! A read past it costs a request, whatever its size, so small ones are far slower; large ones are about twice as fast. Which one a
//! program makes nobody knows when it opens a file, but the kernel counts what it has read before, and most programs read all
//! files in blocks of one size.

use std::num::NonZeroUsize;

use lru::LruCache;

use super::Context;
use crate::common::choice::Choice;
use crate::common::sync::Mutex;
use crate::common::sync::atomic::{AtomicU64, Ordering};
use crate::target::{ProcessSource, Program, ReadCounts};

/// The least file that is opened past the page cache, in bytes for each millisecond of the freshness bound: 32 MiB where that is 100 ms. A
/// smaller one is read long before the bound has passed, and may well be read again by then.
const LEAST_FILE: u64 = (32 << 20) / 100;

/// Programs that are known.
const PROGRAMS: NonZeroUsize = NonZeroUsize::new(64).expect("not zero");

/// Reads, and bytes, of which an average says something.
const ENOUGH: ReadCounts = ReadCounts {
    calls: 32,
    bytes: 1 << 20,
};

/// Requests for a file before its reader is looked at.
const REQUESTS: u64 = 8;

/// What reads past the page cache cost, by what the kernel and this program have agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DirectReads {
    /// The least block that is read faster so, in bytes.
    pub(crate) least_block: u64,
    /// Whether that is assumed of a program that nothing is known of.
    pub(crate) is_first_choice: bool,
    /// Whether such files can be mapped (`MAP_SHARED`).
    pub(crate) can_be_mapped: bool,
}

/// A program by what makes its next process read in the same way: its name, and its path.
type Key = (Vec<u8>, Vec<u8>);

/// The blocks in which programs read.
#[derive(Debug)]
pub(super) struct BlockSizes {
    /// Guards what is known. Nothing is locked inside it.
    known: Mutex<LruCache<Key, u64>>,
}

impl Default for BlockSizes {
    fn default() -> Self {
        Self {
            known: Mutex::new(LruCache::new(PROGRAMS)),
        }
    }
}

impl BlockSizes {
    /// The blocks in which the program of a thread reads, as far as it is known.
    fn of(&self, source: &dyn ProcessSource, thread: u32, program: &Program) -> Option<u64> {
        let counts = source.reads_of_thread(thread);
        let own = counts.and_then(average);
        own.or_else(|| self.known.lock().get(&key(program)).copied())
    }

    fn learn(&self, program: &Program, counts: ReadCounts) {
        if let Some(average) = average(counts) {
            self.known.lock().put(key(program), average);
        }
    }
}

fn key(program: &Program) -> Key {
    (program.command.clone(), program.executable.clone())
}

fn average(counts: ReadCounts) -> Option<u64> {
    let is_enough = counts.calls >= ENOUGH.calls || counts.bytes >= ENOUGH.bytes;
    is_enough.then(|| counts.bytes / counts.calls.max(1))
}

/// Who has opened a large file, until it is known in which blocks they read.
#[derive(Debug)]
pub(super) struct Reader {
    thread: u32,
    program: Program,
    is_direct: bool,
    requests: AtomicU64,
    bytes: AtomicU64,
}

impl Context {
    /// Whether a file of so many bytes is opened past the kernel's page cache for a thread, and who that is, where it is worth
    /// knowing.
    pub(super) fn opens_directly(&self, size: u64, thread: u32) -> (bool, Option<Reader>) {
        let direct = match self.options.direct {
            Choice::On => return (true, None),
            Choice::Off => return (false, None),
            Choice::Auto => self.direct.get(),
        };
        let source = &*self.services.source;
        let bound = self.services.freshness.bound().as_millis();
        let is_large = u128::from(size) >= u128::from(LEAST_FILE) * bound;
        let Some(direct) = direct.filter(|it| it.can_be_mapped && is_large) else {
            return (false, None);
        };
        let Some(program) = source.program_of_thread(thread) else {
            return (direct.is_first_choice, None);
        };
        let block = self.block_sizes.of(source, thread, &program);
        let is_direct = match block {
            Some(block) => block >= direct.least_block,
            None => direct.is_first_choice,
        };
        let reader = Reader {
            thread,
            program,
            is_direct,
            requests: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        };
        (is_direct, Some(reader))
    }

    /// Takes note of a request for so many bytes of a file that this reader has opened.
    pub(super) fn was_read_by(&self, reader: &Reader, bytes: usize) {
        let bytes = reader.bytes.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        let requests = reader.requests.fetch_add(1, Ordering::Relaxed) + 1;
        if reader.is_direct {
            // Each request is a read, or as much of it as there can be.
            if requests == ENOUGH.calls {
                let counts = ReadCounts {
                    calls: requests,
                    bytes,
                };
                self.block_sizes.learn(&reader.program, counts);
            }
            return;
        }
        // The kernel asks for its own pages; what it was asked for it counts.
        if requests == REQUESTS {
            let source = &self.services.source;
            let is_same =
                || source.program_of_thread(reader.thread).as_ref() == Some(&reader.program);
            if let Some(counts) = source.reads_of_thread(reader.thread).filter(|_| is_same()) {
                self.block_sizes.learn(&reader.program, counts);
            }
        }
    }
}
