//! Directories that are held open while processes come and go, and their times.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use crate::support::{
    Client, Mount, Program, Target, Width, build_client, eventually, quote, run, sh, tests,
};

tests![
    a_directory_that_is_rewound_shows_what_is_there: [Need::Tool("cc")],
    python_lists_a_descriptor_anew: [Need::Tool("python3")],
    a_walk_keeps_its_positions: [Need::Tool("cc")],
    a_walk_of_32_bits_keeps_its_positions: [Need::Tool("cc"), Need::Cc32],
    times_of_directories_move_and_their_ctime_stays,
    find_newer_sees_that_processes_came: [Need::Tool("find")],
    tar_finds_new_processes_for_an_incremental_archive: [Need::Tool("tar")],
];

/// Starts the client in `mode` on a directory.
#[track_caller]
fn client(mount: &Mount, width: Width, mode: &str, dir: &Path) -> Client {
    let binary = build_client(mount.outside(), width);
    Client::start(Command::new(binary).arg(mode).arg(dir))
}

/// `rewinddir` shows processes and mappings that came, and not those that went, as in `/proc`.
fn a_directory_that_is_rewound_shows_what_is_there() {
    for options in ["", "cache_ttl=0", "cache_ttl=1h"] {
        let mut target = Target::new();
        let mount = Mount::new(options);
        let mut root = client(&mount, Width::Native, "rewind", mount.point());
        let mut spaces = client(&mount, Width::Native, "rewind", &mount.path("mem"));
        let mut names = client(&mount, Width::Native, "rewind", &mount.path("by-name"));
        let process = mount.process(target.pid());
        let mut process = client(&mount, Width::Native, "rewind", &process);
        let has = |line: &str, name: &str| line.split(' ').any(|word| word == name);
        let victim = target.region("victim");
        let victim = format!("{:012x}-{:012x}.rw-p.anon", victim.start, victim.end);
        assert!(has(&process.line(), &victim), "{options}");
        for client in [&root, &spaces] {
            assert!(has(&client.line(), &target.pid().to_string()), "{options}");
        }
        names.line();

        let mut other = Target::of_generation(2);
        other.ask("comm 6f746865722070726f63657373");
        let pid = other.pid().to_string();
        assert!(has(&root.again(), &pid), "{options}: a new process");
        eventually("a new process in mem", || {
            has(&spaces.again(), &pid).then_some(())
        });
        let name = "other_process";
        eventually("its name", || has(&names.again(), name).then_some(()));
        let at = target.region("victim").start;
        target.ask(&format!("unmap {at:x} {}", 4096 * 16));
        let map = target.ask("shared 65536");
        let (start, end) = map.split_once('-').unwrap();
        let line = process.again();
        assert!(!has(&line, &victim), "{options}: an old mapping");
        let new = format!("{start}-{end}.rw-s.");
        assert!(line.contains(&new), "{options}: no {new} in {line}");
        other.end();
        assert!(!has(&root.again(), &pid), "{options}: an old process");
        target.end();
        // POSIX has the C library take that for an empty directory.
        assert_eq!(process.again(), "", "{options}: a process that has ended");
    }
}

/// `os.listdir` and `os.scandir` of a descriptor, again and again.
fn python_lists_a_descriptor_anew() {
    let mount = Mount::new("");
    let script = "\
import os, subprocess, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
seen = [set(os.listdir(fd)), {entry.name for entry in os.scandir(fd)}]
child = subprocess.Popen(['sleep', '60'])
try:
    while open(f'/proc/{child.pid}/comm').read() != 'sleep\\n': pass
    seen += [set(os.listdir(fd)), {entry.name for entry in os.scandir(fd)}]
finally:
    child.kill()
    child.wait()
seen += [set(os.listdir(fd))]
print([str(child.pid) in names for names in seen])
";
    let mut python = Command::new("python3");
    let output = run(python.args(["-c", script]).arg(mount.point())).success();
    assert_eq!(output.text().trim(), "[False, False, True, True, False]");
}

