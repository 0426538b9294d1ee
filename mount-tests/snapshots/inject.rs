//! Snapshots with `-o inject`: a thread of the target is made to open a `userfaultfd`, and notices nothing of it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::moment::{all_words_are_of_one_moment, counting};
use super::{at, file_of, mkdir, nothing_is_left, runs_on, status_of, take};
use crate::faults::{Injection, unfiltered};
use crate::support::{
    FrozenGroup, Mount, Program, Region, Stats, Target, assert_bytes, current_test, eventually,
    open, rounds, run, tests, unmount_lazily,
};

tests![
    what_a_thread_does_is_not_disturbed: [Need::Root, Need::Tool("cc")],
    a_daemon_that_is_killed_at_any_call_disturbs_nothing: [Need::Root, Need::Tool("cc"), Need::Tool("strace")],
    words_of_distant_pages_are_of_one_moment: [Need::Root],
    memory_that_comes_and_goes_is_copied_as_it_is: [Need::Root],
    who_must_not_be_touched_is_copied_while_it_stands_still: [Need::Root, Need::Tool("cc")],
    who_is_frozen_stays_where_it_is: [Need::Root, Need::Tool("cc"), Need::Freezer],
];

/// What its first thread does: see `blocked.c`.
const STATES: [&str; 6] = ["spin", "sleep", "poll", "futex", "read", "suspend"];

/// Those in which the blocked signals are others while it waits; it looks at them itself.
const CHANGES_SIGNALS: [&str; 2] = ["poll", "suspend"];

/// What a log says where a process was not tracked.
const IN_SPITE: &str = "in spite of -o inject";

/// A process that notices what is done to its first thread, and ends then. Killed when dropped.
struct Blocked {
    program: Program,
    dir: TempDir,
    before: Footing,
}

/// What a process has that must not change.
#[derive(Debug, PartialEq, Eq)]
struct Footing {
    descriptors: Vec<String>,
    vdso: Vec<u8>,
    /// Where no system call changes them for as long as it waits.
    blocked_signals: Option<String>,
}

impl Footing {
    #[track_caller]
    fn of(pid: u32, state: &str) -> Self {
        let directory = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let links = directory.map(|entry| std::fs::read_link(entry.unwrap().path()).unwrap());
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        let vdso = maps.lines().find(|line| line.ends_with("[vdso]")).unwrap();
        let region = Region::parse(vdso.split(' ').next().unwrap()).unwrap();
        let mem = open(Path::new(&format!("/proc/{pid}/mem")));
        Self {
            descriptors: links.map(|it| it.display().to_string()).collect(),
            vdso: crate::support::pread_all(&mem, region.start, region.len()),
            blocked_signals: (!CHANGES_SIGNALS.contains(&state)).then(|| status_of(pid, "SigBlk:")),
        }
    }
}

fn build(dir: &Path) -> std::path::PathBuf {
    let (source, binary) = (dir.join("blocked.c"), dir.join("blocked"));
    std::fs::write(&source, include_str!("blocked.c")).unwrap();
    let mut cc = Command::new("cc");
    cc.args(["-O1", "-pthread", "-o"]).arg(&binary).arg(source);
    run(&mut cc).success();
    binary
}

impl Blocked {
    fn new(binary: &Path, state: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(binary);
        command.arg(state).arg(dir.path().join("count"));
        let program = Program::of(command);
        assert_eq!(program.said, "ready");
        let before = Footing::of(program.pid(), state);
        Self {
            program,
            dir,
            before,
        }
    }

    fn pid(&self) -> u32 {
        self.program.pid()
    }

    /// How far it has come.
    fn count(&self) -> u64 {
        let bytes = std::fs::read(self.dir.path().join("count")).unwrap();
        u64::from_ne_bytes(bytes[..8].try_into().unwrap())
    }

    /// It goes on as if nothing had been.
    #[track_caller]
    fn is_undisturbed(&mut self, what: &str) {
        let was = self.count();
        eventually(&format!("{what}: it goes on"), || {
            let status = status_of(self.pid(), "State:");
            assert!(!status.starts_with('Z'), "{what}: it has noticed something");
            (self.count() > was + 1).then_some(())
        });
        assert_eq!(status_of(self.pid(), "TracerPid:"), "0", "{what}");
        let smaps = std::fs::read_to_string(format!("/proc/{}/smaps", self.pid())).unwrap();
        let tracked = smaps
            .lines()
            .any(|line| line.starts_with("VmFlags:") && line.contains(" uw"));
        assert!(!tracked, "{what}: its memory is protected still");
    }
}

