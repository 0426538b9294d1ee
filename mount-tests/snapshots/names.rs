//! Names of snapshots, their attributes, and how they go.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::process::Command;

use super::{at, file_of, mkdir, names, nothing_is_left, take};
use crate::support::{
    Mount, Program, Target, assert_bytes, expect_errno, open, open_rw, quote, run, sh, tests,
};

tests![
    wrong_names_are_refused,
    a_name_that_is_not_given_is_one_by_time,
    all_of_it_is_read_only,
    modes_and_owners_and_times,
    attributes_are_those_of_that_moment: [Need::Tool("getfattr")],
    what_is_open_of_a_dropped_snapshot_stays,
    a_shell_may_be_in_it_when_it_is_dropped,
    only_snapshots_can_be_made_and_dropped,
];

/// SEMANTICS: a name that is none is `EINVAL` and a log line that says what it should be; one that is there is `EEXIST`, and a process that is
/// not there is `ENOENT`.
fn wrong_names_are_refused() {
    let target = Target::new();
    let mount = Mount::new("");
    let pid = target.pid();
    for wrong in [
        "x".to_owned(),
        format!("{pid}"),
        format!("@{pid}"),
        format!("0{pid}@x"),
        format!("{pid}@with blank"),
        format!("{pid}+@x"),
        format!("{pid}@\u{e9}"),
        format!("-{pid}@x"),
    ] {
        expect_errno(&wrong, mkdir(&mount, &wrong), libc::EINVAL);
    }
    let log = mount.log();
    let told = log.lines().filter(|line| line.contains("EINVAL"));
    let told: Vec<&str> = told.collect();
    // The same failure is told once a minute.
    assert!(told.len() == 1 && told[0].contains("PID@NAME"), "{log}");
    expect_errno(
        "a process that is not there",
        mkdir(&mount, "4194305@x"),
        libc::ENOENT,
    );
    take(&mount, pid, "x");
    expect_errno(
        "one that is there",
        mkdir(&mount, &format!("{pid}@x")),
        libc::EEXIST,
    );
    let longest = format!("{pid}@{}", "n".repeat(254 - pid.to_string().len()));
    mkdir(&mount, &longest).unwrap();
    expect_errno(
        "too long",
        mkdir(&mount, &format!("{longest}n")),
        libc::EINVAL,
    );
    assert_eq!(names(&mount.path("snap")).len(), 2);
}

/// SEMANTICS: `PID@` gets a name by time, again and again, and these names sort by it.
fn a_name_that_is_not_given_is_one_by_time() {
    let target = Target::new();
    let mount = Mount::new("");
    let short = format!("{}@", target.pid());
    let mut known: Vec<String> = Vec::new();
    take(&mount, target.pid(), "x");
    while known.len() < 5 {
        // Two of one millisecond would have one name.
        std::thread::sleep(std::time::Duration::from_millis(2));
        mkdir(&mount, &short).unwrap();
        let mut listed = names(&mount.path("snap"));
        listed.retain(|name| !name.ends_with("@x"));
        assert_eq!(listed.len(), known.len() + 1, "{listed:?}");
        assert_eq!(listed[..known.len()], known, "the newest is the last");
        known = listed;
    }
    for name in &known {
        let time = name.strip_prefix(&short).unwrap();
        assert_eq!((time.len(), time.as_bytes()[8]), (19, b'T'), "{name}");
        assert!(names(&at(&mount, name)).contains(&"heap".to_owned()));
    }
    expect_errno(
        "the short name",
        std::fs::remove_dir(at(&mount, &short)),
        libc::ENOENT,
    );
    for name in known {
        std::fs::remove_dir(at(&mount, &name)).unwrap();
    }
    assert_eq!(names(&mount.path("snap")), [format!("{short}x")]);
}

/// SEMANTICS: nothing of a snapshot can be changed, also with `write` and `force`.
fn all_of_it_is_read_only() {
    let target = Target::new();
    for options in ["", "write,force"] {
        let mount = Mount::new(options);
        let copy = take(&mount, target.pid(), "x");
        let file = file_of(&copy, &target.region("private"));
        for path in [&file, &copy.join("mem"), &copy.join("core")] {
            expect_errno("open for writing", open_rw(path), libc::EPERM);
            assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o400);
        }
        expect_errno("unlink", std::fs::remove_file(&file), libc::EPERM);
        expect_errno("create", std::fs::write(copy.join("new"), b""), libc::EPERM);
        expect_errno(
            "rename",
            std::fs::rename(&copy, at(&mount, "new")),
            libc::EPERM,
        );
        expect_errno(
            "chmod",
            set_permissions(&file, Permissions::from_mode(0o600)),
            libc::EPERM,
        );
        let bytes = std::fs::read(&file).unwrap();
        assert_bytes("as before", &bytes, &target.bytes("private"));
    }
}

