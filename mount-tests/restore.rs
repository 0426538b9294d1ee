//! `procmemfs restore`: programs whose memory goes back to a snapshot, or to a backup of one, and that go on.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use nix::sys::signal::Signal;

use crate::support::{
    Mount, Output, PAGE, SOON, Target, assert_bytes, daemon_binary, end_with_us, eventually,
    lines_of, quote, run, sh, tests,
};

tests![
    a_program_is_rolled_back_and_goes_on: [Need::Ptrace, Need::Tool("python3"), Need::Tool("cp")],
    redis_is_rolled_back_and_goes_on: [
        Need::Ptrace, Need::Tool("redis-server"), Need::Tool("redis-cli")
    ],
    every_kind_of_private_memory_is_restored: [Need::Root],
    shared_memory_is_restored_where_that_is_asked_for: [Need::Root],
    a_process_with_another_layout_is_refused: [Need::Root],
    another_process_is_refused: [Need::Root],
    a_program_with_another_build_id_is_refused: [Need::Root, Need::Tool("readelf")],
    a_process_that_is_somewhere_else_is_refused: [Need::Ptrace],
    wrong_arguments_are_one_line,
];

/// A Python program that keeps a number and a list of all its values, and tells both for each line that it is given.
const COUNTER: &str = "import sys
state = {'n': 0, 'all': []}
while True:
    line = sys.stdin.readline()
    if not line: break
    if line.strip() == 'more':
        state['n'] += 1
        state['all'].append('value %d' % state['n'])
    print(state['n'], len(state['all']), flush=True)
";

