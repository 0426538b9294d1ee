use std::process::{Command, Stdio};
use std::sync::Arc;

use procfs::process::Process as Directory;

use super::*;
use crate::target::ProcessId;
use crate::target::live::child::Child;

/// A shell that counts, so that it can be seen to run.
fn child(script: &str) -> (Child, Arc<Pinned>) {
    let mut command = Command::new("sh");
    command.args(["-c", script]).stdout(Stdio::null());
    let child = Child::start(&mut command).unwrap();
    let pid = ProcessId::new(child.id()).unwrap();
    let pinned = loop {
        let directory = Directory::new(pid.as_pid_t()).unwrap();
        // Until it runs the shell.
        match Pinned::open(directory, pid, false, None) {
            Ok(pinned) if pinned.line("comm").unwrap() == b"sh" => break pinned,
            _ => std::thread::yield_now(),
        }
    };
    (child, Arc::new(pinned))
}

fn state(pinned: &Pinned) -> (char, String) {
    let status = pinned.contents("status").unwrap();
    let field = |name: &[u8]| field(&status, name).unwrap().to_owned();
    (
        field(b"State:").chars().next().unwrap(),
        field(b"TracerPid:"),
    )
}

#[test]
fn a_process_stands_still_until_it_is_dropped() {
    let (_child, pinned) = child("while :; do :; done");
    let metrics = Arc::new(Metrics::default());
    let stopped = stop(&pinned, &metrics).unwrap();
    assert_eq!(state(&pinned).0, 't');
    let [thread] = stopped.threads() else {
        panic!("{stopped:?}");
    };
    assert_eq!(thread.tid, pinned.identity().pid.as_pid_t());
    assert_eq!(thread.sets[0].kind, kind::PRSTATUS);
    assert!(thread.sets.iter().all(|set| !set.bytes.is_empty()));
    assert_eq!(thread.signal, None);
    drop(stopped);
    assert_eq!(state(&pinned), ('R', "0".to_owned()));
    assert_eq!(metrics.stops.get(), 1);
}

#[test]
fn who_is_stopped_by_job_control_stays_so() {
    let (_child, pinned) = child("kill -STOP $$; :");
    while state(&pinned).0 != 'T' {
        std::thread::yield_now();
    }
    let metrics = Arc::new(Metrics::default());
    drop(stop(&pinned, &metrics).unwrap());
    // It wakes up and stops again. Were it to go on, it would end, and have no state any more.
    while state(&pinned) != ('T', "0".to_owned()) {
        std::thread::yield_now();
    }
}

#[test]
fn who_is_traced_already_is_left_to_its_tracer() {
    let (_child, pinned) = child("while :; do :; done");
    let metrics = Arc::new(Metrics::default());
    let stopped = stop(&pinned, &metrics).unwrap();
    let pid = pinned.identity().pid;
    assert_eq!(stop(&pinned, &metrics).unwrap_err(), Error::Traced(pid));
    assert_eq!(state(&pinned).0, 't', "it stands still");
    drop(stopped);
    assert_eq!(metrics.stops.get(), 1);
}

#[test]
fn this_program_does_not_stop_itself() {
    let pid = ProcessId::new(std::process::id()).unwrap();
    let directory = Directory::new(pid.as_pid_t()).unwrap();
    let pinned = Arc::new(Pinned::open(directory, pid, false, None).unwrap());
    let metrics = Arc::new(Metrics::default());
    assert_eq!(stop(&pinned, &metrics).unwrap_err(), Error::OwnMemory);
}
