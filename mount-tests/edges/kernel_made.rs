//! Mappings that the kernel or a driver has made: what it lets others read is read, the rest is an empty file.

use std::fs::File;
use std::process::Command;

use super::{page, page_of_mem};
use crate::support::{
    Mount, PAGE, Program, Region, Target, assert_bytes, eventually, open, run, tests,
    unmount_lazily,
};

tests![
    rings_that_are_ordinary_pages_are_read: [Need::Root],
    the_page_of_return_probes_is_empty: [Need::Root, Need::Tool("cc"), Need::Tool("nm")],
];

/// Rings of asynchronous I/O, io_uring, sockets and counters: page by page as `/proc/PID/mem` has them.
fn rings_that_are_ordinary_pages_are_read() {
    for kind in ["aio", "io_uring", "packet", "perf"] {
        let mut target = Target::new();
        let region = Region::parse(&target.ask(&format!("ring {kind}"))).unwrap();
        let mount = Mount::new("cache_ttl=0");
        let names = mount.names(target.pid());
        let start = format!("{:012x}-", region.start);
        let name = names.iter().find(|name| name.starts_with(&start));
        let name = name.unwrap_or_else(|| panic!("{kind}: {start} is not among {names:#?}"));
        let path = mount.process(target.pid()).join(name);
        let len = path.metadata().unwrap().len() as usize;
        let file = open(&path);
        let mut read = 0;
        for at in (0..len).step_by(PAGE) {
            // The kernel writes into some of them when the target is given a processor.
            let (expected, got) = eventually("it is the same before and after", || {
                let expected = page_of_mem(target.pid(), region.start + at);
                let got = page(&file, at);
                let after = page_of_mem(target.pid(), region.start + at);
                (expected == after).then_some((expected, got))
            });
            if let (Some(got), Some(expected)) = (&got, &expected) {
                assert_bytes(kind, got, expected);
                read += 1;
            }
            assert_eq!(got.is_some(), expected.is_some(), "{kind} at {at:#x}");
        }
        let readable = page_of_mem(target.pid(), region.start).is_some();
        assert_eq!(read > 0, readable, "{kind}: what mem has is here, too");
        let mut tar = Command::new("tar");
        tar.arg("-C")
            .arg(mount.process(target.pid()))
            .args(["-cSf", "/dev/null", "."]);
        run(&mut tar).success().quiet();
    }
}

/// A return probe gives its process a page that nobody else may read.
struct Probe {
    tracing: tempfile::TempDir,
    name: String,
}

impl Probe {
    /// Sets one on `function` of a program.
    fn new(program: &std::path::Path, function: &str) -> Self {
        let tracing = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        run(mount.args(["-t", "tracefs", "tracefs"]).arg(tracing.path())).success();
        let name = format!("mounttest{}", std::process::id());
        let probe = Self { tracing, name };
        let symbols = run(Command::new("nm").arg(program)).success();
        let symbols = String::from_utf8(symbols.stdout).unwrap();
        let line = symbols
            .lines()
            .find(|line| line.ends_with(&format!(" T {function}")));
        let address = line.unwrap().split(' ').next().unwrap();
        let event = format!("r:{}/tick {}:0x{address}\n", probe.name, program.display());
        probe.write("uprobe_events", &event);
        probe.write(&format!("events/{}/tick/enable", probe.name), "1\n");
        probe
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.tracing.path().join(file);
        let mut file = File::options().append(true).open(&path).unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let enable = format!("events/{}/tick/enable", self.name);
        let _ = std::fs::write(self.tracing.path().join(enable), "0\n");
        let events = self.tracing.path().join("uprobe_events");
        if let Ok(mut file) = File::options().append(true).open(events) {
            let _ =
                std::io::Write::write_all(&mut file, format!("-:{}/tick\n", self.name).as_bytes());
        }
        unmount_lazily(self.tracing.path());
    }
}

const TICKING: &str = "\
#include <stdio.h>\n\
#include <unistd.h>\n\
__attribute__((noinline)) int tick(int n) { __asm__ volatile(\"\" ::: \"memory\"); return n + 1; }\n\
int main(void) { int n = 0; puts(\"ready\"); fflush(stdout);\n\
    for (;;) { n = tick(n); usleep(1000); } }\n";

/// `grep -r` and `tar` over a process under `bpftrace` have nothing to complain about.
fn the_page_of_return_probes_is_empty() {
    let dir = tempfile::tempdir().unwrap();
    let (source, program) = (dir.path().join("tick.c"), dir.path().join("tick"));
    std::fs::write(&source, TICKING).unwrap();
    let mut cc = Command::new("cc");
    // At a fixed offset: symbols are offsets in the file then.
    run(cc.args(["-O1", "-o"]).arg(&program).arg(&source)).success();
    let _probe = Probe::new(&program, "tick");
    let ticking = Program::talking(Command::new(&program));
    let maps = format!("/proc/{}/maps", ticking.pid());
    eventually("a page of probes", || {
        std::fs::read_to_string(&maps)
            .unwrap()
            .contains("[uprobes]")
            .then_some(())
    });
    let mount = Mount::new("");
    let names = mount.names(ticking.pid());
    let name = names
        .iter()
        .find(|name| name.ends_with(".uprobes"))
        .unwrap();
    let path = mount.process(ticking.pid()).join(name);
    assert_eq!(path.metadata().unwrap().len(), 0);
    assert!(xattr(&path, "user.procmemfs.unreadable").contains("kernel"));
    let mut grep = Command::new("grep");
    grep.args(["-rc", "never there"])
        .arg(mount.process(ticking.pid()));
    assert_eq!(run(&mut grep).stderr, "");
    let mut tar = Command::new("tar");
    tar.arg("-C")
        .arg(mount.process(ticking.pid()))
        .args(["-cSf", "/dev/null", "."]);
    run(&mut tar).success().quiet();
}

fn xattr(path: &std::path::Path, name: &str) -> String {
    let mut getfattr = Command::new("getfattr");
    let output = run(getfattr.args(["--only-values", "-n", name]).arg(path)).success();
    String::from_utf8_lossy(&output.stdout).into_owned()
}
