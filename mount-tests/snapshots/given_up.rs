//! Snapshots that are not completed: nothing of them is left, and the target runs on.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{at, mkdir, names, nothing_is_left, runs_on, status_of};
use crate::support::{
    Hang, HungFs, Mount, PAGE, Target, eventually, is_mounted, rounds, tests, unmount_lazily,
};

tests![
    a_mkdir_that_is_interrupted_leaves_nothing,
    a_mkdir_that_is_interrupted_while_targets_stand_still_leaves_nothing,
    signals_and_unmounting_meanwhile_let_targets_go_on: [Need::Root],
    a_daemon_that_is_killed_in_the_middle_of_the_stop_lets_targets_go_on: [Need::Root],
    a_daemon_that_is_killed_while_it_copies_lets_the_target_go_on: [Need::Root],
    a_file_that_does_not_answer_is_given_up,
];

/// A `mkdir` that waits.
fn begin(mount: &Mount, name: &str) -> Child {
    Command::new("mkdir")
        .arg(at(mount, name))
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap()
}

/// Waits for its end; fails where that takes long.
#[track_caller]
fn ended(mkdir: &mut Child) -> std::process::ExitStatus {
    eventually("mkdir ends", || mkdir.try_wait().unwrap())
}

/// Two targets of which a group cannot be stopped: the first stands still again and again while the second one is waited for, a second
/// long altogether.
struct Unstoppable {
    first: Target,
    second: Target,
}

impl Unstoppable {
    fn new() -> Self {
        let (mut first, mut second) = (Target::new(), Target::new());
        // Processes are stopped by number, lowest first.
        while first.pid() > second.pid() {
            (first, second) = (second, Target::new());
        }
        second.ask("vfork-wait");
        // Else its parent never ends, nor does the test.
        Self { first, second }
    }

    fn name(&self) -> String {
        format!("{}+{}@x", self.first.pid(), self.second.pid())
    }

    /// A `mkdir` of theirs, while the first one stands still. One that has given up before that was seen counts for nothing.
    #[track_caller]
    fn begin(&self, mount: &Mount) -> Child {
        eventually("the first one stands still", || {
            let mut mkdir = begin(mount, &self.name());
            while mkdir.try_wait().unwrap().is_none() {
                if status_of(self.first.pid(), "State:").starts_with('t') {
                    return Some(mkdir);
                }
            }
            None
        })
    }

    #[track_caller]
    fn run_on(&mut self) {
        runs_on(&mut self.first);
        runs_on(&mut self.second);
    }
}

/// A target with a mapping of which nobody knows what is in it for as long as this exists.
struct Waiting {
    target: Target,
    _files: HungFs,
}

impl Waiting {
    fn new() -> Self {
        let files = HungFs::new();
        let mut target = Target::new();
        let path = files.file("file");
        target.map("hung", path.to_str().unwrap(), 64 * PAGE, "shared r");
        files.hang(Hang::Attributes);
        Self {
            target,
            _files: files,
        }
    }
}

/// SEMANTICS: `mkdir` can be interrupted, also by SIGKILL.
fn a_mkdir_that_is_interrupted_leaves_nothing() {
    let mut waiting = Waiting::new();
    let mount = Mount::new("");
    let name = format!("{}@x", waiting.target.pid());
    for signal in [Signal::SIGINT, Signal::SIGKILL, Signal::SIGTERM] {
        // It waits for the file for two seconds. One that ended before the signal came was not interrupted.
        eventually("one that is interrupted", || {
            let mut mkdir = begin(&mount, &name);
            std::thread::sleep(Duration::from_millis(100));
            kill(Pid::from_raw(mkdir.id() as i32), signal).unwrap();
            let ended = ended(&mut mkdir).signal();
            assert_eq!(names(&mount.path("snap")), [""; 0]);
            runs_on(&mut waiting.target);
            (ended == Some(signal as i32)).then_some(())
        });
    }
    drop(waiting);
    nothing_is_left(&mount);
}

/// SEMANTICS: also where targets stand still just then.
fn a_mkdir_that_is_interrupted_while_targets_stand_still_leaves_nothing() {
    let mut targets = Unstoppable::new();
    let mount = Mount::new("");
    for _ in 0..rounds(3, 30) {
        for signal in [Signal::SIGINT, Signal::SIGKILL] {
            // One that ended before the signal came was not interrupted.
            eventually("one that is interrupted", || {
                let mut mkdir = targets.begin(&mount);
                kill(Pid::from_raw(mkdir.id() as i32), signal).unwrap();
                let ended = ended(&mut mkdir).signal();
                targets.run_on();
                nothing_is_left(&mount);
                (ended == Some(signal as i32)).then_some(())
            });
        }
    }
}

/// SEMANTICS: SIGTERM to the daemon and unmounting end it all, while targets stand still.
fn signals_and_unmounting_meanwhile_let_targets_go_on() {
    let mut targets = Unstoppable::new();
    for signal in [Some(Signal::SIGTERM), None] {
        let mut mount = Mount::new("");
        let mut mkdir = targets.begin(&mount);
        match signal {
            Some(signal) => mount.signal(signal),
            None => unmount_lazily(mount.point()),
        }
        ended(&mut mkdir);
        assert!(mount.wait().success());
        assert!(!is_mounted(mount.point()));
        targets.run_on();
    }
}

/// SEMANTICS: the same where the daemon is killed in the middle of the stop.
fn a_daemon_that_is_killed_in_the_middle_of_the_stop_lets_targets_go_on() {
    let mut targets = Unstoppable::new();
    for _ in 0..rounds(5, 100) {
        let mut mount = Mount::new("");
        let mut mkdir = targets.begin(&mount);
        mount.signal(Signal::SIGKILL);
        mount.wait();
        assert!(!ended(&mut mkdir).success());
        targets.run_on();
        unmount_lazily(mount.point());
    }
}

/// So it does where that is while it copies.
fn a_daemon_that_is_killed_while_it_copies_lets_the_target_go_on() {
    let mut target = Target::new();
    target.ask(&format!("grow-heap {}", 128 << 20));
    for _ in 0..rounds(5, 100) {
        let mut mount = Mount::new("");
        let mut mkdir = begin(&mount, &format!("{}@x", target.pid()));
        // Where that is over before it is seen the daemon is killed all the same.
        while mkdir.try_wait().unwrap().is_none() {
            if status_of(target.pid(), "State:").starts_with('t') {
                break;
            }
        }
        mount.signal(Signal::SIGKILL);
        mount.wait();
        ended(&mut mkdir);
        runs_on(&mut target);
        unmount_lazily(mount.point());
    }
}

/// SEMANTICS: where a file of a mapping does not answer a snapshot is `ETIMEDOUT`; nobody stands still for it.
fn a_file_that_does_not_answer_is_given_up() {
    let mut waiting = Waiting::new();
    let mount = Mount::new("");
    let name = format!("{}@x", waiting.target.pid());
    let errno = mkdir(&mount, &name).unwrap_err().raw_os_error();
    assert_eq!(errno, Some(libc::ETIMEDOUT));
    runs_on(&mut waiting.target);
    assert_eq!(names(&mount.path("snap")), [""; 0]);
    drop(waiting);
    nothing_is_left(&mount);
}
