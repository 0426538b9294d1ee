//! What a stop does to a process, which is to be nothing that lasts.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::elf::Core;
use super::{Subject, build, core_of};
use crate::support::{
    BUSY, Client, Mount, Stats, current_test, eventually, field, measured, of_threads, rounds,
    tests,
};

tests![
    threads_come_and_go_while_cores_are_taken: [Need::Ptrace],
    real_time_signals_on_their_way_arrive: [Need::Ptrace],
    who_is_stopped_by_a_signal_stays_so: [Need::Ptrace],
    a_thread_that_waits_in_the_kernel_has_no_registers: [Need::Ptrace],
    a_process_whose_first_thread_has_ended: [Need::Root],
    many_threads_stand_still_for_a_moment: [Need::Ptrace],
];

/// State and tracer of each thread.
pub(super) fn states(pid: u32) -> Vec<(char, String)> {
    let statuses = of_threads(pid, "status");
    let state = |status: &String| {
        let state = field(status, "State:")?.chars().next()?;
        Some((state, field(status, "TracerPid:")?.to_owned()))
    };
    statuses.iter().filter_map(state).collect()
}

/// Waits until no thread is traced, and none stands still.
#[track_caller]
pub(super) fn runs_again(pid: u32) {
    eventually("all threads run again", || {
        let states = states(pid);
        let is_free =
            |(state, tracer): &(char, String)| !matches!(state, 't' | 'T') && tracer == "0";
        (!states.is_empty() && states.iter().all(is_free)).then_some(())
    });
}

/// Each core has the registers of each thread once, however many start and end meanwhile, and nobody is forgotten.
fn threads_come_and_go_while_cores_are_taken() {
    const STARTERS: usize = 100;
    let subject = Subject::new("churn", STARTERS);
    let mount = Mount::new("");
    let path = core_of(&mount, subject.pid());
    let taken = rounds(30, 3000);
    let begun = Instant::now();
    let mut most = 0;
    for _ in 0..taken {
        let threads = Core::open(&path).threads();
        let distinct: BTreeSet<u32> = threads.iter().copied().collect();
        assert_eq!(distinct.len(), threads.len(), "a thread twice");
        // Those that start others never end.
        assert!(threads.len() > STARTERS, "{} threads", threads.len());
        assert_eq!(threads[0], subject.pid());
        most = most.max(threads.len());
    }
    measured("a core", begun.elapsed() / taken as u32);
    assert!(most > STARTERS + 10, "{most} threads at most");
    assert_eq!(Stats::of(&mount).get("stops_total"), taken);
    runs_again(subject.pid());
}

/// Signals that are queued while cores are taken, of the kind of which each one counts.
fn real_time_signals_on_their_way_arrive() {
    let dir = tempfile::tempdir().unwrap();
    let binary = build(dir.path(), &[]);
    let mut client = Client::start(Command::new(binary).arg("signals"));
    let signal = i32::from_str_radix(client.line().strip_prefix("number=").unwrap(), 16).unwrap();
    let (pid, mount) = (client.pid(), Mount::new(""));
    let path = core_of(&mount, pid);
    let (wanted, enough) = (rounds(20_000, 2_000_000), rounds(20, 2000));
    let (cores, is_done) = (AtomicU64::new(0), AtomicBool::new(false));
    let sent = std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut sent = 0;
            while sent < wanted || cores.load(Ordering::SeqCst) < enough {
                queue(pid, signal, sent);
                sent += 1;
            }
            is_done.store(true, Ordering::SeqCst);
            sent
        });
        while !is_done.load(Ordering::SeqCst) {
            assert_eq!(Core::open(&path).threads(), [pid]);
            cores.fetch_add(1, Ordering::SeqCst);
        }
        sender.join().unwrap()
    });
    let cores = cores.into_inner();
    eprintln!("[{}] {sent} signals, {cores} cores", current_test());
    eventually("all signals have come", || {
        let come: u64 = client.again().parse().unwrap();
        assert!(come <= sent, "{come} of {sent} have come");
        (come == sent).then_some(())
    });
    runs_again(pid);
}

/// sigqueue(3), again and again while the queue of the process is full.
#[track_caller]
fn queue(pid: u32, signal: i32, number: u64) {
    let value = libc::sigval {
        sival_ptr: number as *mut libc::c_void,
    };
    loop {
        // SAFETY: the value is a number that nobody takes for an address.
        if unsafe { libc::sigqueue(pid as i32, signal, value) } == 0 {
            return;
        }
        let error = std::io::Error::last_os_error();
        assert_eq!(error.raw_os_error(), Some(libc::EAGAIN), "sigqueue");
        std::thread::yield_now();
    }
}

