//! What the daemon gives up once it has mounted, and that memory goes nowhere but to who reads it.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{
    Mount, MountPoint, Program, Target, daemon_binary, daemon_on, daemons_on, eventually,
    is_mounted, is_over_rings, of_threads, open_rw, pread, quote, run, secret, sh, tests, unmount,
};
use crate::users::{as_user, gone, public_daemon, users_point};

tests![
    the_daemon_gives_up_what_it_does_not_need: [Need::Root],
    so_does_its_supervisor: [Need::Root],
    it_does_so_in_the_background: [Need::Root],
    a_plain_users_daemon_is_not_dumpable_and_serves: [Need::PlainUser],
    the_filter_is_chosen_by_a_variable: [Need::Root],
    no_log_holds_memory: [Need::Root, Need::Tool("getfattr")],
    a_daemon_that_aborts_leaves_no_core: [Need::CoreFiles],
];

/// Capabilities by their numbers (`include/uapi/linux/capability.h`).
const DAC_OVERRIDE: u64 = 1 << 1;
const DAC_READ_SEARCH: u64 = 1 << 2;
const FOWNER: u64 = 1 << 3;
const SYS_PTRACE: u64 = 1 << 19;
const SYS_ADMIN: u64 = 1 << 21;
const CHECKPOINT_RESTORE: u64 = 1 << 40;

const READING: u64 = DAC_READ_SEARCH | FOWNER | SYS_PTRACE | SYS_ADMIN | CHECKPOINT_RESTORE;

/// The fields of a `status` (proc_pid_status(5)).
fn fields(status: &str) -> BTreeMap<&str, &str> {
    let fields = status.lines().filter_map(|line| line.split_once(':'));
    fields.map(|(name, value)| (name, value.trim())).collect()
}

/// The status of a process, or of its first thread.
#[track_caller]
fn status(pid: &str) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap()
}

/// Fails unless a thread has these capabilities at most, gets no new ones, and has a filter.
#[track_caller]
fn assert_hardened(status_of_thread: &str, most: u64) {
    let fields_of_thread = fields(status_of_thread);
    let set = |name: &str| u64::from_str_radix(fields_of_thread[name], 16).unwrap();
    // Where the tests themselves do not have all of them, so many are left.
    let own = u64::from_str_radix(fields(&status("self"))["CapEff"], 16).unwrap();
    for name in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(set(name), most & own, "{name} of {status_of_thread}");
    }
    for name in ["CapInh", "CapAmb"] {
        assert_eq!(set(name), 0, "{name} of {status_of_thread}");
    }
    assert_eq!(fields_of_thread["NoNewPrivs"], "1", "{status_of_thread}");
    assert_eq!(fields_of_thread["Seccomp"], "2", "{status_of_thread}");
}

/// Fails unless all threads are hardened, and no core is ever written.
#[track_caller]
fn assert_all_hardened(daemon: u32, most: u64) {
    let threads = of_threads(daemon, "status");
    for status in &threads {
        assert_hardened(status, most);
    }
    assert!(threads.len() > 4, "{} threads", threads.len());
    let limits = std::fs::read_to_string(format!("/proc/{daemon}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core"));
    let core: Vec<&str> = core.unwrap().split_ascii_whitespace().collect();
    assert_eq!(core[4..6], ["0", "0"], "{limits}");
}

/// Every thread of it has the few capabilities that reading takes, or writing; cannot get others; has the filter; and
/// no core would be written. It serves, and unmounts, with that.
fn the_daemon_gives_up_what_it_does_not_need() {
    let target = Target::new();
    for (options, most) in [("", READING), ("write", READING | DAC_OVERRIDE)] {
        let mut mount = Mount::new(options);
        // All threads have been needed by then.
        assert!(!mount.names(target.pid()).is_empty());
        assert_all_hardened(mount.daemon(), most);
        mount.signal(Signal::SIGTERM);
        assert_eq!(mount.wait().code(), Some(0), "{}", mount.log());
        assert!(!is_mounted(mount.point()));
    }
}

/// The processes that were started by this one.
fn children(pid: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.unwrap_or_default();
    let numbers = children.split_ascii_whitespace();
    numbers.map(|number| number.parse().unwrap()).collect()
}

/// The supervisor of a daemon keeps what unmounting takes.
fn so_does_its_supervisor() {
    let mount = Mount::new("");
    let children = children(mount.daemon());
    assert_eq!(children.len(), 1, "{children:?}");
    let status = eventually("it is hardened", || {
        let status = status(&children[0].to_string());
        (fields(&status)["Seccomp"] == "2").then_some(status)
    });
    assert_hardened(&status, DAC_READ_SEARCH | SYS_ADMIN);
}

