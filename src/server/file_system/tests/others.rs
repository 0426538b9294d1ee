//! Others than the mounter, each judged by their own credentials.

use super::*;
use crate::files::Pass;
use crate::target::{Credentials, ProcessId};

/// A mount with `allow_other` and process 7, which the user 1001 may not read, and process 8, which they may.
fn shared() -> Bench {
    let options = FileOptions {
        allow_other: true,
        writable: true,
        ..FileOptions::default()
    };
    let bench = bench_with(options, TTL);
    bench.process.deny_to(1001);
    bench.process.set_cgroup(b"0::/one\n");
    let process = FakeProcess::new(8, b"other");
    process.set_cgroup(b"0::/two\n");
    process.set_maps(MAPS);
    process.map(0x10_000, &[b'o'; 2 * PAGE_SIZE as usize]);
    bench.source.add(process);
    bench
}

fn user(uid: u32) -> Subject {
    Subject {
        caller: Caller {
            pid: 99,
            uid,
            gid: uid,
        },
        credentials: Some(Arc::new(Credentials::plain(uid, uid))),
    }
}

fn find(bench: &Bench, path: &str, subject: &Subject) -> Result<Entry> {
    let found = Found::default();
    let pass = Pass::everywhere(&found);
    let mut found = bench.fs.attributes(ROOT, None, subject)?;
    for name in path.split('/') {
        found = bench
            .fs
            .lookup(found.inode, OsStr::new(name), subject, &pass)?;
    }
    Ok(found)
}

fn list(bench: &Bench, path: &str, subject: &Subject) -> Result<Vec<String>> {
    let inode = match path {
        "." => ROOT,
        path => find(bench, path, subject)?.inode,
    };
    let found = Found::default();
    let pass = Pass::everywhere(&found);
    let handle = bench.fs.open_directory(inode, subject, &pass)?;
    let subject = || Ok(subject.clone());
    let listing = bench.fs.read_directory(handle, 0, subject, &pass)?;
    bench.fs.release(handle);
    Ok(listing.iter().map(|entry| entry.name).collect())
}

fn denied() -> Error {
    Error::CallerDenied(ProcessId::new(7).unwrap())
}

/// SEMANTICS: names, addresses and attributes of a process are not shown to who could not read its `maps`.
#[test]
fn who_may_not_read_a_process_is_not_shown_it() {
    let bench = shared();
    let (one, other) = (user(1001), user(1002));
    // The mounter has seen all of it before.
    for path in ["7/heap", "mem/7", "by-name/my_prog/7", "by-cgroup/one/7"] {
        bench.find(path).unwrap();
        assert_eq!(find(&bench, path, &other).map(drop), Ok(()), "{path}");
    }
    for path in ["7", "7/heap", "mem/7"] {
        assert_eq!(find(&bench, path, &one), Err(denied()), "{path}");
    }
    for path in ["by-name/my_prog", "by-cgroup/one"] {
        assert_eq!(find(&bench, path, &one), Err(Error::NoEntry), "{path}");
    }
    for path in ["8", "8/heap", "mem/8", "by-name/other/8", "by-cgroup/two/8"] {
        assert_eq!(find(&bench, path, &one).map(drop), Ok(()), "{path}");
    }
    let shown = |path: &str, subject: &Subject, name: &str| {
        let names = list(&bench, path, subject).unwrap();
        names.iter().any(|shown| shown == name)
    };
    for (path, seven, eight) in [
        (".", "7", "8"),
        ("mem", "7", "8"),
        ("by-name", "my_prog", "other"),
        ("by-cgroup", "one", "two"),
    ] {
        // The list that one was shown a moment ago is not shown to the other.
        for _ in 0..2 {
            assert!(shown(path, &other, seven) && shown(path, &other, eight));
            assert!(!shown(path, &one, seven) && shown(path, &one, eight));
        }
    }
}

