//! Targets that wait in the kernel for a file system that does not answer, and hold locks meanwhile.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::{
    BUSY, Hang, HungFs, Mount, PAGE, Region, Target, assert_bytes, daemon_binary, eventually,
    field, is_mounted, is_over_rings, measured, of_threads, open, pread_within, run_within, tests,
    unmount, unmount_lazily,
};

tests![
    targets_that_hang_in_exec_hold_up_nobody: [Need::Root],
    files_that_were_open_before_say_so_at_once: [Need::Root],
    a_lock_of_an_address_space_that_is_never_given_back: [Need::Root],
    a_child_that_hangs_in_exec_for_the_lock_of_its_parent: [Need::Root],
    a_file_whose_file_system_does_not_answer: [Need::Root],
    snapshots_of_targets_that_hang_are_given_up: [Need::Root],
    closing_a_file_that_does_not_close: [Need::Root],
    the_mount_after_that_of_a_killed_daemon_is_left_alone: [Need::Root],
    every_end_is_at_once_while_targets_hang: [Need::Root],
];

/// How long anything may take, as promised.
const PROMISED: Duration = Duration::from_secs(2);
/// After which something hangs.
const LIMIT: Duration = Duration::from_secs(30);

/// More than there are serving threads, and more than there are permits.
const MANY: usize = 12;

/// Targets that are stuck, and the file system that they wait for; which lets them go first.
struct Stuck {
    fs: HungFs,
    targets: Vec<Target>,
}

impl Stuck {
    /// Targets that have mapped a file of a file system, and written into it.
    fn dirty(count: usize) -> Self {
        let fs = HungFs::new();
        let targets = (0..count).map(|number| {
            let mut target = Target::new();
            let file = fs.file(&format!("file{number}"));
            let path = file.to_str().unwrap();
            let region = target.map("hung", path, HungFs::len(), "shared rw");
            target.write(region.start, b"dirty");
            target
        });
        Self {
            targets: targets.collect(),
            fs,
        }
    }

    /// Targets that are in the middle of an exec, and wait for their old memory to be written.
    fn in_exec(count: usize) -> Self {
        let mut stuck = Self::dirty(count);
        stuck.exec();
        stuck
    }

    /// Their files in the mount.
    fn files(&self, mount: &Mount) -> Vec<PathBuf> {
        let targets = self.targets.iter();
        targets.map(|target| mount.file(target, "hung")).collect()
    }

    fn exec(&mut self) {
        self.fs.hang(Hang::Writes);
        for target in &mut self.targets {
            target.send("exec 3");
        }
        for target in &self.targets {
            wait_until_stuck(target.pid());
        }
    }
}

/// Waits until a thread of the process waits in the kernel. By `status`: `stat` would wait, too.
#[track_caller]
fn wait_until_stuck(pid: u32) {
    // As often as they went to sleep. Whoever waits for a moment only has done so once more when asked again.
    let stuck = || -> BTreeSet<(String, String)> {
        let statuses = of_threads(pid, "status");
        let stuck = statuses.iter().filter(|it| it.contains("State:\tD"));
        let sleeps = |status: &String| {
            let number = field(status, "Pid:")?.to_owned();
            Some((
                number,
                field(status, "voluntary_ctxt_switches:")?.to_owned(),
            ))
        };
        stuck.filter_map(sleeps).collect()
    };
    eventually("a thread that waits in the kernel", || {
        let before = stuck();
        std::thread::sleep(Duration::from_millis(20));
        (!before.is_disjoint(&stuck())).then_some(())
    });
}

/// Runs a command, and fails unless it is done in the time that is promised to everybody.
#[track_caller]
fn in_time(what: &str, command: &mut Command) -> (crate::support::Output, Duration) {
    let started = Instant::now();
    let output = run_within(LIMIT, command);
    let took = started.elapsed();
    // Over io_uring more of its requests are under way at a time: some are answered, after which another one has its full time again.
    let most = if is_over_rings() {
        LIMIT
    } else {
        PROMISED + BUSY
    };
    assert!(took < most, "{what} took {took:?}");
    (output, took)
}

