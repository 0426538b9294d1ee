//! The file system on fake processes: no mount, no root, no sleep.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::common::address::PAGE_SIZE;
use crate::common::clock::ManualClock;
use crate::common::metrics::Metrics;
use crate::files::view::SPACE_SIZE;
use crate::files::{Caller, FileOptions, Found, Services};
use crate::server::inodes::ROOT;
use crate::target::cache::{Freshness, PageCache};
use crate::target::fake::{FakeProcess, FakeSource, FakeStores};

mod attributes;
mod cgroups;
mod cores;
mod direct;
mod faults;
mod others;
mod snapshots;
mod statistics;
mod views;
mod writes;

const TTL: Duration = Duration::from_millis(100);
pub(crate) const HEAP: &str = "000000010000-000000012000.rw-p.heap";
pub(crate) const TEXT: &str = "000000020000-000000021000.r-xp.bin";
const VVAR: &str = "000000030000-000000031000.r--p.vvar";
const MAPS: &[u8] = b"\
00010000-00012000 rw-p 00000000 00:00 0      [heap]\n\
00020000-00021000 r-xp 00000000 fe:00 9      /usr/bin/bin\n\
00030000-00031000 r--p 00000000 00:00 0      [vvar]\n";

pub(crate) struct Bench {
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) source: FakeSource,
    pub(crate) process: FakeProcess,
    stores: FakeStores,
    pub(crate) fs: FileSystem,
}

pub(crate) fn bench_with(options: FileOptions, ttl: Duration) -> Bench {
    let clock = Arc::new(ManualClock::new());
    let process = FakeProcess::new(7, b"my prog");
    process.set_maps(MAPS);
    process.map(0x10_000, &[b'h'; 2 * PAGE_SIZE as usize]);
    process.map(0x20_000, &[b't'; PAGE_SIZE as usize]);
    let source = FakeSource::default();
    source.add(process.clone());
    let metrics = Arc::new(Metrics::default());
    let stores = FakeStores::default();
    let services = Services {
        stores: Arc::new(stores.clone()),
        budget: Arc::new(crate::target::snapshot::Budget::new(1 << 30)),
        source: Arc::new(source.clone()),
        cache: Arc::new(PageCache::new(1 << 20, Arc::clone(&metrics))),
        freshness: Arc::new(Freshness::new(ttl, Arc::clone(&clock) as _)),
        metrics,
    };
    Bench {
        fs: FileSystem::new(Context::new(services, options)),
        clock,
        source,
        process,
        stores,
    }
}

/// Process 7, whose files are [`HEAP`], [`TEXT`] and [`VVAR`].
pub(crate) fn bench() -> Bench {
    bench_with(FileOptions::default(), TTL)
}

fn writable() -> Bench {
    let options = FileOptions {
        writable: true,
        ..FileOptions::default()
    };
    bench_with(options, TTL)
}

/// A thread of process 7.
const CALLER: Caller = Caller {
    pid: 7,
    uid: 1000,
    gid: 1000,
};

fn subject() -> Subject {
    Subject {
        caller: CALLER,
        credentials: None,
    }
}

const READ: Access = Access {
    read: true,
    write: false,
    execute: false,
    is_direct: false,
};
const READ_WRITE: Access = Access {
    read: true,
    write: true,
    execute: false,
    is_direct: false,
};

