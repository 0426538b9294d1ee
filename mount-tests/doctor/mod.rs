//! `procmemfs doctor`: on a system on which all is well, for a plain user, in broken environments.

pub(crate) mod process;

use std::collections::BTreeMap;
use std::process::Command;
use std::thread;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};
use serde_json::Value;

use crate::support::{
    MountPoint, Output, Target, daemon_binary, install, quote, run, sh, tests, tool,
};
use crate::users::{USER, as_user, public_daemon, users_point};

tests![
    where_all_is_well_it_says_so: [Need::Root],
    colours_are_for_terminals: [Need::Root, Need::Tool("script")],
    wrong_arguments_are_one_line,
    a_plain_user_is_told_what_is_theirs: [Need::PlainUser],
    without_the_helper_or_its_rights_a_plain_user_cannot_mount: [Need::PlainUser],
    root_of_a_user_namespace_is_told_what_that_is_worth: [Need::Root, Need::Tool("unshare")],
    a_missing_device_is_a_problem: [Need::Root, Need::Tool("unshare")],
    a_proc_that_is_no_use_is_a_problem: [Need::Root, Need::Tool("unshare")],
    a_proc_that_shows_less_is_told: [Need::Root, Need::Tool("unshare")],
    what_a_filter_refuses_is_named: [Need::Root],
    a_filter_that_kills_is_named: [Need::Root],
];

fn doctor(arguments: &[&str]) -> Command {
    let mut command = Command::new(daemon_binary());
    command.arg("doctor").args(arguments);
    command
}

/// What `doctor --json` printed. The exit code must tell whether something keeps it from working, and whatever is not well must
/// come with what it means or what would help.
#[derive(Debug)]
struct Report(Value);

impl Report {
    #[track_caller]
    fn of(output: Output) -> Self {
        let text = output.text();
        let report: Value = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{error}: {text}{}", output.stderr));
        let works = report["works"].as_bool().unwrap();
        output.quiet().code(if works { 0 } else { 1 });
        let report = Self(report);
        let all: Vec<&Value> = report.system().chain(report.process()).collect();
        let mut problems = 0;
        for finding in all {
            let verdict = finding["verdict"].as_str().unwrap();
            assert!(["ok", "warning", "problem"].contains(&verdict), "{finding}");
            assert!(!finding["check"].as_str().unwrap().is_empty());
            assert!(!finding["found"].as_str().unwrap().contains('\n'));
            let helps = finding["means"].is_string() || finding["fix"].is_string();
            assert!(verdict == "ok" || helps, "{finding}");
            problems += usize::from(verdict == "problem");
        }
        assert_eq!(works, problems == 0, "{report:?}");
        report
    }

    fn works(&self) -> bool {
        self.0["works"] == true
    }

    fn system(&self) -> impl Iterator<Item = &Value> {
        self.0["system"].as_array().unwrap().iter()
    }

    fn process(&self) -> impl Iterator<Item = &Value> {
        let process = self.0["process"]["findings"].as_array();
        process.into_iter().flatten()
    }

    fn unreadable(&self) -> impl Iterator<Item = &Value> {
        self.0["process"]["unreadable"].as_array().unwrap().iter()
    }

    /// The finding of a check has this verdict, and its text has these words.
    #[track_caller]
    fn has(&self, check: &str, verdict: &str, words: &[&str]) -> &Self {
        let mut all = self.system().chain(self.process());
        let found = all.find(|it| it["check"] == check && it["verdict"] == verdict);
        let found = found.unwrap_or_else(|| panic!("no {verdict} {check}: {:#}", self.0));
        let text = found.to_string();
        for word in words {
            assert!(text.contains(word), "no '{word}' in {text}");
        }
        self
    }

    /// Nothing but these checks is other than well.
    #[track_caller]
    fn only(&self, checks: &[&str]) -> &Self {
        for finding in self.system().filter(|it| it["verdict"] != "ok") {
            let check = finding["check"].as_str().unwrap();
            assert!(checks.contains(&check), "{finding}");
        }
        self
    }
}

