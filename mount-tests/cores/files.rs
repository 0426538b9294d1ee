//! Tools that take a core file as a file: in a stream, sparse, and with more mappings than a header can count.

use std::os::unix::fs::FileExt;
use std::process::Command;

use super::elf::Core;
use super::{Subject, core_of};
use crate::support::{
    Mount, PAGE, Target, Turn, assert_bytes, extents, held, open, quote, run, sh, tests,
};

tests![
    a_stream_of_it_ends_well: [Need::Tool("zstd")],
    copies_of_it_are_sparse_and_complete: [Need::Tool("cp"), Need::Tool("tar"), Need::Tool("cmp")],
    what_has_grown_since_stat_is_whole: [Need::Root],
    what_cannot_be_read_is_zeros: [Need::Root, Need::Tool("getfattr")],
    seventy_thousand_mappings: [
        Need::Root, Need::Tool("gdb"), Need::Tool("readelf"), Need::Tool("eu-readelf")
    ],
];

/// A whole core through `zstd`, guard pages and pages past the end of a file included.
fn a_stream_of_it_ends_well() {
    let subject = Subject::new("memory", 2);
    subject.program.stop();
    let mount = Mount::new("");
    let path = core_of(&mount, subject.pid());
    let kept = quote(&mount.outside().join("core.zst"));
    // Held open, so that both see the same headers: the registers are taken once.
    let file = open(&path);
    let core = quote(&path);
    sh(&format!("zstd -q < {core} > {kept}")).success().quiet();
    let unpacked = run(Command::new("zstd")
        .args(["-q", "-d", "-c"])
        .arg(mount.outside().join("core.zst")));
    let unpacked = unpacked.success().quiet().stdout;
    let mut whole = vec![0xa5; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut whole, 0).unwrap();
    assert_bytes("unpacked", &unpacked, &whole);
    let size = mount.outside().join("core.zst").metadata().unwrap().len();
    assert!(size < whole.len() as u64 / 4, "{size} of {}", whole.len());
}

/// A core is as large as the process when it was opened, also where the kernel keeps the size of a moment before: whoever copies it
/// would lose its end.
fn what_has_grown_since_stat_is_whole() {
    for options in ["cache_ttl=1m", ""] {
        let mut target = Target::new();
        let mount = Mount::new(options);
        let path = core_of(&mount, target.pid());
        let before = path.metadata().unwrap().len();
        let grown = 8 << 20;
        target.ask(&format!("reserve {grown} 16"));
        let core = Core::open(&path);
        let [size, end] = core.ends();
        assert!(size >= before + grown, "{before}, then {size}");
        assert_eq!(size, end, "{options}");
        let last = core.loads.iter().rfind(|load| load.in_file > 0).unwrap();
        assert_eq!(core.all(last).len(), last.in_file);
        drop(core);
        // The next one is of another moment again.
        target.ask(&format!("reserve {grown} 16"));
        let bytes = std::fs::read(&path).unwrap().len() as u64;
        assert!(bytes >= size + grown, "{size}, then {bytes}");
    }
}

/// `cp` and `tar -S` leave out what was never touched, and have all the rest.
fn copies_of_it_are_sparse_and_complete() {
    let subject = Subject::new("memory", 8);
    subject.program.stop();
    let mount = Mount::new("");
    let path = core_of(&mount, subject.pid());
    let (core, dir) = (quote(&path), quote(mount.outside()));
    let size = path.metadata().unwrap().len();
    assert!(
        size > 8 * (8 << 20),
        "with the stacks of eight threads: {size}"
    );
    let pid = subject.pid();
    for script in [
        format!("cp {core} {dir}/copy"),
        format!("cp --sparse=always {core} {dir}/copy"),
        format!(
            "cd {dir} && tar -S -cf archive -C {}/core {pid} && tar -xSf archive && mv -f {pid} copy",
            quote(mount.point())
        ),
        format!("cat {core} > {dir}/copy"),
    ] {
        sh(&script).success().quiet();
        sh(&format!("cmp {core} {dir}/copy")).success().quiet();
        let copied = held(&mount.outside().join("copy"));
        if !script.starts_with("cat") {
            assert!(copied < 4 << 20, "{script}: {copied} of {size}");
        }
        std::fs::remove_file(mount.outside().join("copy")).unwrap();
    }
    let data: u64 = extents(&open(&path))
        .iter()
        .map(|(from, to)| to - from)
        .sum();
    assert!(data < 4 << 20, "{data}");
    assert!(held(&path) < 4 << 20, "du shows what is held");
}

