//! Odd clients: each ends well, or with the error that `docs/SEMANTICS.md` names.

use std::io::{IoSliceMut, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{
    Mount, Program, Target, Width, assert_bytes, build_client, held, open, open_flags, quote, run,
    sh, tests,
};

tests![
    programs_of_32_bits_walk_through_everything: [Need::Tool("cc"), Need::Cc32],
    programs_of_64_bits_walk_through_everything: [Need::Tool("cc")],
    busybox_ends_well: [Need::Tool("busybox")],
    an_overlay_lies_on_the_mount: [Need::Root, Need::Tool("cp"), Need::Tool("getfattr")],
    a_process_is_mounted_elsewhere: [Need::Root, Need::Tool("find")],
    other_tools_end_well: [
        Need::Tool("python3"), Need::Tool("perl"), Need::Tool("file"), Need::Tool("strings")
    ],
    watches_are_set: [Need::Tool("inotifywait")],
];

/// What a client of `width` has to complain about in a directory.
#[track_caller]
fn walk(mount: &Mount, width: Width, dir: &Path) -> Vec<String> {
    let binary = build_client(mount.outside(), width);
    let output = run(Command::new(binary).arg("walk").arg(dir)).success();
    let mut lines: Vec<String> = output.text().lines().map(str::to_owned).collect();
    let last = lines.pop().unwrap_or_default();
    assert!(last.starts_with("entries "), "{last}");
    lines
}

fn walk_everywhere(width: Width) {
    let target = Target::new();
    let mount = Mount::new(&format!("pid={}", target.pid()));
    for dir in [
        mount.point().to_owned(),
        mount.process(target.pid()),
        mount.path("by-name"),
        mount.path("by-name/mount-target"),
    ] {
        assert_eq!(walk(&mount, width, &dir), [""; 0], "{dir:?}");
    }
    let complaints = walk(&mount, width, &mount.path("mem"));
    let pid = target.pid();
    // Its first byte is none that can be read; and a file of 128 TiB is too large for 32 bits.
    let expected = match width {
        Width::Native => format!("read {pid}: Input/output error"),
        Width::Bits32 => format!("lstat {pid}: Value too large for defined data type"),
    };
    assert_eq!(complaints, [expected]);
}

/// Without large-file support inode numbers, positions and most sizes fit into 32 bits.
fn programs_of_32_bits_walk_through_everything() {
    walk_everywhere(Width::Bits32);
}

/// The same without that limit.
fn programs_of_64_bits_walk_through_everything() {
    walk_everywhere(Width::Native);
}

/// The tools of BusyBox over a process's directory.
fn busybox_ends_well() {
    let target = Target::new();
    let mount = Mount::new(&format!("pid={}", target.pid()));
    let (point, pid) = (quote(mount.point()), target.pid());
    let outside = quote(mount.outside());
    let private = mount.file(&target, "private");
    for script in [
        format!("ls -la {point} {point}/{pid} {point}/by-name"),
        format!("ls -lR {point}"),
        format!("find {point} -type f"),
        format!("find {point}/{pid} -type f -exec cat {{}} + | wc -c"),
        format!("cp -r {point}/{pid} {outside}/copy"),
        format!("tar cf {outside}/archive -C {point} {pid}"),
        format!("du -s {point}"),
        format!("df {point}"),
        format!("stat -f {point}"),
        format!("stat {point}/{pid}/heap {point}/mem/{pid}"),
        format!("dd if={} of={outside}/dd bs=1k", quote(&private)),
        format!("! grep -r nothing-holds-thi[s] {point}/{pid}"),
        format!("readlink -f {point}/{pid}/heap"),
    ] {
        let words = script.replacen("! ", "! busybox ", 1);
        let script = if words == script {
            format!("busybox {script}")
        } else {
            words
        };
        let output = sh(&script).success();
        let complaints = output.stderr.lines();
        let complaints = complaints.filter(|line| !line.contains("records"));
        assert_eq!(complaints.collect::<Vec<_>>(), [""; 0], "{script}");
    }
    let name = private.file_name().unwrap();
    for copy in [
        mount.outside().join("copy").join(name),
        mount.outside().join("dd"),
    ] {
        assert_bytes(
            "a copy",
            &std::fs::read(copy).unwrap(),
            &target.bytes("private"),
        );
    }
}

/// A mount on a directory. Unmounted when dropped.
struct Over(PathBuf);

impl Drop for Over {
    fn drop(&mut self) {
        crate::support::unmount_lazily(&self.0);
    }
}

/// Mounts what `arguments` say on a new directory.
#[track_caller]
fn mounted(mount: &Mount, arguments: &[&str]) -> Over {
    let point = mount.outside().join("over");
    std::fs::create_dir(&point).unwrap();
    let mut command = Command::new("mount");
    run(command.args(arguments).arg(&point)).success().quiet();
    Over(point)
}

/// An overlay takes the mount as its lower layer: names, bytes, holes and attributes come through,
/// and what is written goes into the upper layer.
fn an_overlay_lies_on_the_mount() {
    let target = Target::new();
    let mount = Mount::new("");
    let outside = mount.outside();
    // An upper layer on another overlay is refused.
    let layers = outside.join("layers");
    std::fs::create_dir(&layers).unwrap();
    let tmpfs = Command::new("mount")
        .args(["-t", "tmpfs", "none"])
        .arg(&layers)
        .status();
    assert!(tmpfs.unwrap().success());
    let _layers = Over(layers.clone());
    for name in ["upper", "work"] {
        std::fs::create_dir(layers.join(name)).unwrap();
    }
    let layers = layers.display();
    let options = format!(
        "lowerdir={},upperdir={layers}/upper,workdir={layers}/work",
        mount.point().display()
    );
    let over = mounted(&mount, &["-t", "overlay", "overlay", "-o", &options]);
    let names = |dir: &Path| {
        let entries = std::fs::read_dir(dir).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let process = over.0.join(target.pid().to_string());
    assert_eq!(names(&process), names(&mount.process(target.pid())));
    for name in ["private", "noaccess", "memfd", "sparse_private"] {
        let path = process.join(mount.file(&target, name).file_name().unwrap());
        let copy = outside.join(name);
        let mut cp = Command::new("cp");
        run(cp.arg("--sparse=always").args([&path, &copy]))
            .success()
            .quiet();
        assert_bytes(name, &std::fs::read(&copy).unwrap(), &target.bytes(name));
        let attribute = "user.procmemfs.start";
        let mut getfattr = Command::new("getfattr");
        getfattr.args(["--only-values", "-n", attribute]).arg(&path);
        let start = format!("{:012x}", target.region(name).start);
        assert_eq!(run(&mut getfattr).success().text(), start);
    }
    let path = process.join(mount.file(&target, "private").file_name().unwrap());
    let written = open_flags(&path, true, 0).unwrap();
    written.write_all_at(b"in the upper layer", 5).unwrap();
    let mut expected = target.bytes("private");
    assert_bytes(
        "the process",
        &std::fs::read(mount.file(&target, "private")).unwrap(),
        &expected,
    );
    expected[5..][..18].copy_from_slice(b"in the upper layer");
    assert_bytes("copied up", &std::fs::read(&path).unwrap(), &expected);
}

/// One process's directory is bound elsewhere, and `find -xdev` stays where it began.
fn a_process_is_mounted_elsewhere() {
    let target = Target::new();
    let mount = Mount::new("");
    let process = mount.process(target.pid());
    let bound = mounted(&mount, &["--bind", process.to_str().unwrap()]);
    let path = bound
        .0
        .join(mount.file(&target, "private").file_name().unwrap());
    assert_bytes(
        "bound",
        &std::fs::read(path).unwrap(),
        &target.bytes("private"),
    );
    let find = |dir: &Path| {
        let mut find = Command::new("find");
        let output = run(find.arg(dir).arg("-xdev")).success().quiet();
        output.text().lines().count()
    };
    assert_eq!(find(&bound.0), mount.names(target.pid()).len() + 1);
    assert!(find(mount.outside()) < 10, "it went into the mount");
}

/// `shutil.copytree`, `File::Find`, `file`, `strings`, and a read in many parts.
fn other_tools_end_well() {
    let sleep = Program::sleep();
    let target = Target::new();
    let mount = Mount::new("");
    let process = mount.process(sleep.pid());
    let copytree = "import shutil, sys; shutil.copytree(*sys.argv[1:], symlinks=True)";
    let mut python = Command::new("python3");
    let copy = mount.outside().join("copy");
    run(python.args(["-c", copytree]).args([&process, &copy]))
        .success()
        .quiet();
    let copied = std::fs::read_dir(copy).unwrap().count();
    assert_eq!(copied, mount.names(sleep.pid()).len());
    // As it was by default for long: who has two links has no directories in it.
    let find = "use File::Find; $File::Find::dont_use_nlink = 0; \
                find(sub { print \"$File::Find::name\\n\" }, @ARGV);";
    let mut perl = Command::new("perl");
    let output = run(perl.args(["-e", find]).arg(mount.path("by-name")));
    let found = output.success().quiet().text();
    let link = mount.path(format!("by-name/sleep/{}", sleep.pid()));
    let link = link.to_str().unwrap();
    assert!(found.lines().any(|line| line == link), "{found}");
    let private = mount.file(&target, "private");
    for script in [
        format!("file {}", quote(&private)),
        format!("strings {} | wc -l", quote(&private)),
        format!("md5sum {}", quote(&private)),
        format!("head -c 100 {} | tail -c 10", quote(&private)),
        format!("test -r {}", quote(&private)),
        format!("realpath {}/heap", quote(&process)),
    ] {
        sh(&script).success().quiet();
    }
    let file = open(&private);
    let (mut one, mut other) = ([0; 3], [0; 4000]);
    let mut parts = [IoSliceMut::new(&mut one), IoSliceMut::new(&mut other)];
    assert_eq!((&file).read_vectored(&mut parts).unwrap(), 4003);
    assert_bytes(
        "parts",
        &[&one[..], &other].concat(),
        &target.bytes("private")[..4003],
    );
    assert!(held(&private) > 0);
}

/// Watches can be set on files and directories; what processes do with their memory is no event.
fn watches_are_set() {
    let target = Target::new();
    let mount = Mount::new("");
    let mut watch = Command::new("inotifywait");
    watch.args(["-q", "-t", "1", "-e", "modify,create,delete"]);
    watch.arg(mount.process(target.pid()));
    // 2: the time is over.
    run(watch.arg(mount.file(&target, "private"))).code(2);
}