#[track_caller]
fn report(arguments: &[&str]) -> Report {
    Report::of(run(doctor(arguments).arg("--json")))
}

/// In namespaces of its own, after `first`.
#[track_caller]
fn unshared(flags: &[&str], first: &str, arguments: &str) -> Output {
    let script = format!("{first} {} {arguments}", quote(daemon_binary()));
    let mut command = Command::new("unshare");
    run(command.args(flags).args(["sh", "-c", &script]))
}

/// As the plain user.
#[track_caller]
fn of_user(point: &MountPoint, first: &str, how: &str, arguments: &str) -> Output {
    let daemon = point.outside().join("procmemfs");
    if !daemon.exists() {
        public_daemon(point);
    }
    let script = format!("{how} {} {arguments}", quote(&daemon));
    let output = run(&mut as_user(point, first, &script));
    // The next one makes it anew.
    let _ = std::fs::remove_dir(point.outside().join("dev"));
    output
}

/// Where the tests can run nothing keeps it from working: exit code 0, and text and JSON speak of the same checks.
fn where_all_is_well_it_says_so() {
    let report = report(&[]);
    assert!(report.works(), "{report:?}");
    report.has("/dev/fuse", "ok", &["can be opened"]);
    report.has("/proc", "ok", &["this PID namespace"]);
    report.has("mount", "ok", &[]);
    assert_eq!(report.0["user"], 0);
    assert_eq!(report.0["version"], env!("CARGO_PKG_VERSION"));
    let text = run(&mut doctor(&[])).success().quiet().text();
    for finding in report.system() {
        let check = finding["check"].as_str().unwrap();
        assert!(text.contains(check), "no {check}: {text}");
    }
    assert!(text.contains("Nothing keeps it from working"), "{text}");
    // What cannot be printed is no answer.
    let full = format!("{} doctor > /dev/full", quote(daemon_binary()));
    sh(&full).failure().one_line(&["standard output"]);
}

/// Escape sequences are for terminals, and there for those alone who want colours.
fn colours_are_for_terminals() {
    let text = run(&mut doctor(&[])).success().text();
    assert!(!text.contains('\x1b'), "{text}");
    let daemon = quote(daemon_binary());
    let on_terminal = |variables: &str| {
        let script = format!("{variables} script -qec '{daemon} doctor' /dev/null");
        sh(&script).success().text()
    };
    let text = on_terminal("TERM=xterm");
    assert!(text.contains("\x1b[32mok"), "{text}");
    let text = on_terminal("TERM=xterm NO_COLOR=1");
    assert!(!text.contains('\x1b'), "{text}");
}

fn wrong_arguments_are_one_line() {
    for number in ["abc", "0", "-5x", "1.5"] {
        if number.starts_with('-') {
            // An option of a mount.
            run(&mut doctor(&[number])).failure();
            continue;
        }
        run(&mut doctor(&[number]))
            .failure()
            .one_line(&["doctor", number, "no process number"]);
    }
    run(&mut doctor(&["--no-such-flag"]))
        .failure()
        .complains(&["--no-such-flag"]);
    let help = run(&mut doctor(&["--help"])).success().quiet().text();
    for word in ["--json", "PID", "Examples", "exit code"] {
        assert!(help.contains(word), "{help}");
    }
}

/// A plain user can mount by the helper, and sees what is theirs: that is no problem.
fn a_plain_user_is_told_what_is_theirs() {
    let point = users_point();
    let report = Report::of(of_user(&point, "", "", "doctor --json"));
    assert!(report.works(), "{report:?}");
    report.has("mount", "ok", &["is for root", "fusermount3 mounts"]);
    report.has("capabilities", "ok", &["no others", &USER.to_string()]);
    report.has("/proc/PID/map_files", "ok", &["is for root"]);
    report.has("allow_other", "ok", &["needs root"]);
    report.only(&[]);
}

