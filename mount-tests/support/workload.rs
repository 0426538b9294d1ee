//! Everything that a user does with a process's files, while something goes wrong with the daemon: each answer is
//! either right or an error that is allowed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::Whence;

use super::{Mount, PAGE, Target, assert_bytes, errno_name, open_rw, seek};

/// The errors of the table in SEMANTICS that any process can cause.
pub(crate) const TABLE: [i32; 6] = [
    libc::ENOENT,
    libc::ESRCH,
    libc::ESTALE,
    libc::EIO,
    libc::EACCES,
    libc::ETIMEDOUT,
];

/// A region of the target, its file and what is in it.
#[derive(Debug)]
struct Known {
    name: &'static str,
    path: PathBuf,
    start: u64,
    bytes: Vec<u8>,
}

/// What is done, and what may come of it.
#[derive(Debug)]
pub(crate) struct Workload {
    point: PathBuf,
    process: PathBuf,
    whole: PathBuf,
    core: PathBuf,
    known: Vec<Known>,
    allowed: Vec<i32>,
    /// What came, by errno; 0 for success.
    pub(crate) tally: BTreeMap<i32, u64>,
    /// Whether what may not be read is a hole, which it is where the daemon is refused what it needs for it.
    allows_holes: bool,
    /// What went wrong in the last round.
    pub(crate) errors: Vec<String>,
}

impl Workload {
    /// Looks at a target through a mount with `write`.
    #[track_caller]
    pub(crate) fn new(mount: &Mount, target: &Target) -> Self {
        let regions = [
            "private",
            "scratch",
            "readonly",
            "noaccess",
            "sparse_private",
            "memfd",
            "sparse_shared",
        ];
        let known = regions.map(|name| Known {
            name,
            path: mount.file(target, name),
            start: target.region(name).start as u64,
            bytes: target.bytes(name),
        });
        Self {
            point: mount.point().to_path_buf(),
            process: mount.process(target.pid()),
            whole: mount.path("mem").join(target.pid().to_string()),
            core: mount.path("core").join(target.pid().to_string()),
            known: known.into(),
            allowed: Vec::new(),
            tally: BTreeMap::new(),
            allows_holes: false,
            errors: Vec::new(),
        }
    }

    /// Which errors may come from now on, and whether data may look like a hole.
    pub(crate) fn allow(&mut self, errors: &[i32], holes: bool) {
        self.allowed = errors.to_vec();
        self.allows_holes = holes;
    }

    /// Operations so far.
    pub(crate) fn done(&self) -> u64 {
        self.tally.values().sum()
    }

    /// Errors so far.
    pub(crate) fn failed(&self) -> u64 {
        self.done() - self.tally.get(&0).copied().unwrap_or(0)
    }

    #[track_caller]
    fn count<T>(&mut self, what: &str, path: &Path, result: io::Result<T>) -> Option<T> {
        let errno = match &result {
            Ok(_) => 0,
            Err(error) => error.raw_os_error().expect("an error of the system"),
        };
        assert!(
            errno == 0 || self.allowed.contains(&errno),
            "{what} of {path:?}: {}",
            errno_name(errno)
        );
        *self.tally.entry(errno).or_default() += 1;
        if errno != 0 {
            let error = format!("{what} of {path:?}: {}", errno_name(errno));
            self.errors.push(error);
        }
        result.ok()
    }

    /// Does all of it once; `number` says which parts of the files are read.
    #[track_caller]
    pub(crate) fn round(&mut self, number: u64) {
        self.errors.clear();
        for dir in [
            self.point.clone(),
            self.point.join("by-name"),
            self.process.clone(),
        ] {
            self.list(&dir);
        }
        for index in 0..self.known.len() {
            self.read(index, number);
        }
        self.write(number);
        self.core();
        self.newcomer();
        for name in ["user.procmemfs.rss", "user.procmemfs.cmdline"] {
            let path = match name.ends_with("rss") {
                true => self.known[0].path.clone(),
                false => self.process.clone(),
            };
            let mut value = [0; 256];
            let got = rustix::fs::getxattr(&path, name, &mut value);
            let got = got.map_err(|errno| io::Error::from_raw_os_error(errno.raw_os_error()));
            self.count(name, &path, got);
        }
    }

