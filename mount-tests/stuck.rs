//! Memory that does not answer: a `userfaultfd` whose handler never comes.

use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::{
    BUSY, Footprint, Mount, PAGE, Region, Stats, Target, assert_bytes, eventually, expect_errno,
    is_mounted, is_over_rings, measured, of_threads, open, open_rw, pread_all, pread_within,
    rounds, run_within, tests,
};

tests![
    missing_pages_of_a_userfaultfd_are_errors_at_once: [Need::Root],
    touching_them_is_given_up_after_two_seconds: [Need::Root],
    others_are_served_meanwhile: [Need::Root],
    writers_do_not_wait_for_stuck_readers: [Need::Root],
    sigterm_is_obeyed_while_a_reader_is_stuck: [Need::Root],
    a_daemon_killed_after_a_write_leaves_no_reader_behind: [Need::Root],
    stuck_calls_are_bounded_and_end_with_their_target: [Need::Root],
    many_stuck_targets_are_bounded: [Need::Root],
];

/// How long a read waits for its answer, as promised.
const PATIENCE: Duration = Duration::from_secs(2);
/// Threads for requests that wait, those that look for who does, and what is on its way out: fewer than the calls that
/// would wait if nothing bounded them.
const MOST: usize = 64 + 4 + 8;
/// After which something hangs.
const LIMIT: Duration = Duration::from_secs(60);

/// A target with memory that waits for a handler, and its file.
fn waiting(target: &mut Target, mount: &Mount) -> PathBuf {
    let region = Region::parse(&target.ask("userfault")).unwrap();
    mount.mapping(target.pid(), region.start, region.end)
}

/// Absent pages are an error at once, since only the handler knows what they will hold: nobody's handler is woken.
fn missing_pages_of_a_userfaultfd_are_errors_at_once() {
    for options in ["", "cache_ttl=0", "threads=1"] {
        let mut target = Target::new();
        let mount = Mount::new(options);
        let path = waiting(&mut target, &mount);
        let before = Footprint::of(target.pid());
        let started = Instant::now();
        expect_errno(options, std::fs::read(&path), libc::EIO);
        let mut cp = Command::new("cp");
        let copy = mount.outside().join("copy");
        run_within(LIMIT, cp.arg("--sparse=always").arg(&path).arg(copy))
            .success()
            .quiet();
        let took = started.elapsed();
        assert!(took < PATIENCE + BUSY, "it took {took:?}");
        let timeouts = Stats::of(&mount).get("errors_total{errno=\"ETIMEDOUT\"}");
        assert_eq!(timeouts, 0, "{options}");
        assert_eq!(Footprint::of(target.pid()), before, "{options}");
    }
}

/// With `touch` a read of them is `ETIMEDOUT` after two seconds, not earlier,
/// the log says so, and the mount lives on.
fn touching_them_is_given_up_after_two_seconds() {
    for options in ["touch", "touch,cache_ttl=0", "touch,threads=1,cache_ttl=0"] {
        let mut target = Target::new();
        let mount = Mount::new(options);
        let file = Arc::new(open(&waiting(&mut target, &mount)));
        let (result, took) = pread_within(LIMIT, &file, 0, PAGE);
        measured(&format!("a read that is given up ({options})"), took);
        expect_errno(options, result, libc::ETIMEDOUT);
        assert!(took > PATIENCE - Duration::from_millis(100), "{took:?}");
        assert!(took < PATIENCE + BUSY, "{options}: {took:?}");
        let log = mount.log();
        let pid = target.pid().to_string();
        let line = log.lines().find(|line| line.contains("ETIMEDOUT"));
        assert!(line.is_some_and(|line| line.contains(&pid)), "{log}");
        let other = Target::of_generation(2);
        let bytes = std::fs::read(mount.file(&other, "private")).unwrap();
        assert_bytes("another", &bytes, &other.bytes("private"));
    }
}

/// Processes that read a file. Killed when dropped.
struct Readers(Vec<Child>);

impl Readers {
    fn of(path: &std::path::Path, count: usize) -> Self {
        let start = |_| {
            let mut cat = Command::new("cat");
            cat.arg(path).stdout(Stdio::null()).stderr(Stdio::null());
            cat.spawn().unwrap()
        };
        Self((0..count).map(start).collect())
    }

