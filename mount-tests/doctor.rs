//! `procmemfs doctor`: on a system on which all is well, for a plain user, in broken environments, and of processes.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::thread;

use nix::sys::ptrace;
use nix::unistd::Pid;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};
use serde_json::Value;

use crate::support::{
    Mount, MountPoint, Output, PAGE, Program, Region, Target, daemon_binary, quote, run, sh, tests,
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
    why_there_is_no_such_process: [Need::Root],
    why_a_process_is_refused: [Need::PlainUser],
    a_traced_process_is_read_and_that_is_told: [Need::Root],
    bytes_that_cannot_be_read_are_those_of_the_mount: [Need::Root],
    files_that_a_plain_user_cannot_open_are_named: [Need::PlainUser],
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
    // Whoever has seen enough ends it.
    let daemon = quote(daemon_binary());
    sh(&format!(
        "set -o pipefail 2> /dev/null; {daemon} doctor | head -n 1 | grep -c procmemfs"
    ))
    .success();
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
    let tool = crate::support::tool("fusermount3").unwrap();
    crate::support::install(&tool, &plain.join("fusermount3"));
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
    report.has("/dev/fuse", "problem", &["may not be opened"]);
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
    let rules: BTreeMap<i64, Vec<_>> = calls.iter().map(|call| (*call, Vec::new())).collect();
    let refused = SeccompAction::Errno(libc::EPERM as u32);
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

/// No number of a process: none at all, a thread, a zombie, a thread of the kernel.
fn why_there_is_no_such_process() {
    let mut target = Target::new();
    let told = |number: &str, words: &[&str]| {
        let report = report(&[number]);
        assert!(!report.works());
        assert_eq!(report.0["process"]["readable"], false);
        report.has("process", "problem", words);
    };
    told("4194304", &["none of this number"]);
    let zombie = target.ask("zombie");
    told(&zombie, &["zombie", &target.pid().to_string()]);
    target.ask("threads 1");
    let pid = target.pid();
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let names = tasks.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let thread = names
        .into_iter()
        .find(|name| *name != pid.to_string())
        .unwrap();
    told(
        &thread,
        &["a thread of process", &format!("procmemfs doctor {pid}")],
    );
    // In a container there is none.
    if std::fs::read_to_string("/proc/2/comm").is_ok_and(|name| name == "kthreadd\n") {
        told("2", &["a thread of the kernel"]);
    }
}

/// A plain user is told whether it is the owner, what is not dumpable, and that the kernel refuses it.
fn why_a_process_is_refused() {
    let point = users_point();
    let root = Program::shell();
    let output = of_user(&point, "", "", &format!("doctor --json {}", root.pid()));
    let report = Report::of(output);
    report.has(
        "process",
        "problem",
        &["does not let this user read it", "EACCES"],
    );
    report.has(
        "owner",
        "problem",
        &["belongs to user 0", "mount as its owner"],
    );
    // A program that its user may run and not read is not dumpable.
    let sleep = point.outside().join("sleep");
    sh(&format!(
        "install -m 0711 $(command -v sleep) {}",
        quote(&sleep)
    ))
    .success();
    let how = format!(
        "{} 600 & child=$!; trap 'kill $child' EXIT; until grep -q ^sleep /proc/$child/comm; do :; done;",
        quote(&sleep)
    );
    let report = Report::of(of_user(&point, "", &how, "doctor --json $child"));
    report.has("dumpable", "problem", &["not dumpable", "mount as root"]);
    assert!(
        report.process().all(|it| it["check"] != "owner"),
        "{report:?}"
    );
}

/// A traced process is read, and what does not work is told; so is a filter of its own.
fn a_traced_process_is_read_and_that_is_told() {
    let target = Target::new();
    let pid = target.pid();
    // The tracer is the thread, which lets go of it by its end.
    let traced = thread::spawn(move || {
        ptrace::seize(Pid::from_raw(pid as i32), ptrace::Options::empty()).unwrap();
        report(&[&pid.to_string()])
    });
    let report = traced.join().unwrap();
    assert!(report.works(), "{report:?}");
    assert_eq!(report.0["process"]["readable"], true);
    report.has("traced", "warning", &["traces it", "EBUSY"]);
    drop(target);
    let program = without_calls(&[libc::SYS_swapon], || {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let report = self::report(&[&child.id().to_string()]);
        child.kill().unwrap();
        child.wait().unwrap();
        report
    });
    program.has("seccomp", "ok", &["a filter judges its system calls"]);
}

/// What it says cannot be read of a mapping is what the mount counts in `user.procmemfs.unreadable_bytes`, each with its reason; the
/// target is left as it is.
fn bytes_that_cannot_be_read_are_those_of_the_mount() {
    let mut target = Target::new();
    let lazy = Region::parse(&target.ask("userfault")).unwrap();
    let mount = Mount::new("");
    let before = crate::support::Footprint::of(target.pid());
    let report = report(&[&target.pid().to_string()]);
    assert_eq!(crate::support::Footprint::of(target.pid()), before);
    assert!(report.works(), "{report:?}");
    report.has("mappings", "warning", &["cannot be read", "EIO"]);
    let mut bytes: BTreeMap<String, u64> = BTreeMap::new();
    for part in report.unreadable() {
        let name = part["mapping"].as_str().unwrap().to_owned();
        *bytes.entry(name).or_default() += part["bytes"].as_u64().unwrap();
    }
    let reason = |region: &Region| {
        let start = format!("{:012x}-", region.start);
        let mut parts = report.unreadable();
        let part = parts.find(|part| part["mapping"].as_str().unwrap().starts_with(&start));
        part.unwrap_or_else(|| panic!("nothing of {start}: {report:?}"))
            .to_string()
    };
    assert!(reason(&lazy).contains("userfaultfd"), "{}", reason(&lazy));
    let past_end = reason(&target.region("past_end"));
    assert!(past_end.contains("past the end of its file"), "{past_end}");
    assert!(bytes.len() > 3, "{bytes:?}");
    for name in mount.names(target.pid()) {
        let path = mount.process(target.pid()).join(&name);
        if std::fs::symlink_metadata(&path).unwrap().is_symlink() {
            continue;
        }
        let counted = xattr(&path);
        assert_eq!(bytes.get(&name).copied().unwrap_or(0), counted, "{name}");
    }
    assert!(bytes.values().sum::<u64>() >= 16 * PAGE as u64);
}

/// `user.procmemfs.unreadable_bytes` of a file.
fn xattr(path: &Path) -> u64 {
    let mut value = [0_u8; 64];
    let name = "user.procmemfs.unreadable_bytes";
    let len = rustix::fs::getxattr(path, name, &mut value).unwrap();
    std::str::from_utf8(&value[..len]).unwrap().parse().unwrap()
}

/// A file that has no name any more, and that the process has not touched: root reads it, a plain user is told what it takes.
fn files_that_a_plain_user_cannot_open_are_named() {
    let mut target = Target::of_user(USER);
    let path = target.dir().join("untouched.bin");
    std::fs::write(&path, [7; 4 * PAGE]).unwrap();
    let region = target.map("gone", path.to_str().unwrap(), 4 * PAGE, "shared r");
    std::fs::remove_file(&path).unwrap();
    let point = users_point();
    let pid = target.pid();
    let report = Report::of(of_user(&point, "", "", &format!("doctor --json {pid}")));
    assert!(report.works(), "{report:?}");
    let start = format!("{:012x}-", region.start);
    let of = |report: &Report| -> Vec<Value> {
        let parts = report.unreadable();
        let ours = parts.filter(|part| part["mapping"].as_str().unwrap().starts_with(&start));
        ours.cloned().collect()
    };
    let [part] = &of(&report)[..] else {
        panic!("{report:?}");
    };
    assert_eq!(part["verdict"], "warning", "{part}");
    assert_eq!(part["bytes"], 4 * PAGE, "{part}");
    let fix = part["fix"].as_str().unwrap();
    assert!(fix.contains("CAP_CHECKPOINT_RESTORE"), "{part}");
    assert_eq!(
        of(&self::report(&[&pid.to_string()])),
        [] as [Value; 0],
        "root reads it"
    );
}