/// A program that answers each line with one. Killed when dropped.
struct Talking {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Talking {
    fn counter() -> Self {
        // A launcher script is not the interpreter.
        let python = run(Command::new("python3").args(["-c", "import sys; print(sys.executable)"]));
        let mut command = Command::new(python.success().text().trim());
        command
            .args(["-c", COUNTER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = end_with_us(&mut command, Signal::SIGKILL).spawn().unwrap();
        let mut counter = Self {
            input: child.stdin.take().unwrap(),
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
        };
        assert_eq!(counter.ask("tell"), "0 0");
        counter
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn ask(&mut self, line: &str) -> String {
        writeln!(self.input, "{line}").unwrap();
        let mut answer = String::new();
        self.output.read_line(&mut answer).unwrap();
        answer.trim().to_owned()
    }
}

impl Drop for Talking {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Takes a snapshot of a process that waits, and returns its directory.
fn snapshot(mount: &Mount, pid: u32, name: &str) -> PathBuf {
    // The one that has answered may have yet to come to its next call.
    eventually("a process that waits", || {
        let wchan = std::fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap();
        (wchan != "0").then_some(())
    });
    let path = mount.path(format!("snap/{pid}@{name}"));
    std::fs::create_dir(&path).unwrap();
    path
}

fn restore(options: &[&str], directory: &Path, pid: u32) -> Output {
    let mut command = Command::new(daemon_binary());
    command
        .arg("restore")
        .args(options)
        .arg(directory)
        .arg(pid.to_string());
    run(&mut command)
}

/// Restores as soon as all threads are where they were: a program is so once it waits for its next request.
#[track_caller]
fn restored(options: &[&str], directory: &Path, pid: u32) -> String {
    eventually("a restore", || {
        let output = restore(options, directory, pid);
        let text = output.text();
        let is_done = !text.is_empty();
        if !is_done {
            output.failure().one_line(&["not where they were"]);
        }
        is_done.then_some(text)
    })
}

/// SEMANTICS: a program goes on from the memory that it had.
fn a_program_is_rolled_back_and_goes_on() {
    let mount = Mount::new("");
    let mut counter = Talking::counter();
    // The interpreter takes a shorter way, with less on its stack, once it has seen a loop some times.
    for _ in 0..50 {
        counter.ask("tell");
    }
    for _ in 0..3 {
        counter.ask("more");
    }
    let before = snapshot(&mount, counter.pid(), "before");
    let backup = mount.outside().join("backup");
    sh(&format!(
        "cp -r --sparse=always {} {}",
        quote(&before),
        quote(&backup)
    ))
    .success()
    .quiet();
    // Few enough that it needs no memory from the system: the mappings stay as they are.
    for _ in 0..20 {
        counter.ask("more");
    }
    assert_eq!(counter.ask("tell"), "23 23");
    let dry = restored(&["--dry-run"], &before, counter.pid());
    assert!(dry.contains("would be written"), "{dry}");
    assert_eq!(counter.ask("tell"), "23 23", "nothing was written");
    let told = restored(&[], &before, counter.pid());
    assert!(told.contains(" written, of "), "{told}");
    assert_eq!(counter.ask("tell"), "3 3");
    assert_eq!(counter.ask("more"), "4 4", "it goes on");
    // Once more from a copy, the snapshot being gone.
    std::fs::remove_dir(&before).unwrap();
    restored(&[], &backup, counter.pid());
    assert_eq!(counter.ask("more"), "4 4");
}

/// SEMANTICS: a server goes on from the memory that it had.
fn redis_is_rolled_back_and_goes_on() {
    let mount = Mount::new("");
    let socket = mount.outside().join("redis.sock");
    let mut command = Command::new("redis-server");
    command.args([
        "--port",
        "0",
        "--save",
        "",
        "--appendonly",
        "no",
        "--hz",
        "1",
        "--unixsocket",
    ]);
    command
        .arg(&socket)
        .current_dir(mount.outside())
        .stdout(Stdio::null());
    let server = Server(end_with_us(&mut command, Signal::SIGKILL).spawn().unwrap());
    let client = |words: &str| {
        let socket = quote(&socket);
        sh(&format!("redis-cli -s {socket} {words}"))
            .text()
            .trim()
            .to_owned()
    };
    eventually("redis", || (client("ping") == "PONG").then_some(()));
    assert_eq!(client("set balance 100"), "OK");
    assert_eq!(client("rpush list a b c"), "3");
    let pid = server.0.id();
    let before = snapshot(&mount, pid, "before");
    assert_eq!(client("set balance 0"), "OK");
    assert_eq!(client("del list"), "1");
    for number in 0..20 {
        assert_eq!(client(&format!("set key:{number} value")), "OK");
    }
    restored(&[], &before, pid);
    assert_eq!(client("get balance"), "100");
    assert_eq!(
        client("lrange list 0 -1")
            .split_whitespace()
            .collect::<Vec<_>>(),
        ["a", "b", "c"]
    );
    assert_eq!(client("dbsize"), "2");
    assert_eq!(client("incr balance"), "101", "it goes on");
}

/// A server that is killed when dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Addresses that a target has written over, and what was there before.
fn spoil(target: &mut Target, regions: &[&str]) -> Vec<(usize, Vec<u8>)> {
    let mut before = Vec::new();
    for name in regions {
        let at = target.region(name).start + PAGE + 5;
        before.push((at, target.read(at, 64)));
        target.write(at, &[0xa5; 64]);
    }
    before
}

fn every_kind_of_private_memory_is_restored() {
    let mount = Mount::new("");
    let mut target = Target::new();
    let taken = snapshot(&mount, target.pid(), "a");
    let spoiled = spoil(&mut target, &["victim", "private", "scratch"]);
    restored(&[], &taken, target.pid());
    for (at, bytes) in spoiled {
        assert_bytes(&format!("{at:x}"), &target.read(at, 64), &bytes);
    }
}

fn shared_memory_is_restored_where_that_is_asked_for() {
    let mount = Mount::new("");
    let mut target = Target::new();
    let taken = snapshot(&mount, target.pid(), "a");
    let spoiled = spoil(&mut target, &["memfd"]);
    restored(&[], &taken, target.pid());
    let (at, bytes) = &spoiled[0];
    assert_bytes("left alone", &target.read(*at, 64), &[0xa5; 64]);
    restored(&["--shared"], &taken, target.pid());
    assert_bytes("restored", &target.read(*at, 64), bytes);
}

/// SEMANTICS: where the layout differs nothing is written.
fn a_process_with_another_layout_is_refused() {
    let mount = Mount::new("");
    let mut target = Target::new();
    let taken = snapshot(&mount, target.pid(), "a");
    let spoiled = spoil(&mut target, &["victim"]);
    let (start, len) = (target.region("victim").start + 4 * PAGE, PAGE);
    target.ask(&format!("unmap {start:x} {len}"));
    restore(&[], &taken, target.pid())
        .failure()
        .one_line(&["mappings", "nothing was written"]);
    let (at, _) = spoiled[0];
    assert_bytes("untouched", &target.read(at, 64), &[0xa5; 64]);
}

fn another_process_is_refused() {
    let mount = Mount::new("");
    let (target, other) = (Target::new(), Target::new());
    let taken = snapshot(&mount, target.pid(), "a");
    restore(&[], &taken, other.pid())
        .failure()
        .one_line(&["not the one that was copied", "nothing was written"]);
    let words = ["nothing was written"];
    restore(&[], &taken, 4_194_305).failure().one_line(&words);
}

/// SEMANTICS: where the program has another build-id nothing is written.
fn a_program_with_another_build_id_is_refused() {
    let mount = Mount::new("");
    let mut target = Target::new();
    let taken = snapshot(&mount, target.pid(), "a");
    let mut readelf = Command::new("readelf");
    let notes = run(readelf.args(["-n", "-W"]).arg(Target::binary())).text();
    let id = notes.split_once("Build ID: ");
    let id = id.map(|(_, rest)| rest.lines().next().unwrap().trim());
    let record = std::fs::read_to_string(taken.join("process")).unwrap();
    let line = record.lines().find(|line| line.starts_with("build-id "));
    assert_eq!(line.and_then(|line| line.split(' ').nth(1)), id, "{record}");
    let backup = mount.outside().join("backup");
    let (from, to) = (quote(&taken), quote(&backup));
    sh(&format!("cp -r --sparse=always {from} {to}")).success();
    let without: String = record
        .lines()
        .filter(|line| !line.starts_with("build-id "))
        .map(|line| format!("{line}\n"))
        .collect();
    let change = |record: &str| std::fs::write(backup.join("process"), record).unwrap();
    let spoiled = spoil(&mut target, &["victim"]);
    let (at, bytes) = &spoiled[0];
    // Root may write what nobody may.
    change(&format!("{without}build-id 0123456789abcdef\n"));
    restore(&[], &backup, target.pid()).failure().one_line(&[
        "build-id",
        "0123456789abcdef",
        "nothing was written",
    ]);
    assert_bytes("untouched", &target.read(*at, 64), &[0xa5; 64]);
    // As a snapshot of an earlier version has it.
    change(&without);
    restored(&[], &backup, target.pid());
    assert_bytes("restored", &target.read(*at, 64), bytes);
}

/// SEMANTICS: where threads are elsewhere nothing is written.
fn a_process_that_is_somewhere_else_is_refused() {
    let mount = Mount::new("");
    let mut command = Command::new("sh");
    command
        .args(["-c", "read -r line; echo runs; while :; do :; done"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = Server(end_with_us(&mut command, Signal::SIGKILL).spawn().unwrap());
    let pid = child.0.id();
    let wchan = || std::fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap();
    eventually("a shell that waits", || {
        wchan().contains("pipe").then_some(())
    });
    let taken = snapshot(&mount, pid, "a");
    child.0.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let said = lines_of(child.0.stdout.take().unwrap());
    assert_eq!(said.recv_timeout(SOON).unwrap(), "runs");
    restore(&[], &taken, pid)
        .failure()
        .one_line(&["where they were", "nothing was written"]);
}

fn wrong_arguments_are_one_line() {
    let mount = Mount::new("");
    let empty = mount.outside().join("empty");
    std::fs::create_dir(&empty).unwrap();
    restore(&[], &empty, 1)
        .failure()
        .one_line(&["no snapshot of a process"]);
    restore(&[], &empty.join("none"), 1)
        .failure()
        .one_line(&["none", "No such file"]);
    let bad = mount.outside().join("bad");
    std::fs::create_dir(&bad).unwrap();
    std::fs::write(bad.join("process"), "pid many\n").unwrap();
    restore(&[], &bad, 1)
        .failure()
        .one_line(&["line 1", "'process'"]);
    let mut command = Command::new(daemon_binary());
    command.arg("restore").arg(&bad).arg("many");
    run(&mut command)
        .failure()
        .one_line(&["'many'", "no process number"]);
    let mut help = Command::new(daemon_binary());
    let help = run(help.args(["restore", "--help"])).success().text();
    assert!(help.contains("SNAPSHOT-OR-BACKUP-DIR"), "{help}");
}