/// Guard pages, pages past the end of a file and `[vvar]` are zeros and holes, and what lies beside them is there.
fn what_cannot_be_read_is_zeros() {
    let subject = Subject::new("memory", 0);
    subject.program.stop();
    let mount = Mount::new("");
    let path = core_of(&mount, subject.pid());
    let core = Core::open(&path);
    let guarded = core.bytes(subject.at("guarded"), 8 * PAGE);
    assert!(guarded[PAGE..2 * PAGE].iter().any(|byte| *byte != 0));
    assert!(guarded[3 * PAGE..4 * PAGE].iter().any(|byte| *byte != 0));
    let has_guard = subject.at("has_guard") == 1;
    let is_zero = guarded[2 * PAGE..3 * PAGE].iter().all(|byte| *byte == 0);
    assert_eq!(is_zero, has_guard);
    let past = core.bytes(subject.at("past_end"), 8 * PAGE);
    assert_eq!(past[5], b'w');
    assert!(past[PAGE..PAGE + 100].iter().any(|byte| *byte != 0));
    assert!(past[2 * PAGE..].iter().all(|byte| *byte == 0));
    let mut getfattr = Command::new("getfattr");
    getfattr.args(["--only-values", "-n", "user.procmemfs.unreadable_bytes"]);
    let text = run(getfattr.arg(&path)).success().text();
    let expected = if has_guard { PAGE } else { 0 };
    assert_eq!(text, expected.to_string(), "so that one can know");
}

/// The setting as it was, once this is dropped.
#[derive(Debug)]
struct MaxMapCount {
    was: String,
    _turn: Turn,
}

impl MaxMapCount {
    const PATH: &str = "/proc/sys/vm/max_map_count";

    #[track_caller]
    fn at_least(count: usize) -> Self {
        let _turn = Turn::at(Self::PATH);
        let was = std::fs::read_to_string(Self::PATH).unwrap();
        if was.trim().parse::<usize>().unwrap() < count {
            std::fs::write(Self::PATH, count.to_string()).unwrap();
        }
        Self { was, _turn }
    }
}

impl Drop for MaxMapCount {
    fn drop(&mut self) {
        let _ = std::fs::write(Self::PATH, &self.was);
    }
}

/// More than the header of an ELF file can count (PN_XNUM in elf(5)).
fn seventy_thousand_mappings() {
    const COUNT: usize = 70_000;
    let setting = MaxMapCount::at_least(80_000);
    let subject = Subject::new("split", COUNT);
    drop(setting);
    subject.program.stop();
    let mount = Mount::new("");
    let path = core_of(&mount, subject.pid());
    let core = Core::open(&path);
    assert!(core.loads.len() > COUNT, "{} mappings", core.loads.len());
    let start = subject.at("start");
    let last = start + (COUNT - 1) * PAGE;
    for (address, byte) in [(start + PAGE, b'a'), (last, b'z')] {
        let load = core.load(address).unwrap();
        assert_eq!((load.start, load.in_memory), (address, PAGE));
        assert_eq!(core.bytes(address, 1), [byte]);
    }
    let real = (core.loads.len() + 1).to_string();
    for tool in ["readelf", "eu-readelf"] {
        let mut command = Command::new(tool);
        let text = run(command.arg("-h").arg(&path)).success().quiet().text();
        let line = text
            .lines()
            .find(|line| line.contains("umber of program headers"));
        let line = line.unwrap_or_else(|| panic!("{text}"));
        assert!(
            line.contains("65535") && line.contains(&real),
            "{tool}: {line}"
        );
    }
    let mut gdb = Command::new("gdb");
    gdb.args(["-q", "-nx", "-batch", "-iex", "set debuginfod enabled off"]);
    gdb.arg(&subject.binary).arg(&path);
    for address in [start + PAGE, last] {
        gdb.args(["-ex", &format!("x/1cb {address:#x}")]);
    }
    let text = run(gdb.args(["-ex", "bt"])).success().text();
    for wanted in ["97 'a'", "122 'z'", "main ("] {
        assert!(text.contains(wanted), "no {wanted}: {text}");
    }
}
