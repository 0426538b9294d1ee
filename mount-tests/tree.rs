//! The tree: names, modes, owners, sizes, times, links.

use std::collections::BTreeSet;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::process::Command;

use crate::support::{
    Mount, PAGE, Program, Stats, Target, eventually, expect_errno, open, pread_all, quote, run, sh,
    tests,
};

tests![
    listing_65000_mappings_is_linear: [Need::Tool("ls")],
    every_mapping_has_one_file_with_the_designed_name,
    modes_owners_and_sizes,
    mtime_moves_and_ctime_stays,
    inode_numbers_are_distinct_and_stable,
    heap_and_stack_are_links,
    by_name_leads_to_the_process,
    self_is_the_caller,
    pid_shows_these_processes_only,
    only_processes_with_memory_are_there,
    numbers_that_are_no_process_are_not_found,
    a_process_is_there_while_it_runs_one_program_after_another,
    du_and_find_walk_without_a_complaint: [Need::Tool("find"), Need::Tool("du")],
];

/// The ranges and protections in `/proc/PID/maps`.
fn maps(pid: u32) -> BTreeSet<String> {
    let bytes = std::fs::read(format!("/proc/{pid}/maps")).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    text.lines()
        .map(|line| {
            let mut words = line.split(' ');
            let (start, end) = words.next().unwrap().split_once('-').unwrap();
            format!("{start:0>12}-{end:0>12}.{}", words.next().unwrap())
        })
        .collect()
}

/// A process with 65,000 mappings lists at once, with attributes too, and
/// `maps` is not read again for each of them.
fn listing_65000_mappings_is_linear() {
    let mut target = Target::new();
    target.ask("many 65000");
    let expected = maps(target.pid()).len();
    assert!(expected >= 65_000);
    for options in ["", "cache_ttl=1h"] {
        let mount = Mount::new(options);
        let dir = quote(&mount.process(target.pid()));
        let before = Stats::of(&mount);
        let output = sh(&format!("ls -f {dir} | wc -l")).success().quiet();
        // `.`, `..`, `heap`, `stack`.
        let lines: usize = output.text().trim().parse().unwrap();
        assert_eq!(lines, expected + 4, "ls -f with {options:?}");
        let listed = Stats::of(&mount);
        let reads = listed.since(&before, "maps_reads_total");
        assert!(reads <= 50, "ls -f read maps {reads} times, {options:?}");

        let output = sh(&format!("ls -l {dir} | wc -l")).success().quiet();
        let lines: usize = output.text().trim().parse().unwrap();
        assert_eq!(lines, expected + 3, "ls -l with {options:?}");
        let reads = Stats::of(&mount).since(&listed, "maps_reads_total");
        // At most once each freshness bound, or once a request for names.
        assert!(reads <= 2000, "ls -l read maps {reads} times, {options:?}");
    }
}

/// Each line of `/proc/PID/maps` has exactly one regular file, named
/// START-END.PERMS.LABEL with twelve hexadecimal digits; nothing else is there
/// but the links.
fn every_mapping_has_one_file_with_the_designed_name() {
    let target = Target::new();
    let sleep = Program::sleep();
    let mount = Mount::new("");
    for pid in [target.pid(), sleep.pid()] {
        let mut found = BTreeSet::new();
        for name in mount.names(pid) {
            let path = mount.process(pid).join(&name);
            let kind = path.symlink_metadata().unwrap().file_type();
            if ["heap", "stack"].contains(&name.as_str()) {
                assert!(kind.is_symlink(), "{name} is a link");
                continue;
            }
            assert!(kind.is_file(), "{name} is a file");
            let mut parts = name.splitn(3, '.');
            let range = parts.next().unwrap();
            let perms = parts.next().unwrap();
            let label = parts.next().unwrap();
            assert!(!label.is_empty(), "{name} has a label");
            assert!(
                name.bytes().all(|byte| byte.is_ascii_graphic()),
                "{name:?} is printable"
            );
            let prefix = format!("{range}.{perms}");
            assert!(found.insert(prefix), "{name}: only once");
        }
        assert_eq!(found, maps(pid));
    }
    let names = mount.names(target.pid());
    for (region, rest) in [
        ("private", "rw-p.anon"),
        ("readonly", "r--p.anon"),
        ("noaccess", "---p.anon"),
        ("writeonly", "-w-p.anon"),
        ("exec", "r-xp.anon"),
        ("shared", "rw-s.zero.deleted"),
        ("file_private", "rw-p.private.bin"),
        ("file_shared", "rw-s.shared.bin"),
        ("deleted", "rw-p.deleted.bin.deleted"),
        ("sparse_shared", "rw-s.memfd:sparse.deleted"),
        ("sysv", "rw-s.SYSV00000000.deleted"),
        ("devzero", "rw-p.zero"),
    ] {
        let region = target.region(region);
        let name = format!("{:012x}-{:012x}.{rest}", region.start, region.end);
        assert!(names.contains(&name), "no {name} in {names:#?}");
    }
    assert!(names.iter().any(|name| name.ends_with(".rw-p.stack")));
    assert!(names.iter().any(|name| name.ends_with(".rw-p.heap")));
    assert!(names.iter().any(|name| name.ends_with(".r-xp.vdso")));
    assert!(names.iter().any(|name| name.ends_with(".r-xp.libc.so.6")));
}