/// SIGSTOP outlasts a core, and SIGCONT ends it as ever.
fn who_is_stopped_by_a_signal_stays_so() {
    let subject = Subject::new("threads", 10);
    let mount = Mount::new("");
    subject.program.stop();
    for _ in 0..rounds(20, 1000) {
        let core = Core::open(&core_of(&mount, subject.pid()));
        assert_eq!(core.threads().len(), 11);
        eventually("it stands still", || {
            let states = states(subject.pid());
            // It wakes up, and stops again on the way.
            let is_stopped = |(state, tracer): &(char, String)| *state == 'T' && tracer == "0";
            states.iter().all(is_stopped).then_some(())
        });
    }
    kill(Pid::from_raw(subject.pid() as i32), Signal::SIGCONT).unwrap();
    runs_again(subject.pid());
}

/// A parent that waits for its child of vfork(2) cannot be stopped: it is left out, soon, and the log says so.
fn a_thread_that_waits_in_the_kernel_has_no_registers() {
    let subject = Subject::new("vfork", 0);
    let pid = subject.at("parent") as u32;
    eventually("it waits", || {
        states(pid)
            .iter()
            .any(|(state, _)| *state == 'D')
            .then_some(())
    });
    let mount = Mount::new("");
    for number in 1..=3 {
        let begun = Instant::now();
        let core = Core::open(&core_of(&mount, pid));
        let took = begun.elapsed();
        measured("a core", took);
        assert!(took < BUSY, "{took:?}");
        let threads = core.threads();
        assert!(threads.len() == 1 && threads[0] != pid, "{threads:?}");
        assert_eq!(Stats::of(&mount).get("stops_total"), number);
        eventually("nobody is traced", || {
            states(pid)
                .iter()
                .all(|(_, tracer)| tracer == "0")
                .then_some(())
        });
    }
    let line = format!("core/{pid}: no registers of 1 of 2 threads, which wait in the kernel");
    eventually("a line of the log", || {
        mount.log().contains(&line).then_some(())
    });
    // The child ends with its input, and the parent after it: nothing has been left on the way to it.
    let mut program = subject.program;
    let ended = program.end();
    assert!(ended.success(), "{ended}");
}

/// The kernel shows such a process without memory; others of its threads have all of it.
fn a_process_whose_first_thread_has_ended() {
    let subject = Subject::new("first-ends", 0);
    let pid = subject.pid();
    eventually("its end", || {
        states(pid)
            .iter()
            .any(|(state, _)| *state == 'Z')
            .then_some(())
    });
    let mount = Mount::new("");
    let core = eventually("two threads", || {
        let core = Core::open(&core_of(&mount, pid));
        (core.threads().len() == 2).then_some(core)
    });
    assert!(
        !core.threads().contains(&pid),
        "it has no registers any more"
    );
    let code = core.loads.iter().find(|load| load.in_file >= 64).unwrap();
    assert_eq!(core.bytes(code.start, 4), b"\x7fELF");
    eventually("nobody is traced", || {
        states(pid)
            .iter()
            .all(|(_, tracer)| tracer == "0")
            .then_some(())
    });
}

/// How long a stop takes is counted.
fn many_threads_stand_still_for_a_moment() {
    let subject = Subject::new("sleepers", 200);
    let mount = Mount::new("");
    let taken = rounds(10, 500);
    for _ in 0..taken {
        let core = Core::open(&core_of(&mount, subject.pid()));
        assert_eq!(core.threads().len(), 201);
    }
    let stats = Stats::of(&mount);
    assert_eq!(stats.get("stops_total"), taken);
    assert_eq!(stats.get("stop_duration_seconds_count"), taken);
    let text = std::fs::read_to_string(mount.path("stats")).unwrap();
    let sum = text
        .lines()
        .find_map(|line| line.strip_prefix("procmemfs_stop_duration_seconds_sum"));
    let sum: f64 = sum.unwrap().trim().parse().unwrap();
    measured(
        "a stop of 201 threads",
        Duration::from_secs_f64(sum / taken as f64),
    );
    assert!(sum > 0.0);
    runs_again(subject.pid());
}
