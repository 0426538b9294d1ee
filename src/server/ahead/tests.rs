//! Reading ahead without threads where that is possible, and on fake processes.

use std::sync::Arc;
use std::time::Duration;

use super::stream::{Filling, WINDOW};
use super::*;
use crate::common::address::PAGE_SIZE;
use crate::common::choice::Choice;
use crate::common::clock::ManualClock;
use crate::files::{Access, FileOptions, Subject};
use crate::server::admission::tests::FakeTasks;
use crate::server::admission::{Limits, Target, Tasks};
use crate::server::file_system::tests::{bench, bench_with};
use crate::target::ProcessId;
use crate::target::cache::{Epoch, Freshness};

/// A file whose byte at an offset is known, and what was read of it ahead.
struct Bench {
    stream: Stream,
    epoch: Epoch,
}

pub(super) fn byte_at(offset: u64) -> u8 {
    (offset / 7 % 251) as u8
}

impl Bench {
    fn new() -> Self {
        let freshness = Freshness::new(Duration::from_secs(1), Arc::new(ManualClock::new()));
        Self {
            stream: Stream::new(Target::numbered(ProcessId::new(7).unwrap())),
            epoch: freshness.current(&freshness.new_space()),
        }
    }

    /// What was read ahead of `len` bytes, which are as they should be.
    fn take(&self, offset: u64, len: usize) -> usize {
        let mut buffer = vec![0xee; len];
        let taken = self.stream.take(offset, &mut buffer, |_| true);
        for (at, byte) in buffer.iter().take(taken).enumerate() {
            assert_eq!(*byte, byte_at(offset + at as u64), "{at}");
        }
        assert!(buffer[taken..].iter().all(|byte| *byte == 0xee));
        taken
    }

    /// Fills the next window, of which so many bytes are there.
    fn fill(&self, len: usize) -> Option<u64> {
        let filling = self.stream.begin()?;
        let offset = filling.offset;
        self.end(filling, len);
        Some(offset)
    }

    /// Fills a window that was begun with, of which so many bytes are there.
    fn end(&self, mut filling: Filling, len: usize) {
        let offset = filling.offset;
        for (at, byte) in filling.bytes().iter_mut().enumerate() {
            *byte = byte_at(offset + at as u64);
        }
        self.stream.end(filling, Some((len, self.epoch)));
    }

    /// Two reads in a row, after which a window is wanted; returns where they end.
    fn begin(&self) -> u64 {
        for end in [1000, 2000] {
            assert_eq!(self.take(end - 1000, 1000), 0);
            let wanted = self.stream.answered(end, true);
            assert_eq!(wanted, usize::from(end == 2000));
        }
        2000
    }

    /// The same, after which all windows are wanted.
    fn begin_with_all(&self) -> u64 {
        let at = self.begin();
        for _ in 0..4 {
            self.stream.answered(at, true);
        }
        at
    }
}

#[test]
fn who_reads_on_is_read_ahead_further_and_further() {
    let bench = Bench::new();
    let mut at = bench.begin();
    let mut filled = 1;
    bench.fill(WINDOW);
    for more in [1, 1, 1, 0, 0] {
        assert_eq!(bench.take(at, 10), 10);
        at += 10;
        assert_eq!(bench.stream.answered(at, true), more);
        while bench.fill(WINDOW).is_some() {
            filled += 1;
        }
    }
    assert_eq!(filled, 4);
}

#[test]
fn windows_are_taken_in_order() {
    let bench = Bench::new();
    let mut at = bench.begin();
    let mut filled = Vec::new();
    for _ in 0..40 {
        while let Some(offset) = bench.fill(WINDOW) {
            filled.push(offset);
        }
        let len = 100_000;
        assert_eq!(bench.take(at, len), len);
        at += len as u64;
        bench.stream.answered(at, true);
    }
    while let Some(offset) = bench.fill(WINDOW) {
        filled.push(offset);
    }
    let expected = (0..filled.len()).map(|number| 2000 + (number * WINDOW) as u64);
    assert!(filled.iter().copied().eq(expected));
    // Four at a time.
    assert_eq!(filled.len(), (at as usize - 2000) / WINDOW + 4);
}