/// Without `fusermount3`, or where it gets no rights, a plain user mounts nothing, and the mount that fails says why.
fn without_the_helper_or_its_rights_a_plain_user_cannot_mount() {
    let point = users_point();
    let mounts = quote(point.path());
    let how = "setpriv --no-new-privs";
    let report = Report::of(of_user(&point, "", how, "doctor --json"));
    assert!(!report.works());
    report.has(
        "mount",
        "problem",
        &["no_new_privs is set", "NoNewPrivileges="],
    );
    let output = of_user(&point, "", how, &mounts).failure();
    let said = output.one_line(&["no_new_privs is set", "procmemfs doctor"]);
    assert!(said.text().is_empty());
    // The program itself is what `PATH` finds, and what it finds where it is no program with rights.
    let plain = point.outside().join("bin");
    std::fs::create_dir(&plain).unwrap();
    let tool = tool("fusermount3").unwrap();
    install(&tool, &plain.join("fusermount3"));
    let how = format!("PATH={}:$PATH", quote(&plain));
    let report = Report::of(of_user(&point, "", &how, "doctor --json"));
    report.has("mount", "problem", &["does not run as root", "chmod 4755"]);
    let nosuid = format!(
        "chmod 4755 {0}/fusermount3\nmount --bind {0} {0}\nmount -o remount,bind,nosuid {0}",
        quote(&plain)
    );
    let report = Report::of(of_user(&point, &nosuid, &how, "doctor --json"));
    report.has("mount", "problem", &["nosuid"]);
}

/// Root of a user namespace has all capabilities, and reads nobody outside of it; without a mount namespace it mounts nothing either.
fn root_of_a_user_namespace_is_told_what_that_is_worth() {
    let inner = ["-Urpf", "--mount-proc"];
    let report = Report::of(unshared(&inner, "", "doctor --json"));
    assert!(report.works(), "{report:?}");
    report.has(
        "user namespace",
        "warning",
        &["outside of it cannot be read"],
    );
    report.has("/proc/PID/map_files", "warning", &["cannot be opened"]);
    report.has("mount", "ok", &[]);
    let target = Target::new();
    let pid = target.pid().to_string();
    // The `/proc` of the namespace outside shows it.
    let report = Report::of(unshared(&["-Ur"], "", &format!("doctor --json {pid}")));
    report.has(
        "mount",
        "problem",
        &["in spite of CAP_SYS_ADMIN", "unshare -Urm"],
    );
    report.has(
        "user namespace",
        "problem",
        &["another one than this program"],
    );
    let point = MountPoint::new();
    let mount = quote(point.path());
    let output = unshared(&["-Ur"], "", &mount).failure();
    output.one_line(&[
        "in spite of CAP_SYS_ADMIN",
        "unshare -Urm",
        "procmemfs doctor",
    ]);
}

/// Without `/dev/fuse` nothing is mounted; the mount that fails says the same on its one line.
fn a_missing_device_is_a_problem() {
    let empty = "mount -t tmpfs none /dev;";
    let report = Report::of(unshared(&["-m"], empty, "doctor --json"));
    assert!(!report.works());
    report.has(
        "/dev/fuse",
        "problem",
        &["modprobe fuse", "--device /dev/fuse"],
    );
    report.only(&["/dev/fuse"]);
    let point = MountPoint::new();
    let output = unshared(&["-m"], empty, &quote(point.path())).failure();
    output.one_line(&["/dev/fuse", "modprobe fuse", "procmemfs doctor"]);
    let closed = "mount -t tmpfs -o nodev none /dev; mknod /dev/fuse c 10 229;";
    let report = Report::of(unshared(&["-m"], closed, "doctor --json"));
    report.has("/dev/fuse", "problem", &["may not be opened", "nodev"]);
    let output = unshared(&["-m"], closed, &quote(point.path())).failure();
    output.one_line(&["may not be opened", "remount,dev", "procmemfs doctor"]);
}

