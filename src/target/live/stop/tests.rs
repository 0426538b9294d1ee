use std::process::{Command, Stdio};
use std::sync::Arc;

use procfs::process::Process as Directory;

use super::*;
use crate::common::clock::SystemClock;
use crate::target::ProcessId;
use crate::target::live::child::Child;
use crate::target::live::mem::Mem;
use crate::target::live::{LiveSource, SourceOptions};
use crate::target::mapping::AddressSpace;

/// A shell that counts, so that it can be seen to run.
fn child(script: &str) -> (Child, Arc<Pinned>) {
    let mut command = Command::new("sh");
    command.args(["-c", script]).stdout(Stdio::null());
    let child = Child::start(&mut command).unwrap();
    let pid = ProcessId::new(child.id()).unwrap();
    let pinned = loop {
        let directory = Directory::new(pid.as_pid_t()).unwrap();
        // Until it runs the shell.
        match Pinned::open(directory, pid, None) {
            Ok(pinned) if pinned.line("comm").unwrap() == b"sh" => break pinned,
            _ => std::thread::yield_now(),
        }
    };
    (child, Arc::new(pinned))
}

/// As the source of all processes does it, with what this kernel has.
fn stop_it(pinned: &Arc<Pinned>, metrics: &Arc<Metrics>) -> Result<Box<dyn Stopped>> {
    let clock = Arc::new(SystemClock::new());
    let source = LiveSource::new(SourceOptions::default(), clock, Arc::clone(metrics)).unwrap();
    stop(pinned, source.kernel(), metrics)
}

fn mappings(pinned: &Pinned) -> Vec<Arc<Mapping>> {
    let space = AddressSpace::parse(&pinned.contents("maps").unwrap()).unwrap();
    space.into_mappings().into_iter().map(Arc::new).collect()
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
    let stopped = stop_it(&pinned, &metrics).unwrap();
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

/// SEMANTICS: nothing is left of what it takes to track writes, and what was written is known.
#[test]
fn writes_are_tracked_and_nothing_is_left_of_that() {
    for script in [
        "while :; do :; done",
        "while :; do sleep 0.01; done",
        "read line < fifo",
    ] {
        let directory = tempfile::tempdir().unwrap();
        let ready = directory.path().join("ready");
        let at = directory.path().display();
        let (_child, pinned) = child(&format!(
            "x=$(seq 20000); cd {at} && mkfifo fifo && : > ready; {script}"
        ));
        let metrics = Arc::new(Metrics::default());
        while !ready.exists() {
            std::thread::yield_now();
        }
        let stopped = stop_it(&pinned, &metrics).unwrap();
        let before = mappings(&pinned);
        let heap = before.iter().find(|it| it.is_heap()).unwrap().range();
        let vdso = before.iter().find(|it| it.is_vdso()).unwrap().range();
        let code = |pinned: &Pinned| {
            let mut bytes = vec![0; vdso.len() as usize];
            pinned.mem().read(vdso.start(), &mut bytes).unwrap();
            bytes
        };
        let files = |pinned: &Pinned| {
            let directory = pinned.open_file("fd").unwrap();
            Dir::new(directory).unwrap().count()
        };
        let was = (code(&pinned), files(&pinned), stopped.threads().to_vec());
        let tracker = stopped.track_writes(&before, &[heap], &|| Ok(())).unwrap();
        drop(stopped);
        let stopped = stop_it(&pinned, &metrics).unwrap();
        assert_eq!(code(&pinned), was.0);
        assert_eq!(files(&pinned), was.1);
        let unwritten = tracker.unwritten(heap).unwrap();
        assert!(!unwritten.is_empty(), "{script}");
        // Another's write is seen, too.
        let page = unwritten[0].start();
        let mut byte = [0];
        pinned.mem().read(page, &mut byte).unwrap();
        let mem = Mem::open_for_writing(pinned.task().directory(), pinned.identity().pid).unwrap();
        mem.write(page, &byte).unwrap();
        let after = tracker.unwritten(heap).unwrap();
        assert!(after[0].start() > page);
        assert_eq!(tracker.unwritten(vdso).unwrap(), []);
        drop((tracker, stopped));
        assert_ne!(state(&pinned).0, 't');
        let smaps = pinned.contents("smaps").unwrap();
        assert!(!String::from_utf8(smaps).unwrap().contains(" uw"));
    }
}

#[test]
fn who_is_stopped_by_job_control_stays_so() {
    let (_child, pinned) = child("kill -STOP $$; :");
    while state(&pinned).0 != 'T' {
        std::thread::yield_now();
    }
    let metrics = Arc::new(Metrics::default());
    drop(stop_it(&pinned, &metrics).unwrap());
    // It wakes up and stops again. Were it to go on, it would end, and have no state any more.
    while state(&pinned) != ('T', "0".to_owned()) {
        std::thread::yield_now();
    }
}

#[test]
fn who_is_traced_already_is_left_to_its_tracer() {
    let (_child, pinned) = child("while :; do :; done");
    let metrics = Arc::new(Metrics::default());
    let stopped = stop_it(&pinned, &metrics).unwrap();
    let pid = pinned.identity().pid;
    assert_eq!(stop_it(&pinned, &metrics).unwrap_err(), Error::Traced(pid));
    assert_eq!(state(&pinned).0, 't', "it stands still");
    drop(stopped);
    assert_eq!(metrics.stops.get(), 1);
}

#[test]
fn this_program_does_not_stop_itself() {
    let pid = ProcessId::new(std::process::id()).unwrap();
    let directory = Directory::new(pid.as_pid_t()).unwrap();
    let pinned = Arc::new(Pinned::open(directory, pid, None).unwrap());
    let metrics = Arc::new(Metrics::default());
    assert_eq!(stop_it(&pinned, &metrics).unwrap_err(), Error::OwnMemory);
}
