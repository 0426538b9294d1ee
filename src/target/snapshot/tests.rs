//! Snapshots of fake processes.

use std::sync::Arc;

use super::*;
use crate::common::address::{Address, AddressRange, PAGE_SIZE};
use crate::common::clock::ManualClock;
use crate::common::error::{Error, Result};
use crate::common::sync::Mutex;
use crate::target::fake::{FakeProcess, FakeSource, FakeStores};
use crate::target::mapping::Mapping;
use crate::target::page_state::{Extent, MemoryUsage};
use crate::target::{ProcessIdentity, ProcessMemory, ProcessSource, ReadSegment, WriteMode};

const PAGE: usize = PAGE_SIZE as usize;

/// So many pages that a mapping has a store of its own.
const MANY: u64 = 300;

struct Bench {
    source: FakeSource,
    process: FakeProcess,
    stores: FakeStores,
    budget: Arc<Budget>,
}

/// A heap of four pages, the second never written, the third gone and the fourth in swap; a large mapping.
fn bench() -> Bench {
    let process = FakeProcess::new(7, b"fake");
    process.set_maps(
        b"10000-14000 rw-p 00000000 00:00 0 [heap]\n\
        1000000-112c000 rw-p 00000000 00:00 0\n\
        2000000-2001000 r--p 00000000 00:00 0 [vvar]\n",
    );
    process.map(0x10000, &[1; PAGE]).reserve(0x11000, 1);
    process.map(0x13000, &[3; PAGE]).swap_out(0x13000);
    let large: Vec<u8> = (0..MANY)
        .flat_map(|page| vec![page as u8 | 1; PAGE])
        .collect();
    process.map(0x100_0000, &large);
    process.reserve(0x100_5000, 2);
    let source = FakeSource::default();
    source.add(process.clone());
    Bench {
        source,
        process,
        stores: FakeStores::default(),
        budget: Arc::new(Budget::new(1 << 30)),
    }
}

impl Bench {
    /// The large mapping has no hole any more.
    fn fill_up(&self) {
        self.process.map(0x100_5000, &[5; 2 * PAGE]);
    }

    fn subject(&self, pid: u32, earlier: Option<&Arc<FrozenProcess>>) -> Subject {
        let pid = crate::target::ProcessId::new(pid).unwrap();
        let info = Arc::new(self.source.describe(pid).unwrap());
        let process = self.source.open(&info.identity).unwrap();
        Subject {
            memory: process.memory().unwrap(),
            process,
            info,
            earlier: earlier.map(Arc::clone),
        }
    }

    fn take_all(&self, subjects: Vec<Subject>) -> Result<Vec<FrozenProcess>> {
        self.take_so(subjects, false)
    }

    fn take_so(&self, subjects: Vec<Subject>, tracks_writes: bool) -> Result<Vec<FrozenProcess>> {
        let capture = Capture {
            subjects,
            waiting_thread: 1,
            boot: "a boot".to_owned(),
            stores: Arc::new(self.stores.clone()),
            budget: Arc::clone(&self.budget),
            tracks_writes,
            clock: Arc::new(ManualClock::new()),
        };
        let taken = capture.take(&Watch::default());
        assert!(!self.process.is_stopped(), "it goes on");
        taken
    }

    fn take(&self, earlier: Option<&Arc<FrozenProcess>>) -> Result<Arc<FrozenProcess>> {
        let taken = self.take_all(vec![self.subject(7, earlier)])?;
        Ok(Arc::new(taken.into_iter().next().unwrap()))
    }
}

fn range(start: u64, end: u64) -> AddressRange {
    AddressRange::new(Address::new(start), Address::new(end)).unwrap()
}

fn read(frozen: &FrozenProcess, address: u64, len: usize) -> Result<Vec<u8>> {
    let mapping = frozen
        .mappings
        .iter()
        .find(|it| it.range().contains(Address::new(address)));
    let mut buffer = vec![0xee; len];
    let segment = ReadSegment {
        address: Address::new(address),
        buffer: &mut buffer,
        mapping: mapping.unwrap(),
    };
    let read = frozen.memory.read(&mut [segment])?;
    buffer.truncate(read);
    Ok(buffer)
}

