//! System calls of the daemon that fail, now and then, by `strace -e inject`: nobody gets a wrong byte, the daemon
//! lives, and once they work again all is as before.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{
    Mount, MountPoint, SOON, Stats, TABLE, Target, Workload, current_test, daemon_binary,
    errno_name, eventually, is_mounted, measured, open, pread_all, rounds, run, tests, thread_call,
};

tests![
    every_system_call_fails_now_and_then: [Need::Root, Need::Tool("strace")],
    a_stop_that_fails_leaves_the_process_running: [Need::Root, Need::Tool("strace")],
    a_start_that_fails_leaves_no_mount: [Need::Root, Need::Tool("strace")],
    no_system_call_is_left_out: [Need::Root, Need::Tool("strace")],
    where_there_is_no_address_space_that_is_an_error: [Need::Root, Need::Tool("prlimit")],
];

/// System calls, the first one of each thread that fails, each how many-th after it, and what it gives instead.
type Faults = (&'static [&'static str], u32, u32, &'static [&'static str]);

/// What the kernel can answer, or what the issue of a seccomp filter can make of it.
const ERRORS: &[&str] = &["EINTR", "ENOMEM", "EMFILE", "EPERM", "ESRCH"];
const VM_ERRORS: &[&str] = &["EINTR", "ENOMEM", "EMFILE", "ESRCH"];

/// All that the daemon calls while it serves, but for [`LEFT_OUT`].
const FAULTS: &[Faults] = &[
    (&["openat", "statx", "ioctl", "pread64"], 1, 7, ERRORS),
    (&["pidfd_open", "pidfd_getfd", "getdents64"], 1, 3, ERRORS),
    (
        &["readlinkat", "fcntl", "fstatfs", "newfstatat"],
        1,
        3,
        ERRORS,
    ),
    (&["lseek", "poll", "readlink"], 1, 3, ERRORS),
    // Of a stop for registers: those of a thread are missing then, and the process runs on.
    (&["ptrace", "waitid"], 1, 3, ERRORS),
    // Of a descriptor of `/proc` it says that the end is reached.
    (&["pread64"], 1, 7, &["0"]),
    (&["process_vm_readv"], 1, 3, VM_ERRORS),
    // Writes, whatever the process.
    (&["pwrite64"], 1, 3, ERRORS),
    (&["process_vm_readv"], 1, 3, &["0"]),
    // Of `/dev/fuse`, too: any other error ends a thread that serves, as `fuser` has it.
    (&["read"], 1, 5, &["EINTR"]),
    // Requests and answers over io_uring: any other error ends the mount, as of `/dev/fuse`.
    (&["io_uring_enter"], 1, 5, &["EINTR"]),
    (&["sched_setaffinity"], 1, 2, &["EPERM", "EINVAL"]),
    (&["clone3"], 1, 2, &["EAGAIN", "ENOMEM"]),
    // The second one of a new thread is for its stack of signals. Rust ends the program where it fails.
    (&["mmap", "mprotect"], 3, 2, &["ENOMEM"]),
    (&["munmap", "madvise", "brk"], 1, 2, &["ENOMEM"]),
    (&["sched_getaffinity", "prctl"], 1, 2, &["EPERM", "ENOMEM"]),
    // Where it is refused it is made no more, and `/proc/PID/mem` is used: the last ones.
    (&["process_vm_readv"], 1, 3, &["EPERM"]),
    (&["pread64"], 1, 3, ERRORS),
];

