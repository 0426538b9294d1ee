//! A daemon that is killed while it holds a process.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::threads::{runs_again, states};
use super::{Subject, core_of};
use crate::support::{Mount, Numbers, SOON, current_test, eventually, is_mounted, rounds, tests};

tests![
    a_daemon_that_is_killed_lets_the_process_go: [Need::Root],
];

/// Whoever is stopped for registers runs on, whenever SIGKILL comes.
fn a_daemon_that_is_killed_lets_the_process_go() {
    const THREADS: usize = 200;
    let subject = Subject::new("sleepers", THREADS);
    let mut numbers = Numbers::new(7);
    let (cores, mut in_a_stop) = (AtomicU64::new(0), 0);
    for _ in 0..rounds(4, 100) {
        let mut mount = Mount::new("");
        let path = core_of(&mount, subject.pid());
        std::thread::scope(|scope| {
            let taker = scope.spawn(|| {
                while std::fs::File::open(&path).is_ok() {
                    cores.fetch_add(1, Ordering::SeqCst);
                }
            });
            // Often, since a stop takes some milliseconds alone.
            let seen = Instant::now();
            while !is_traced(subject.pid()) {
                assert!(seen.elapsed() < SOON, "no stop");
            }
            let (begun, delay) = (Instant::now(), Duration::from_micros(numbers.below(8000)));
            while begun.elapsed() < delay {
                std::hint::spin_loop();
            }
            in_a_stop += u64::from(is_traced(subject.pid()));
            mount.signal(Signal::SIGKILL);
            taker.join().unwrap();
        });
        mount.wait();
        runs_again(subject.pid());
        assert_eq!(
            states(subject.pid()).len(),
            THREADS + 1,
            "no thread has ended"
        );
        eventually("the mount is gone", || {
            (!is_mounted(mount.point())).then_some(())
        });
    }
    let cores = cores.load(Ordering::SeqCst);
    eprintln!(
        "[{}] {cores} cores, {in_a_stop} times killed in a stop",
        current_test()
    );
}

/// Whether the first thread, which is seized first, is traced.
fn is_traced(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    !status.contains("TracerPid:\t0")
}