#[test]
fn a_snapshot_shows_what_was_there_for_as_long_as_it_is_kept() {
    let bench = bench();
    let frozen = bench.take(None).unwrap();
    bench.process.map(0x10000, &[9; PAGE]);
    bench.process.end();
    assert_eq!(
        read(&frozen, 0x10000, 2 * PAGE).unwrap(),
        [[1; PAGE], [0; PAGE]].concat()
    );
    assert_eq!(read(&frozen, 0x13000, PAGE).unwrap(), [3; PAGE]);
    let gone = read(&frozen, 0x12000, 1);
    assert_eq!(gone, Err(Error::Unreachable(Address::new(0x12000))));
    let large = read(&frozen, 0x100_0000, MANY as usize * PAGE).unwrap();
    for (page, bytes) in large.chunks(PAGE).enumerate() {
        let expected = if (5..7).contains(&page) {
            0
        } else {
            page as u8 | 1
        };
        assert_eq!(bytes, [expected; PAGE], "{page}");
    }
    assert_eq!(frozen.threads.len(), 1);
    assert_eq!(frozen.mappings.len(), 3);
}

#[test]
fn the_record_names_the_build_id_of_the_program() {
    let bench = bench();
    let record = bench.take(None).unwrap().record();
    assert_eq!(record.build_id, None, "no program that could be read");
    crate::target::build_id::tests::load(&bench.process, 0x100_5000, &[0xab, 0x12]);
    let frozen = bench.take(None).unwrap();
    bench.process.map(0x100_5000, &[9; PAGE]);
    assert_eq!(frozen.record().build_id.as_deref(), Some("ab12"));
}

#[test]
fn holes_stay_holes_and_take_no_memory() {
    use crate::target::page_state::PageState as State;
    let bench = bench();
    let frozen = bench.take(None).unwrap();
    let heap = &frozen.mappings[0];
    let extents = frozen.memory.extents(heap, heap.range(), 100).unwrap();
    let states: Vec<State> = extents.iter().map(|run| run.state).collect();
    assert_eq!(
        states,
        [
            State::Resident,
            State::Zero,
            State::Unreadable,
            State::Resident
        ]
    );
    let copied = (2 + MANY - 2) * PAGE_SIZE;
    assert_eq!(frozen.memory.stored(AddressRange::ALL), copied);
    assert_eq!(bench.budget.taken(), copied);
    drop(frozen);
    assert_eq!((bench.budget.taken(), bench.stores.count()), (0, 0));
}

#[test]
fn a_large_mapping_has_a_store_of_its_own_that_is_laid_out_as_its_file() {
    let bench = bench();
    bench.fill_up();
    let frozen = bench.take(None).unwrap();
    let large = frozen.mappings[1].range();
    let store = frozen.memory.sole_store(large).unwrap();
    let mut page = vec![0; PAGE];
    store.store().read(9 * PAGE_SIZE, &mut page).unwrap();
    assert_eq!(page, [9; PAGE]);
    assert!(
        frozen
            .memory
            .sole_store(frozen.mappings[0].range())
            .is_none()
    );
}

/// Whoever maps a file of tmpfs and reads its holes has them allocated, past any budget.
#[test]
fn a_mapping_with_holes_is_not_read_from_its_store_as_a_file() {
    let bench = bench();
    let frozen = bench.take(None).unwrap();
    let large = frozen.mappings[1].range();
    assert!(frozen.memory.sole_store(large).is_none());
    bench.fill_up();
    let frozen = bench.take(None).unwrap();
    assert!(frozen.memory.sole_store(large).is_some());
}

/// Small mappings share a store, which must not be taken for that of the first of them.
#[test]
fn a_store_of_several_mappings_is_that_of_none_of_them() {
    let bench = bench();
    let small = FakeProcess::new(9, b"small");
    small
        .set_maps(
            b"10000-11000 rw-p 00000000 00:00 0\n\
            20000-21000 rw-p 00000000 00:00 0\n",
        )
        .map(0x10000, &[1; PAGE])
        .map(0x20000, &[2; PAGE]);
    bench.source.add(small);
    let taken = bench.take_all(vec![bench.subject(9, None)]).unwrap();
    for mapping in &*taken[0].mappings {
        let sole = taken[0].memory.sole_store(mapping.range());
        assert!(sole.is_none(), "{mapping:?}");
    }
    assert_eq!(read(&taken[0], 0x20000, 1).unwrap(), [2]);
}

#[test]
fn a_whole_mapping_that_is_the_same_is_read_from_the_store_of_the_earlier_one() {
    let bench = bench();
    bench.fill_up();
    let first = bench.take(None).unwrap();
    let second = bench.take(Some(&first)).unwrap();
    let large = first.mappings[1].range();
    let stores = [&first, &second].map(|frozen| frozen.memory.sole_store(large).unwrap());
    assert!(Arc::ptr_eq(&stores[0], &stores[1]));
}

