//! Extended attributes: what `/proc` says, for scripts.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

use rustix::fs::{XattrFlags, getxattr, listxattr, removexattr, setxattr};

use crate::support::{
    Footprint, Mount, PAGE, Program, Region, Target, expect_errno, held, run, tests,
};

tests![
    mappings_say_what_maps_says,
    paths_are_the_true_bytes,
    memory_in_use_is_what_du_and_smaps_show,
    processes_say_what_proc_says: [Need::Ptrace],
    what_nobody_can_read_says_why,
    nobody_sets_or_removes_any,
    getfattr_shows_them: [Need::Tool("getfattr")],
    python_reads_them: [Need::Tool("python3")],
];

const OF_MAPPINGS: &[&str] = &[
    "start",
    "end",
    "perms",
    "offset",
    "dev",
    "inode",
    "path",
    "rss",
    "swap",
    "unreadable_bytes",
];
const OF_PROCESSES: &[&str] = &[
    "comm",
    "exe",
    "cmdline",
    "uid",
    "state",
    "rss",
    "cgroup",
    "container",
];

fn get(path: &Path, name: &str) -> io::Result<Vec<u8>> {
    let mut value = vec![0; 8192];
    let len = getxattr(path, format!("user.procmemfs.{name}"), &mut value[..])?;
    value.truncate(len);
    Ok(value)
}

#[track_caller]
fn value(path: &Path, name: &str) -> Vec<u8> {
    get(path, name).unwrap_or_else(|error| panic!("{name} of {path:?}: {error}"))
}

#[track_caller]
pub(crate) fn text(path: &Path, name: &str) -> String {
    String::from_utf8(value(path, name)).unwrap()
}

fn names(path: &Path) -> Vec<String> {
    let mut list = vec![0; 8192];
    let len = listxattr(path, &mut list[..]).unwrap();
    let names = list[..len].split_inclusive(|byte| *byte == 0);
    names
        .map(|name| String::from_utf8(name[..name.len() - 1].to_vec()).unwrap())
        .collect()
}

fn full(names: &[&str]) -> Vec<String> {
    names
        .iter()
        .map(|name| format!("user.procmemfs.{name}"))
        .collect()
}

fn hex(text: &str) -> u64 {
    u64::from_str_radix(text, 16).unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

/// Each mapping's attributes are the fields of its line in `maps`.
fn mappings_say_what_maps_says() {
    let target = Target::new();
    let mount = Mount::new("");
    let maps = std::fs::read(format!("/proc/{}/maps", target.pid())).unwrap();
    let mut seen = 0;
    for line in String::from_utf8_lossy(&maps).lines() {
        let mut fields = line.split_whitespace();
        let (start, end) = fields.next().unwrap().split_once('-').unwrap();
        let (start, end) = (hex(start), hex(end));
        let path = mount.mapping(target.pid(), start as usize, end as usize);
        assert_eq!(hex(&text(&path, "start")), start, "{line}");
        assert_eq!(hex(&text(&path, "end")), end, "{line}");
        for name in ["perms", "offset", "dev", "inode"] {
            assert_eq!(
                text(&path, name),
                fields.next().unwrap(),
                "{name} of {line}"
            );
        }
        // White space in it is another test's.
        let name = fields.next().unwrap_or_default();
        if !line.contains('\\') && fields.next().is_none() && !name.contains('\u{fffd}') {
            assert_eq!(text(&path, "path"), name, "{line}");
        }
        let missing = get(&path, "nonsense");
        expect_errno("an attribute that is none", missing, libc::ENODATA);
        seen += 1;
    }
    let files = mount.names(target.pid());
    let files = files.iter().filter(|name| name.contains('-'));
    assert_eq!(seen, files.count(), "mappings");
}

/// The path is the true one, newlines and bytes that are no text included,
/// and without what the kernel adds to it.
fn paths_are_the_true_bytes() {
    let target = Target::new();
    let mount = Mount::new("");
    let in_dir = |name: &[u8]| target.dir().join(OsStr::from_bytes(name));
    for (region, expected) in [
        ("memfd", b"/memfd:odd\nname".to_vec()),
        (
            "nonutf8",
            in_dir(b"bad\xff\xfe name")
                .into_os_string()
                .into_encoded_bytes(),
        ),
        (
            "deleted",
            in_dir(b"deleted.bin").into_os_string().into_encoded_bytes(),
        ),
        (
            "longname",
            in_dir(&[b'n'; 255]).into_os_string().into_encoded_bytes(),
        ),
        ("heap", b"[heap]".to_vec()),
        ("private", Vec::new()),
    ] {
        let path = match region {
            "heap" => mount
                .process(target.pid())
                .join("heap")
                .canonicalize()
                .unwrap(),
            region => mount.file(&target, region),
        };
        let got = value(&path, "path");
        assert_eq!(
            got.escape_ascii().to_string(),
            expected.escape_ascii().to_string()
        );
    }
}

/// `rss` and `swap` of a mapping, in bytes: what `smaps` counts and `du` shows.
fn memory_in_use_is_what_du_and_smaps_show() {
    let mut target = Target::new();
    let region = Region::parse(&target.ask(&format!("reserve {} 100", 1 << 30))).unwrap();
    let mount = Mount::new("");
    let path = mount.mapping(target.pid(), region.start, region.end);
    assert_eq!(text(&path, "rss"), (100 * PAGE).to_string());
    assert_eq!(held(&path), (100 * PAGE) as u64);
    let smaps = std::fs::read(format!("/proc/{}/smaps", target.pid())).unwrap();
    let smaps = String::from_utf8_lossy(&smaps);
    let mut current = None;
    let mut seen = 0;
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap();
        let (name, unit) = match first {
            "Rss:" => ("rss", 1024),
            "Swap:" => ("swap", 1024),
            _ => {
                if let Some(region) = Region::parse(first) {
                    current = Some(mount.mapping(target.pid(), region.start, region.end));
                }
                continue;
            }
        };
        let path = current.as_ref().unwrap();
        let expected = words.next().unwrap().parse::<u64>().unwrap() * unit;
        // What the program runs on changes while it answers: its own pages are steady.
        let steady = !path.to_str().unwrap().contains(".stack");
        if steady {
            assert_eq!(text(path, name), expected.to_string(), "{name} of {path:?}");
            seen += 1;
        }
    }
    assert!(seen > 40, "{seen}");
}