#[test]
fn a_window_that_nobody_has_begun_with_is_filled_by_the_reader() {
    let bench = Bench::new();
    let at = bench.begin();
    assert_eq!(bench.take(at, 10), 0);
    assert!(bench.stream.awaited(at).is_some());
    let filling = bench.stream.begin_beside_helpers().unwrap();
    assert_eq!(filling.offset, at);
    bench.end(filling, WINDOW);
    assert!(bench.stream.awaited(at).is_none());
    assert_eq!(bench.take(at, 10), 10);
}

/// While a helper fills what the reader waits for, the reader fills what comes last, and leaves work for the helper.
#[test]
fn the_reader_does_the_work_of_a_helper_rather_than_to_wait() {
    let bench = Bench::new();
    let at = bench.begin_with_all();
    let first = bench.stream.begin().unwrap();
    for place in [3, 2] {
        let last = bench.stream.begin_beside_helpers().unwrap();
        assert_eq!(last.offset, at + place * WINDOW as u64);
        bench.end(last, WINDOW);
        assert_eq!(bench.take(at, 10), 0);
    }
    assert!(bench.stream.begin_beside_helpers().is_none());
    // One that was filled later than it is none that is waited for any more.
    let ended = bench.stream.awaited(at).unwrap();
    bench.end(first, WINDOW);
    bench.stream.wait(ended);
    assert_eq!(bench.take(at, WINDOW), WINDOW);
    let second = at + WINDOW as u64;
    assert!(bench.stream.awaited(second).is_some());
    assert_eq!(bench.fill(WINDOW), Some(second));
    assert_eq!(bench.take(second, 3 * WINDOW), 3 * WINDOW);
}

/// Bytes that somebody answers with are not those of another window meanwhile.
#[test]
fn what_is_lent_stays_as_it_is() {
    let bench = Bench::new();
    let at = bench.begin();
    bench.fill(WINDOW);
    let lend = |offset, len| bench.stream.lend(offset, len, |_| true);
    assert!(lend(at + 1, 10).is_none(), "it is not what comes next");
    assert!(lend(at, WINDOW + 1).is_none(), "it is more than one window");
    assert!(bench.stream.lend(at, 10, |_| false).is_none());
    let lent = lend(at, WINDOW).unwrap();
    let mut next = at + WINDOW as u64;
    for _ in 0..10 {
        bench.stream.answered(next, true);
        while bench.fill(WINDOW).is_some() {}
        assert_eq!(bench.take(next, WINDOW), WINDOW);
        next += WINDOW as u64;
    }
    let expected = (at..at + WINDOW as u64).map(byte_at);
    assert!(lent.iter().copied().eq(expected));
}

/// Where another request has read on meanwhile, nobody waits for what it has passed.
#[test]
fn windows_that_were_passed_are_dropped() {
    let bench = Bench::new();
    let at = bench.begin_with_all();
    let passed = bench.stream.begin().unwrap();
    bench.fill(WINDOW);
    let next = at + WINDOW as u64 + 10;
    bench.stream.answered(next, true);
    assert_eq!(bench.take(next, 10), 10);
    bench.end(passed, WINDOW);
    assert_eq!(bench.take(next + 10, 10), 10);
}

#[test]
fn a_jump_drops_what_was_read() {
    let bench = Bench::new();
    let at = bench.begin();
    let late = bench.stream.begin().unwrap();
    assert_eq!(bench.take(at + 4096, 10), 0);
    // It comes too late, and is no part of what follows.
    bench.stream.end(late, Some((WINDOW, bench.epoch)));
    assert_eq!(bench.take(at + 4096, 10), 0);
    assert_eq!(bench.stream.answered(at + 4106, true), 0);
    assert_eq!(bench.take(at, 10), 0);
}

/// SEMANTICS: a read ends at the same byte whether or not it was read ahead.
#[test]
fn a_window_that_ends_early_ends_what_is_taken() {
    let bench = Bench::new();
    let at = bench.begin();
    bench.fill(5000);
    assert_eq!(bench.take(at, 3000), 3000);
    bench.stream.answered(at + 3000, true);
    assert_eq!(bench.take(at + 3000, 3000), 2000);
    assert_eq!(bench.stream.answered(at + 5000, false), 0);
    assert_eq!(bench.take(at + 5000, 10), 0);
}

/// SEMANTICS: what was read ahead is no older than the freshness bound.
#[test]
fn what_is_too_old_is_read_again() {
    let bench = Bench::new();
    let at = bench.begin();
    bench.fill(WINDOW);
    let mut buffer = [0; 10];
    assert_eq!(bench.stream.take(at, &mut buffer, |_| false), 0);
    assert_eq!(bench.take(at, 10), 0, "it is gone");
}

