//! What the daemon tells: of failures few lines, each of which says where.

use std::process::Command;

use nix::sys::signal::Signal;

use crate::support::{
    Mount, Target, daemon_binary, eventually, expect_errno, open_rw, tests, unmount,
};

tests![
    a_clean_end_is_silent: [Need::Root],
    a_signal_is_all_that_is_told_of_its_end,
    a_failure_names_process_mapping_and_path,
    the_same_failure_is_told_once,
    debugging_tells_each_failure,
];

/// `umount` of a mount that was used: not a line.
fn a_clean_end_is_silent() {
    let target = Target::new();
    for options in ["", "write", "cache_ttl=0"] {
        let mut mount = Mount::new(options);
        std::fs::read(mount.file(&target, "private")).unwrap();
        unmount(mount.point());
        assert_eq!(mount.wait().code(), Some(0));
        assert_eq!(mount.log(), "", "{options:?}");
    }
}

/// A signal is told, and nothing that failed, since nothing did.
fn a_signal_is_all_that_is_told_of_its_end() {
    let mut mount = Mount::new("");
    assert!(mount.path("self").exists());
    mount.signal(Signal::SIGTERM);
    assert_eq!(mount.wait().code(), Some(0));
    let log = mount.log();
    assert_eq!(log.lines().count(), 1, "{log}");
    assert!(log.contains("SIGTERM"), "{log}");
}

/// A line tells PID and command, the operation, the path from the mount point on, the error and its
/// reason; no byte of a name is a control character.
fn a_failure_names_process_mapping_and_path() {
    let mut target = Target::new();
    target.ask("comm 6576690a1b5b316d");
    let mount = Mount::new("");
    let path = mount.file(&target, "memfd");
    expect_errno("open for writing", open_rw(&path), libc::EACCES);
    let name = path.file_name().unwrap().to_str().unwrap();
    let pid = target.pid();
    let expected = format!("{pid} (evi__[1m): open of {pid}/{name}: EACCES: ");
    eventually(&expected, || mount.log().contains(&expected).then_some(()));
    let log = mount.log();
    assert_eq!(log.lines().count(), 1, "{log}");
    let (thread, user) = (nix::unistd::gettid(), nix::unistd::geteuid());
    let caller = format!(" of PID {thread}, UID {user}]");
    assert!(log.trim_end().ends_with(&caller), "{log}");
    assert!(
        !log.trim_end().bytes().any(|byte| byte.is_ascii_control()),
        "{log:?}"
    );
    // `mem/PID` is another file.
    let mut command = Command::new(daemon_binary());
    command.arg("-d");
    let mount = Mount::start(command);
    let whole = mount.path("mem").join(pid.to_string());
    expect_errno("open for writing", open_rw(&whole), libc::EACCES);
    let expected = format!("{pid} (evi__[1m): open of mem/{pid}: EACCES: ");
    eventually(&expected, || mount.log().contains(&expected).then_some(()));
    // What is not there is looked up in its directory.
    assert!(!mount.process(pid).join("no\nsuch").exists());
    let expected = format!("{pid} (evi__[1m): lookup of {pid}/no_such: ENOENT: ");
    eventually(&expected, || mount.log().contains(&expected).then_some(()));
}

/// A thousand failures of one kind are one line, and how many there were is told at the end.
fn the_same_failure_is_told_once() {
    let target = Target::new();
    let mut mount = Mount::new("");
    let path = mount.file(&target, "private");
    for _ in 0..1000 {
        expect_errno("open for writing", open_rw(&path), libc::EACCES);
    }
    mount.signal(Signal::SIGTERM);
    mount.wait();
    let log = mount.log();
    let lines = log.lines().filter(|line| line.contains("EACCES"));
    assert_eq!(lines.count(), 2, "{log}");
    assert!(
        log.contains("failures of open with EACCES that were not logged: 999"),
        "{log}"
    );
}

/// With `-d` each of them is told.
fn debugging_tells_each_failure() {
    let target = Target::new();
    let mut command = Command::new(daemon_binary());
    command.arg("-d");
    let mount = Mount::start(command);
    let path = mount.file(&target, "private");
    for _ in 0..50 {
        expect_errno("open for writing", open_rw(&path), libc::EACCES);
    }
    let count = || mount.log().matches(": open of").count();
    eventually("fifty lines", || (count() == 50).then_some(()));
}