/// Calls that are not made to fail, and why.
const LEFT_OUT: &[(&str, &str)] = &[
    (
        "writev",
        "answers: one that does not reach the kernel is lost, and it refuses none",
    ),
    (
        "futex",
        "one that wakes is not told from one that waits; it is never refused, and what strace answers wakes nobody",
    ),
    ("write", "lines of the log"),
    (
        "close",
        "closes whatever it says; one that strace answers has not closed",
    ),
    ("getpid", "cannot fail"),
    ("gettid", "cannot fail"),
    ("rt_sigtimedwait", "waits for a signal that ends the daemon"),
    ("sched_yield", "cannot fail"),
    (
        "clock_nanosleep",
        "of Rust, which sleeps on where it is interrupted, and ends the program where it fails",
    ),
    ("exit", "does not return"),
    ("rseq", "of glibc, at the start of a thread"),
    ("set_robust_list", "of glibc, at the start of a thread"),
    ("rt_sigprocmask", "of glibc, at the start of a thread"),
    ("sigaltstack", "of Rust, at the start of a thread"),
    ("getrandom", "of Rust, once, for hash tables"),
    (
        "userfaultfd",
        "for huge pages of files, which this does not have",
    ),
    ("restart_syscall", "goes on with another one"),
    ("open", "of musl, in the place of openat"),
    ("stat", "of musl, in the place of newfstatat"),
    ("fstat", "of musl, in the place of newfstatat"),
    ("clone", "of musl, in the place of clone3"),
    ("mremap", "of musl, where memory grows"),
];

/// Without a filter of its own: a call that `strace` answers is none of the list.
const UNFILTERED: [&str; 2] = ["env", "PROCMEMFS_SECCOMP=off"];

pub(crate) fn unfiltered(options: &str) -> Mount {
    let mut command = Command::new(UNFILTERED[0]);
    command.arg(UNFILTERED[1]).arg(daemon_binary());
    command.args(["-o", options]);
    Mount::start(command)
}

/// `strace` on a daemon that runs. Detached when dropped.
pub(crate) struct Injection {
    strace: Child,
    mount: std::path::PathBuf,
}