    fn still_there(&mut self) -> usize {
        let readers = self.0.iter_mut();
        readers
            .filter_map(|reader| reader.try_wait().unwrap().is_none().then_some(()))
            .count()
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        for reader in &mut self.0 {
            let _ = reader.kill();
        }
    }
}

/// While readers wait, everything else is answered as if they did not, with as
/// few as one thread.
fn others_are_served_meanwhile() {
    let other = Target::of_generation(2);
    for options in ["touch", "touch,threads=1", "touch,threads=2,cache_ttl=0"] {
        let mut target = Target::new();
        let mount = Mount::new(options);
        let path = waiting(&mut target, &mount);
        let expected = other.bytes("private");
        let mut readers = Readers::of(&path, 8);
        let (mut fastest, mut slowest) = (LIMIT, Duration::ZERO);
        let mut rounds = 0;
        while readers.still_there() > 0 {
            let started = Instant::now();
            let mut cat = Command::new("cat");
            cat.arg(mount.file(&other, "private"));
            let output = run_within(LIMIT, &mut cat).success().quiet();
            assert_bytes("another", &output.stdout, &expected);
            let mut ls = Command::new("ls");
            run_within(LIMIT, ls.arg(mount.point())).success();
            fastest = fastest.min(started.elapsed());
            slowest = slowest.max(started.elapsed());
            rounds += 1;
        }
        measured(
            &format!("cat and ls beside stuck readers ({options})"),
            slowest,
        );
        assert!(
            // Who waited for the readers would do so in each round; a busy machine holds up some of them.
            fastest < PATIENCE / 2 && slowest < PATIENCE + BUSY,
            "{options}: {fastest:?} to {slowest:?} in {rounds} rounds"
        );
    }
}

/// A write outdates what the kernel holds of every file, and yet does not wait
/// for a page of another one that is being read.
fn writers_do_not_wait_for_stuck_readers() {
    let mut target = Target::new();
    let other = Target::of_generation(2);
    let mount = Mount::new("write,touch");
    let path = mount.file(&other, "private");
    let (writer, reader) = (open_rw(&path).unwrap(), open(&path));
    assert_eq!(pread_all(&reader, 0, 4), &other.bytes("private")[..4]);
    eventually("a write and a read in the time of a stuck one", || {
        let read = stuck_read(&mut target, &mount);
        let started = Instant::now();
        writer.write_all_at(b"new!", 0).unwrap();
        assert_eq!(pread_all(&reader, 0, 4), b"new!");
        let (took, is_stuck) = (started.elapsed(), !read.is_finished());
        expect_errno("the stuck read", read.join().unwrap(), libc::ETIMEDOUT);
        // On a busy machine that time may be over.
        (is_stuck && took < PATIENCE).then_some(())
    });
}

/// A daemon that waits for a page that is being read, to drop it after a write,
/// does not end when it is killed, and its readers wait for ever.
fn a_daemon_killed_after_a_write_leaves_no_reader_behind() {
    let mut target = Target::new();
    let other = Target::of_generation(2);
    let mut mount = Mount::new("write,touch");
    let writer = open_rw(&mount.file(&other, "private")).unwrap();
    let read = stuck_read(&mut target, &mount);
    // Where it waits for that page the write does not end.
    std::thread::spawn(move || writer.write_all_at(b"new!", 0));
    let start = other.region("private").start as u64;
    let memory = open(format!("/proc/{}/mem", other.pid()).as_ref());
    eventually("the bytes are there", || {
        let mut bytes = [0; 4];
        memory.read_exact_at(&mut bytes, start).unwrap();
        (bytes == *b"new!").then_some(())
    });
    mount.signal(Signal::SIGKILL);
    eventually("the reader is let go", || read.is_finished().then_some(()));
    let errno = read.join().unwrap().unwrap_err().raw_os_error().unwrap();
    // Its time may be over on a busy machine.
    let expected = crate::support::GONE.contains(&errno) || errno == libc::ETIMEDOUT;
    assert!(expected, "errno {errno}");
    mount.wait();
}