impl Bench {
    pub(crate) fn find(&self, path: &str) -> Result<Entry> {
        let found = Found::default();
        let pass = Pass::everywhere(&found);
        let mut found = self.fs.attributes(ROOT, None, &subject())?;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            found = self
                .fs
                .lookup(found.inode, OsStr::new(name), &subject(), &pass)?;
        }
        Ok(found)
    }

    /// The attributes of what a path leads to.
    fn stat(&self, path: &str) -> Attributes {
        self.find(path).unwrap().attributes
    }

    fn open_directory(&self, inode: Inode) -> Result<u64> {
        let found = Found::default();
        self.fs
            .open_directory(inode, &subject(), &Pass::everywhere(&found))
    }

    fn read_directory(&self, handle: u64, position: u64) -> Result<Arc<Listing>> {
        let found = Found::default();
        let pass = Pass::everywhere(&found);
        self.fs
            .read_directory(handle, position, || Ok(subject()), &pass)
    }

    fn names(&self, path: &str) -> Vec<String> {
        let inode = self.find(path).unwrap().inode;
        let handle = self.open_directory(inode).unwrap();
        let entries = self.read_directory(handle, 0).unwrap();
        self.fs.release(handle);
        entries.iter().map(|entry| entry.name.clone()).collect()
    }

    fn open(&self, path: &str, access: Access) -> Result<Opened> {
        self.fs.open(self.find(path)?.inode, &subject(), access)
    }

    fn link(&self, path: &str) -> String {
        let inode = self.find(path).unwrap().inode;
        self.fs.read_link(inode, &subject()).unwrap()
    }

    fn read(&self, opened: &Opened, offset: u64, len: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        let read = self.fs.read(opened.handle, offset, &mut bytes, None)?;
        bytes.truncate(read);
        Ok(bytes)
    }
}

/// SEMANTICS: the tree.
#[test]
fn the_tree_is_as_designed() {
    let bench = bench();
    assert_eq!(
        bench.names(""),
        [
            ".",
            "..",
            "by-cgroup",
            "by-name",
            "core",
            "mem",
            "self",
            "snap",
            "stats",
            "7"
        ]
    );
    assert_eq!(bench.names("7"), [".", "..", "heap", HEAP, TEXT, VVAR]);
    assert_eq!(bench.names("mem"), [".", "..", "7"]);
    assert_eq!(bench.names("by-name"), [".", "..", "my_prog"]);
    assert_eq!(bench.names("by-name/my_prog"), [".", "..", "7"]);
    assert_eq!(bench.link("by-name/my_prog/7"), "../../7");
    assert_eq!(bench.link("self"), "7");
    assert_eq!(bench.link("7/heap"), HEAP);
    for path in ["7/heap", "by-name/my_prog/7"] {
        let size = bench.stat(path).size;
        assert_eq!(size, bench.link(path).len() as u64, "{path}");
    }
}

#[test]
fn attributes_are_as_designed() {
    let bench = bench();
    let process = bench.stat("7");
    assert_eq!(
        (process.kind, process.mode, process.uid),
        (Kind::Directory, 0o500, 1000)
    );
    let heap = bench.stat(&format!("7/{HEAP}"));
    assert_eq!(
        (heap.kind, heap.mode, heap.size),
        (Kind::File, 0o400, 2 * PAGE_SIZE)
    );
    assert_eq!(bench.stat(&format!("7/{VVAR}")).size, 0);

    let writable = writable();
    assert_eq!(writable.stat(&format!("7/{HEAP}")).mode, 0o600);
    assert_eq!(writable.stat(&format!("7/{TEXT}")).mode, 0o400);
}

/// SEMANTICS: what is not there, and what may not be read.
#[test]
fn names_that_lead_nowhere_say_why() {
    let bench = bench();
    let pid = bench.process.identity().pid;
    for path in [
        "8x",
        "08",
        "nothing",
        "7/nothing",
        "by-name/other",
        "by-name/my_prog/8",
    ] {
        assert_eq!(
            bench.find(path).unwrap_err().errno(),
            nix::errno::Errno::ENOENT,
            "{path}"
        );
    }
    assert_eq!(bench.find("stats/x"), Err(Error::NotADirectory));
    bench.process.deny();
    assert_eq!(bench.find("7"), Err(Error::ProcessDenied(pid)));
    assert_eq!(
        bench.names(""),
        [
            ".",
            "..",
            "by-cgroup",
            "by-name",
            "core",
            "mem",
            "self",
            "snap",
            "stats"
        ]
    );
}

#[test]
fn an_inode_is_the_same_as_long_as_the_object_is() {
    let bench = bench();
    let heap = format!("7/{HEAP}");
    let before = bench.find(&heap).unwrap().inode;
    assert_eq!(bench.find(&heap).unwrap().inode, before);
    bench.fs.forget(before, 2);
    assert_eq!(bench.find(&heap).unwrap().inode, before);
    bench.process.exec();
    assert_ne!(bench.find(&heap).unwrap().inode, before);
}