#[test]
fn pages_that_two_snapshots_have_in_common_are_kept_once() {
    let bench = bench();
    bench.fill_up();
    let first = bench.take(None).unwrap();
    let alone = bench.budget.taken();
    bench
        .process
        .map(0x100_0000 + 20 * PAGE_SIZE, &[0xaa; PAGE]);
    let second = bench.take(Some(&first)).unwrap();
    assert_eq!(bench.budget.taken(), alone + PAGE_SIZE, "one page more");
    let at = |frozen: &FrozenProcess, page: u64| {
        read(frozen, 0x100_0000 + page * PAGE_SIZE, PAGE).unwrap()[0]
    };
    assert_eq!([19, 20, 21].map(|page| at(&first, page)), [19, 21, 21]);
    assert_eq!([19, 20, 21].map(|page| at(&second, page)), [19, 0xaa, 21]);
    let large = second.mappings[1].range();
    assert!(
        second.memory.sole_store(large).is_none(),
        "it lies in two stores"
    );
    // Nor is a store read as a file where it holds what is not in the mapping any more.
    bench.process.reserve(0x100_0000 + 30 * PAGE_SIZE, 1);
    let fewer = bench.take(Some(&first)).unwrap();
    assert_eq!([29, 30].map(|page| at(&fewer, page)), [29, 0]);
    assert!(fewer.memory.sole_store(large).is_none());
    bench.process.map(0x100_0000 + 30 * PAGE_SIZE, &[31; PAGE]);
    drop(fewer);
    // A third one, the same as the second, holds nothing of its own.
    let third = bench.take(Some(&second)).unwrap();
    assert_eq!(bench.budget.taken(), alone + PAGE_SIZE);
    drop((first, second));
    assert_eq!([19, 20, 21].map(|page| at(&third, page)), [19, 0xaa, 21]);
    drop(third);
    assert_eq!((bench.budget.taken(), bench.stores.count()), (0, 0));
}

#[test]
fn several_processes_stand_still_together() {
    let bench = bench();
    let other = FakeProcess::new(8, b"other");
    other
        .set_maps(b"10000-11000 rw-p 00000000 00:00 0 [heap]\n")
        .map(0x10000, &[8; PAGE]);
    bench.source.add(other.clone());
    let subjects = vec![bench.subject(7, None), bench.subject(8, None)];
    let taken = bench.take_all(subjects).unwrap();
    assert_eq!(read(&taken[0], 0x10000, 1).unwrap(), [1]);
    assert_eq!(read(&taken[1], 0x10000, 1).unwrap(), [8]);
    assert_eq!(taken[0].taken, taken[1].taken);
    assert!(!other.is_stopped());
}

/// SEMANTICS: a snapshot that cannot be completed leaves nothing.
#[test]
fn where_it_cannot_be_completed_nothing_is_left_and_all_go_on() {
    let bench = bench();
    let nothing = |bench: &Bench| {
        assert_eq!((bench.budget.taken(), bench.stores.count()), (0, 0));
        assert!(!bench.process.is_stopped());
    };
    bench.process.set_traced(true);
    let pid = bench.process.identity().pid;
    assert_eq!(bench.take(None).unwrap_err(), Error::Traced(pid));
    nothing(&bench);
    bench.process.set_traced(false);
    bench.stores.set_available(PAGE_SIZE);
    assert!(matches!(
        bench.take(None).unwrap_err(),
        Error::NoRoom {
            left: PAGE_SIZE,
            ..
        }
    ));
    nothing(&bench);
    bench.stores.set_available(u64::MAX);
    let small = Bench {
        budget: Arc::new(Budget::new(MANY * PAGE_SIZE - 1)),
        ..bench
    };
    assert!(matches!(
        small.take(None).unwrap_err(),
        Error::NoRoom { .. }
    ));
    nothing(&small);
    small.process.end();
    let again = small.process.identity().pid;
    let subject = small.source.find(again);
    assert_eq!(subject.unwrap_err(), Error::NoProcess(again));
}

#[test]
fn whoever_gives_up_lets_all_go_on() {
    let bench = bench();
    let watch = Watch::default();
    watch.give_up();
    let capture = Capture {
        subjects: vec![bench.subject(7, None)],
        waiting_thread: 1,
        boot: "a boot".to_owned(),
        stores: Arc::new(bench.stores.clone()),
        budget: Arc::clone(&bench.budget),
        tracks_writes: true,
        clock: Arc::new(ManualClock::new()),
    };
    assert_eq!(capture.take(&watch).unwrap_err(), Error::Interrupted);
    assert_eq!((bench.budget.taken(), bench.stores.count()), (0, 0));
    let stopped = bench.subject(7, None).process.stop().unwrap();
    assert!(bench.process.is_stopped());
    assert_eq!(watch.hold(stopped), Err(Error::Interrupted));
    assert!(!bench.process.is_stopped(), "held too late");
}