/// No `/proc`, or one of another PID namespace.
fn a_proc_that_is_no_use_is_a_problem() {
    for (flags, first, words) in [
        (
            &["-m"][..],
            "mount -t tmpfs none /proc;",
            ["is not mounted", "mount -t proc proc /proc"],
        ),
        (
            &["-mpf"],
            "",
            ["another PID namespace", "mount -t proc proc /proc"],
        ),
    ] {
        let report = Report::of(unshared(flags, first, "doctor --json 1"));
        assert!(!report.works());
        report.has("/proc", "problem", &words);
        assert!(report.0["process"].is_null(), "{report:?}");
        // What is not known is not said.
        assert!(!report.system().any(|it| it["check"] == "PAGEMAP_SCAN"));
        let point = MountPoint::new();
        let output = unshared(flags, first, &quote(point.path())).failure();
        output.one_line(&["/proc", "procmemfs doctor"]);
    }
}

/// `hidepid`, `subset=pid` and `ro` are told with what follows from them, and keep nothing from working.
fn a_proc_that_shows_less_is_told() {
    for (options, verdict, words) in [
        ("hidepid=invisible", "ok", ["hidepid=", "not there at all"]),
        ("subset=pid", "warning", ["subset=pid", "snap_size"]),
        ("ro", "warning", ["mounted ro", "remount,rw"]),
    ] {
        let first = format!("mount -t proc -o {options} none /proc;");
        let report = Report::of(unshared(&["-m"], &first, "doctor --json"));
        assert!(report.works(), "{report:?}");
        report.has("/proc options", verdict, &words);
    }
}

/// Runs `body` on a thread that may not make these system calls: `EPERM`, as in a container.
fn without_calls<T: Send + 'static>(calls: &[i64], body: fn() -> T) -> T {
    filtered(calls, SeccompAction::Errno(libc::EPERM as u32), body)
}

/// As [`without_calls`], with something else for whoever makes one.
fn filtered<T: Send + 'static>(calls: &[i64], refused: SeccompAction, body: fn() -> T) -> T {
    let rules: BTreeMap<i64, Vec<_>> = calls.iter().map(|call| (*call, Vec::new())).collect();
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, arch).unwrap();
    let filter: BpfProgram = filter.try_into().unwrap();
    let filtered = thread::spawn(move || {
        apply_filter(&filter).unwrap();
        body()
    });
    filtered.join().unwrap()
}

/// What a container's profile refuses is found out by trying, and named; what can be done without is a warning.
fn what_a_filter_refuses_is_named() {
    let calls = [
        libc::SYS_process_vm_readv,
        libc::SYS_pidfd_getfd,
        libc::SYS_ptrace,
    ];
    let report = without_calls(&calls, || self::report(&[]));
    assert!(report.works(), "{report:?}");
    let checks = ["process_vm_readv", "pidfd_getfd", "system calls"];
    report.only(&checks);
    let text = report.0.to_string();
    for word in [
        "process_vm_readv is refused",
        "pidfd_getfd is refused",
        "ptrace is refused",
        "seccomp",
    ] {
        assert!(text.contains(word), "no '{word}': {text}");
    }
    let (report, output) = without_calls(&[libc::SYS_mount], || {
        let point = MountPoint::new();
        let mount = run(Command::new(daemon_binary()).arg(point.path()));
        (self::report(&[]), mount)
    });
    assert!(!report.works());
    report.has(
        "mount",
        "problem",
        &["in spite of CAP_SYS_ADMIN", "seccomp"],
    );
    output.failure().one_line(&["seccomp", "procmemfs doctor"]);
    let report = without_calls(&[libc::SYS_pidfd_open], || self::report(&[]));
    assert!(!report.works());
    report.has("system calls", "problem", &["pidfd_open is refused"]);
}

/// A filter that kills, as that of a service of systemd does, does not keep it from saying so.
fn a_filter_that_kills_is_named() {
    let kill = || SeccompAction::KillProcess;
    for call in [libc::SYS_process_vm_readv, libc::SYS_mount] {
        let report = filtered(&[call], kill(), || self::report(&[]));
        assert!(!report.works());
        let words = ["a seccomp filter kills", "journalctl -k"];
        report.has("system calls", "problem", &words);
    }
    // Where it kills for nothing that is needed all is as without it.
    let report = filtered(&[libc::SYS_swapon], kill(), || self::report(&[]));
    assert!(report.works(), "{report:?}");
    report.has("system calls", "ok", &["a seccomp filter is there"]);
}
