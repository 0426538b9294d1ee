//! Everything at once, for a while.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::support::{
    Mount, Numbers, Program, Stats, Target, assert_bytes, errno_name, open, pread, tests,
};

tests![
    twenty_readers_and_tree_walks_at_once: [Need::Ptrace],
];

/// How many readers there are.
const READERS: u64 = 20;

/// What may go wrong when processes come and go: the errors of the table.
const ALLOWED: [i32; 6] = [
    libc::ENOENT,
    libc::ESRCH,
    libc::ESTALE,
    libc::EIO,
    libc::EACCES,
    libc::ETIMEDOUT,
];

fn duration() -> Duration {
    let default = if std::env::var_os("CI").is_some() {
        60
    } else {
        10
    };
    let named = std::env::var("PROCMEMFS_STRESS_SECONDS");
    let seconds = named.map_or(default, |text| text.parse().expect("a number of seconds"));
    Duration::from_secs(seconds)
}

/// What happened, by errno; 0 for success.
#[derive(Debug, Default)]
struct Tally(Mutex<BTreeMap<i32, u64>>);

impl Tally {
    fn count<T>(&self, what: &Path, result: io::Result<T>) -> Option<T> {
        let errno = match &result {
            Ok(_) => 0,
            Err(error) => error.raw_os_error().expect("an error of the system"),
        };
        assert!(
            errno == 0 || ALLOWED.contains(&errno),
            "{what:?}: {}",
            errno_name(errno)
        );
        *self.0.lock().unwrap().entry(errno).or_default() += 1;
        result.ok()
    }

    fn of(&self, errno: i32) -> u64 {
        self.0.lock().unwrap().get(&errno).copied().unwrap_or(0)
    }
}

/// The names in a directory, as far as it exists.
fn names(dir: &Path, tally: &Tally) -> Vec<PathBuf> {
    let Some(entries) = tally.count(dir, std::fs::read_dir(dir)) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| tally.count(dir, entry))
        .map(|entry| entry.path())
        .collect()
}

/// Looks at everything below the mount point once.
fn walk(point: &Path, tally: &Tally, until: Instant) {
    let mut waiting = vec![point.to_path_buf()];
    while let Some(dir) = waiting.pop() {
        for path in names(&dir, tally) {
            if Instant::now() > until {
                return;
            }
            let Some(meta) = tally.count(&path, path.symlink_metadata()) else {
                continue;
            };
            if meta.is_dir() {
                waiting.push(path);
            } else if meta.is_symlink() {
                tally.count(&path, std::fs::read_link(&path));
            }
        }
    }
}

/// Reads a random part of a random file of one of the processes.
fn read_somewhere(mount: &Mount, pid: u32, tally: &Tally, numbers: &mut Numbers) {
    let files = names(&mount.process(pid), tally);
    if files.is_empty() {
        return;
    }
    let path = &files[numbers.below(files.len() as u64) as usize];
    let Some(file) = tally.count(path, std::fs::File::open(path)) else {
        return;
    };
    let Some(meta) = tally.count(path, file.metadata()) else {
        return;
    };
    for _ in 0..4 {
        let offset = numbers.below(meta.len().max(1)) as usize;
        let len = 1 + numbers.below(256 << 10) as usize;
        tally.count(path, pread(&file, offset, len));
    }
}

/// Twenty readers, two walks through the whole tree, a target whose bytes are
/// checked and processes that come, run a new program and go: nobody gets an
/// error that is not in the table, and no wrong byte.
fn twenty_readers_and_tree_walks_at_once() {
    let steady = Target::new();
    let shell = Program::shell();
    let mount = Mount::new("");
    let tally = Tally::default();
    let scratch = mount.file(&steady, "scratch");
    let expected = steady.bytes("scratch");
    let changing = AtomicU64::new(u64::from(steady.pid()));
    let until = Instant::now() + duration();
    std::thread::scope(|scope| {
        for seed in 0..READERS {
            let (tally, mount, changing) = (&tally, &mount, &changing);
            let (steady, shell) = (steady.pid(), shell.pid());
            scope.spawn(move || {
                let mut numbers = Numbers::new(seed);
                while Instant::now() < until {
                    let changing = changing.load(Ordering::Relaxed) as u32;
                    let pid =
                        [steady, shell, changing, std::process::id()][numbers.below(4) as usize];
                    read_somewhere(mount, pid, tally, &mut numbers);
                }
            });
        }
        for _ in 0..2 {
            scope.spawn(|| {
                while Instant::now() < until {
                    walk(mount.point(), &tally, until);
                }
            });
        }
        scope.spawn(|| {
            while Instant::now() < until {
                let bytes = std::fs::read(&scratch).unwrap();
                assert_bytes("scratch", &bytes, &expected);
            }
        });
        // This thread: a target ends with the thread that started it.
        while Instant::now() < until {
            let mut target = Target::new();
            changing.store(u64::from(target.pid()), Ordering::Relaxed);
            let file = open(&mount.file(&target, "private"));
            target.exec(2);
            tally.count(Path::new("an open file"), pread(&file, 0, 4096));
        }
    });
    let done = tally.of(0);
    assert!(done > 1000, "only {done} successes: {tally:?}");
    // All is as before.
    let bytes = std::fs::read(mount.file(&steady, "private")).unwrap();
    assert_bytes("private", &bytes, &steady.bytes("private"));
    assert!(Stats::of(&mount).get("read_bytes_total") > 0);
}
