//! Core files have what the kernel writes into its own, and hold the bytes that gdb's `gcore` finds.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::elf::{Core, PRPSINFO, XSAVE_LAYOUT};
use super::{Subject, core_of};
use crate::support::{Mount, PAGE, assert_bytes, eventually, run, tests};

tests![
    what_is_in_it_is_what_the_kernel_dumps: [Need::CoreFiles, Need::Tool("cp")],
    its_bytes_are_those_that_gcore_finds: [Need::Tool("gcore"), Need::Ptrace],
    with_fullcore_all_that_can_be_read_is_there,
];

/// Regions of the subject with their length, and whether they are dumped by default.
const REGIONS: &[(&str, usize, bool)] = &[
    ("anonymous", 16 * PAGE, true),
    ("untouched", 16 * PAGE, false),
    ("dontdump", 16 * PAGE, false),
    ("noaccess", 16 * PAGE, true),
    ("shared", 16 * PAGE, true),
    ("memfd", 16 * PAGE, true),
    ("file_shared", 16 * PAGE, false),
    ("file_private", 16 * PAGE, false),
    ("file_written", 16 * PAGE, true),
    ("past_end", 8 * PAGE, true),
    ("guarded", 8 * PAGE, true),
    ("heap", 1 << 20, true),
];

fn send(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid as i32), signal).unwrap();
}

/// Sparse, as it is: the process is about to end.
#[track_caller]
fn copied(mount: &Mount, pid: u32) -> PathBuf {
    let copy = mount.outside().join(format!("core-{pid}"));
    let mut cp = Command::new("cp");
    run(cp.arg(core_of(mount, pid)).arg(&copy))
        .success()
        .quiet();
    copy
}

/// The kernel's own core of a process, which that writes when it ends.
#[track_caller]
fn by_the_kernel(subject: &Subject) -> Core {
    send(subject.pid(), Signal::SIGABRT);
    send(subject.pid(), Signal::SIGCONT);
    let state = format!("/proc/{}/stat", subject.pid());
    let path = eventually("the kernel's core", || {
        let stat = std::fs::read_to_string(&state).unwrap();
        stat.rsplit_once(')')?.1.starts_with(" Z").then_some(())?;
        let mut names = std::fs::read_dir(subject.dir.path()).unwrap();
        names.find_map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name()?.to_str()?;
            name.starts_with("core").then(|| path.clone())
        })
    });
    Core::open(&path)
}

/// Each mapping has as many bytes in the file as in the kernel's own core, whatever `coredump_filter` says, and there are the
/// same notes.
fn what_is_in_it_is_what_the_kernel_dumps() {
    for filter in [0x33, 0, 0x7f] {
        let subject = Subject::new("memory", 2);
        let setting = format!("/proc/{}/coredump_filter", subject.pid());
        std::fs::write(setting, format!("{filter:#x}")).unwrap();
        subject.program.stop();
        let mount = Mount::new("");
        let ours = Core::open(&copied(&mount, subject.pid()));
        let kernels = by_the_kernel(&subject);
        let sizes = |core: &Core| -> Vec<_> {
            let loads = core.loads.iter();
            loads
                .map(|it| {
                    format!(
                        "{:x} {} {:x} {:x}",
                        it.start, it.flags, it.in_memory, it.in_file
                    )
                })
                .collect()
        };
        let (one, other) = (sizes(&ours), sizes(&kernels));
        for (one, other) in one.iter().zip(&other) {
            assert_eq!(one, other, "with the filter {filter:#x}");
        }
        assert_eq!(one.len(), other.len(), "mappings");
        for (name, len, by_default) in REGIONS {
            let at = subject.at(name);
            let load = ours.load(at).unwrap();
            let is_there = load.in_file > 0;
            if filter == 0x33 {
                assert_eq!(is_there, *by_default, "{name}");
            }
            if is_there && load.in_file >= at - load.start + len {
                assert_bytes(name, &ours.bytes(at, *len), &kernels.bytes(at, *len));
            }
        }
        let notes = |core: &Core| -> Vec<_> {
            let notes = core.notes.iter();
            notes
                .filter(|note| note.kind != XSAVE_LAYOUT)
                .map(|note| (note.owner.clone(), note.kind, note.bytes.len()))
                .collect()
        };
        assert_eq!(notes(&ours), notes(&kernels));
        assert_eq!(ours.threads()[0], subject.pid());
        let info = |core: &Core| {
            let note = core.notes.iter().find(|note| note.kind == PRPSINFO);
            let mut bytes = note.unwrap().bytes.clone();
            // Its state and the kernel's flags change when it ends; as its parent the kernel names the thread that made it.
            bytes[..16].fill(0);
            bytes[28..32].fill(0);
            bytes
        };
        assert_bytes("NT_PRPSINFO", &info(&ours), &info(&kernels));
    }
}

/// `gcore` of the same process, stopped, finds the same bytes at all addresses that both have.
fn its_bytes_are_those_that_gcore_finds() {
    let subject = Subject::new("memory", 4);
    subject.program.stop();
    let mount = Mount::new("");
    let ours = Core::open(&copied(&mount, subject.pid()));
    let prefix = mount.outside().join("gcore");
    let mut gcore = Command::new("gcore");
    gcore.arg("-o").arg(&prefix).arg(subject.pid().to_string());
    run(&mut gcore).success();
    let theirs = Core::open(Path::new(&format!(
        "{}.{}",
        prefix.display(),
        subject.pid()
    )));
    // It gives up 1 MiB where it meets one byte that it cannot read: it has zeros there.
    let broken =
        ["past_end", "guarded", "heap"].map(|name| ours.load(subject.at(name)).unwrap().start);
    let mut compared = 0;
    for load in theirs.loads.iter().filter(|load| load.in_file > 0) {
        let Some(our) = ours.load(load.start) else {
            panic!("gcore alone has {load:x?}");
        };
        if broken.contains(&our.start) {
            continue;
        }
        assert_eq!((our.start, our.in_memory), (load.start, load.in_memory));
        let (one, other) = (ours.all(our), theirs.all(load));
        let both = one.len().min(other.len());
        assert_bytes(&format!("{load:x?}"), &one[..both], &other[..both]);
        compared += both;
    }
    assert!(
        compared > 4 * (8 << 20),
        "only {compared} bytes, and four stacks are among them"
    );
}

/// What nobody wants dumped is there, too, as `/proc/PID/mem` has it.
fn with_fullcore_all_that_can_be_read_is_there() {
    let subject = Subject::new("memory", 2);
    subject.program.stop();
    let setting = format!("/proc/{}/coredump_filter", subject.pid());
    std::fs::write(setting, "0").unwrap();
    let mount = Mount::new("fullcore");
    let core = Core::open(&core_of(&mount, subject.pid()));
    let memory = File::open(format!("/proc/{}/mem", subject.pid())).unwrap();
    for (name, len, _) in REGIONS {
        let at = subject.at(name);
        let bytes = core.bytes(at, *len);
        for (page, found) in bytes.chunks(PAGE).enumerate() {
            let mut expected = vec![0; found.len()];
            // What cannot be read is zeros.
            let read = memory.read_exact_at(&mut expected, (at + page * PAGE) as u64);
            let is_known_hole = *name == "past_end" && page >= 2
                || *name == "guarded" && page == 2 && subject.at("has_guard") == 1;
            assert_eq!(read.is_err(), is_known_hole, "{name}, page {page}");
            assert_bytes(name, found, &expected);
        }
    }
}
