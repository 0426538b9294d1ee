use super::*;
use crate::common::clock::ManualClock;
use crate::common::metrics::Metrics;
use crate::common::recent::KEPT_UNUSED;
use crate::target::cache::{Freshness, PageCache};
use crate::target::fake::{FakeProcess, FakeSource, FakeStores};
use crate::target::snapshot::Budget;

/// Processes with the numbers from 1 on.
fn bench(count: u32) -> (Arc<ManualClock>, Vec<FakeProcess>, OpenProcesses) {
    let source = FakeSource::default();
    let processes: Vec<_> = (1..=count)
        .map(|pid| {
            let process = FakeProcess::new(pid, b"fake");
            process.set_maps(b"1000-2000 rw-p 00000000 00:00 0\n");
            source.add(process.clone());
            process
        })
        .collect();
    let clock = Arc::new(ManualClock::new());
    let metrics = Arc::new(Metrics::default());
    let freshness = Freshness::new(Duration::from_millis(100), Arc::clone(&clock) as _);
    let services = Services {
        stores: Arc::new(FakeStores::default()),
        budget: Arc::new(Budget::new(1 << 30)),
        source: Arc::new(source),
        cache: Arc::new(PageCache::new(1 << 20, Arc::clone(&metrics))),
        freshness: Arc::new(freshness),
        metrics,
    };
    let opened = OpenProcesses::new(services, Arc::clone(&clock) as _);
    (clock, processes, opened)
}

/// Lists the processes.
fn list(opened: &OpenProcesses, processes: &[FakeProcess]) -> Vec<Result<ProcessInfo>> {
    let described = processes
        .iter()
        .map(|process| opened.describe(None, process.identity().pid, Duration::ZERO));
    described.collect()
}

fn descriptions(processes: &[FakeProcess]) -> Vec<usize> {
    processes.iter().map(FakeProcess::descriptions).collect()
}

#[test]
fn a_walk_pins_each_process_once() {
    let (clock, processes, opened) = bench(3);
    for _ in 0..3 {
        for (told, process) in list(&opened, &processes).into_iter().zip(&processes) {
            let identity = told.unwrap().identity;
            assert_eq!(identity, process.identity());
            assert!(opened.is_current(&identity));
            let space = opened.ask(&identity, |process| process.address_space());
            assert_eq!(space.unwrap().mappings().len(), 1);
        }
    }
    assert_eq!(descriptions(&processes), [1; 3]);
    assert_eq!(opened.close_unused(), Some(KEPT_UNUSED));
    clock.advance(KEPT_UNUSED);
    assert_eq!(opened.close_unused(), None);
    assert!(opened.known(&processes[0].identity()).is_none());
    assert!(list(&opened, &processes).iter().all(Result::is_ok));
    assert_eq!(descriptions(&processes), [2; 3]);
}

#[test]
fn they_are_not_closed_one_by_one() {
    let (clock, processes, opened) = bench(2);
    list(&opened, &processes[..1]).remove(0).unwrap();
    let later = Duration::from_millis(1);
    clock.advance(later);
    list(&opened, &processes[1..]).remove(0).unwrap();
    clock.advance(KEPT_UNUSED - later);
    assert_eq!(opened.close_unused(), Some(SWEEP));
    assert!(opened.known(&processes[0].identity()).is_none());
    clock.advance(SWEEP);
    assert_eq!(opened.close_unused(), None);
}

#[test]
fn the_first_of_very_many_stay() {
    let (_, processes, opened) = bench(20);
    for _ in 0..2 {
        assert!(list(&opened, &processes).iter().all(Result::is_ok));
    }
    let descriptions = descriptions(&processes);
    assert_eq!(descriptions[..16], [1; 16]);
    assert_eq!(descriptions[16..], [2; 4]);
}

#[test]
fn who_was_opened_gives_its_place_to_others() {
    let (_, processes, opened) = bench(17);
    list(&opened, &processes);
    opened.open(&processes[0].identity()).unwrap();
    list(&opened, &processes);
    list(&opened, &processes);
    assert_eq!(descriptions(&processes[..1]), [1], "it stays, too");
    assert_eq!(descriptions(&processes[16..]), [2]);
}

/// SEMANTICS: what has ended is not there, and a new program is another process.
#[test]
fn what_is_pinned_says_nothing_of_who_comes_next() {
    let (_, processes, opened) = bench(3);
    list(&opened, &processes);
    let before = processes[1].identity();
    processes[0].end();
    processes[1].exec();
    processes[2].set_in_exec(true);
    let told = list(&opened, &processes);
    assert!(matches!(told[0], Err(Error::NoProcess(_))), "{:?}", told[0]);
    let after = told[1].as_ref().unwrap().identity;
    assert_eq!(after, processes[1].identity());
    assert_ne!(after, before);
    assert!(matches!(told[2], Err(Error::TimedOut(_))), "{:?}", told[2]);
    assert!(!opened.is_current(&before));
    let ask = |identity| opened.ask(&identity, |process| process.address_space());
    assert!(matches!(ask(before), Err(Error::Replaced(_))));
    assert!(ask(after).is_ok());
}

#[test]
fn others_are_shown_what_the_kernel_shows_them() {
    let (_, processes, opened) = bench(1);
    list(&opened, &processes).remove(0).unwrap();
    let pid = processes[0].identity().pid;
    let stranger = Credentials::plain(1000, 1000);
    processes[0].deny_to(1000);
    let told = opened.describe(Some(&stranger), pid, Duration::ZERO);
    assert_eq!(told, Err(Error::CallerDenied(pid)));
}
