//! A snapshot is of one moment: of all threads of a process, and of all processes of a group.

use std::path::Path;

use nix::sys::signal::Signal;

use super::{at, file_of, mkdir, status_of, take, wait_for_state, word};
use crate::support::{Mount, PAGE, Region, Target, eventually, open, rounds, tests};

tests![
    words_of_distant_pages_are_of_one_moment,
    threads_are_stopped_together,
    processes_of_a_group_are_stopped_together,
    a_stopped_target_stays_stopped,
];

/// A target with a region in which a thread counts, one page after the other.
pub(super) fn counting() -> (Target, Region) {
    let mut target = Target::new();
    let region = target.region("scratch");
    target.ask(&format!("in-order {:x} {}", region.start, region.len()));
    (target, region)
}

/// SEMANTICS: all pages are of one moment.
fn words_of_distant_pages_are_of_one_moment() {
    let (target, region) = counting();
    all_words_are_of_one_moment(&Mount::new(""), &target, &region, rounds(50, 1000));
}

/// Takes so many snapshots of a target that counts, one page after the other.
#[track_caller]
pub(super) fn all_words_are_of_one_moment(
    mount: &Mount,
    target: &Target,
    region: &Region,
    taken: u64,
) {
    let mut last = 0;
    for round in 0..taken {
        let copy = take(mount, target.pid(), &round.to_string());
        let file = open(&file_of(&copy, region));
        let words: Vec<u64> = (0..region.len())
            .step_by(PAGE)
            .map(|offset| word(&file, offset))
            .collect();
        let (first, end) = (words[0], words[words.len() - 1]);
        assert!(first >= last && first - end <= 1, "{first} {end}");
        for two in words.windows(2) {
            assert!(two[0] >= two[1], "round {round}: {two:?}");
        }
        last = first;
        drop(file);
        std::fs::remove_dir(&copy).unwrap();
    }
    assert!(last > 0, "it has counted");
}

/// The words in which two threads count by turns.
fn counted(copies: [(&Path, &Region); 2]) -> [u64; 2] {
    copies.map(|(copy, region)| word(&open(&file_of(copy, region)), 0))
}

/// Fails unless both counters can have been so at one moment: the first one begins.
#[track_caller]
fn of_one_moment([first, second]: [u64; 2]) {
    assert!(
        first.wrapping_sub(second) <= 1,
        "{first} and {second} at one moment"
    );
}

/// SEMANTICS: all threads stand still together.
fn threads_are_stopped_together() {
    let mut target = Target::new();
    let [turn, first, second] = ["shared", "private", "counter"].map(|name| target.region(name));
    target.write(turn.start, &[0; 8]);
    for (own, mine) in [(&first, 0), (&second, 1)] {
        target.ask(&format!(
            "take-turns {:x} {:x} {mine}",
            turn.start, own.start
        ));
    }
    // More of them, so that to stop all takes longer.
    target.ask("threads 30");
    let mount = Mount::new("");
    let mut last = 0;
    for round in 0..rounds(50, 1000) {
        let copy = take(&mount, target.pid(), &round.to_string());
        let both = counted([(&copy, &first), (&copy, &second)]);
        of_one_moment(both);
        assert!(both[0] >= last);
        last = both[0];
        std::fs::remove_dir(&copy).unwrap();
    }
    assert!(last > 0, "they have counted");
}

/// SEMANTICS: `PID+PID@NAME` stops several processes for one moment: of two that pass a token to each other one has it, never both and
/// never none. Taken one after the other they do not fit together.
fn processes_of_a_group_are_stopped_together() {
    let mount = Mount::new("");
    let shared = mount.outside().join("turn");
    std::fs::write(&shared, [0; PAGE]).unwrap();
    let mut targets = [Target::new(), Target::new()];
    let own = targets[0].region("counter");
    for (target, mine) in targets.iter_mut().zip(0..) {
        let path = shared.to_str().unwrap();
        let turn = target.map("turn", path, PAGE, "shared rw");
        target.ask(&format!(
            "take-turns {:x} {:x} {mine}",
            turn.start, own.start
        ));
    }
    let pids = [targets[0].pid(), targets[1].pid()];
    let mut last = 0;
    for round in 0..rounds(50, 1000) {
        let name = format!("{}+{}@{round}", pids[0], pids[1]);
        mkdir(&mount, &name).unwrap();
        let copies = pids.map(|pid| at(&mount, &name).join(pid.to_string()));
        let both = counted([(&copies[0], &own), (&copies[1], &own)]);
        of_one_moment(both);
        assert!(both[0] >= last);
        last = both[0];
        std::fs::remove_dir(at(&mount, &name)).unwrap();
    }
    // So that it is no test that cannot fail.
    let one = take(&mount, pids[0], "alone");
    let first = counted([(&one, &own), (&one, &own)])[0];
    eventually("they go on", || {
        let now: u64 = targets[1]
            .ask(&format!("value {:x}", own.start))
            .parse()
            .unwrap();
        (now > first + 2).then_some(())
    });
    let other = take(&mount, pids[1], "alone");
    let both = counted([(&one, &own), (&other, &own)]);
    assert!(both[0].wrapping_sub(both[1]) > 1, "{both:?}");
}

/// SEMANTICS: a target that was stopped by a signal stays so, and goes on when it is told to.
fn a_stopped_target_stays_stopped() {
    let (mut target, region) = counting();
    let mount = Mount::new("");
    target.signal(Signal::SIGSTOP);
    wait_for_state(target.pid(), 'T');
    for round in 0..rounds(5, 100) {
        let copy = take(&mount, target.pid(), &round.to_string());
        // It wakes up, and stops again.
        wait_for_state(target.pid(), 'T');
        assert_eq!(status_of(target.pid(), "TracerPid:"), "0");
        let file = open(&file_of(&copy, &region));
        let live = open(&mount.mapping(target.pid(), region.start, region.end));
        assert_eq!(word(&file, 0), word(&live, 0));
    }
    target.signal(Signal::SIGCONT);
    let was: u64 = target
        .ask(&format!("value {:x}", region.start))
        .parse()
        .unwrap();
    eventually("it counts", || {
        let now: u64 = target
            .ask(&format!("value {:x}", region.start))
            .parse()
            .unwrap();
        (now > was).then_some(())
    });
}
