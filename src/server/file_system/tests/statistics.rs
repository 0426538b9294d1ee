//! What `df` shows.

use super::snapshots::remove;
use super::*;
use crate::files::Statistics;

const BUDGET: u64 = 1 << 30;

/// Used, available.
fn used(of: &Statistics) -> (u64, u64) {
    assert!(of.available == of.free && of.free <= of.blocks, "{of:?}");
    (of.blocks - of.free, of.available)
}

/// SEMANTICS: `df` shows the room for snapshots: what they take, and what they may take besides.
#[test]
fn the_room_is_that_of_snapshots() {
    let bench = bench();
    let statistics = || bench.fs.context().statistics();
    let all = BUDGET / PAGE_SIZE;
    assert_eq!(used(&statistics()), (0, all));
    assert_eq!(
        (statistics().block_size, statistics().name_length),
        (4096, 255)
    );
    let _ = bench.snapshot("7@a");
    let (taken, left) = used(&statistics());
    assert!(
        (3..100).contains(&taken),
        "three pages, and what is known of them: {taken}"
    );
    assert_eq!(taken + left, all);
    bench.stores.set_available(5 * PAGE_SIZE + 1);
    assert_eq!(used(&statistics()), (taken, 5), "no more than can be had");
    bench.stores.set_available(0);
    assert_eq!(used(&statistics()), (taken, 0));
    remove(&bench, "7@a").unwrap();
    bench.stores.set_available(u64::MAX);
    assert_eq!(used(&statistics()), (0, all));
    assert_eq!(
        (statistics().files, statistics().files_free),
        (0, 0),
        "not counted"
    );
}

/// SEMANTICS: where no snapshot can be taken there is no room, as in `/proc`.
#[test]
fn without_snapshots_there_is_no_room() {
    let closed = [
        FileOptions {
            no_stop: true,
            ..FileOptions::default()
        },
        FileOptions {
            read_only: true,
            ..FileOptions::default()
        },
    ];
    for options in closed {
        let statistics = bench_with(options, TTL).fs.context().statistics();
        assert_eq!((statistics.blocks, used(&statistics)), (0, (0, 0)));
    }
}