impl Injection {
    /// Makes a system call of the daemon fail from now on.
    #[track_caller]
    pub(crate) fn begin(mount: &Mount, arguments: &[String]) -> Self {
        let log = mount.outside().join("strace");
        let mut command = Command::new("strace");
        command.args(["-f", "-e", "signal=none", "-o"]).arg(&log);
        command.args(arguments);
        command.args(["-p", &mount.daemon().to_string()]);
        let mut strace = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(strace.stderr.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert!(line.contains("attached"), "strace said: {line}");
        // It says so of each thread that comes.
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        Self { strace, mount: log }
    }

    /// Calls that have failed so far.
    fn injected(&self) -> u64 {
        let log = BufReader::new(File::open(&self.mount).unwrap());
        let lines = log.split(b'\n').map_while(Result::ok);
        let is_injected = |line: &Vec<u8>| line.ends_with(b"(INJECTED)");
        lines.filter(is_injected).count() as u64
    }

    /// Lets all calls work again.
    pub(crate) fn end(mut self) -> u64 {
        self.detach();
        self.injected()
    }

    /// Waits until it has nothing to do any more, since the daemon has ended: where it is told to end meanwhile it can wait for
    /// threads that nobody reaps.
    #[track_caller]
    pub(crate) fn outlive(mut self) {
        eventually("strace ends", || self.strace.try_wait().unwrap());
    }

    fn detach(&mut self) {
        let _ = kill(Pid::from_raw(self.strace.id() as i32), Signal::SIGINT);
        let _ = self.strace.wait();
    }
}

impl Drop for Injection {
    fn drop(&mut self) {
        if matches!(self.strace.try_wait(), Ok(Some(_))) {
            return;
        }
        self.detach();
    }
}

fn errno_of(name: &str) -> Option<i32> {
    let all = [
        libc::EINTR,
        libc::ENOMEM,
        libc::EMFILE,
        libc::EPERM,
        libc::ESRCH,
        libc::EAGAIN,
    ];
    all.into_iter().find(|errno| errno_name(*errno) == name)
}

/// Which errors may come of calls that give `outcome`. One that is interrupted is made again.
fn allowed(outcome: &str) -> Vec<i32> {
    let of_that = errno_of(outcome).filter(|errno| *errno != libc::EINTR);
    TABLE.into_iter().chain(of_that).collect()
}

/// Descriptors and threads of a daemon, once it is idle.
fn held(mount: &Mount) -> (usize, usize) {
    let descriptors = format!("/proc/{}/fd", mount.daemon());
    let descriptors = std::fs::read_dir(descriptors).unwrap().count();
    (descriptors, mount.threads())
}

/// All is well again: each operation succeeds. What a process did not answer is not held against it for long.
#[track_caller]
fn works_again(workload: &mut Workload) {
    // What was seen is believed for a moment.
    workload.allow(&TABLE, true);
    let deadline = Instant::now() + SOON;
    loop {
        workload.round(1);
        if workload.errors.is_empty() {
            return;
        }
        let late = Instant::now() >= deadline;
        assert!(!late, "not as before: {:?}", workload.errors);
    }
}

/// Each system call fails again and again, in each way that it can: no crash, no wrong byte, no leak.
fn every_system_call_fails_now_and_then() {
    let mut target = Target::new();
    let mount = unfiltered("write,cache_ttl=20ms");
    let mut workload = Workload::new(&mount, &target);
    works_again(&mut workload);
    let before = eventually("it is idle", || {
        let held = held(&mount);
        std::thread::sleep(Duration::from_millis(1500));
        (held == self::held(&mount)).then_some(held)
    });
    let all = FAULTS.iter().flat_map(|(calls, first, step, outcomes)| {
        let pairs = calls
            .iter()
            .flat_map(|call| outcomes.iter().map(move |of| (*call, *of)));
        pairs.map(move |(call, outcome)| (call, outcome, format!("when={first}+{step}")))
    });
    let mut total = 0;
    // The short form takes each call, and each time another error.
    let every = rounds(4, 1) as usize;
    for (call, outcome, when) in all.step_by(every) {
        total += fail(&mount, &mut workload, call, outcome, &when);
        works_again(&mut workload);
    }
    let bytes = target.bytes("scratch");
    let now = target.read(target.region("scratch").start, bytes.len());
    assert!(now == bytes, "no write went astray");
    let status = std::fs::read_to_string(format!("/proc/{}/status", target.pid())).unwrap();
    assert!(status.contains("TracerPid:\t0"), "it is held: {status}");
    let log = mount.log();
    for word in ["panicked", "defect"] {
        assert!(!log.contains(word), "{log}");
    }
    assert!(total > 0, "nothing was injected");
    eprintln!(
        "[{}] {total} injected, {} operations: {:?}",
        current_test(),
        workload.done(),
        workload.tally
    );
    eventually("nothing is left open", || {
        let (descriptors, threads) = held(&mount);
        (descriptors <= before.0 && threads <= before.1).then_some(())
    });
}

/// Makes one call fail in one way, until that has happened often enough; returns how often.
#[track_caller]
fn fail(mount: &Mount, workload: &mut Workload, call: &str, outcome: &str, when: &str) -> u64 {
    let goal = rounds(3, 10_000);
    let longest = Duration::from_millis(rounds(300, 4_000));
    let kind = if outcome == "0" { "retval" } else { "error" };
    let inject = format!("inject={call}:{kind}={outcome}:{when}");
    let arguments = ["-e".into(), format!("trace={call}"), "-e".into(), inject];
    let injection = Injection::begin(mount, &arguments);
    workload.allow(&allowed(outcome), outcome == "EPERM");
    let (begun, failed) = (Instant::now(), workload.failed());
    let mut number = 0;
    while begun.elapsed() < longest && injection.injected() < goal {
        for _ in 0..rounds(1, 4) {
            workload.round(number);
            number += 1;
        }
    }
    let injected = injection.end();
    eprintln!(
        "[{}] {call} {outcome}: {injected} injected, {} errors",
        current_test(),
        workload.failed() - failed
    );
    injected
}

/// A core whose stop goes wrong, in each way, has no registers or not all of them, and the process runs on.
fn a_stop_that_fails_leaves_the_process_running() {
    let mut target = Target::new();
    let mount = unfiltered("");
    let path = mount.path("core").join(target.pid().to_string());
    let status = format!("/proc/{}/status", target.pid());
    let calls = ["ptrace", "waitid"];
    for (call, errno) in calls
        .map(|call| ["EPERM", "ESRCH", "EINTR"].map(|of| (call, of)))
        .concat()
    {
        // What is interrupted is made again.
        let step = if errno == "EINTR" { 2 } else { 1 };
        let inject = format!("inject={call}:error={errno}:when=1+{step}");
        let arguments = ["-e".into(), format!("trace={call}"), "-e".into(), inject];
        let injection = Injection::begin(&mount, &arguments);
        for _ in 0..rounds(5, 500) {
            let bytes = pread_all(&open(&path), 0, 7);
            assert_eq!(bytes, b"\x7fELF\x02\x01\x01", "{call} {errno}");
        }
        assert!(injection.end() > 0, "{call} {errno}");
        eventually("nobody traces it", || {
            let status = std::fs::read_to_string(&status).unwrap();
            status.contains("TracerPid:\t0").then_some(())
        });
        let region = target.region("private");
        let expected = &target.bytes("private")[..16];
        assert_eq!(target.read(region.start, 16), expected, "it runs");
    }
    let before = Stats::of(&mount);
    drop(open(&path));
    assert_eq!(Stats::of(&mount).since(&before, "stops_total"), 1);
}

/// Where a thread, a descriptor or memory is missing while it starts that is one line and the exit code 1, and no mount
/// is left.
fn a_start_that_fails_leaves_no_mount() {
    let faults = [
        // Of the first thread: what watches the daemon, then three threads.
        (thread_call(), "EAGAIN", 2..=4),
        // Of each descriptor that serves.
        ("ioctl", "ENOMEM", 1..=2),
        ("mount", "ENOMEM", 1..=1),
    ];
    for (call, errno, numbers) in faults {
        for number in numbers {
            let point = MountPoint::new();
            let mut command = Command::new("strace");
            command.args([
                "-f",
                "-o",
                "/dev/null",
                "-e",
                &format!("trace={call}"),
                "-e",
            ]);
            command.arg(format!("inject={call}:error={errno}:when={number}"));
            command.args(UNFILTERED).arg(daemon_binary());
            command.arg("-f").arg(point.path());
            run(&mut command).code(1).one_line(&["procmemfs: "]);
            assert!(!is_mounted(point.path()), "{call} {number}: mounted");
        }
    }
}

/// What the daemon calls is in one of the lists, so that a new call is not forgotten.
fn no_system_call_is_left_out() {
    let target = Target::new();
    let mount = unfiltered("write,cache_ttl=20ms");
    let mut workload = Workload::new(&mount, &target);
    let injection = Injection::begin(&mount, &[]);
    workload.allow(&TABLE, false);
    for number in 0..3 {
        workload.round(number);
    }
    // Unused descriptors are closed a second later.
    std::thread::sleep(Duration::from_millis(1500));
    let log = injection.mount.clone();
    injection.end();
    let tried: Vec<&str> = FAULTS.iter().flat_map(|of| of.0.iter().copied()).collect();
    let mut unknown: Vec<String> = std::fs::read_to_string(log)
        .unwrap()
        .lines()
        .filter_map(|line| line.split_once(' ')?.1.trim_start().split_once('('))
        .map(|(name, _)| name.to_string())
        .filter(|name| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
        .filter(|name| !tried.contains(&name.as_str()))
        .filter(|name| LEFT_OUT.iter().all(|(left, _)| left != name))
        .collect();
    unknown.sort();
    unknown.dedup();
    assert!(
        unknown.is_empty(),
        "neither tried nor left out: {unknown:?}"
    );
}

/// With no address space left for anything large, whoever asks gets an error, and with it again all is as before.
fn where_there_is_no_address_space_that_is_an_error() {
    let mut target = Target::new();
    let mount = Mount::new("write,threads=4");
    let mut workload = Workload::new(&mount, &target);
    target.ask("many 3000");
    works_again(&mut workload);
    let statm = std::fs::read_to_string(format!("/proc/{}/statm", mount.daemon())).unwrap();
    let pages: u64 = statm.split(' ').next().unwrap().parse().unwrap();
    let limit = |bytes: String| {
        let mut command = Command::new("prlimit");
        command.args(["--pid", &mount.daemon().to_string()]);
        run(command.arg(format!("--as={bytes}:unlimited"))).success();
    };
    limit((pages * 4096).to_string());
    workload.allow(&allowed("ENOMEM"), false);
    let started = Instant::now();
    for number in 0..rounds(10, 2000) {
        workload.round(number);
    }
    measured("without address space", started.elapsed());
    limit("unlimited".into());
    works_again(&mut workload);
}
