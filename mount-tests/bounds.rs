//! What a target decides costs it nothing, and the daemon little.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use nix::unistd::Whence;
use rustix::fs::getxattr;
use rustix::io::Errno;

use crate::support::{
    Footprint, Mount, Program, Region, Target, assert_bytes, daemon_binary, eventually, measured,
    run, seek, tests,
};

tests![
    a_command_line_of_untouched_memory_is_left_untouched,
    a_command_line_that_a_userfaultfd_holds_back_is_given_at_once,
    a_title_is_what_proc_shows,
    long_values_are_cut_at_64_kib: [Need::Tool("getfattr"), Need::Tool("tar")],
    where_no_descriptor_is_left_that_is_an_error: [Need::Tool("prlimit")],
];

/// What an extended attribute holds at most.
const MOST: usize = 64 << 10;

#[track_caller]
fn command_line(mount: &Mount, pid: u32) -> Vec<u8> {
    let mut value = vec![0xa5; MOST];
    let path = mount.process(pid);
    let len = getxattr(&path, "user.procmemfs.cmdline", &mut value[..]).unwrap();
    value.truncate(len);
    value
}

/// A command line that lies in a terabyte of memory that was never touched: as many zeros as an attribute
/// holds, and neither a page nor a page table more in the target, nor more than those bytes in the daemon.
fn a_command_line_of_untouched_memory_is_left_untouched() {
    for options in ["", "cache_ttl=0"] {
        let mut target = Target::new();
        let mount = Mount::new(options);
        let answer = target.ask(&format!("command-line plain {}", 1_u64 << 40));
        let region = Region::parse(&answer).unwrap();
        // Whatever is needed for the first answer is there from now on.
        command_line(&mount, target.pid());
        let before = Footprint::of(target.pid());
        let daemon = Footprint::of(mount.daemon()).rss;
        for _ in 0..50 {
            assert_bytes("cmdline", &command_line(&mount, target.pid()), &[0; MOST]);
        }
        let after = Footprint::of(target.pid());
        assert_eq!(after.pages, before.pages, "resident, KiB");
        assert_eq!(after.tables, before.tables, "page tables, KiB");
        let grown = Footprint::of(mount.daemon()).rss.saturating_sub(daemon);
        assert!(grown < 4096, "the daemon grew by {grown} KiB");
        // What is there is shown.
        target.write(region.start + 100, b"here");
        let mut expected = vec![0; MOST];
        expected[100..104].copy_from_slice(b"here");
        // What was asked for a moment ago is believed for the longer the longer it took.
        eventually("the command line as it is now", || {
            (command_line(&mount, target.pid()) == expected).then_some(())
        });
    }
}

/// Nobody waits for the pages of a command line that only a `userfaultfd` could bring, and that nobody brings.
fn a_command_line_that_a_userfaultfd_holds_back_is_given_at_once() {
    let mount = Mount::new("");
    let mut target = Target::new();
    target.ask("command-line userfault 65536");
    let started = Instant::now();
    let mut value = vec![0xa5; MOST];
    let path = mount.process(target.pid());
    // What is absent there may be zeros or unknown, and never what the caller had there.
    match getxattr(&path, "user.procmemfs.cmdline", &mut value[..]) {
        Ok(len) => assert!(value[..len].iter().all(|byte| *byte == 0), "zeros only"),
        // Nobody ever brings them: who waits for them is given up.
        Err(errno) => assert_ne!(errno, Errno::TIMEDOUT, "it waited"),
    }
    measured("cmdline below a userfaultfd", started.elapsed());
}

/// A title that a process wrote over its arguments, shorter than they were and longer, is what
/// `/proc/PID/cmdline` shows.
fn a_title_is_what_proc_shows() {
    let mount = Mount::new("cache_ttl=0");
    for len in [3, 60, 300] {
        let mut target = Target::new();
        target.ask(&format!("title {len}"));
        let shown = std::fs::read(format!("/proc/{}/cmdline", target.pid())).unwrap();
        assert_bytes("a title", &command_line(&mount, target.pid()), &shown);
    }
}