/// SEMANTICS: `mtime` moves with the freshness bound, `ctime` stays.
#[test]
fn times_move_with_the_bound() {
    let bench = bench();
    let path = format!("7/{HEAP}");
    bench.open(&path, READ).unwrap();
    let first = bench.stat(&path);
    let again = bench.stat(&path);
    assert_eq!(first.modified, again.modified);
    assert!(first.valid > Duration::ZERO && first.valid < TTL);
    bench.clock.advance(TTL);
    let later = bench.stat(&path);
    assert!(later.modified > first.modified);
    assert_eq!(later.changed, first.changed);
}

/// SEMANTICS: nothing is kept open for longer than a second.
#[test]
fn what_nobody_uses_is_closed() {
    let bench = bench();
    let path = format!("7/{HEAP}");
    let opened = bench.open(&path, READ).unwrap();
    let pinned = || bench.fs.context().is_pinned(&bench.process.identity());
    bench.clock.advance(Duration::from_millis(2000));
    assert_eq!(bench.fs.context().close_unused(), None);
    assert!(pinned(), "a handle holds it");
    assert_eq!(bench.read(&opened, 0, 4).unwrap(), b"hhhh");
    bench.fs.release(opened.handle);
    assert!(!pinned());

    let again = bench.open(&path, READ).unwrap();
    bench.fs.release(again.handle);
    bench.clock.advance(Duration::from_millis(700));
    assert_eq!(
        bench.fs.context().close_unused(),
        Some(Duration::from_millis(300))
    );
    bench.clock.advance(Duration::from_millis(300));
    assert_eq!(bench.fs.context().close_unused(), None);
    assert!(!pinned());
}

/// SEMANTICS: every open starts fresh.
#[test]
fn an_open_sees_what_was_there_when_it_was_opened() {
    let bench = bench();
    let path = format!("7/{HEAP}");
    let first = bench.open(&path, READ).unwrap();
    assert_eq!(bench.read(&first, 0, 4).unwrap(), b"hhhh");
    bench.process.map(0x10_000, b"new!");
    assert_eq!(
        bench.read(&first, 0, 4).unwrap(),
        b"hhhh",
        "still within the bound"
    );
    let second = bench.open(&path, READ).unwrap();
    assert_eq!(bench.read(&second, 0, 4).unwrap(), b"new!");
    assert_eq!(
        bench.read(&first, 0, 4).unwrap(),
        b"new!",
        "nothing older is served to anyone"
    );
}

#[test]
fn without_a_bound_every_read_goes_to_the_process() {
    let bench = bench_with(FileOptions::default(), Duration::ZERO);
    let opened = bench.open(&format!("7/{HEAP}"), READ).unwrap();
    assert!(opened.direct);
    assert_eq!(bench.read(&opened, 0, 4).unwrap(), b"hhhh");
    bench.process.map(0x10_000, b"new!");
    assert_eq!(bench.read(&opened, 0, 4).unwrap(), b"new!");
}

/// SEMANTICS: a process that ends, or runs another program, after `open`.
#[test]
fn a_process_that_is_gone_is_told_from_one_that_is_another() {
    for direct in [TTL, Duration::ZERO] {
        let bench = bench_with(FileOptions::default(), direct);
        let path = format!("7/{HEAP}");
        let opened = bench.open(&path, READ).unwrap();
        let inode = bench.find(&path).unwrap().inode;
        let pid = bench.process.identity().pid;
        bench.process.exec();
        assert_eq!(bench.read(&opened, 0, 4), Err(Error::Replaced(pid)));
        assert_eq!(
            bench.fs.attributes(inode, Some(opened.handle), &subject()),
            Err(Error::Replaced(pid))
        );
        bench.process.end();
        assert_eq!(bench.read(&opened, 0, 4), Err(Error::Ended(pid)));
        assert_eq!(
            bench.fs.attributes(inode, Some(opened.handle), &subject()),
            Err(Error::Ended(pid))
        );
    }
}