fn ls(path: &Path) -> Command {
    let mut ls = Command::new("ls");
    ls.arg(path);
    ls
}

/// Whatever does not concern the stuck ones is answered, by every way there is.
#[track_caller]
fn everybody_else_is_served(what: &str, mount: &Mount, other: &Target) {
    let mut slowest = Duration::ZERO;
    let pid = other.pid().to_string();
    for place in ["", "mem", "by-name", "by-name/mount-target"] {
        let (output, took) = in_time(&format!("{what}: ls {place}"), &mut ls(&mount.path(place)));
        slowest = slowest.max(took);
        let listed = output.success().text();
        let expected = match place {
            "by-name" => "mount-target",
            _ => &pid,
        };
        assert!(
            listed.lines().any(|line| line == expected),
            "{what}: ls {place}: {listed}"
        );
    }
    let (output, took) = in_time(
        &format!("{what}: ls by-cgroup"),
        &mut ls(&mount.path("by-cgroup")),
    );
    slowest = slowest.max(took);
    assert!(!output.success().text().is_empty(), "{what}: ls by-cgroup");
    for arguments in [
        vec!["stat".into(), mount.process(other.pid())],
        vec!["ls".into(), "-l".into(), mount.process(other.pid())],
        vec!["stat".into(), mount.path(format!("mem/{pid}"))],
        vec!["cat".into(), mount.path("stats")],
        vec!["readlink".into(), mount.path("self")],
        vec!["df".into(), mount.point().to_path_buf()],
        vec!["getfattr".into(), "-d".into(), mount.process(other.pid())],
    ] {
        let arguments: Vec<PathBuf> = arguments;
        let shown = format!("{what}: {arguments:?}");
        let (output, took) = in_time(&shown, Command::new(&arguments[0]).args(&arguments[1..]));
        slowest = slowest.max(took);
        output.success();
    }
    let started = Instant::now();
    let bytes = std::fs::read(mount.file(other, "private")).unwrap();
    assert_bytes(what, &bytes, &other.bytes("private"));
    slowest = slowest.max(started.elapsed());
    assert!(slowest < PROMISED + BUSY, "{what}: {slowest:?}");
    measured(&format!("the slowest request of others, {what}"), slowest);
}

/// A request that concerns a stuck one fails in the time that is promised.
#[track_caller]
fn fails_in_time(what: &str, command: &mut Command, errors: &[&str]) {
    let (output, _) = in_time(what, command);
    let output = output.failure();
    let said = errors.iter().any(|error| output.stderr.contains(error));
    assert!(said, "{what}: {}", output.stderr);
}

/// Every listing waited for each of them, and took a thread each time.
fn targets_that_hang_in_exec_hold_up_nobody() {
    let other = Target::of_generation(2);
    let mut stuck = Stuck::in_exec(MANY);
    let mounts: Vec<Mount> = ["", "threads=1", "threads=2,cache_ttl=0"]
        .into_iter()
        .map(Mount::new)
        .collect();
    for mount in &mounts {
        let before = mount.threads();
        for round in ["first", "second"] {
            everybody_else_is_served(round, mount, &other);
            for target in &stuck.targets[..1] {
                let place = mount.process(target.pid());
                let errors = ["timed out", "No such file"];
                fails_in_time("ls of a stuck one", &mut ls(&place), &errors);
                let place = mount.path(format!("mem/{}", target.pid()));
                fails_in_time("ls of its memory", &mut ls(&place), &errors);
            }
        }
        let mut all: Vec<Child> = (0..4 * MANY)
            .map(|number| {
                let target = &stuck.targets[number % MANY];
                let mut command = ls(&mount.process(target.pid()));
                command.stdout(Stdio::null()).stderr(Stdio::null());
                command.spawn().unwrap()
            })
            .collect();
        everybody_else_is_served("beside many", mount, &other);
        for child in &mut all {
            eventually("each is answered", || child.try_wait().unwrap());
        }
        let now = mount.threads();
        assert!(now <= before + 70, "{before} threads, then {now}");
    }
    stuck.fs.abort();
    for target in &mut stuck.targets {
        target.take_ready();
        for mount in &mounts {
            let name = target.pid().to_string();
            eventually("it is there again", || {
                let listed = std::fs::read_dir(mount.point()).unwrap();
                let mut names = listed.map(|entry| entry.unwrap().file_name());
                names.any(|listed| *listed == *name).then_some(())
            });
            let bytes = std::fs::read(mount.file(target, "private")).unwrap();
            assert_bytes("after its exec", &bytes, &target.bytes("private"));
        }
    }
}