/// The kernel knows the inodes by the look-ups of others.
#[test]
fn numbers_of_inodes_are_no_way_around() {
    let bench = shared();
    let one = user(1001);
    let directory = bench.find("7").unwrap().inode;
    let heap = bench.find(&format!("7/{HEAP}")).unwrap().inode;
    let link = bench.find("7/heap").unwrap().inode;
    let fs = &bench.fs;
    let found = Found::default();
    let pass = Pass::everywhere(&found);
    for inode in [directory, heap, link] {
        assert_eq!(fs.attributes(inode, None, &one), Err(denied()));
        assert_eq!(fs.check_access(inode, READ, &one), Err(denied()));
        assert_eq!(fs.extended_attributes(inode, &one), Err(denied()));
        let name = OsStr::new("user.procmemfs.comm");
        assert_eq!(fs.extended_attribute(inode, name, &one), Err(denied()));
    }
    assert_eq!(fs.read_link(link, &one), Err(denied()));
    let looked_up = fs.lookup(directory, OsStr::new(HEAP), &one, &pass);
    assert_eq!(looked_up, Err(denied()));
    assert_eq!(fs.open_directory(directory, &one, &pass), Err(denied()));
    for access in [READ, READ_WRITE] {
        assert_eq!(fs.open(heap, &one, access), Err(denied()));
        let space = bench.find("mem/7").unwrap().inode;
        assert_eq!(fs.open(space, &one, access), Err(denied()));
    }
    // A directory that somebody else has opened, and lists anew.
    let handle = fs.open_directory(directory, &subject(), &pass).unwrap();
    fs.read_directory(handle, 0, || Ok(subject()), &pass)
        .unwrap();
    let again = fs.read_directory(handle, 0, || Ok(one.clone()), &pass);
    assert_eq!(again.map(drop), Err(denied()));
}

/// SEMANTICS: each open is judged anew; what is open stays open.
#[test]
fn each_open_is_judged_anew() {
    let bench = shared();
    let one = user(1001);
    let heap = find(&bench, &format!("8/{HEAP}"), &one).unwrap().inode;
    let open = || bench.fs.open(heap, &one, READ);
    let opened = open().unwrap();
    let again = open().unwrap();
    bench.fs.release(again.handle);
    let process = bench.source.find(ProcessId::new(8).unwrap()).unwrap();
    process.deny_to(1001);
    assert!(matches!(open(), Err(Error::CallerDenied(_))));
    assert_eq!(bench.read(&opened, 0, 2).unwrap(), b"oo", "it is open");
    let shown = bench.fs.attributes(heap, Some(opened.handle), &one);
    assert_eq!(shown.map(drop), Ok(()));
}

/// SEMANTICS: a write through any file of the mount is seen at once, whoever has it open.
#[test]
fn what_one_writes_the_other_reads() {
    let bench = shared();
    let path = format!("8/{HEAP}");
    let open = |subject: &Subject, access| {
        let inode = find(&bench, &path, subject).unwrap().inode;
        bench.fs.open(inode, subject, access).unwrap()
    };
    let theirs = open(&user(1002), READ_WRITE);
    let also = open(&user(1001), READ);
    let ours = open(&subject(), READ);
    for opened in [&theirs, &also, &ours] {
        assert_eq!(bench.read(opened, 0, 2).unwrap(), b"oo");
    }
    bench.fs.write(theirs.handle, 0, b"W").unwrap();
    for opened in [&theirs, &also, &ours] {
        assert_eq!(bench.read(opened, 0, 2).unwrap(), b"Wo");
    }
}

/// What was found out for one caller is not told to the next by the kernel, which would not ask us.
#[test]
fn the_kernel_keeps_no_name_that_was_found_for_one_caller() {
    let bench = shared();
    let name_valid = |bench: &Bench, path: &str| {
        let context = bench.fs.context();
        context.name_valid(&bench.stat(path))
    };
    assert_ne!(name_valid(&super::bench(), "7"), Duration::ZERO);
    for path in [
        String::new(),
        "8".to_owned(),
        format!("8/{HEAP}"),
        "mem/8".to_owned(),
    ] {
        assert_eq!(name_valid(&bench, &path), Duration::ZERO, "{path}");
    }
}

#[test]
fn without_allow_other_nobody_is_asked_for() {
    let bench = bench();
    let caller = Caller {
        uid: 1001,
        ..CALLER
    };
    let subject = bench.fs.context().subject(&caller).unwrap();
    assert_eq!(subject.credentials, None);
    let subject = shared().fs.context().subject(&caller).unwrap();
    assert!(subject.credentials.is_some());
}
