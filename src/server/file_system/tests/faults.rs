//! Calls of a process's memory that fail, now and then: by way of the cache and the views, any answer is right, or
//! an error that was injected.

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::*;
use crate::target::fake::plans::{faults, is_injected};
use crate::target::fake::{Fault, Faults};

/// Where the mapping lies; its fourth page is not there.
const START: u64 = 0x40_000;
const PAGES: usize = 24;
const HOLE: usize = 3 * PAGE;
const PAGE: usize = PAGE_SIZE as usize;
const FILE: &str = "7/000000040000-000000058000.rw-p.anon";

/// What somebody does with the file.
#[derive(Clone, Debug)]
enum Step {
    Read(usize, usize),
    Write(usize, usize, u8),
    Seek(usize, bool),
    /// The process itself changes a byte.
    Changes(usize, u8),
    /// Time passes, in milliseconds.
    Passes(u64),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let at = || 0..PAGES * PAGE;
    prop_oneof![
        6 => (at(), 1..6 * PAGE).prop_map(|(at, len)| Step::Read(at, len)),
        3 => (at(), 1..2 * PAGE, any::<u8>()).prop_map(|(at, len, byte)| Step::Write(at, len, byte)),
        1 => (at(), any::<bool>()).prop_map(|(at, data)| Step::Seek(at, data)),
        1 => (at(), any::<u8>()).prop_map(|(at, byte)| Step::Changes(at, byte)),
        1 => (0..150_u64).prop_map(Step::Passes),
        1 => Just(Step::Reopen),
    ]
}

/// A process, and all that its mapping has held lately.
struct Model {
    bench: Bench,
    /// What it holds; nothing of the hole is ever seen.
    bytes: Vec<u8>,
    /// Whether the process has changed something that may not be seen yet.
    is_stale: bool,
}

impl Model {
    fn new(faults: &Faults, is_direct: bool) -> Self {
        let options = FileOptions {
            writable: true,
            ..FileOptions::default()
        };
        let ttl = if is_direct { Duration::ZERO } else { TTL };
        let bench = bench_with(options, ttl);
        let end = START + (PAGES * PAGE) as u64;
        let maps = format!("{START:x}-{end:x} rw-p 00000000 00:00 0\n");
        let bytes: Vec<u8> = (0..PAGES * PAGE)
            .map(|at| (at / PAGE + at % 239) as u8)
            .collect();
        bench.process.set_maps(maps.as_bytes());
        bench.process.map(START, &bytes);
        bench.process.unmap(START + HOLE as u64);
        bench.process.set_faults(faults.clone());
        Self {
            bench,
            bytes,
            is_stale: false,
        }
    }

    fn read(&self, opened: &Opened, at: usize, len: usize) {
        let len = len.min(self.bytes.len() - at);
        match self.bench.read(opened, at as u64, len) {
            Ok(read) => {
                assert!(!read.is_empty(), "an end at {at:#x}");
                if !self.is_stale {
                    assert_eq!(read, self.bytes[at..at + read.len()], "at {at:#x}");
                }
                let meets = at + read.len() > HOLE && at < HOLE + PAGE;
                assert!(!meets, "bytes of a hole, at {at:#x}");
            }
            Err(Error::Unreachable(_) | Error::Incomplete(_)) => {
                let meets = at + len > HOLE && at < HOLE + PAGE;
                assert!(meets || !opened.direct, "no hole at {at:#x}");
            }
            Err(error) => assert!(is_injected(&error), "{error}"),
        }
    }

    /// Writes, and looks what came of it: whoever is told of so many bytes must find these and no others, and after
    /// an error any of them may be there.
    fn write(&mut self, opened: &Opened, at: usize, len: usize, byte: u8) {
        let data = vec![byte; len.min(self.bytes.len() - at)];
        let written = match self.bench.fs.write(opened.handle, at as u64, &data) {
            Ok(written) => {
                assert!(written.bytes > 0, "no byte was written");
                self.bytes[at..at + written.bytes].fill(byte);
                // What the process has changed before is seen from now on.
                self.is_stale = false;
                written.bytes
            }
            Err(Error::Unreachable(_)) => 0,
            Err(error) => {
                assert!(is_injected(&error), "{error}");
                self.is_stale = false;
                data.len()
            }
        };
        let now = self.bench.process.bytes(START, PAGES);
        for (at, (held, known)) in now
            .iter()
            .zip(&mut self.bytes)
            .enumerate()
            .skip(at)
            .take(written)
        {
            let is_hole = (HOLE..HOLE + PAGE).contains(&at);
            assert!(is_hole || *held == *known || *held == byte, "at {at:#x}");
            *known = *held;
        }
        let same = |from: usize, to: usize| now[from..to] == self.bytes[from..to];
        assert!(
            same(0, HOLE) && same(HOLE + PAGE, PAGES * PAGE),
            "no byte went astray"
        );
    }