/// Without `-f`, too, where it is another process that serves.
fn it_does_so_in_the_background() {
    let point = MountPoint::new();
    run(Command::new(daemon_binary()).arg(point.path())).success();
    assert!(point.path().join("self/stack").exists());
    assert_all_hardened(daemon_on(point.path()), READING);
    unmount(point.path());
}

/// The files below `/proc` of a plain user's daemon are root's, so that no other process of that user looks into
/// it. It has to unmount by a setuid program, so it gets no filter, and says that. It serves what needs its own
/// `/proc/self`, leaves itself out, and ends by a signal.
fn a_plain_users_daemon_is_not_dumpable_and_serves() {
    let point = users_point();
    let script = format!(
        "set -e\n\
         {daemon} -d {point} 2> {point}.log & daemon=$!\n\
         until test -e {point}/stats; do :; done\n\
         stat -c %U /proc/$daemon/mem\n\
         head -c 1 /proc/$daemon/mem 2>&1 | grep -c 'ermission denied'\n\
         test ! -e {point}/$daemon\n\
         ls -f {point} | grep -cx $daemon || :\n\
         cat {point}/$$/*vdso* | wc -c\n\
         a=one; b=\"$a+two+three+four\"\n\
         grep -rl 'one+two+three+fou[r]' {point}/$$ | grep -c heap\n\
         grep NoNewPrivs /proc/$daemon/status\n\
         kill $daemon\n\
         wait $daemon\n\
         grep -c 'no_new_privs is not set.*fusermount3' {point}.log\n\
         if mountpoint -q {point}; then exit 3; fi\n",
        daemon = quote(&public_daemon(&point)),
        point = quote(point.path()).replace('\'', ""),
    );
    let first = format!("chmod 0777 {}", quote(point.outside()));
    let output = run(&mut as_user(&point, &first, &script)).success();
    let text = output.text();
    let lines: Vec<&str> = text.lines().collect();
    let [owner, refused, listed, vdso, found, privileges, told] = lines[..] else {
        panic!("{text}");
    };
    assert_eq!(
        [owner, refused, listed, found, told],
        ["root", "1", "0", "1", "1"]
    );
    assert!(vdso.parse::<u32>().unwrap() >= 4096, "{vdso}");
    assert_eq!(privileges.split_ascii_whitespace().last(), Some("0"));
    gone(point.path());
}

/// `PROCMEMFS_SECCOMP` is `kill`, `off` or a mistake that is named before anything is mounted.
fn the_filter_is_chosen_by_a_variable() {
    let point = MountPoint::new();
    let daemon = format!("{} {}", quote(daemon_binary()), quote(point.path()));
    let output = sh(&format!("PROCMEMFS_SECCOMP=on {daemon}")).failure();
    output.one_line(&["PROCMEMFS_SECCOMP=on", "'kill' or 'off'"]);
    assert!(!is_mounted(point.path()));
    for (variable, mode) in [("off", "0"), ("kill", "2"), ("", "2")] {
        sh(&format!("PROCMEMFS_SECCOMP={variable} {daemon}"))
            .success()
            .quiet();
        assert!(point.path().join("stats").exists());
        let status = status(&daemon_on(point.path()).to_string());
        let fields = fields(&status);
        assert_eq!((fields["Seccomp"], fields["NoNewPrivs"]), (mode, "1"));
        unmount(point.path());
        eventually("its end", || {
            daemons_on(point.path()).is_empty().then_some(())
        });
    }
}

/// Forms in which the bytes of a text might be shown.
fn forms(text: &str) -> Vec<String> {
    let bytes = text.as_bytes();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let list = |bytes: &[u8]| format!("{bytes:?}").trim_matches(['[', ']']).to_owned();
    // Cut short, too.
    vec![
        text[..12].to_owned(),
        hex[..24].to_owned(),
        hex[..24].to_uppercase(),
        list(&bytes[..8]),
    ]
}

