//! `snap` on fake processes.

use super::*;
use crate::files::SnapshotName;
use crate::target::Credentials;
use crate::target::snapshot::Watch;

/// Takes a snapshot, as `mkdir` does.
fn make(bench: &Bench, name: &str, who: &Subject) -> Result<Entry> {
    let context = bench.fs.context();
    let taking = context.begin_snapshot(SnapshotName::parse(name)?, who)?;
    let processes = taking.copy(&Watch::default())?;
    let node = context.end_snapshot(&taking, processes)?;
    Ok(bench.fs.remember(&node, &CountedUsage::default()))
}

impl Bench {
    /// Takes a snapshot, and returns what shows it.
    pub(crate) fn snapshot(&self, name: &str) -> Node {
        let entry = make(self, name, &subject()).unwrap();
        self.fs.node(entry.inode).unwrap()
    }
}

pub(super) fn remove(bench: &Bench, name: &str) -> Result<()> {
    let snap = bench.find("snap").unwrap().inode;
    bench
        .fs
        .remove_directory(snap, OsStr::new(name), &subject())
}

#[test]
fn a_snapshot_has_the_files_of_its_process_and_stays() {
    let bench = bench();
    make(&bench, "7@a", &subject()).unwrap();
    assert_eq!(bench.names("snap"), [".", "..", "7@a"]);
    let mut names = bench.names("snap/7@a");
    names.retain(|name| name != "process");
    assert_eq!(names, bench.names("7"));
    let heap = format!("snap/7@a/{HEAP}");
    bench.process.map(0x10_000, b"later");
    bench.process.end();
    let opened = bench.open(&heap, READ).unwrap();
    assert!(opened.is_constant && !opened.direct);
    assert_eq!(bench.read(&opened, 0, 4).unwrap(), b"hhhh");
    let shown = bench.stat(&heap);
    assert_eq!((shown.size, shown.blocks), (2 * PAGE_SIZE, 16));
    assert_eq!(shown.mode, 0o400);
    assert_eq!(bench.open(&heap, READ_WRITE), Err(Error::NotPermitted));
    assert_eq!(
        bench.open("snap/7@a/heap", READ),
        Err(Error::Invalid),
        "a link"
    );
    let space = bench.open("snap/7@a/mem", READ).unwrap();
    assert_eq!(bench.read(&space, 0x10_000, 2).unwrap(), b"hh");
    assert_eq!(bench.fs.seek(space.handle, 0, Seek::Data), Ok(0x10_000));
    let core = bench.open("snap/7@a/core", READ).unwrap();
    assert_eq!(bench.read(&core, 0, 4).unwrap(), b"\x7fELF");
}

#[test]
fn a_snapshot_that_is_removed_stays_for_who_has_it_open() {
    let bench = bench();
    make(&bench, "7@a", &subject()).unwrap();
    let heap = format!("snap/7@a/{HEAP}");
    let inode = bench.find(&heap).unwrap().inode;
    let opened = bench.open(&heap, READ).unwrap();
    remove(&bench, "7@a").unwrap();
    assert_eq!(bench.read(&opened, 0, 4).unwrap(), b"hhhh");
    assert_eq!(bench.find(&heap).unwrap_err(), Error::NoEntry);
    let by_number = bench.fs.open(inode, &subject(), READ);
    assert_eq!(
        by_number,
        Err(Error::NoEntry),
        "the kernel may know it still"
    );
    assert_eq!(remove(&bench, "7@a"), Err(Error::NoEntry));
    assert_eq!(bench.names("snap"), [".", ".."]);
}

#[test]
fn names_are_chosen_by_time_where_none_is_given() {
    let bench = bench();
    make(&bench, "7@", &subject()).unwrap();
    let names = bench.names("snap");
    assert!(
        names[2].len() > "7@".len() && names[2].starts_with("7@"),
        "{names:?}"
    );
    // The short name stays free: the kernel makes no directory where it finds one.
    assert_eq!(bench.find("snap/7@").unwrap_err(), Error::NoEntry);
    assert_eq!(remove(&bench, "7@"), Err(Error::NoEntry));
    remove(&bench, &names[2]).unwrap();
    assert_eq!(bench.names("snap").len(), 2);
}