    fn seek(&self, opened: &Opened, at: usize, data: bool) {
        let whence = if data { Seek::Data } else { Seek::Hole };
        let expected = match (data, (HOLE..HOLE + PAGE).contains(&at)) {
            (true, true) => HOLE + PAGE,
            (true, false) | (false, true) => at,
            (false, false) if at < HOLE => HOLE,
            (false, false) => PAGES * PAGE,
        };
        match self.bench.fs.seek(opened.handle, at as u64, whence) {
            // Where it is told of a few extents at a time it may stop at a border of two.
            Ok(found) => assert!(
                found as usize <= expected && found as usize >= at,
                "{at:#x}: {found:#x}"
            ),
            Err(error) => assert!(is_injected(&error), "{error}"),
        }
    }
}

fn run(steps: &[Step], plan: Vec<Fault>, is_direct: bool) {
    let faults = Faults::default();
    let mut model = Model::new(&faults, is_direct);
    let mut opened = model.bench.open(FILE, READ_WRITE).unwrap();
    faults.plan(plan);
    for step in steps {
        match *step {
            Step::Read(at, len) => model.read(&opened, at, len),
            Step::Write(at, len, byte) => model.write(&opened, at, len, byte),
            Step::Seek(at, data) => model.seek(&opened, at, data),
            Step::Changes(at, byte) => {
                if !(HOLE..HOLE + PAGE).contains(&at) {
                    model.bytes[at] = byte;
                    model.bench.process.poke(START + at as u64, byte);
                    model.is_stale = !is_direct;
                }
            }
            Step::Passes(time) => {
                model.bench.clock.advance(Duration::from_millis(time));
                model.is_stale &= Duration::from_millis(time) < TTL;
            }
            Step::Reopen => {
                model.bench.fs.release(opened.handle);
                opened = reopened(&model);
                model.is_stale = false;
            }
        }
    }
    // Once nothing fails any more all is there.
    faults.plan([]);
    model.bench.clock.advance(TTL);
    let read = model.bench.read(&opened, 0, HOLE).unwrap();
    assert!(read == model.bytes[..HOLE]);
    let after = model
        .bench
        .read(&opened, (HOLE + PAGE) as u64, PAGES * PAGE)
        .unwrap();
    assert!(after == model.bytes[HOLE + PAGE..]);
}

/// Opening may fail, too, and is tried again: the plan has an end.
fn reopened(model: &Model) -> Opened {
    loop {
        match model.bench.open(FILE, READ_WRITE) {
            Ok(opened) => return opened,
            Err(error) => assert!(is_injected(&error), "{error}"),
        }
    }
}

/// SEMANTICS: a byte that was read is a byte that was there. What fails is kept, with its seed, below
/// `proptest-regressions`, and tried first from then on.
#[test]
fn whatever_fails_no_byte_is_wrong() {
    let config = ProptestConfig {
        cases: cases(),
        source_file: Some(file!()),
        ..ProptestConfig::default()
    };
    let sequences = (
        proptest::collection::vec(step(), 1..40),
        faults(),
        any::<bool>(),
    );
    let tried = TestRunner::new(config).run(&sequences, |(steps, plan, is_direct)| {
        run(&steps, plan, is_direct);
        Ok(())
    });
    if let Err(error) = tried {
        panic!("{error}");
    }
}

/// Sequences that are tried: more where `PROCMEMFS_LONG` is set.
fn cases() -> u32 {
    match std::env::var_os("PROCMEMFS_LONG") {
        Some(_) => 10_000,
        None => 200,
    }
}

/// The cache reads whole pages, and what is asked for may lie past where that was cut short.
#[test]
fn a_page_that_is_cut_short_before_the_first_byte_wanted() {
    for most in [1, 1225, 1226, 1227] {
        run(&[Step::Read(1226, 100)], vec![Fault::Short(most)], false);
    }
}
