//! Processes of which there is no snapshot, and mounts that take none.

use std::process::Command;

use nix::sys::ptrace;
use nix::unistd::Pid;

use super::{at, file_of, mkdir, names, nothing_is_left, runs_on, take, word};
use crate::support::{Mount, Program, Target, assert_bytes, expect_errno, open, run, tests};

tests![
    a_traced_target_is_left_to_its_tracer,
    without_stops_there_are_no_snapshots,
    a_mount_that_is_read_only_takes_none,
    the_daemon_takes_none_of_itself,
    a_thread_that_waits_for_a_vfork_cannot_be_stopped,
    a_process_takes_one_of_itself: [Need::Tool("python3"), Need::Ptrace],
    one_of_a_group_is_refused_and_all_go_on,
];

/// SEMANTICS: a target that is traced is `EBUSY`, and its tracer keeps it.
fn a_traced_target_is_left_to_its_tracer() {
    let mut target = Target::new();
    let mount = Mount::new("");
    let pid = Pid::from_raw(target.pid() as i32);
    ptrace::seize(pid, ptrace::Options::empty()).unwrap();
    let name = format!("{pid}@x");
    expect_errno("mkdir", mkdir(&mount, &name), libc::EBUSY);
    let tracer = super::status_of(target.pid(), "TracerPid:");
    assert_eq!(tracer, nix::unistd::gettid().to_string());
    nothing_is_left(&mount);
    assert!(mount.log().contains("EBUSY"), "{}", mount.log());
    let start = target.region("private").start;
    target.read(start, 8);
    // Tracing ends with a stop.
    ptrace::interrupt(pid).unwrap();
    super::wait_for_state(target.pid(), 't');
    ptrace::detach(pid, None).unwrap();
    mkdir(&mount, &name).unwrap();
    runs_on(&mut target);
}

/// SEMANTICS: with `nostop` `mkdir` is `EPERM`, and a log line names the option.
fn without_stops_there_are_no_snapshots() {
    let mut target = Target::new();
    let mount = Mount::new("nostop");
    expect_errno(
        "mkdir",
        mkdir(&mount, &format!("{}@x", target.pid())),
        libc::EPERM,
    );
    assert!(mount.log().contains("nostop"), "{}", mount.log());
    runs_on(&mut target);
}

fn a_mount_that_is_read_only_takes_none() {
    let target = Target::new();
    let mount = Mount::new("ro");
    expect_errno(
        "mkdir",
        mkdir(&mount, &format!("{}@x", target.pid())),
        libc::EROFS,
    );
    nothing_is_left(&mount);
}

fn the_daemon_takes_none_of_itself() {
    let mount = Mount::new("");
    let target = Target::new();
    let daemon = mount.daemon();
    expect_errno("mkdir", mkdir(&mount, &format!("{daemon}@x")), libc::EIO);
    let both = format!("{}+{daemon}@x", target.pid());
    expect_errno("mkdir of both", mkdir(&mount, &both), libc::EIO);
    nothing_is_left(&mount);
}

/// SEMANTICS: a process of which a thread does not come out of the kernel is `ETIMEDOUT`, and runs on.
fn a_thread_that_waits_for_a_vfork_cannot_be_stopped() {
    let mut target = Target::new();
    let child: u32 = target.ask("vfork-wait").parse().unwrap();
    let mount = Mount::new("");
    let name = format!("{}@x", target.pid());
    expect_errno("mkdir", mkdir(&mount, &name), libc::ETIMEDOUT);
    nothing_is_left(&mount);
    runs_on(&mut target);
    // The child itself can be.
    let copy = take(&mount, child, "child");
    let shown = std::fs::read(file_of(&copy, &target.region("private"))).unwrap();
    assert_bytes("of the child", &shown, &target.bytes("private"));
    nix::sys::signal::kill(Pid::from_raw(child as i32), nix::sys::signal::SIGKILL).unwrap();
    super::wait_for_state(child, 'Z');
    mkdir(&mount, &name).unwrap();
    runs_on(&mut target);
}

/// SEMANTICS: a process may take a snapshot of itself: the thread that waits for it stands still anyway.
fn a_process_takes_one_of_itself() {
    let mount = Mount::new("");
    let script = "import os, sys\n\
         secret = b'+'.join([b'procmemfs', b'keeps', b'a', b'secret', b'4711'])\n\
         import threading\n\
         threading.Thread(target=threading.Event().wait, daemon=True).start()\n\
         copy = f'{sys.argv[1]}/snap/{os.getpid()}@self'\n\
         os.mkdir(copy)\n\
         found = 0\n\
         for name in os.listdir(copy):\n\
         \x20   if 'rw' in name: found += open(f'{copy}/{name}', 'rb').read().count(secret)\n\
         assert found, 'it is not in the copy'\n\
         core = open(f'{copy}/core', 'rb').read(4)\n\
         assert core == b'\\x7fELF', core\n\
         os.rmdir(copy)\n";
    for _ in 0..5 {
        let mut python = Command::new("python3");
        run(python.args(["-c", script]).arg(mount.point()))
            .success()
            .quiet();
    }
    nothing_is_left(&mount);
}

/// SEMANTICS: of a group all or none are copied.
fn one_of_a_group_is_refused_and_all_go_on() {
    let mut targets = [Target::new(), Target::new()];
    let sleeper = Program::sleep();
    let mount = Mount::new("");
    let pids = [targets[0].pid(), targets[1].pid(), sleeper.pid()];
    let traced = Pid::from_raw(pids[1] as i32);
    ptrace::seize(traced, ptrace::Options::empty()).unwrap();
    let name = format!("{}+{}+{}@x", pids[2], pids[1], pids[0]);
    expect_errno("a traced one", mkdir(&mount, &name), libc::EBUSY);
    nothing_is_left(&mount);
    ptrace::interrupt(traced).unwrap();
    super::wait_for_state(pids[1], 't');
    ptrace::detach(traced, None).unwrap();
    let missing = format!("{}+4194305@x", pids[0]);
    expect_errno(
        "one that is not there",
        mkdir(&mount, &missing),
        libc::ENOENT,
    );
    nothing_is_left(&mount);
    targets.iter_mut().for_each(runs_on);
    mkdir(&mount, &name).unwrap();
    let mut expected = pids.map(|pid| pid.to_string()).to_vec();
    expected.sort();
    assert_eq!(names(&at(&mount, &name)), expected);
    for target in &mut targets {
        let region = target.region("private");
        let dir = at(&mount, &name).join(target.pid().to_string());
        let file = open(&file_of(&dir, &region));
        let own: [u8; 8] = target.bytes("private")[..8].try_into().unwrap();
        assert_eq!(word(&file, 0), u64::from_ne_bytes(own));
        runs_on(target);
    }
    std::fs::remove_dir(at(&mount, &name)).unwrap();
    nothing_is_left(&mount);
}