/// What was opened of the program before: an error, and at once.
fn files_that_were_open_before_say_so_at_once() {
    for options in ["", "cache_ttl=0"] {
        let mut fastest = LIMIT;
        let mount = Mount::new(options);
        let mut stuck = Stuck::dirty(2);
        let files: Vec<Arc<File>> = stuck
            .targets
            .iter()
            .map(|target| Arc::new(open(&mount.file(target, "private"))))
            .collect();
        stuck.exec();
        // Until then the kernel remembers what was read.
        std::thread::sleep(Duration::from_millis(200));
        for file in &files {
            for offset in [0, 8 * PAGE] {
                let (result, took) = pread_within(LIMIT, file, offset, PAGE);
                let errno = result.expect_err("the program is gone").raw_os_error();
                let expected = [libc::ESTALE, libc::ETIMEDOUT, libc::ESRCH];
                assert!(expected.contains(&errno.unwrap()), "{errno:?}");
                assert!(took < PROMISED + BUSY, "{took:?}");
                fastest = fastest.min(took);
            }
        }
        // A busy machine holds up some of them, and not all.
        assert!(fastest < PROMISED / 2, "{options}: {fastest:?}");
        let started = Instant::now();
        drop(files);
        assert!(started.elapsed() < PROMISED + BUSY, "closing waited");
    }
}

/// A thread of a target lays a new mapping over a dirty one: it holds the lock of the address space
/// to write, and whoever wants to know anything of it waits.
fn a_lock_of_an_address_space_that_is_never_given_back() {
    let other = Target::of_generation(2);
    for options in ["", "threads=1"] {
        let mut mount = Mount::new(options);
        let mut stuck = Stuck::dirty(2);
        let files: Vec<_> = stuck.targets[1..]
            .iter()
            .map(|target| Arc::new(open(&mount.file(target, "scratch"))))
            .collect();
        stuck.hold_locks();
        everybody_else_is_served(options, &mount, &other);
        for target in &stuck.targets {
            let place = mount.process(target.pid());
            in_time("ls of a stuck one", &mut ls(&place));
            let mut getfattr = Command::new("getfattr");
            getfattr.args(["-n", "user.procmemfs.cmdline"]).arg(&place);
            fails_in_time("its command line", &mut getfattr, &["timed out"]);
        }
        for file in &files {
            let (_, took) = pread_within(LIMIT, file, 0, PAGE);
            assert!(took < PROMISED + BUSY, "a read took {took:?}");
        }
        everybody_else_is_served("beside them", &mount, &other);
        killed_at_once(&mut mount, &other);
    }
}

impl Stuck {
    fn hold_locks(&mut self) {
        self.fs.hang(Hang::Writes);
        for target in &mut self.targets {
            let Region { start, .. } = target.region("hung");
            target.ask(&format!("lay-over {start:x} {}", HungFs::len()));
            wait_until_stuck(target.pid());
        }
    }
}