/// SIGTERM ends the daemon within five seconds while a reader is stuck in a target, and lets that go.
fn sigterm_is_obeyed_while_a_reader_is_stuck() {
    let mut target = Target::new();
    let mut slowest = Duration::ZERO;
    for _ in 0..rounds(1, 100) {
        let mut mount = Mount::new("touch");
        let read = stuck_read(&mut target, &mount);
        let started = Instant::now();
        mount.signal(Signal::SIGTERM);
        mount.wait();
        slowest = slowest.max(started.elapsed());
        eventually("the reader is let go", || read.is_finished().then_some(()));
        assert!(!is_mounted(mount.point()), "still mounted");
    }
    measured("the slowest end", slowest);
    assert!(slowest < PATIENCE + BUSY, "{slowest:?}");
}

/// A read for which the daemon waits in the target's memory.
fn stuck_read(target: &mut Target, mount: &Mount) -> JoinHandle<io::Result<usize>> {
    let stuck = open(&waiting(target, mount));
    let read = std::thread::spawn(move || stuck.read_at(&mut [0; PAGE], 0));
    eventually("the daemon waits in the target", || {
        in_call(mount, libc::SYS_process_vm_readv).then_some(())
    });
    read
}

/// Whether a thread of the daemon waits in this system call.
fn in_call(mount: &Mount, number: i64) -> bool {
    let calls = of_threads(mount.daemon(), "syscall");
    calls
        .iter()
        .any(|call| call.split(' ').next() == Some(&number.to_string()))
}

/// However many readers come, only so many calls are stuck; when the target
/// dies they end, and nothing is left of them.
fn stuck_calls_are_bounded_and_end_with_their_target() {
    for options in ["touch,threads=4", "touch,threads=4,cache_ttl=0"] {
        let mut target = Target::new();
        let mount = Mount::new(options);
        let path = waiting(&mut target, &mount);
        let before = mount.threads();
        let mut readers = Readers::of(&path, 40);
        let mut most = 0;
        let started = Instant::now();
        while readers.still_there() > 0 {
            most = most.max(mount.threads());
            assert!(started.elapsed() < LIMIT, "the readers wait for ever");
        }
        measured(
            "40 readers of memory that does not answer",
            started.elapsed(),
        );
        eprintln!("{options}: {before} threads, at most {most}");
        // Over io_uring so many for each processor, which stay for the next requests.
        let more = if is_over_rings() { 32 } else { 4 };
        assert!(most <= before + more, "{before} threads, then {most}");
        target.kill();
        eventually("the stuck threads end", || {
            (is_over_rings() || mount.threads() <= before).then_some(())
        });
        let other = Target::of_generation(2);
        let bytes = std::fs::read(mount.file(&other, "private")).unwrap();
        assert_bytes("another", &bytes, &other.bytes("private"));
    }
}

/// Several targets that do not answer hold nobody up either; many of them are
/// served with a limited number of threads, and with their end all is well.
fn many_stuck_targets_are_bounded() {
    let mount = Mount::new("touch,threads=2");
    let other = Target::of_generation(2);
    let expected = other.bytes("private");
    let path_of_other = mount.file(&other, "private");
    let before = mount.threads();
    let mut targets: Vec<(Target, PathBuf)> = Vec::new();
    for count in [6, 48] {
        while targets.len() < count {
            let mut target = Target::new();
            let path = waiting(&mut target, &mount);
            targets.push((target, path));
        }
        let mut readers: Vec<Readers> = targets
            .iter()
            .map(|(_, path)| Readers::of(path, 2))
            .collect();
        let (mut most, mut served, mut refused) = (0, 0, 0);
        let started = Instant::now();
        while readers.iter_mut().any(|readers| readers.still_there() > 0) {
            most = most.max(mount.threads());
            let mut cat = Command::new("cat");
            let output = run_within(LIMIT, cat.arg(&path_of_other));
            match output.status.success() {
                true => {
                    assert_bytes("another", &output.stdout, &expected);
                    served += 1;
                }
                false => refused += 1,
            }
            assert!(started.elapsed() < LIMIT, "the readers wait for ever");
        }
        eprintln!("{count} stuck targets: at most {most} threads, {served} served, {refused} not");
        assert!(most <= before + MOST, "{before} threads, then {most}");
        assert!(count > 6 || refused == 0, "{refused} were not served");
    }
    drop(targets);
    eventually("the stuck threads end", || {
        (mount.threads() <= before).then_some(())
    });
    let bytes = std::fs::read(mount.file(&other, "private")).unwrap();
    assert_bytes("another", &bytes, &expected);
}
