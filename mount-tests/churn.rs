//! Processes that do nothing but change, by `stress-ng`, while everything of them is read.

use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::Signal;
use nix::unistd::Whence;

use crate::support::{
    Mount, Stats, TABLE, Target, assert_bytes, current_test, end_with_us, errno_name, rounds, seek,
    tests,
};

tests![
    everything_is_read_while_processes_churn: [Need::Root, Need::Tool("stress-ng"), Need::Tool("setpriv")],
];

/// What `stress-ng` lets its processes do, one process or one family each.
const STRESSORS: [&str; 8] = [
    "mmap",
    "mremap",
    "munmap",
    "fork",
    "madvise",
    "memfd",
    "zombie",
    "vforkmany",
];

/// How many read.
const WALKERS: usize = 4;

/// What came, by errno; 0 for success.
#[derive(Debug, Default)]
struct Tally(Mutex<BTreeMap<i32, u64>>);

impl Tally {
    #[track_caller]
    fn count<T>(&self, what: &str, path: &Path, result: io::Result<T>) -> Option<T> {
        let errno = match &result {
            Ok(_) => 0,
            Err(error) => error.raw_os_error().expect("an error of the system"),
        };
        assert!(
            errno == 0 || TABLE.contains(&errno),
            "{what} of {path:?}: {}",
            errno_name(errno)
        );
        *self.0.lock().unwrap().entry(errno).or_default() += 1;
        result.ok()
    }
}

/// Whether a process is one of `stress-ng`. Its command line is left alone.
fn is_stressor(name: &str) -> bool {
    let comm = std::fs::read(format!("/proc/{name}/comm"));
    comm.is_ok_and(|comm| comm.starts_with(b"stress-ng"))
}

/// Reads all that there is of one process.
fn read_everything(dir: &Path, tally: &Tally) {
    let Some(entries) = tally.count("list", dir, std::fs::read_dir(dir)) else {
        return;
    };
    let mut bytes = vec![0; 128 << 10];
    for entry in entries {
        let Some(entry) = tally.count("entry", dir, entry) else {
            continue;
        };
        let path = entry.path();
        let Some(file) = tally.count("open", &path, File::open(&path)) else {
            continue;
        };
        tally.count("stat", &path, file.metadata());
        let mut at = 0;
        // What is data, a few parts of it.
        for _ in 0..4 {
            let found = tally.count("seek", &path, seek(&file, at, Whence::SeekData));
            let Some(Some(data)) = found else {
                break;
            };
            let read = tally.count("read", &path, file.read_at(&mut bytes, data));
            at = data + read.unwrap_or(4096).max(1) as u64;
        }
    }
}

/// `stress-ng` and four walkers that read everything of its processes: only errors of the table, and a process beside
/// them is served as ever.
fn everything_is_read_while_processes_churn() {
    let steady = Target::new();
    let mount = Mount::new("");
    let scratch = mount.file(&steady, "private");
    let expected = steady.bytes("private");
    let seconds = rounds(4, 120);
    let scratch_dir = mount.outside().join("stress");
    std::fs::create_dir(&scratch_dir).unwrap();
    std::fs::set_permissions(&scratch_dir, Permissions::from_mode(0o777)).unwrap();
    // A user of its own, whose processes are counted: `vforkmany` forks until it may not.
    let mut command = Command::new("prlimit");
    command.args([
        "--nproc=200:200",
        "setpriv",
        "--reuid=54321",
        "--clear-groups",
    ]);
    command.arg("stress-ng");
    for stressor in STRESSORS {
        command.args([&format!("--{stressor}"), "1"]);
    }
    for bytes in ["--mmap-bytes", "--mremap-bytes", "--memfd-bytes"] {
        command.args([bytes, "8m"]);
    }
    command.args([
        "--timeout",
        &format!("{seconds}s"),
        "--quiet",
        "--temp-path",
    ]);
    command.arg(&scratch_dir);
    end_with_us(&mut command, Signal::SIGKILL);
    let stress = command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut stress = stress.spawn().unwrap();
    let tally = Tally::default();
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..WALKERS {
            scope.spawn(|| {
                while !ended.load(Ordering::SeqCst) {
                    let root = mount.point();
                    let Some(entries) = tally.count("list", root, std::fs::read_dir(root)) else {
                        continue;
                    };
                    for entry in entries.filter_map(Result::ok) {
                        if entry.file_name().to_str().is_some_and(is_stressor) {
                            read_everything(&entry.path(), &tally);
                        }
                        if ended.load(Ordering::SeqCst) {
                            return;
                        }
                    }
                    match std::fs::read(&scratch) {
                        Ok(bytes) => assert_bytes("the process beside them", &bytes, &expected),
                        // So many want the processors.
                        Err(error) if error.raw_os_error() == Some(libc::ETIMEDOUT) => (),
                        Err(error) => panic!("the process beside them: {error}"),
                    }
                }
            });
        }
        let status = stress.wait();
        ended.store(true, Ordering::SeqCst);
        status.unwrap();
    });
    eprintln!("[{}] by errno: {tally:?}", current_test());
    assert!(
        tally
            .0
            .lock()
            .unwrap()
            .get(&0)
            .is_some_and(|done| *done > 100)
    );
    assert!(Stats::of(&mount).get("read_bytes_total") > 0);
    let log = mount.log();
    assert!(!log.contains("defect"), "{log}");
}