fn positions_hold(width: Width) {
    for options in ["", "cache_ttl=0"] {
        let mut target = Target::new();
        target.ask("many 3000");
        let mount = Mount::new(options);
        let process = mount.process(target.pid());
        let mut walks = [
            client(&mount, width, "positions", mount.point()),
            client(&mount, width, "positions", &process),
            client(&mount, width, "positions", &mount.path("mem")),
        ];
        for walk in &walks {
            assert!(walk.line().starts_with("entries "), "{options}");
        }
        let _other = Target::of_generation(2);
        let at = target.region("victim").start;
        target.ask(&format!("unmap {at:x} 65536"));
        target.ask("shared 65536");
        for walk in &mut walks {
            assert_eq!(walk.again(), "same", "{options}");
        }
    }
}

/// `telldir` and `seekdir` come back to the same name, whatever came and went since.
fn a_walk_keeps_its_positions() {
    positions_hold(Width::Native);
}

/// Positions fit into 32 bits, too.
fn a_walk_of_32_bits_keeps_its_positions() {
    positions_hold(Width::Bits32);
}

/// The time of last modification of a directory moves, since what is in it may have changed; its
/// `ctime` stays, so that `tar` does not say that it changed. One link: none are counted.
fn times_of_directories_move_and_their_ctime_stays() {
    let target = Target::new();
    for options in ["", "cache_ttl=0", "cache_ttl=1h"] {
        let mount = Mount::new(format!("pid={},{options}", target.pid()).trim_end_matches(','));
        for dir in [
            mount.point().to_owned(),
            mount.process(target.pid()),
            mount.path("mem"),
            mount.path("by-name"),
            mount.path("by-name/mount-target"),
        ] {
            let first = dir.metadata().unwrap();
            let later = eventually("the time moves", || {
                let status = dir.metadata().unwrap();
                (status.modified().unwrap() > first.modified().unwrap()).then_some(status)
            });
            let ctime = |status: &std::fs::Metadata| (status.ctime(), status.ctime_nsec());
            assert_eq!(ctime(&later), ctime(&first), "{dir:?}");
            assert_eq!((later.nlink(), later.len()), (1, 0), "{dir:?}");
        }
        let script = format!(
            "tar -C {} --exclude=stats --exclude=mem -cf - . | cat >/dev/null",
            quote(mount.point())
        );
        sh(&script).success().quiet();
    }
}

/// `find -newer` shows a directory in which something is new.
fn find_newer_sees_that_processes_came() {
    let mount = Mount::new("");
    let reference = mount.outside().join("reference");
    mount.point().metadata().unwrap();
    std::fs::write(&reference, "").unwrap();
    let target = Target::new();
    let dirs = [
        mount.point().to_owned(),
        mount.path("mem"),
        mount.path("by-name"),
        mount.path("by-cgroup"),
    ];
    eventually("directories that are newer", || {
        let mut find = Command::new("find");
        find.args(&dirs).args(["-maxdepth", "0", "-newer"]);
        let found = run(find.arg(&reference)).success().quiet().text();
        (found.lines().count() == dirs.len()).then_some(())
    });
    assert!(mount.process(target.pid()).is_dir());
}

/// `tar -g` archives processes that came since, and says nothing of changes.
fn tar_finds_new_processes_for_an_incremental_archive() {
    let first = Program::sleep();
    let mount = Mount::new("");
    let archive = |pid: u32| {
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(mount.point());
        tar.arg("-g").arg(mount.outside().join("snapshot"));
        tar.arg("-Scvf").arg(mount.outside().join("archive"));
        // Memory of others alone takes its time, and a core is as large as what they have mapped when it is opened.
        let others = std::fs::read_dir(mount.point()).unwrap();
        let others = others.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let own = [first.pid(), pid].map(|pid| pid.to_string());
        tar.args(
            others
                .filter(|name| !own.contains(name))
                .map(|name| format!("--exclude=./{name}")),
        );
        let output = run(tar.arg("."));
        assert!(!output.stderr.contains("file changed"), "{}", output.stderr);
        let dir = format!("./{pid}/");
        output
            .text()
            .lines()
            .filter(|line| line.starts_with(&dir))
            .count()
    };
    assert!(archive(first.pid()) > 10);
    let second = Program::sleep();
    let names = mount.names(second.pid()).len();
    assert_eq!(archive(second.pid()), names + 1);
    assert!(archive(first.pid()) > 10, "and what may have changed");
}
