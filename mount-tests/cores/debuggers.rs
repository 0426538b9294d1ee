//! Debuggers say of a core file what they say of the process itself, which stands still meanwhile.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use super::elf::Core;
use super::{Subject, core_of};
use crate::support::{Mount, python_with, run, tests};

tests![
    gdb_says_what_it_says_of_the_process: [Need::Tool("gdb"), Need::Ptrace],
    lldb_says_what_it_says_of_the_process: [Need::Tool("lldb"), Need::Ptrace],
    readers_of_elf_have_nothing_to_complain_about: [
        Need::Tool("eu-readelf"), Need::Tool("readelf"), Need::Python("elftools")
    ],
];

const SCRIPT: &str = include_str!("threads.py");

/// Threads besides the first one; those with an odd number run, with that number in their registers.
const THREADS: usize = 6;

/// What gdb says of all threads and of what is mapped where, and of what lies at some addresses.
#[track_caller]
pub(super) fn gdb(dir: &Path, of: &[&str], addresses: &[usize]) -> Vec<String> {
    let script = dir.join("threads.py");
    std::fs::write(&script, SCRIPT).unwrap();
    let mut gdb = Command::new("gdb");
    gdb.args(["-q", "-nx", "-batch", "-iex", "set debuginfod enabled off"]);
    gdb.args(["-iex", "set auto-load off"]).args(of);
    gdb.args(["-ex", "set pagination off", "-x"]).arg(script);
    for address in addresses {
        gdb.args(["-ex", &format!("x/256xb {address:#x}")]);
    }
    let output = run(&mut gdb).success();
    let text = output.text();
    let kinds = ["thread ", "mapping ", "library "];
    let is_memory = |line: &str| line.starts_with("0x") && line.contains(":\t");
    let is_wanted =
        |line: &&str| is_memory(line) || kinds.iter().any(|kind| line.starts_with(kind));
    let lines: Vec<String> = text.lines().filter(is_wanted).map(str::to_owned).collect();
    let threads = lines.iter().any(|line| line.starts_with("thread "));
    assert!(threads, "{}\n{text}", output.stderr);
    lines
}

/// Fails unless gdb says of a core file what it says of the process; returns what that is.
#[track_caller]
pub(super) fn gdb_compares(
    mount: &Mount,
    dir: &Path,
    pid: u32,
    binary: &Path,
    addresses: &[usize],
) -> Vec<String> {
    let core = core_of(mount, pid);
    let (core, binary) = (core.to_str().unwrap(), binary.to_str().unwrap());
    let of_core = gdb(dir, &[binary, core], addresses);
    let of_process = gdb(dir, &[binary, "-p", &pid.to_string()], addresses);
    for (one, other) in of_core.iter().zip(&of_process) {
        assert_eq!(one, other, "the core file and the process");
    }
    assert_eq!(of_core.len(), of_process.len(), "lines");
    of_core
}

/// Backtraces and all registers of each thread, mappings of files, libraries, and bytes of the heap.
fn gdb_says_what_it_says_of_the_process() {
    let subject = Subject::new("memory", THREADS);
    subject.program.stop();
    let mount = Mount::new("");
    let addresses = [
        "heap",
        "anonymous",
        "shared",
        "memfd",
        "file_written",
        "noaccess",
    ];
    let addresses = addresses.map(|name| subject.at(name));
    let dir = subject.dir.path();
    let lines = gdb_compares(&mount, dir, subject.pid(), &subject.binary, &addresses);
    let count = |what: &str| lines.iter().filter(|line| line.contains(what)).count();
    assert_eq!(count(" frames "), THREADS + 1);
    // Each thread has gone down as many levels as its number says, and stays there.
    assert_eq!(count(" frames spin@"), THREADS / 2);
    assert_eq!(count("sleep_for_ever@"), THREADS / 2);
    assert_eq!(count("descend@"), THREADS);
    assert_eq!(count("register rip "), THREADS + 1);
    assert_eq!(count("register r12 0x303030303030303 "), 1);
    assert!(count(" register ymm7 ") == 0 || count("0x3030303030303030303030303030303") > 0);
    assert!(
        count("mapping ") > 10 && count("library ") >= 2,
        "{lines:#?}"
    );
    assert_eq!(count("/plain"), 3, "a file that is mapped three times");
    let bytes = lines.iter().filter(|line| line.starts_with("0x")).count();
    assert_eq!(bytes, addresses.len() * 32, "eight bytes a line");
}