/// Fails where a target stood still while it was copied, unless it had no processor for a second.
#[track_caller]
fn never_stood_still_without_a_reason(mount: &Mount) {
    let log = mount.log();
    let mut told = log.lines().filter(|line| line.contains(IN_SPITE));
    assert!(told.all(|line| line.contains("does not run")), "{log}");
}

/// SEMANTICS: the thread does what it would have done, with all registers, signals and times.
fn what_a_thread_does_is_not_disturbed() {
    let dir = tempfile::tempdir().unwrap();
    let binary = build(dir.path());
    for state in STATES {
        let mut blocked = Blocked::new(&binary, state);
        let mount = Mount::new("inject");
        let taken = rounds(15, 1000);
        for round in 0..taken {
            let copy = take(&mount, blocked.pid(), &round.to_string());
            std::fs::remove_dir(copy).unwrap();
            // At another place of what it does.
            std::thread::sleep(Duration::from_micros(round * 37 % 3000));
        }
        blocked.is_undisturbed(state);
        assert_eq!(Footing::of(blocked.pid(), state), blocked.before, "{state}");
        // One more for each that had to begin once more, since somebody got no processor.
        assert!(Stats::of(&mount).get("stops_total") >= 2 * taken, "{state}");
        never_stood_still_without_a_reason(&mount);
    }
}

/// SEMANTICS: the same where the daemon is killed in the middle, before any of the calls of ptrace(2).
fn a_daemon_that_is_killed_at_any_call_disturbs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let binary = build(dir.path());
    // All calls of the first stop, each in one of the states; in the long form in all of them.
    let step = rounds(STATES.len() as u64, 1);
    let mut killed = 0;
    for (number, state) in (0..).zip(STATES) {
        let mut call = number % step + 1;
        loop {
            // A new one each time: what an attempt leaves in the vDSO is passed over by the next one, until there is no room.
            let mut blocked = Blocked::new(&binary, state);
            let mut mount = unfiltered("inject");
            let inject = format!("inject=ptrace:signal=SIGKILL:when={call}");
            let arguments = ["-e".into(), "trace=ptrace".into(), "-e".into(), inject];
            let injection = Injection::begin(&mount, &arguments);
            let taken = mkdir(&mount, &format!("{}@x", blocked.pid()));
            match taken.map_err(|error| error.raw_os_error().unwrap()) {
                Ok(()) => {
                    injection.end();
                    never_stood_still_without_a_reason(&mount);
                    // The first stop makes so many calls, most of them for this.
                    assert!(call > 50, "{call}");
                    break;
                }
                Err(libc::ECONNABORTED | libc::ENOTCONN) => injection.outlive(),
                // Given up, since all of it is slow under `strace`: once more.
                Err(libc::ETIMEDOUT) => {
                    injection.end();
                    blocked.is_undisturbed(state);
                    continue;
                }
                Err(errno) => panic!("{state}, call {call}: {errno}"),
            }
            killed += 1;
            call += step;
            mount.wait();
            blocked.is_undisturbed(&format!("{state}, killed before call {call}"));
            let after = Footing::of(blocked.pid(), state);
            assert_eq!(after.descriptors, blocked.before.descriptors);
            assert_eq!(after.blocked_signals, blocked.before.blocked_signals);
            unmount_lazily(mount.point());
            // And it can be taken still.
            let mount = Mount::new("inject");
            take(&mount, blocked.pid(), "last");
            blocked.is_undisturbed(state);
        }
    }
    eprintln!("[{}] {killed} times killed", current_test());
    assert!(killed > 20, "{killed}");
}

/// SEMANTICS: what is copied while the target runs is of the moment of the second stop.
fn words_of_distant_pages_are_of_one_moment() {
    let (target, region) = counting();
    let mount = Mount::new("inject");
    let taken = rounds(30, 2000);
    all_words_are_of_one_moment(&mount, &target, &region, taken);
    assert!(Stats::of(&mount).get("stops_total") >= 2 * taken);
    nothing_is_left(&mount);
}