#[test]
fn ranges_are_in_order() {
    let bench = bench();
    let frozen = bench.take(None).unwrap();
    let runs: Vec<_> = frozen.memory.runs(AddressRange::ALL).collect();
    assert!(
        runs.windows(2)
            .all(|two| two[0].range.end() <= two[1].range.start())
    );
    let part = range(0x100_3000, 0x100_6000);
    assert_eq!(frozen.memory.stored(part), 2 * PAGE_SIZE);
}

/// The memory of a process that writes whenever it is read, and does not stand still; it counts what is read while it does.
#[derive(Debug)]
struct Busy {
    process: FakeProcess,
    inner: Arc<dyn ProcessMemory>,
    writes: bool,
    read_while_still: Mutex<usize>,
}

impl ProcessMemory for Busy {
    fn identity(&self) -> &ProcessIdentity {
        self.inner.identity()
    }

    fn verify(&self) -> Result<()> {
        self.inner.verify()
    }

    fn read(&self, segments: &mut [ReadSegment<'_>]) -> Result<usize> {
        let read = self.inner.read(segments)?;
        if self.process.is_stopped() {
            *self.read_while_still.lock() += read;
        } else if self.writes {
            for page in [0, 7, 8, 9, MANY - 1] {
                self.process.poke(0x100_0000 + page * PAGE_SIZE, 77);
            }
            self.process.poke(0x10000, 77);
            // One that has gone, and one that came.
            self.process.reserve(0x100_0000 + 20 * PAGE_SIZE, 1);
            self.process.map(0x100_5000, &[78; PAGE]);
        }
        Ok(read)
    }

    fn extents(&self, mapping: &Mapping, range: AddressRange, most: usize) -> Result<Vec<Extent>> {
        self.inner.extents(mapping, range, most)
    }

    fn memory_usage(&self, ranges: &[AddressRange]) -> Result<Vec<MemoryUsage>> {
        self.inner.memory_usage(ranges)
    }

    fn write(&self, address: Address, data: &[u8], mode: WriteMode) -> Result<usize> {
        self.inner.write(address, data, mode)
    }
}

/// Takes a snapshot of a process that is copied while it runs; returns it, and the bytes that were read while it stood still.
fn take_running(bench: &Bench, writes: bool) -> (FrozenProcess, usize) {
    let mut subject = bench.subject(7, None);
    let busy = Arc::new(Busy {
        process: bench.process.clone(),
        inner: Arc::clone(&subject.memory),
        writes,
        read_while_still: Mutex::new(0),
    });
    subject.memory = Arc::clone(&busy) as _;
    let taken = bench.take_so(vec![subject], true).unwrap().remove(0);
    let read = *busy.read_while_still.lock();
    (taken, read)
}

/// SEMANTICS: what is copied while the process runs is copied again where it was written since.
#[test]
fn what_was_written_since_it_was_copied_is_copied_again() {
    let bench = bench();
    let (frozen, read) = take_running(&bench, true);
    let large = read_all(&frozen, 0x100_0000, MANY as usize);
    assert!(large == bench.process.bytes(0x100_0000, MANY as usize));
    assert_eq!(large[0], 77);
    assert_eq!(
        read_all(&frozen, 0x10000, 1),
        bench.process.bytes(0x10000, 1)
    );
    assert_eq!(bench.process.stops(), 2);
    // Five pages that were written and the one that came, and those of the heap, which has no store of its own.
    assert_eq!(read, 8 * PAGE);
    // And the one that has gone takes no memory.
    let gone = range(0x101_4000, 0x101_5000);
    assert_eq!(frozen.memory.stored(gone), 0);
    assert_eq!(
        bench.budget.taken(),
        frozen.memory.stored(AddressRange::ALL)
    );
}

#[test]
fn what_was_not_written_is_copied_once() {
    let bench = bench();
    bench.fill_up();
    let (frozen, read) = take_running(&bench, false);
    assert_eq!(read, 2 * PAGE, "the heap");
    let large = read_all(&frozen, 0x100_0000, MANY as usize);
    assert!(large == bench.process.bytes(0x100_0000, MANY as usize));
}

/// SEMANTICS: where writes cannot be tracked all is copied while the process stands still.
#[test]
fn where_writes_are_not_tracked_all_is_copied_while_it_stands_still() {
    let bench = bench();
    bench.fill_up();
    bench.process.set_untracked();
    let (frozen, read) = take_running(&bench, true);
    assert_eq!(read, (2 + MANY as usize) * PAGE);
    let large = read_all(&frozen, 0x100_0000, MANY as usize);
    assert!(large == bench.process.bytes(0x100_0000, MANY as usize));
}

fn read_all(frozen: &FrozenProcess, address: u64, pages: usize) -> Vec<u8> {
    read(frozen, address, pages * PAGE).unwrap()
}
