//! Cores without registers, and who gets none at all.

use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::elf::{Core, PRPSINFO};
use super::{Subject, core_of};
use crate::support::{Mount, Stats, assert_bytes, eventually, expect_errno, open_rw, run, tests};

tests![
    with_nostop_there_are_no_registers: [Need::Tool("gdb")],
    who_is_traced_already_is_not_stopped: [Need::Tool("gdb"), Need::Tool("strace"), Need::Ptrace],
    the_daemon_does_not_stop_itself: [Need::Root],
    nobody_gets_a_core_who_could_not_read_the_memory: [Need::Judging],
    a_core_cannot_be_written: [Need::Root],
];

/// The core of a process that was not stopped opens in gdb, and has its memory.
#[track_caller]
fn has_memory_alone(mount: &Mount, subject: &Subject) {
    let path = core_of(mount, subject.pid());
    let core = Core::open(&path);
    assert!(core.threads().is_empty(), "registers");
    assert!(core.notes.iter().any(|note| note.kind == PRPSINFO));
    let at = subject.at("heap");
    let expected: Vec<u8> = (0..64).map(|i: usize| (i * 131 + 8) as u8).collect();
    assert_bytes("the heap", &core.bytes(at, 64), &expected);
    let mut gdb = Command::new("gdb");
    gdb.args(["-q", "-nx", "-batch", "-iex", "set debuginfod enabled off"]);
    gdb.arg(&subject.binary).arg(&path);
    gdb.args(["-ex", &format!("x/4ub {:#x}", at + 1)]);
    let text = run(&mut gdb).success().text();
    let words: Vec<String> = expected[1..5].iter().map(ToString::to_string).collect();
    assert!(text.contains(&words.join("\t")), "{text}");
}

#[track_caller]
fn logged(mount: &Mount, words: &str) {
    eventually(words, || mount.log().contains(words).then_some(()));
}

/// A mount that shall stop nothing takes cores without, says so, and counts none.
fn with_nostop_there_are_no_registers() {
    let subject = Subject::new("memory", 2);
    let mount = Mount::new("nostop");
    has_memory_alone(&mount, &subject);
    assert_eq!(Stats::of(&mount).get("stops_total"), 0);
    logged(
        &mount,
        &format!(
            "core/{}: no registers, since the mount has nostop",
            subject.pid()
        ),
    );
}

/// `strace`, or any other tracer, until this is dropped.
struct Tracer(Child);

impl Tracer {
    #[track_caller]
    fn of(pid: u32) -> Self {
        let mut strace = Command::new("strace");
        strace.args(["-f", "-o", "/dev/null", "-p", &pid.to_string()]);
        let tracer = Self(strace.stderr(Stdio::null()).spawn().unwrap());
        let status = format!("/proc/{pid}/status");
        eventually("it is traced", || {
            let text = std::fs::read_to_string(&status).unwrap();
            (!text.contains("TracerPid:\t0")).then_some(())
        });
        tracer
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0.id() as i32), Signal::SIGINT);
        let _ = self.0.wait();
    }
}

/// A process has one tracer at most. It is left to that one, and afterwards there are registers.
fn who_is_traced_already_is_not_stopped() {
    let subject = Subject::new("memory", 2);
    let mount = Mount::new("");
    let tracer = Tracer::of(subject.pid());
    has_memory_alone(&mount, &subject);
    assert_eq!(Stats::of(&mount).get("stops_total"), 0);
    logged(&mount, &format!("core/{}: no registers: ", subject.pid()));
    logged(&mount, "traced");
    drop(tracer);
    let core = eventually("registers", || {
        let core = Core::open(&core_of(&mount, subject.pid()));
        (!core.threads().is_empty()).then_some(core)
    });
    assert_eq!(core.threads().len(), 3);
    assert_eq!(Stats::of(&mount).get("stops_total"), 1);
}

/// It would wait for itself. Its memory is shown to nobody.
fn the_daemon_does_not_stop_itself() {
    let mount = Mount::new("");
    let path = core_of(&mount, mount.daemon());
    let core = Core::open(&path);
    assert!(core.threads().is_empty());
    // Of this one core: the daemon may start a thread at any moment.
    let mut written = core.loads.iter().filter(|load| load.in_file > 0);
    for load in [written.next(), written.next_back()].into_iter().flatten() {
        assert!(core.all(load).iter().all(|byte| *byte == 0));
    }
    assert_eq!(Stats::of(&mount).get("stops_total"), 0);
}

/// `allow_other`: the caller is judged as for `/proc/PID/mem`, and the process is not stopped for who may not.
fn nobody_gets_a_core_who_could_not_read_the_memory() {
    const OWNER: u32 = 54_323;
    const OTHER: u32 = 54_324;
    let subject = Subject::new("threads", 2);
    let mount = Mount::new("allow_other");
    let target = mount.outside().join("sleep");
    crate::support::install(std::path::Path::new("/bin/sleep"), &target);
    let as_user = |uid: u32| {
        let mut command = Command::new("setpriv");
        command
            .args([format!("--reuid={uid}"), format!("--regid={uid}")])
            .arg("--clear-groups");
        command
    };
    let mut sleep = as_user(OWNER).arg(&target).arg("600").spawn().unwrap();
    let pid = sleep.id();
    let reads = |uid: u32, pid: u32| {
        let mut command = as_user(uid);
        command.args(["head", "-c", "4"]).arg(core_of(&mount, pid));
        run(&mut command)
    };
    eventually("it sleeps", || {
        let comm = std::fs::read(format!("/proc/{pid}/comm")).unwrap();
        (comm == b"sleep\n").then_some(())
    });
    let of_owner = reads(OWNER, pid);
    let of_other = reads(OTHER, pid);
    let of_root = reads(OWNER, subject.pid());
    let stops = Stats::of(&mount).get("stops_total");
    let _ = sleep.kill();
    let _ = sleep.wait();
    assert_eq!(of_owner.success().stdout, b"\x7fELF");
    of_other.failure().complains(&["permission denied"]);
    of_root.failure().complains(&["permission denied"]);
    assert_eq!(stops, 1, "for the owner");
}

/// With `write`, too.
fn a_core_cannot_be_written() {
    let subject = Subject::new("threads", 0);
    let mount = Mount::new("write,force");
    let path = core_of(&mount, subject.pid());
    expect_errno("open for writing", open_rw(&path), libc::EPERM);
    assert_eq!(
        std::os::unix::fs::MetadataExt::mode(&path.metadata().unwrap()) & 0o777,
        0o400
    );
}