fn modes_and_owners_and_times() {
    let target = Target::of_user(crate::users::USER);
    let mount = Mount::new("");
    let before = std::time::SystemTime::now();
    let copy = take(&mount, target.pid(), "x");
    let snap = mount.path("snap").metadata().unwrap();
    assert_eq!(snap.mode() & 0o7777, 0o700);
    let dir = copy.metadata().unwrap();
    assert_eq!(dir.mode() & 0o7777, 0o500);
    // Whoever has taken it: it is theirs to drop.
    assert_eq!((dir.uid(), dir.gid()), (0, 0));
    let file = file_of(&copy, &target.region("private"))
        .metadata()
        .unwrap();
    assert_eq!((file.mode() & 0o7777, file.uid()), (0o400, 0));
    assert_eq!(file.len(), target.region("private").len() as u64);
    for status in [&dir, &file] {
        let taken = status.modified().unwrap();
        assert!(taken >= before && taken <= std::time::SystemTime::now());
        assert_eq!(
            (status.mtime(), status.mtime_nsec()),
            (status.ctime(), status.ctime_nsec())
        );
    }
}

/// SEMANTICS: extended attributes say what the process was, also after its end.
fn attributes_are_those_of_that_moment() {
    let mut target = Target::new();
    let mount = Mount::new("");
    let file = mount.file(&target, "private");
    let copy = take(&mount, target.pid(), "x");
    let attributes = |path: &std::path::Path| {
        let mut getfattr = Command::new("getfattr");
        let text = run(getfattr.args(["-d", "--absolute-names"]).arg(path))
            .success()
            .quiet()
            .text();
        let lines = text.lines().filter(|line| !line.starts_with("# file"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let live = attributes(&file);
    assert!(
        live.iter().any(|line| line.contains("procmemfs.perms")),
        "{live:?}"
    );
    let shown = copy.join(file.file_name().unwrap());
    assert_eq!(attributes(&shown), live);
    let process = attributes(&copy);
    for name in [
        "comm=\"mount-target\"",
        "cmdline=",
        "exe=",
        "uid=\"0\"",
        "rss=",
    ] {
        assert!(
            process.iter().any(|line| line.contains(name)),
            "{process:?}"
        );
    }
    target.end();
    assert_eq!((attributes(&shown), attributes(&copy)), (live, process));
}

/// SEMANTICS: `rmdir` drops a snapshot whatever is in it; who has a file open or mapped keeps it, and its memory is given back once nobody has.
fn what_is_open_of_a_dropped_snapshot_stays() {
    let target = Target::new();
    let mount = Mount::new("");
    let copy = take(&mount, target.pid(), "x");
    let (large, small) = (target.region("scratch"), target.region("private"));
    let files = [&large, &small].map(|region| open(&file_of(&copy, region)));
    // SAFETY: nobody changes a file of a snapshot.
    let map = unsafe { memmap2::Mmap::map(&open(&file_of(&copy, &large))) }.unwrap();
    std::fs::remove_dir(&copy).unwrap();
    assert_eq!(names(&mount.path("snap")), [""; 0]);
    expect_errno("its directory", std::fs::read_dir(&copy), libc::ENOENT);
    for (file, name) in files.iter().zip(["scratch", "private"]) {
        let mut bytes = vec![0; target.region(name).len()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_bytes(name, &bytes, &target.bytes(name));
    }
    assert_bytes("a map", &map, &target.bytes("scratch"));
    assert!(super::stored(&mount) >= large.len() as u64);
    drop((files, map));
    nothing_is_left(&mount);
}

fn a_shell_may_be_in_it_when_it_is_dropped() {
    let target = Target::new();
    let mount = Mount::new("");
    let copy = take(&mount, target.pid(), "x");
    let script = format!(
        "cd {copy} && ls > /dev/null && rmdir {copy} && ! ls 2> /dev/null && cd /",
        copy = quote(&copy)
    );
    sh(&script).success().quiet();
    nothing_is_left(&mount);
    // Again under the same name.
    let again = take(&mount, target.pid(), "x");
    assert!(names(&again).contains(&"heap".to_owned()));
}

fn only_snapshots_can_be_made_and_dropped() {
    let target = Target::new();
    let sleeper = Program::sleep();
    let mount = Mount::new("");
    let copy = take(&mount, target.pid(), "x");
    let name = format!("{}@x", sleeper.pid());
    for dir in [
        mount.point(),
        &mount.process(target.pid()),
        &copy,
        &mount.path("mem"),
    ] {
        expect_errno(
            "mkdir elsewhere",
            std::fs::create_dir(dir.join(&name)),
            libc::EPERM,
        );
    }
    for path in [
        mount.process(target.pid()),
        mount.path("snap"),
        mount.path("mem"),
    ] {
        expect_errno(
            "rmdir of another one",
            std::fs::remove_dir(path),
            libc::EPERM,
        );
    }
    expect_errno(
        "no snapshot",
        std::fs::remove_dir(at(&mount, "1@y")),
        libc::ENOENT,
    );
    assert!(copy.exists());
}