/// A command line of a mebibyte, as a long class path makes one, is cut at 64 KiB, and no tool complains.
fn long_values_are_cut_at_64_kib() {
    let mut java = Command::new("sh");
    java.args(["-c", "echo ready; read -r line", "java"]);
    for at in 0..16 {
        java.arg(format!("{at}").repeat(32 << 10));
    }
    let program = Program::of(java);
    let whole = std::fs::read(format!("/proc/{}/cmdline", program.pid())).unwrap();
    assert!(whole.len() > 1 << 19, "{}", whole.len());
    let mount = Mount::new(&format!("pid={}", program.pid()));
    assert_bytes(
        "cmdline",
        &command_line(&mount, program.pid()),
        &whole[..MOST],
    );
    let process = mount.process(program.pid());
    let mut dump = Command::new("getfattr");
    let output = run(dump.args(["--absolute-names", "-d"]).arg(&process));
    assert!(
        output
            .success()
            .quiet()
            .text()
            .contains("user.procmemfs.cmdline=")
    );
    let archive = mount.outside().join("archive.tar");
    let mut tar = Command::new("tar");
    tar.args(["--xattrs", "--xattrs-include=*", "--no-recursion", "-cf"]);
    run(tar
        .arg(&archive)
        .arg("-C")
        .arg(mount.point())
        .arg(program.pid().to_string()))
    .success()
    .quiet();
    assert!(
        is_longer(&archive, MOST as u64),
        "the archive holds the value"
    );
}

fn is_longer(path: &Path, len: u64) -> bool {
    File::open(path).unwrap().metadata().unwrap().len() > len
}

/// Where the daemon has no descriptor left that is an error to whoever asks, a list is whole or an error, and data is no hole;
/// once there are some again all is as before.
fn where_no_descriptor_is_left_that_is_an_error() {
    let targets: Vec<Target> = (0..12).map(Target::of_generation).collect();
    let mut command = Command::new("prlimit");
    command.arg("--nofile=40:40").arg(daemon_binary());
    // Each ring is a descriptor, too.
    command.args(["-o", "io_uring=off"]);
    let mount = Mount::start(command);
    let stack = |target: &Target| File::open(mount.process(target.pid()).join("stack"));
    let listed = || -> std::io::Result<usize> {
        let mut listed = 0;
        for entry in std::fs::read_dir(mount.point())? {
            let pid = entry?.file_name().into_string().unwrap().parse();
            listed += usize::from(targets.iter().any(|target| Ok(target.pid()) == pid));
        }
        Ok(listed)
    };
    // What its file holds is in no page table, so that it is opened for the answer.
    let shared = File::open(mount.file(&targets[0], "sparse_shared")).unwrap();
    let mut open = Vec::new();
    let refused = targets.iter().find_map(|target| match stack(target) {
        Ok(file) => {
            open.push(file);
            None
        }
        Err(error) => Some(error),
    });
    let is_exhausted = |error: &std::io::Error| error.raw_os_error() == Some(libc::EMFILE);
    assert!(refused.as_ref().is_some_and(is_exhausted), "{refused:?}");
    match listed() {
        Ok(listed) => assert_eq!(listed, targets.len()),
        Err(error) => assert!(is_exhausted(&error), "{error}"),
    }
    match seek(&shared, 0, Whence::SeekData) {
        Ok(found) => assert_eq!(found, Some(0)),
        Err(error) => assert!(is_exhausted(&error), "{error}"),
    }
    drop(open);
    assert_eq!(seek(&shared, 0, Whence::SeekData).unwrap(), Some(0));
    eventually("all is as before", || {
        let all_open = targets.iter().all(|target| stack(target).is_ok());
        (all_open && listed().is_ok_and(|listed| listed == targets.len())).then_some(())
    });
}