#[test]
fn several_processes_have_a_directory_each() {
    let bench = bench();
    let other = FakeProcess::new(8, b"other");
    other
        .set_maps(b"10000-11000 rw-p 00000000 00:00 0 [heap]\n")
        .map(0x10_000, b"o");
    bench.source.add(other);
    make(&bench, "8+7@both", &subject()).unwrap();
    assert_eq!(bench.names("snap/8+7@both"), [".", "..", "7", "8"]);
    let opened = bench
        .open(&format!("snap/8+7@both/7/{HEAP}"), READ)
        .unwrap();
    assert_eq!(bench.read(&opened, 0, 1).unwrap(), b"h");
    let of_other = "snap/8+7@both/8/000000010000-000000011000.rw-p.heap";
    let opened = bench.open(of_other, READ).unwrap();
    assert_eq!(bench.read(&opened, 0, 1).unwrap(), b"o");
}

#[test]
fn wrong_names_and_places_are_refused() {
    let bench = bench();
    let refused = |name| make(&bench, name, &subject()).unwrap_err();
    for name in ["x", "7", "@a", "7@a b", "7@\u{e9}"] {
        assert_eq!(refused(name), Error::SnapshotName, "{name}");
    }
    let pid = crate::target::ProcessId::new(4711).unwrap();
    assert_eq!(refused("4711@a"), Error::NoProcess(pid));
    assert_eq!(refused("7+4711@a"), Error::NoProcess(pid));
    make(&bench, "7@a", &subject()).unwrap();
    assert_eq!(refused("7@a"), Error::Exists);
    for directory in ["", "7", "snap/7@a", "core"] {
        let inode = bench.find(directory).unwrap().inode;
        assert_eq!(bench.fs.check_snapshots(inode), Err(Error::NotPermitted));
        let name = OsStr::new("7@a");
        let removed = bench.fs.remove_directory(inode, name, &subject());
        assert_eq!(removed, Err(Error::NotPermitted), "{directory}");
    }
    let options = FileOptions {
        no_stop: true,
        ..FileOptions::default()
    };
    let bench = bench_with(options, TTL);
    assert_eq!(make(&bench, "7@a", &subject()).unwrap_err(), Error::StopOff);
}

/// SEMANTICS: a snapshot is open to whoever has taken it.
#[test]
fn a_snapshot_is_for_who_has_taken_it() {
    let options = FileOptions {
        allow_other: true,
        ..FileOptions::default()
    };
    let bench = bench_with(options, TTL);
    let user = |uid| Subject {
        caller: Caller {
            pid: 7,
            uid,
            gid: uid,
        },
        credentials: Some(Arc::new(Credentials::plain(uid, uid))),
    };
    make(&bench, "7@a", &user(1001)).unwrap();
    let heap = bench.find(&format!("snap/7@a/{HEAP}")).unwrap();
    assert_eq!((heap.attributes.uid, heap.attributes.gid), (1001, 1001));
    assert!(bench.fs.open(heap.inode, &user(1001), READ).is_ok());
    assert!(bench.fs.open(heap.inode, &subject(), READ).is_ok(), "root");
    let other = bench.fs.open(heap.inode, &user(1002), READ);
    assert_eq!(other, Err(Error::NotOwner));
    let snap = bench.find("snap").unwrap().inode;
    let name = OsStr::new("7@a");
    let removed = bench.fs.remove_directory(snap, name, &user(1002));
    assert_eq!(removed, Err(Error::NotPermitted));
    let found = Found::default();
    let pass = Pass::everywhere(&found);
    let seen = bench.fs.lookup(snap, name, &user(1002), &pass);
    assert_eq!(seen.unwrap_err(), Error::NoEntry);
    bench.process.deny_to(1003);
    let denied = make(&bench, "7@b", &user(1003)).unwrap_err();
    assert_eq!(denied, Error::CallerDenied(bench.process.identity().pid));
    bench.fs.remove_directory(snap, name, &user(1001)).unwrap();
}