    #[track_caller]
    fn list(&mut self, dir: &Path) {
        let Some(entries) = self.count("list", dir, std::fs::read_dir(dir)) else {
            return;
        };
        // Only what goes wrong is counted: one listing is one operation.
        for error in entries.filter_map(Result::err) {
            self.count::<()>("list", dir, Err(error));
        }
    }

    /// Reads a part of a region by its own file and by that of the whole address space.
    #[track_caller]
    fn read(&mut self, index: usize, number: u64) {
        let (path, start) = (self.known[index].path.clone(), self.known[index].start);
        let len = self.known[index].bytes.len() as u64;
        for (path, from) in [(path, 0), (self.whole.clone(), start)] {
            let Some(file) = self.count("open", &path, File::open(&path)) else {
                continue;
            };
            self.count("stat", &path, file.metadata());
            for (at, want) in [
                (number * 7919 % len, 100),
                (number * 65_537 % len, 40 * PAGE),
            ] {
                let want = want.min((len - at) as usize);
                let mut bytes = vec![0xa5; want];
                let read = file.read_at(&mut bytes, from + at);
                let Some(count) = self.count("read", &path, read) else {
                    continue;
                };
                assert!(
                    count > 0,
                    "{path:?} ends at {at:#x}, and has {len:#x} bytes"
                );
                let Known {
                    name, bytes: all, ..
                } = &self.known[index];
                let expected = &all[at as usize..][..count];
                assert_bytes(name, &bytes[..count], expected);
            }
            let found = seek(&file, from, Whence::SeekData);
            if let Some(found) = self.count("seek", &path, found)
                && found != Some(from)
            {
                let passed = format!("{path:?}: data is at {from:#x}, and was seen at {found:x?}");
                assert!(self.allows_holes, "{passed}");
                self.errors.push(passed);
            }
        }
    }

    /// Writes what is there already: whatever went wrong, no other byte may be changed.
    #[track_caller]
    fn write(&mut self, number: u64) {
        let path = self.known[1].path.clone();
        let Some(file) = self.count("open for writing", &path, open_rw(&path)) else {
            return;
        };
        for count in 0..16 {
            let at = ((number * 16 + count) * 7919 % 2000) as usize * PAGE + 17;
            let bytes = &self.known[1].bytes[at..at + 3 * PAGE];
            let written = file.write_at(bytes, at as u64);
            if let Some(written) = self.count("write", &path, written) {
                assert!(
                    0 < written && written <= 3 * PAGE,
                    "{written} bytes written"
                );
            }
        }
    }

    /// Takes a core, for which the process is stopped, and reads its headers and some memory. Where it was not stopped, or no
    /// registers were read, there are none in it.
    #[track_caller]
    fn core(&mut self) {
        let path = self.core.clone();
        let Some(file) = self.count("open", &path, File::open(&path)) else {
            return;
        };
        let mut bytes = vec![0xa5; 64];
        let read = file.read_at(&mut bytes, 0);
        if self.count("read", &path, read).is_some() {
            assert_bytes("a core", &bytes[..7], b"\x7fELF\x02\x01\x01");
        }
        let found = seek(&file, 0, Whence::SeekHole);
        let at = self.count("seek", &path, found).flatten().unwrap_or(0);
        let read = file.read_at(&mut vec![0; 64 << 10], at);
        self.count("read", &path, read);
    }

    /// A process that comes, is looked at and goes.
    fn newcomer(&mut self) {
        let Ok(mut child) = Command::new("sleep").arg("60").spawn() else {
            return;
        };
        let dir = self.point.join(child.id().to_string());
        let allowed = self.allowed.clone();
        // It may be on its way from one program to the next.
        self.allowed.extend(TABLE);
        self.list(&dir);
        let stack = dir.join("stack");
        if let Some(file) = self.count("open", &stack, File::open(&stack)) {
            self.count("read", &stack, file.read_at(&mut [0; 64], 0));
        }
        self.allowed = allowed;
        let _ = child.kill();
        let _ = child.wait();
    }
}