/// A directory has mode 0500, a file 0400, and 0600 where the mapping has `w`
/// on a mount with `write`; owner and group are those of `/proc/PID`; the size is the
/// length of the mapping.
fn modes_owners_and_sizes() {
    let target = Target::new();
    for (options, writable) in [("", 0o400), ("write", 0o600), ("write,force", 0o600)] {
        let mount = Mount::new(options);
        let process = mount.process(target.pid()).metadata().unwrap();
        let proc = std::fs::metadata(format!("/proc/{}", target.pid())).unwrap();
        assert!(process.is_dir());
        assert_eq!(process.mode() & 0o7777, 0o500, "mode of the directory");
        assert_eq!(
            (process.uid(), process.gid()),
            (proc.uid(), proc.gid()),
            "owner of the directory"
        );
        for name in mount.names(target.pid()) {
            let path = mount.process(target.pid()).join(&name);
            let meta = path.symlink_metadata().unwrap();
            assert_eq!((meta.uid(), meta.gid()), (proc.uid(), proc.gid()), "{name}");
            assert_eq!(meta.dev(), process.dev(), "device of {name}");
            if !meta.is_file() {
                continue;
            }
            assert_eq!(meta.nlink(), 1, "links of {name}");
            let perms = name.split('.').nth(1).unwrap();
            let expected = if perms.contains('w') {
                writable
            } else if options == "write,force" {
                // Writable by force: a mode that says so is right as well.
                (meta.mode() & 0o7777) | 0o400
            } else {
                0o400
            };
            assert_eq!(meta.mode() & 0o7777, expected, "mode of {name}");
        }
        for name in target.regions().keys().filter(|name| *name != "heap") {
            let size = mount.file(&target, name).metadata().unwrap().len();
            assert_eq!(size, target.bytes(name).len() as u64, "size of {name}");
        }
    }
}

/// `mtime` of memory that can change moves on with the freshness bound, so
/// that no tool takes a changed file for an unchanged one; `ctime` stays.
fn mtime_moves_and_ctime_stays() {
    let target = Target::new();
    for options in ["cache_ttl=20ms", "cache_ttl=0"] {
        let mount = Mount::new(options);
        let path = mount.file(&target, "private");
        let first = path.metadata().unwrap();
        let mut last = first.clone();
        for _ in 0..3 {
            last = eventually("mtime moves", || {
                let meta = path.metadata().unwrap();
                let before = (last.mtime(), last.mtime_nsec());
                let now = (meta.mtime(), meta.mtime_nsec());
                assert!(now >= before, "mtime goes back");
                assert_eq!(
                    (meta.ctime(), meta.ctime_nsec()),
                    (first.ctime(), first.ctime_nsec()),
                    "ctime stays"
                );
                (now > before).then_some(meta)
            });
        }
        let now = std::time::SystemTime::now();
        let ahead = last.modified().unwrap().duration_since(now);
        assert!(
            ahead.is_err() || ahead.unwrap().as_secs() < 2,
            "mtime lies in the future"
        );
    }
}

/// No two files have the same inode number; a file keeps its own while it is
/// looked at.
fn inode_numbers_are_distinct_and_stable() {
    let target = Target::new();
    let mount = Mount::new("cache_ttl=0");
    let mut seen = BTreeSet::new();
    for name in mount.names(target.pid()) {
        let path = mount.process(target.pid()).join(&name);
        let inode = path.symlink_metadata().unwrap().ino();
        assert!(seen.insert(inode), "{name} shares inode {inode}");
        if path.symlink_metadata().unwrap().is_file() {
            let file = open(&path);
            assert_eq!(file.metadata().unwrap().ino(), inode, "{name} while open");
            assert_eq!(
                path.metadata().unwrap().ino(),
                inode,
                "{name} looked up again"
            );
        }
    }
    assert!(seen.insert(mount.process(target.pid()).metadata().unwrap().ino()));
    assert!(seen.insert(mount.point().metadata().unwrap().ino()));
}