#[test]
fn a_window_that_is_given_up_is_not_waited_for() {
    let bench = Bench::new();
    let at = bench.begin();
    let filling = bench.stream.begin().unwrap();
    bench.stream.end(filling, None);
    assert_eq!(bench.take(at, 10), 0);
}

/// A target that does not answer holds up the helper, and the reader for a moment only.
#[test]
fn a_window_that_takes_long_is_given_up() {
    let bench = Bench::new();
    let at = bench.begin();
    let filling = bench.stream.begin().unwrap();
    assert_eq!(bench.take(at, 10), 0);
    bench.stream.wait(bench.stream.awaited(at).unwrap());
    assert!(bench.stream.awaited(at).is_none());
    bench.stream.answered(at + 10, true);
    bench.end(filling, WINDOW);
    assert_eq!(bench.take(at + 10, 10), 0);
}

/// Bytes of the mapping that is read.
const LEN: usize = 5 * WINDOW + 3 * PAGE_SIZE as usize;

/// An open mapping of a process, each byte of which is that [of its offset](byte_at).
pub(super) fn bytes_of_the_process(tasks: Arc<dyn Tasks>) -> (Arc<ReadAhead>, u64) {
    const START: u64 = 0x1000_0000;
    let options = FileOptions {
        direct: Choice::On,
        ..FileOptions::default()
    };
    let bench = bench_with(options, Duration::from_millis(100));
    let end = START + LEN as u64;
    let maps = format!("{START:x}-{end:x} rw-p 00000000 00:00 0\n");
    bench.process.set_maps(maps.as_bytes());
    bench.process.map(START, &content());
    let path = format!("7/{START:012x}-{end:012x}.rw-p.anon");
    let inode = bench.find(&path).unwrap().inode;
    let clock = Arc::clone(&bench.clock) as _;
    let admission = Arc::new(Admission::new(clock, tasks, Limits::for_threads(4)));
    let fs = Arc::new(bench.fs);
    let ahead = Arc::new(ReadAhead::new(Arc::clone(&fs), admission, 2));
    let access = Access {
        read: true,
        ..Access::default()
    };
    let opened = fs.open(inode, &Subject::default(), access).unwrap();
    assert!(opened.direct);
    (ahead, opened.handle)
}

fn content() -> Vec<u8> {
    (0..LEN as u64).map(byte_at).collect()
}

/// The bytes of a mapping are those of the process, however they are read.
#[test]
fn all_bytes_are_those_of_the_process() {
    let (ahead, handle) = bytes_of_the_process(Arc::new(FakeTasks::default()));
    for len in [4096, 100_000, WINDOW, 3 * WINDOW] {
        let mut found = Vec::new();
        loop {
            let mut buffer = vec![0; len];
            let offset = found.len() as u64;
            let read = ahead.fs.read(handle, offset, &mut buffer, Some(&ahead));
            let read = read.unwrap();
            if read == 0 {
                break;
            }
            found.extend_from_slice(&buffer[..read]);
        }
        assert!(found == content(), "{len}");
    }
    ahead.end();
}

/// As many files at a time as there are helpers, and none where each processor has a reader; one that is not used any more makes place.
#[test]
fn so_many_files_are_read_ahead_at_a_time() {
    let bench = bench();
    let (clock, tasks) = (Arc::clone(&bench.clock), Arc::new(FakeTasks::default()));
    let admission = Admission::new(Arc::clone(&clock) as _, tasks, Limits::for_threads(4));
    let ahead = ReadAhead::new(Arc::new(bench.fs), Arc::new(admission), 2);
    let stream = || Arc::new(Stream::new(Target::numbered(ProcessId::new(7).unwrap())));
    let (one, other) = (stream(), stream());
    assert!(ahead.has_place(&one));
    assert!(!ahead.has_place(&other));
    assert!(ahead.has_place(&one));
    clock.advance(UNUSED);
    assert!(ahead.has_place(&one), "nobody else has taken it");
    clock.advance(UNUSED);
    assert!(ahead.has_place(&other));
    assert!(!ahead.has_place(&one));
    drop(other);
    assert!(ahead.has_place(&one));
    // With a reader for each processor there is none left for a helper.
    let more = [stream(), stream(), stream()];
    assert!(!more.iter().any(|more| ahead.has_place(more)));
    assert!(!ahead.has_place(&one));
    drop(more);
    assert!(ahead.has_place(&one));
}