#[test]
fn a_reused_number_is_another_process() {
    let bench = bench();
    let path = format!("7/{HEAP}");
    let inode = bench.find(&path).unwrap().inode;
    bench.process.end();
    let other = FakeProcess::new(7, b"other");
    other.exec();
    bench.source.add(other);
    let pid = bench.process.identity().pid;
    assert_eq!(
        bench.fs.open(inode, &subject(), READ),
        Err(Error::Replaced(pid)),
        "as below"
    );
    assert_eq!(
        bench.fs.attributes(inode, None, &subject()),
        Err(Error::Replaced(pid)),
        "ESTALE makes the kernel look the path up again"
    );
    assert_eq!(
        bench.fs.open(inode, &subject(), READ),
        Err(Error::Replaced(pid)),
        "not pinned any more"
    );
    assert_ne!(bench.find(&path).map(|found| found.inode), Ok(inode));
}

#[test]
fn the_text_of_stats_is_as_it_was_when_opened() {
    let bench = bench();
    let opened = bench.open("stats", READ).unwrap();
    let text = bench.read(&opened, 0, 1 << 16).unwrap();
    assert_eq!(text.len() as u64, bench.stat("stats").size);
    assert_eq!(bench.read(&opened, 5, 4).unwrap(), text[5..9]);
    assert_eq!(bench.read(&opened, u64::MAX, 4).unwrap(), []);
}

#[test]
fn handles_are_good_for_what_they_were_given_for() {
    let bench = bench();
    let directory = bench.open_directory(ROOT).unwrap();
    assert_eq!(
        bench.fs.read(directory, 0, &mut [0], None),
        Err(Error::IsADirectory)
    );
    assert_eq!(bench.fs.write(directory, 0, b"x"), Err(Error::BadHandle));
    let file = bench.open("stats", READ).unwrap();
    assert!(matches!(
        bench.read_directory(file.handle, 0),
        Err(Error::BadHandle)
    ));
    bench.fs.release(file.handle);
    assert_eq!(
        bench.fs.read(file.handle, 0, &mut [0], None),
        Err(Error::BadHandle)
    );
    assert_eq!(
        bench.fs.open(ROOT, &subject(), READ),
        Err(Error::IsADirectory)
    );
    assert_eq!(
        bench.fs.attributes(Inode(99), None, &subject()),
        Err(Error::NoEntry)
    );
}

#[test]
fn rights_are_those_of_open() {
    let bench = bench();
    let heap = bench.find(&format!("7/{HEAP}")).unwrap().inode;
    let execute = Access {
        execute: true,
        ..READ
    };
    assert_eq!(bench.fs.check_access(heap, READ, &subject()), Ok(()));
    assert_eq!(
        bench.fs.check_access(heap, READ_WRITE, &subject()),
        Err(Error::WriteOff)
    );
    assert_eq!(
        bench.fs.check_access(heap, execute, &subject()),
        Err(Error::Protected)
    );
    assert_eq!(bench.fs.check_access(ROOT, execute, &subject()), Ok(()));
    assert_eq!(
        bench.fs.check_access(ROOT, READ_WRITE, &subject()),
        Err(Error::NotPermitted)
    );
}

/// SEMANTICS: `mem/PID` is the address space, coherent with the mapping files.
#[test]
fn the_whole_space_shows_the_same_bytes() {
    let bench = writable();
    let heap = bench.open(&format!("7/{HEAP}"), READ_WRITE).unwrap();
    let space = bench.open("mem/7", READ_WRITE).unwrap();
    assert_eq!(bench.stat("mem/7").size, SPACE_SIZE);
    assert_eq!(bench.read(&space, 0x10_000, 4).unwrap(), b"hhhh");
    bench.fs.write(heap.handle, 1, b"W").unwrap();
    assert_eq!(bench.read(&space, 0x10_000, 4).unwrap(), b"hWhh");
    bench.fs.write(space.handle, 0x10_002, b"V").unwrap();
    assert_eq!(bench.read(&heap, 0, 4).unwrap(), b"hWVh");
    assert_eq!(
        bench.fs.write(space.handle, 0x20_000, b"x"),
        Err(Error::Protected)
    );
    assert_eq!(bench.fs.seek(space.handle, 0, Seek::Data), Ok(0x10_000));
    assert_eq!(
        bench.fs.seek(space.handle, 0x10_000, Seek::Hole),
        Ok(0x12_000)
    );
}