/// A program that is started by a process whose lock is held waits for it in its exec, and looks like
/// its parent until then.
fn a_child_that_hangs_in_exec_for_the_lock_of_its_parent() {
    let other = Target::of_generation(2);
    for options in ["", "threads=1"] {
        let mut mount = Mount::new(options);
        let mut stuck = Stuck::dirty(5);
        stuck.hold_locks();
        let children: Vec<u32> = stuck
            .targets
            .iter_mut()
            .map(|target| target.ask("vfork-exec").parse().unwrap())
            .collect();
        for child in &children {
            wait_until_stuck(*child);
        }
        everybody_else_is_served(options, &mount, &other);
        for child in &children[..1] {
            let place = mount.process(*child);
            let mut stat = Command::new("stat");
            fails_in_time(
                "stat of a child",
                stat.arg(place),
                &["timed out", "No such"],
            );
        }
        everybody_else_is_served("beside them", &mount, &other);
        killed_at_once(&mut mount, &other);
    }
}

/// Neither `stat` of the file that a mapping shows comes back, nor a read of it, which no signal ends.
fn a_file_whose_file_system_does_not_answer() {
    let other = Target::of_generation(2);
    for options in ["", "threads=1"] {
        let mut mount = Mount::new(options);
        let stuck = Stuck::dirty(3);
        let files = stuck.files(&mount);
        stuck.fs.hang(Hang::Attributes);
        stuck.fs.hang(Hang::Reads);
        std::thread::sleep(Duration::from_millis(20));
        for round in ["first", "second"] {
            for (target, file) in stuck.targets.iter().zip(&files) {
                let place = mount.process(target.pid());
                in_time("ls of one that maps it", ls(&place).arg("-l"));
                if round == "first" {
                    let file = Arc::new(open(file));
                    let (read, took) = pread_within(LIMIT, &file, 900 * PAGE, PAGE);
                    read.expect_err("no answer can have come");
                    assert!(took < PROMISED + BUSY, "{took:?}");
                }
            }
            everybody_else_is_served(round, &mount, &other);
        }
        killed_at_once(&mut mount, &other);
    }
}

/// The file of a mapping is read, and closing it waits.
fn closing_a_file_that_does_not_close() {
    let other = Target::of_generation(2);
    for options in ["", "threads=1"] {
        let mut mount = Mount::new(options);
        let stuck = Stuck::dirty(3);
        let files = stuck.files(&mount);
        stuck.fs.hang(Hang::Closing);
        for _ in 0..3 {
            for file in &files {
                let mut cat = Command::new("cat");
                in_time("cat of a file that does not close", cat.arg(file));
            }
            everybody_else_is_served(options, &mount, &other);
        }
        killed_at_once(&mut mount, &other);
    }
}

/// A daemon that is killed serves no more, and leaves no reader behind, at once.
#[track_caller]
fn killed_at_once(mount: &mut Mount, other: &Target) {
    let file = open(&mount.file(other, "private"));
    mount.signal(Signal::SIGKILL);
    let started = Instant::now();
    let file = Arc::new(file);
    loop {
        let (result, _) = pread_within(LIMIT, &file, 0, PAGE);
        match result {
            Err(error) => {
                let errno = error.raw_os_error().unwrap();
                let expected = crate::support::GONE;
                assert!(expected.contains(&errno), "{error}");
                break;
            }
            Ok(_) => crate::support::drop_kernel_pages(&file),
        }
        assert!(started.elapsed() < PROMISED + BUSY, "it still answers");
    }
    let mut ls = ls(mount.point());
    in_time("ls of the dead mount", &mut ls);
    measured("the end of a killed daemon", started.elapsed());
}