/// A secret is read and written through every kind of file, with and without errors, and the daemon tells all that it
/// does: nothing of the secret is among it.
fn no_log_holds_memory() {
    let secret = secret();
    for (options, level) in [
        ("write,force", "debug"),
        ("write,force,cache_ttl=0", "trace"),
    ] {
        let mut target = Target::new();
        let mut title = Command::new("sh");
        title.args(["-c", "echo ready; read -r line", "sh", &secret]);
        let titled = Program::of(title);
        let shell = Program::shell();
        let mut command = Command::new(daemon_binary());
        command.env("RUST_LOG", level).args(["-d", "-o", options]);
        let mut mount = Mount::start(command);

        let pid = target.pid();
        let region = target.region("private");
        let victim = target.region("victim");
        for start in [region.start, victim.start] {
            target.write(start + 100, secret.as_bytes());
        }
        // It is there to be found, or this test would say nothing.
        let file = open_rw(&mount.file(&target, "private")).unwrap();
        assert_eq!(pread(&file, 100, secret.len()).unwrap(), secret.as_bytes());
        let whole = open_rw(&mount.path(format!("mem/{pid}"))).unwrap();
        let read = pread(&whole, region.start + 100, secret.len()).unwrap();
        assert_eq!(read, secret.as_bytes());
        let environment = std::fs::read(mount.process(shell.pid()).join("heap")).unwrap();
        assert!(find(&environment, &secret), "the heap of a shell");
        std::fs::read(mount.process(titled.pid()).join("stack")).unwrap();
        let attributes = run(Command::new("getfattr")
            .args(["--absolute-names", "-d"])
            .arg(mount.process(titled.pid()))
            .args([mount.file(&target, "private")]));
        assert!(attributes.success().text().contains(&secret), "cmdline");

        // Writes of each kind, and those that fail: at the end, into a gap, into what is unmapped, by mmap.
        file.write_all_at(secret.as_bytes(), 5000).unwrap();
        whole
            .write_all_at(secret.as_bytes(), region.start as u64)
            .unwrap();
        let readonly = open_rw(&mount.file(&target, "readonly")).unwrap();
        readonly.write_all_at(secret.as_bytes(), 0).unwrap();
        file.write_at(secret.as_bytes(), region.len() as u64)
            .unwrap_err();
        whole.write_at(secret.as_bytes(), 0).unwrap_err();
        let lost = open_rw(&mount.file(&target, "victim")).unwrap();
        assert!(pread(&lost, 100, 32).is_ok());
        target.ask(&format!("unmap {:x} {}", victim.start, 4096));
        lost.write_at(secret.as_bytes(), 100).unwrap_err();
        pread(&lost, 100, 32).unwrap_err();
        xattr_of(&mount, &target, &secret);
        // After an exec and after the end.
        target.exec(2);
        pread(&file, 100, 32).unwrap_err();
        file.write_at(secret.as_bytes(), 100).unwrap_err();
        let file = open_rw(&mount.file(&target, "private")).unwrap();
        target.kill();
        pread(&file, 0, 32).unwrap_err();
        file.write_at(secret.as_bytes(), 100).unwrap_err();
        drop((file, whole, readonly, lost));
        mount.signal(Signal::SIGTERM);
        mount.wait();

        let log = mount.log();
        let told = ["ESTALE", "ESRCH", "EIO", "READ", "WRITE", "GETXATTR"];
        // Requests are told by `fuser` alone.
        for told in &told[..if is_over_rings() { 3 } else { told.len() }] {
            assert!(log.contains(told), "{told} is not told");
        }
        for form in forms(&secret) {
            assert!(!log.contains(&form), "{form:?} is in the log");
        }
    }
}

fn find(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

/// An attribute that nobody can set: its value is refused, and not told.
fn xattr_of(mount: &Mount, target: &Target, secret: &str) {
    let path = mount.file(target, "private");
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(path, "user.procmemfs.x", secret.as_bytes(), flags).unwrap_err();
}

/// A daemon that is killed by a signal that dumps core leaves none, where other programs leave one.
fn a_daemon_that_aborts_leaves_no_core() {
    let point = MountPoint::new();
    let core_in = |command: &mut Command| -> bool {
        let dir = tempfile::tempdir().unwrap();
        command.current_dir(dir.path()).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let pid = Pid::from_raw(child.id() as i32);
        eventually("it runs", || {
            let ready = match is_mounted(point.path()) {
                true => point.path().join("stats").exists(),
                false => command_of(child.id()) == b"sleep\n",
            };
            ready.then_some(())
        });
        kill(pid, Signal::SIGABRT).unwrap();
        child.wait().unwrap();
        std::fs::read_dir(dir.path()).unwrap().count() > 0
    };
    let unlimited = |program: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -c unlimited; exec {program}")]);
        command
    };
    assert!(
        core_in(&mut unlimited("sleep 600")),
        "where others leave one"
    );
    let daemon = format!("{} -f {}", quote(daemon_binary()), quote(point.path()));
    assert!(!core_in(&mut unlimited(&daemon)), "the daemon left a core");
}

fn command_of(pid: u32) -> Vec<u8> {
    std::fs::read(format!("/proc/{pid}/comm")).unwrap_or_default()
}