/// `heap` and `stack` link to the files of the heap and of the stack; a
/// process without a heap has no such link.
fn heap_and_stack_are_links() {
    let target = Target::new();
    let mount = Mount::new("");
    let process = mount.process(target.pid());
    for link in ["heap", "stack"] {
        let to = std::fs::read_link(process.join(link)).unwrap();
        let name = to.to_str().unwrap();
        assert!(name.ends_with(&format!(".rw-p.{link}")), "{link} -> {name}");
        assert!(!name.contains('/'), "{link} -> {name}");
        let size = process.join(link).symlink_metadata().unwrap().len();
        assert_eq!(size, name.len() as u64, "size of the link {link}");
        let by_link = process.join(link).metadata().unwrap();
        let by_name = process.join(&to).metadata().unwrap();
        assert_eq!(by_link.ino(), by_name.ino());
    }
    for missing in ["heaps", "vdso", "anon", ""] {
        if !missing.is_empty() {
            let result = std::fs::symlink_metadata(process.join(missing));
            expect_errno(missing, result, libc::ENOENT);
        }
    }
}

/// `by-name/COMM/PID` links to the process's directory.
fn by_name_leads_to_the_process() {
    let mut target = Target::new();
    let mount = Mount::new("");
    let pid = target.pid().to_string();
    let name = format!("t{pid}-x");
    let digits: String = name.bytes().map(|b| format!("{b:02x}")).collect();
    target.ask(&format!("comm {digits}"));
    let dir = mount.path("by-name").join(&name);
    eventually("the new name", || dir.metadata().ok());
    let link = dir.join(&pid);
    let to = std::fs::read_link(&link).unwrap();
    assert_eq!(to.to_str().unwrap(), format!("../../{pid}"));
    let by_link = link.metadata().unwrap();
    let direct = mount.process(target.pid()).metadata().unwrap();
    assert_eq!(by_link.ino(), direct.ino());
    let listed: Vec<_> = std::fs::read_dir(mount.path("by-name"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(listed.contains(&name.as_str().into()), "{listed:?}");
    let inside: Vec<_> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(inside, [pid.as_str()]);
    expect_errno(
        "a name that nobody has",
        mount.path("by-name/no-such-command").metadata(),
        libc::ENOENT,
    );
}

/// `self` links to the process that asks, whichever of its threads does.
fn self_is_the_caller() {
    let mount = Mount::new("");
    let link = mount.path("self");
    let ours = std::process::id().to_string();
    let read = || std::fs::read_link(&link).unwrap();
    // This test itself runs on a thread that is not the main one.
    assert_eq!(read().to_str(), Some(ours.as_str()));
    std::thread::scope(|scope| {
        let other = scope.spawn(read).join().unwrap();
        assert_eq!(other.to_str(), Some(ours.as_str()));
    });
    let output = sh(&format!("echo $$; exec readlink {}", quote(&link)));
    let text = output.success().text();
    let mut lines = text.lines();
    let shell = lines.next();
    assert_eq!(lines.next(), shell, "another process");
    assert_eq!(read().to_str(), Some(ours.as_str()), "and this one again");
    let inode = link.metadata().unwrap().ino();
    let direct = mount.process(std::process::id()).metadata().unwrap();
    assert_eq!(inode, direct.ino());
}

/// With `pid=` these processes are listed and found, and no others.
fn pid_shows_these_processes_only() {
    let (one, two, other) = (Target::new(), Target::new(), Target::new());
    let mount = Mount::new(&format!("pid={}:{}", one.pid(), two.pid()));
    let numbers: BTreeSet<u32> = std::fs::read_dir(mount.point())
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .collect();
    assert_eq!(numbers, BTreeSet::from([one.pid(), two.pid()]));
    let found = std::fs::read(mount.file(&one, "private")).unwrap();
    assert_eq!(found, one.bytes("private"));
    let result = mount.process(other.pid()).metadata();
    expect_errno("another process", result, libc::ENOENT);
    for entry in std::fs::read_dir(mount.path("by-name")).unwrap() {
        for link in std::fs::read_dir(entry.unwrap().path()).unwrap() {
            let pid: u32 = link.unwrap().file_name().to_str().unwrap().parse().unwrap();
            assert!(numbers.contains(&pid), "{pid} in by-name");
        }
    }
}

/// Kernel threads and zombies have no memory: neither listed nor found.
fn only_processes_with_memory_are_there() {
    let mut target = Target::new();
    let zombie: u32 = target.ask("zombie").parse().unwrap();
    let mount = Mount::new("");
    let mut listed = BTreeSet::new();
    for entry in std::fs::read_dir(mount.point()).unwrap() {
        let entry = entry.unwrap();
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|n| n.parse::<u32>().ok())
        else {
            continue;
        };
        assert!(entry.file_type().unwrap().is_dir(), "{pid} is a directory");
        assert!(listed.insert(pid), "{pid} is listed once");
    }
    assert!(listed.contains(&target.pid()));
    assert!(listed.contains(&std::process::id()));
    assert!(!listed.contains(&zombie), "the zombie {zombie} is listed");
    let result = mount.process(zombie).metadata();
    expect_errno("a zombie", result, libc::ENOENT);
    for pid in &listed {
        // One that is about to end has none any more, and one that has ended says nothing.
        eventually(&format!("{pid} has memory, or ends"), || {
            let Ok(status) = std::fs::read(format!("/proc/{pid}/status")) else {
                return Some(());
            };
            let status = String::from_utf8_lossy(&status);
            (status.contains("VmSize:") || status.contains("State:\tZ")).then_some(())
        });
    }
    let kernel_thread = std::fs::read_to_string("/proc/2/comm").unwrap_or_default();
    if kernel_thread.trim() == "kthreadd" {
        let result = mount.process(2).metadata();
        expect_errno("a kernel thread", result, libc::ENOENT);
    }
}

/// An exec takes some moments in which the process is neither the old program nor the new one.
fn a_process_is_there_while_it_runs_one_program_after_another() {
    let program = Program::restarting();
    let mount = Mount::new(&format!("pid={}", program.pid()));
    for listing in 0..1000 {
        let names = std::fs::read_dir(mount.point()).unwrap();
        let mut names = names.map(|entry| entry.unwrap().file_name());
        let number = program.pid().to_string();
        assert!(
            names.any(|name| name == number.as_str()),
            "listing {listing}"
        );
    }
}

/// What is not the number of a process, written as `/proc` writes it, gives
/// `ENOENT`.
fn numbers_that_are_no_process_are_not_found() {
    let target = Target::new();
    let mount = Mount::new("");
    let pid = target.pid();
    for name in [
        "0".to_string(),
        format!("0{pid}"),
        format!("+{pid}"),
        format!("-{pid}"),
        format!("{pid} "),
        format!("{pid}\n"),
        format!("{pid}x"),
        "4194305".to_string(),
        "99999999999999999999999".to_string(),
        "no-such-view".to_string(),
    ] {
        let result = mount.path(&name).metadata();
        expect_errno(&format!("{name:?}"), result, libc::ENOENT);
    }
    let region = target.region("private");
    let name = format!("{:012x}-{:012x}.rw-p.anon", region.start, region.end);
    let process = mount.process(pid);
    process.join(&name).metadata().unwrap();
    for wrong in [
        name.replace("rw-p", "r--p"),
        name.replace("anon", "other"),
        name.trim_start_matches('0').replace("rw-p.anon", "rw-p"),
        format!("0{name}"),
        name.to_uppercase(),
        format!("{:012x}-{:012x}.rw-p.anon", region.start, region.end + PAGE),
    ] {
        let result = process.join(&wrong).metadata();
        expect_errno(&wrong, result, libc::ENOENT);
    }
    let below = process.join(&name).join("below").metadata();
    expect_errno("below a file", below, libc::ENOTDIR);
}

/// `find` and `du` over one process's directory have nothing to complain
/// about; nothing but directories, files and links is anywhere.
fn du_and_find_walk_without_a_complaint() {
    let target = Target::new();
    let mount = Mount::new(&format!("pid={}", target.pid()));
    let point = quote(mount.point());
    let output = sh(&format!(
        "find {point} ! -type d ! -type f ! -type l && du -s {point} && du --apparent-size -s {point}"
    ));
    let output = output.success().quiet();
    assert_eq!(output.text().lines().count(), 2, "{}", output.text());
    let output = run(Command::new("ls").arg("-lR").arg(mount.point()));
    output.success().quiet();
    let kind = mount.path("stats").metadata().unwrap().file_type();
    assert!(kind.is_file() && !kind.is_fifo());
    assert!(!pread_all(&open(&mount.path("stats")), 0, 10).is_empty());
}