/// SEMANTICS: mappings that come, go, move and are filled anew meanwhile are shown as they are in the end.
fn memory_that_comes_and_goes_is_copied_as_it_is() {
    let mut target = Target::new();
    let churn = target.ask(&format!("churn {}", 8 << 20));
    let churn = Region::parse(&churn).unwrap();
    let mount = Mount::new("inject");
    for round in 0..rounds(6, 2000) {
        let name = format!("{}@{round}", target.pid());
        mkdir(&mount, &name).unwrap();
        for region in ["scratch", "private", "sparse_private", "memfd"] {
            let shown = std::fs::read(file_of(&at(&mount, &name), &target.region(region))).unwrap();
            assert_bytes(region, &shown, &target.bytes(region));
        }
        std::fs::remove_dir(at(&mount, &name)).unwrap();
    }
    assert!(churn.len() > 0);
    runs_on(&mut target);
    nothing_is_left(&mount);
}

/// SEMANTICS: processes that it could harm, or of which not all writes would be seen, stand still while they are copied; the log says why.
fn who_must_not_be_touched_is_copied_while_it_stands_still() {
    for why in [
        "it has a userfaultfd of its own",
        "it is stopped by a signal",
    ] {
        let mut target = Target::new();
        let (region, expected) = (target.region("scratch"), target.bytes("scratch"));
        if why.contains("userfaultfd") {
            target.ask("userfault");
        } else {
            target.signal(Signal::SIGSTOP);
            super::wait_for_state(target.pid(), 'T');
        }
        let mount = Mount::new("inject");
        let copy = take(&mount, target.pid(), "x");
        let log = mount.log();
        let line = log.lines().find(|line| line.contains(IN_SPITE));
        assert!(line.is_some_and(|line| line.contains(why)), "{why}: {log}");
        let shown = std::fs::read(file_of(&copy, &region)).unwrap();
        assert_bytes(why, &shown, &expected);
        target.signal(Signal::SIGCONT);
        runs_on(&mut target);
    }
    filtered();
    for (state, why) in [("step", "step by step"), ("unexecutable", "no vDSO")] {
        left_alone(state, why);
    }
}

/// A process that would end if a thread of it were made to run something.
fn left_alone(state: &str, why: &str) {
    let dir = tempfile::tempdir().unwrap();
    let mut blocked = Blocked::new(&build(dir.path()), state);
    let mount = Mount::new("inject");
    // It is not at every moment in the middle of a step.
    eventually(why, || {
        let copy = take(&mount, blocked.pid(), "x");
        blocked.is_undisturbed(state);
        std::fs::remove_dir(copy).unwrap();
        mount.log().contains(why).then_some(())
    });
}

/// SEMANTICS: a thread that does not run, since its cgroup is frozen, stands where it stood: registers and all.
fn who_is_frozen_stays_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut blocked = Blocked::new(&build(dir.path()), "read");
    let group = FrozenGroup::new(blocked.pid()).unwrap();
    let mount = Mount::new("inject");
    let copy = take(&mount, blocked.pid(), "x");
    let record = std::fs::read_to_string(copy.join("process")).unwrap();
    let log = mount.log();
    assert!(log.contains("frozen"), "{log}");
    let before = Footing::of(blocked.pid(), "read");
    assert_eq!(before, blocked.before);
    // Once more: both show the same place.
    let again = take(&mount, blocked.pid(), "y");
    let threads = |record: &str| {
        let lines = record.lines().filter(|line| line.contains("thread"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let second = std::fs::read_to_string(again.join("process")).unwrap();
    assert_eq!(threads(&second), threads(&record), "{record}");
    drop(group);
    blocked.is_undisturbed("frozen");
}

/// A process whose system calls are judged by a filter: what it does not expect can end it.
fn filtered() {
    let mut command = Command::new("python3");
    command.args(["-c", FILTERED]);
    let program = Program::of(command);
    assert_eq!(status_of(program.pid(), "Seccomp:"), "2");
    let mount = Mount::new("inject");
    take(&mount, program.pid(), "x");
    assert!(mount.log().contains("seccomp"), "{}", mount.log());
    assert!(!status_of(program.pid(), "State:").starts_with('Z'));
}

/// Kills itself at `userfaultfd` (323).
const FILTERED: &str = "
import ctypes, struct, sys
program = b''.join(struct.pack('HBBI', *it) for it in [
    (0x20, 0, 0, 0), (0x15, 0, 1, 323), (0x06, 0, 0, 0x80000000), (0x06, 0, 0, 0x7fff0000)])
buffer = ctypes.create_string_buffer(program)
filters = ctypes.create_string_buffer(struct.pack('HxxxxxxQ', 4, ctypes.addressof(buffer)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, filters, 0, 0) == 0
held = bytearray(4 << 20)
print('ready', flush=True)
sys.stdin.read()
";