/// A killed daemon stays behind, and somebody mounts in its place at once: under the same path, and
/// with the same device, most probably. Whoever ends the mount of the killed one leaves that alone.
fn the_mount_after_that_of_a_killed_daemon_is_left_alone() {
    let other = Target::of_generation(2);
    let mut mount = Mount::new("");
    let stuck = Stuck::dirty(1);
    let file = mount.file(&stuck.targets[0], "hung");
    stuck.fs.hang(Hang::Closing);
    in_time("cat", Command::new("cat").arg(file));
    mount.signal(Signal::SIGKILL);
    wait_until_stuck(mount.daemon());
    unmount_lazily(mount.point());
    run_within(LIMIT, Command::new(daemon_binary()).arg(mount.point())).success();
    std::thread::sleep(Duration::from_secs(1));
    let bytes = std::fs::read(mount.file(&other, "private")).unwrap();
    assert_bytes("the next mount", &bytes, &other.bytes("private"));
    unmount(mount.point());
    drop(stuck);
    mount.wait();
}

/// `umount`, `umount -l`, SIGTERM, SIGINT: the daemon is gone, and so are requests that waited.
fn every_end_is_at_once_while_targets_hang() {
    let stuck = Stuck::in_exec(MANY);
    for (options, end) in [
        ("", "umount"),
        ("threads=1", "umount"),
        ("", "umount -f"),
        ("", "umount -l"),
        ("", "SIGTERM"),
        ("threads=1", "SIGTERM"),
        ("", "SIGINT"),
    ] {
        let mut mount = Mount::new(options);
        let mut readers: Vec<Child> = stuck
            .targets
            .iter()
            .map(|target| {
                let mut ls = ls(&mount.process(target.pid()));
                ls.stdout(Stdio::null()).stderr(Stdio::null());
                ls.spawn().unwrap()
            })
            .collect();
        if end == "umount" {
            // It is busy while they wait.
            for reader in &mut readers {
                eventually("they are answered", || reader.try_wait().unwrap());
            }
        } else {
            std::thread::sleep(Duration::from_millis(100));
        }
        let started = Instant::now();
        match end.strip_prefix("SIG") {
            Some("TERM") => mount.signal(Signal::SIGTERM),
            Some(_) => mount.signal(Signal::SIGINT),
            None => {
                let mut words = end.split(' ');
                let mut umount = Command::new(words.next().unwrap());
                umount.args(words).arg(mount.point());
                let (output, _) = in_time(end, &mut umount);
                if end != "umount -f" {
                    output.success();
                }
            }
        }
        for reader in &mut readers {
            eventually("they are let go", || reader.try_wait().unwrap());
        }
        if end == "umount -f" {
            run_within(LIMIT, Command::new("umount").arg("-l").arg(mount.point()));
        }
        mount.wait();
        let took = started.elapsed();
        measured(&format!("{end} ({options})"), took);
        assert!(!is_mounted(mount.point()), "{end}: still mounted");
        assert!(took < PROMISED + BUSY, "{end} took {took:?}");
    }
}

/// SEMANTICS: a snapshot of a process that does not answer is given up, however often it is asked for, and others are taken meanwhile.
fn snapshots_of_targets_that_hang_are_given_up() {
    let stuck = Stuck::in_exec(2);
    let mount = Mount::new("");
    let mut other = Target::new();
    let make = |name: &str| std::fs::create_dir(mount.path("snap").join(name));
    let pids: Vec<u32> = stuck.targets.iter().map(Target::pid).collect();
    for (number, name) in [
        format!("{}@x", pids[0]),
        format!("{}@x", pids[0]),
        format!("{}@x", pids[1]),
        format!("{}+{}@x", pids[0], other.pid()),
    ]
    .iter()
    .enumerate()
    {
        let started = Instant::now();
        let refused = make(name).unwrap_err().raw_os_error();
        assert_eq!(refused, Some(libc::ETIMEDOUT), "{name}");
        assert!(started.elapsed() < LIMIT, "{name}");
        make(&format!("{}@{number}", other.pid())).unwrap();
        in_time("ls snap", &mut ls(&mount.path("snap")));
        other.read(other.region("private").start, 8);
    }
    assert!(mount.threads() < 40, "{}", mount.threads());
    drop(stuck);
}