/// A process's attributes are what `/proc/PID` shows of it.
fn processes_say_what_proc_says() {
    let program = Program::sleep();
    let pid = program.pid();
    let mount = Mount::new("");
    let path = mount.process(pid);
    let proc = |name: &str| std::fs::read(format!("/proc/{pid}/{name}")).unwrap();
    assert_eq!(names(&path), full(OF_PROCESSES));
    assert_eq!(value(&path, "cmdline"), proc("cmdline"));
    assert_eq!(value(&path, "cmdline"), b"sleep\x00600\0");
    assert_eq!(text(&path, "comm"), "sleep");
    let exe = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    assert_eq!(value(&path, "exe"), exe.as_os_str().as_bytes());
    assert_eq!(text(&path, "uid"), nix::unistd::getuid().to_string());
    assert_eq!(text(&path, "state"), "S");
    let rss = Footprint::of(pid).rss * 1024;
    assert_eq!(text(&path, "rss"), rss.to_string());
    // A name that is no text.
    let mut target = Target::new();
    target.ask("comm ff0a41");
    assert_eq!(value(&mount.process(target.pid()), "comm"), b"\xff\nA");
}

/// A mapping that nobody can read has size 0 and says why; any other has no
/// such attribute.
fn what_nobody_can_read_says_why() {
    let target = Target::new();
    let mount = Mount::new("");
    let mut seen = 0;
    for name in mount.names(target.pid()) {
        if !name.contains('-') {
            continue;
        }
        let path = mount.process(target.pid()).join(&name);
        let listed = names(&path);
        if [".vvar", ".vvar_vclock", ".vsyscall"]
            .iter()
            .any(|end| name.ends_with(end))
        {
            assert!(!text(&path, "unreadable").is_empty(), "{name}");
            assert_eq!(listed[OF_MAPPINGS.len()..], full(&["unreadable"]), "{name}");
            assert_eq!(path.metadata().unwrap().len(), 0, "{name}");
            seen += 1;
        } else {
            let result = get(&path, "unreadable");
            expect_errno(&name, result, libc::ENODATA);
            assert_eq!(listed, full(OF_MAPPINGS), "{name}");
        }
    }
    assert!(seen > 0, "no vvar");
}

/// Setting and removing an attribute is `EPERM`, on every kind of mount.
fn nobody_sets_or_removes_any() {
    let target = Target::new();
    for options in ["", "write"] {
        let mount = Mount::new(options);
        for path in [mount.file(&target, "private"), mount.process(target.pid())] {
            for name in ["user.procmemfs.rss", "user.procmemfs.mine", "user.mine"] {
                let set = setxattr(&path, name, b"1", XattrFlags::empty());
                expect_errno(name, set.map_err(io::Error::from), libc::EPERM);
                let removed = removexattr(&path, name);
                expect_errno(name, removed.map_err(io::Error::from), libc::EPERM);
            }
        }
    }
}

/// `getfattr` shows one, and dumps all, without a complaint.
fn getfattr_shows_them() {
    let target = Target::new();
    let mount = Mount::new("");
    let path = mount.file(&target, "private");
    let mut one = Command::new("getfattr");
    one.args([
        "--absolute-names",
        "--only-values",
        "-n",
        "user.procmemfs.rss",
    ]);
    let output = run(one.arg(&path)).success().quiet();
    assert_eq!(output.text(), (16 * PAGE).to_string());
    for path in [path, mount.process(target.pid())] {
        let mut all = Command::new("getfattr");
        let output = run(all.args(["--absolute-names", "-d"]).arg(&path)).success();
        let output = output.quiet().text();
        for name in names(&path) {
            assert!(output.contains(&format!("\n{name}=")), "{output}");
        }
    }
}

/// Python's `os.getxattr` and `os.listxattr` do.
fn python_reads_them() {
    let target = Target::new();
    let mount = Mount::new("");
    let mut python = Command::new("python3");
    python.args([
        "-c",
        "import os, sys\n\
         path = sys.argv[1]\n\
         names = os.listxattr(path)\n\
         assert all(name.startswith('user.procmemfs.') for name in names), names\n\
         values = {name: os.getxattr(path, name) for name in names}\n\
         start = int(values['user.procmemfs.start'], 16)\n\
         end = int(values['user.procmemfs.end'], 16)\n\
         assert end - start == os.stat(path).st_size\n\
         print(values['user.procmemfs.perms'].decode())",
    ]);
    let output = run(python.arg(mount.file(&target, "private")));
    assert_eq!(output.success().text().trim(), "rw-p");
}