/// What lldb says of backtraces, of the registers of two threads, and of the heap.
#[track_caller]
fn lldb(of: &[&str], heap: usize) -> Vec<String> {
    let mut lldb = Command::new("lldb");
    lldb.args(["-x", "-b"]).args(of);
    let memory = format!("memory read -c 256 {heap:#x}");
    for command in [
        "bt all",
        "register read --all",
        "thread select 2",
        "register read --all",
        &memory,
    ] {
        lldb.args(["-o", command]);
    }
    let text = run(&mut lldb).success().text();
    // What comes before is about loading.
    let lines = text.lines().skip_while(|line| !line.ends_with("bt all"));
    let is_wanted = |line: &&str| {
        let line = line.trim_start();
        line.contains("frame #")
            || line.contains(" = 0x")
            || line.contains(" = {")
            || line.starts_with("0x")
    };
    let lines: Vec<String> = lines.filter(is_wanted).map(str::to_owned).collect();
    assert!(lines.len() > 50, "{text}");
    lines
}

/// lldb takes the file, and finds the same threads, registers, images and bytes.
fn lldb_says_what_it_says_of_the_process() {
    let subject = Subject::new("memory", THREADS);
    subject.program.stop();
    let mount = Mount::new("");
    let core = core_of(&mount, subject.pid());
    let (core, binary) = (core.to_str().unwrap(), subject.binary.to_str().unwrap());
    let heap = subject.at("heap");
    let of_core = lldb(&[binary, "-c", core], heap);
    let of_process = lldb(&["-p", &subject.pid().to_string()], heap);
    let known: BTreeSet<&String> = of_core.iter().collect();
    // Of a core file it shows this one as FXSAVE abridges it, and the others not at all, as of the kernel's (version 14).
    let of_processes_alone = ["ftag =", "ymm", "bnd", "k0", "zmm"];
    let is_known = |line: &str| {
        of_processes_alone
            .iter()
            .any(|name| line.trim_start().starts_with(name))
    };
    for line in of_process.iter().filter(|line| !is_known(line)) {
        assert!(
            known.contains(line),
            "not of the core file: {line}\n{of_core:#?}"
        );
    }
    let count = |what: &str| of_core.iter().filter(|line| line.contains(what)).count();
    assert!(count("spin(number=3)") > 0, "{of_core:#?}");
    assert!(
        count(" rip = 0x") == 2 && count("libc.so.6`") > 0,
        "{of_core:#?}"
    );
}

/// `readelf`, `eu-readelf` and `pyelftools` go through all headers and notes.
fn readers_of_elf_have_nothing_to_complain_about() {
    let subject = Subject::new("threads", THREADS);
    subject.program.stop();
    let mount = Mount::new("");
    let path = core_of(&mount, subject.pid());
    let threads = Core::open(&path).threads();
    assert_eq!(threads.len(), THREADS + 1);
    assert_eq!(threads[0], subject.pid(), "the first thread comes first");
    for tool in ["readelf", "eu-readelf"] {
        let mut command = Command::new(tool);
        command.args(["-h", "-l", "-n"]).arg(&path);
        // What some builds of `readelf` cannot decode they say, and go on.
        let text = run(&mut command).success().text();
        let count = |what: &str| text.matches(what).count();
        assert_eq!(count("PRSTATUS"), THREADS + 1, "{tool}: {text}");
        assert_eq!(count("FPREGSET"), THREADS + 1, "{tool}: {text}");
        for note in ["PRPSINFO", "SIGINFO", "AUXV", "FILE"] {
            assert!(count(note) >= 1, "{tool}: {note}: {text}");
        }
        let is_decoded = !text.contains("Cannot decode");
        assert!(!is_decoded || count("libc.so.6") >= 3, "{tool}: {text}");
    }
    let script = r#"
import sys
from elftools.elf.elffile import ELFFile
with open(sys.argv[1], "rb") as file:
    elf = ELFFile(file)
    notes = [note for segment in elf.iter_segments("PT_NOTE") for note in segment.iter_notes()]
    info = next(note["n_desc"] for note in notes if note["n_type"] == "NT_PRPSINFO")
    print(elf["e_type"], info["pr_pid"], info["pr_fname"].rstrip(b"\0").decode())
    print(sum(note["n_type"] == "NT_PRSTATUS" for note in notes))
    mapped = next(note["n_desc"] for note in notes if note["n_type"] == "NT_FILE")
    print(mapped["num_map_entries"] == len(mapped["filename"]) > 5)
    for segment in elf.iter_segments("PT_LOAD"):
        assert len(segment.data()) == segment["p_filesz"], segment.header
"#;
    let mut python = Command::new(python_with("elftools").expect("a need of this test"));
    let said = run(python.args(["-c", script]).arg(&path))
        .success()
        .quiet();
    let expected = format!("ET_CORE {} subject\n{}\nTrue\n", subject.pid(), THREADS + 1);
    assert_eq!(said.text(), expected);
}
