//! `allow_other`: each caller gets what the kernel would give them by `/proc/PID/mem`, no more and no less.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use crate::support::{Mount, Program, install, quote, run, sh, tests};

tests![
    every_caller_gets_what_the_kernel_gives_them: [Need::Judging],
    callers_of_another_user_namespace_see_their_own: [Need::Judging],
    what_one_caller_has_seen_is_not_shown_to_the_next: [Need::Judging, Need::Tool("getfattr")],
    files_are_opened_only_where_the_caller_could: [Need::Judging],
    a_worker_of_io_uring_keeps_no_capabilities: [Need::Judging],
    the_daemon_itself_is_shown_to_nobody_else: [Need::Judging],
    without_it_nobody_else_enters: [Need::Judging],
    it_takes_the_right_to_act_as_others: [Need::Judging, Need::PlainUser],
];

const WORKER: &str = include_str!("others/worker.c");
const SUBJECT: &str = include_str!("others/subject.c");

const OWNER: u32 = 54_321;
const OTHER: u32 = 54_322;

/// A mount that everybody may enter.
fn shared() -> Mount {
    Mount::new("allow_other,write")
}

/// The program to be looked at, where everybody may run it.
fn subject(mount: &Mount) -> PathBuf {
    let (source, binary) = (
        mount.outside().join("subject.c"),
        mount.outside().join("subject"),
    );
    std::fs::write(&source, SUBJECT).unwrap();
    let mut cc = Command::new("cc");
    run(cc.args(["-O1", "-pthread", "-o"]).arg(&binary).arg(source)).success();
    binary
}

fn words(command: &str) -> Command {
    let mut words = command.split(' ');
    let mut command = Command::new(words.next().expect("a program"));
    command.args(words);
    command
}

fn owner(rest: &str) -> String {
    format!("setpriv --reuid {OWNER} --regid {OWNER} --clear-groups {rest}")
}

/// Processes in every state that decides who may look at them, with their numbers.
fn targets(mount: &Mount) -> Vec<(&'static str, Program, u32)> {
    let plain = subject(mount);
    let of_root = mount.outside().join("subject-of-root");
    install(&plain, &of_root);
    set_permissions(&of_root, Permissions::from_mode(0o4755)).unwrap();
    let (plain, of_root) = (plain.display(), of_root.display());
    let commands = [
        ("dumpable", owner(&format!("{plain}"))),
        ("not dumpable", owner(&format!("{plain} hidden"))),
        ("a setuid program", owner(&format!("{of_root}"))),
        ("a thread of root", format!("{plain} thread {OWNER}")),
        ("a vfork child", owner(&format!("{plain} vfork"))),
        ("of root", format!("{plain}")),
        (
            "of root without a capability",
            format!("setpriv --bounding-set -all {plain}"),
        ),
        (
            "with a capability",
            owner(&format!(
                "--inh-caps +net_raw --ambient-caps +net_raw {plain}"
            )),
        ),
        (
            "of another group",
            format!("setpriv --reuid {OWNER} --regid {OTHER} --clear-groups {plain}"),
        ),
        (
            "in a user namespace of root",
            format!("unshare --user {plain}"),
        ),
        (
            "in a user namespace of its own",
            owner(&format!("unshare --user {plain}")),
        ),
    ];
    let start = |(what, command): (&'static str, String)| {
        let program = Program::talking(words(&command));
        let number = program.said.split(' ').next().unwrap().parse();
        (
            what,
            number.unwrap_or_else(|_| panic!("{what}: {}", program.said)),
            program,
        )
    };
    let started = commands.map(start).into_iter();
    started
        .map(|(what, pid, program)| (what, program, pid))
        .collect()
}

/// Fails unless each line of what a caller found says the same of the kernel and of the mount. Returns how often that was yes.
#[track_caller]
fn assert_the_same(caller: &str, found: &str, of: impl Fn(u32) -> String) -> usize {
    let mut granted = 0;
    for line in found.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [pid, access, kernel, mapping, space, bytes @ ..] = &words[..] else {
            panic!("{caller}: {line}");
        };
        let what = format!("{caller}, {access} of {}: {line}", of(pid.parse().unwrap()));
        assert_eq!((kernel, kernel), (mapping, space), "{what}");
        assert_eq!(bytes, ["same"], "{what}");
        granted += usize::from(*kernel == "ok");
    }
    granted
}

/// SEMANTICS: with `allow_other` each caller gets what the kernel would give them.
fn every_caller_gets_what_the_kernel_gives_them() {
    let mount = shared();
    let targets = targets(&mount);
    let judge = mount.outside().join("subject");
    let other = format!("setpriv --reuid {OTHER} --regid {OTHER} --clear-groups");
    let callers = [
        ("the same user", owner("")),
        ("another user", other.clone()),
        (
            "the same user in another group",
            format!("setpriv --reuid {OWNER} --regid {OTHER} --groups {OWNER}"),
        ),
        (
            "another user in the same group",
            format!("setpriv --reuid {OTHER} --regid {OWNER} --groups 0"),
        ),
        (
            "another user in group root",
            format!("setpriv --reuid {OTHER} --regid {OTHER} --groups 0,{OWNER}"),
        ),
        (
            "another user with CAP_SYS_PTRACE",
            format!("{other} --inh-caps +sys_ptrace --ambient-caps +sys_ptrace"),
        ),
        (
            "another user who may read all",
            format!(
                "{other} --inh-caps +sys_ptrace,+dac_read_search --ambient-caps +sys_ptrace,+dac_read_search"
            ),
        ),
        (
            "another user who may do all",
            format!(
                "{other} --inh-caps +sys_ptrace,+dac_override --ambient-caps +sys_ptrace,+dac_override"
            ),
        ),
        (
            "the same user with capabilities",
            owner("--inh-caps +net_raw,+net_admin --ambient-caps +net_raw,+net_admin"),
        ),
        ("root", "setpriv".to_owned()),
        (
            "root without CAP_SYS_PTRACE",
            "setpriv --bounding-set -sys_ptrace".to_owned(),
        ),
        (
            "root with CAP_SYS_PTRACE alone",
            "setpriv --bounding-set -all,+sys_ptrace".to_owned(),
        ),
        (
            "root without a capability",
            "setpriv --bounding-set -all".to_owned(),
        ),
        (
            "root in group of the owner",
            format!("setpriv --regid {OWNER} --clear-groups"),
        ),
        ("the same user in a user namespace", owner("unshare --user")),
        (
            "the same user as root of a user namespace",
            owner("unshare --user --map-root-user"),
        ),
        (
            "root in a user namespace",
            "unshare --user --map-root-user".to_owned(),
        ),
        (
            "root, unknown, in a user namespace",
            "unshare --user".to_owned(),
        ),
    ];
    let mut granted = 0;
    let mut asked = 0;
    for (caller, prefix) in callers {
        let mut command = words(prefix.trim_end());
        command.arg(&judge).arg("judge").arg(mount.point());
        command.args(targets.iter().map(|(.., pid)| pid.to_string()));
        let found = run(&mut command).success().quiet().text();
        assert_eq!(
            found.lines().count(),
            2 * targets.len(),
            "{caller}: {found}"
        );
        let name = |pid| {
            let target = targets.iter().find(|(.., number)| *number == pid);
            target.expect("one of ours").0.to_owned()
        };
        granted += assert_the_same(caller, &found, name);
        asked += found.lines().count();
    }
    // So that it is no comparison of refusals alone.
    assert!(
        (asked / 5..asked * 4 / 5).contains(&granted),
        "{granted} of {asked}"
    );
}

/// A container without root: its processes see each other through the mount of the host, as through `/proc`.
fn callers_of_another_user_namespace_see_their_own() {
    let mount = shared();
    let subject = quote(&subject(&mount));
    let outside = Program::talking(words(&owner(&format!(
        "{}",
        mount.outside().join("subject").display()
    ))));
    let said = |name: &str| quote(&mount.outside().join(name));
    let script = format!(
        "mkfifo {fifo}; {subject} < {fifo} > {plain} & plain=$!\n\
         {subject} hidden < {fifo} > {hidden} & hidden=$!\n\
         exec 3> {fifo}\n\
         until test -s {plain} && test -s {hidden}; do :; done\n\
         for drop in '' 'setpriv --bounding-set -all' 'setpriv --bounding-set -sys_ptrace'; do\n\
         $drop {subject} judge {point} $plain $hidden $$ {outside} 1 || exit 9\n\
         done\n",
        fifo = said("fifo"),
        plain = said("plain"),
        hidden = said("hidden"),
        point = quote(mount.point()),
        outside = outside.pid(),
    );
    set_permissions(mount.outside(), Permissions::from_mode(0o777)).unwrap();
    for prefix in [
        "unshare --user --map-root-user",
        &owner("unshare --user --map-root-user"),
    ] {
        let mut command = words(prefix);
        let found = run(command.args(["sh", "-c", &script])).success().text();
        for name in ["fifo", "plain", "hidden"] {
            let _ = std::fs::remove_file(mount.outside().join(name));
        }
        assert_eq!(found.lines().count(), 30, "{found}");
        let granted = assert_the_same(prefix, &found, |pid| pid.to_string());
        assert!(granted >= 6, "{prefix}: {found}");
    }
}

fn as_other(script: &str) -> Command {
    let mut command = words(&format!(
        "setpriv --reuid {OTHER} --regid {OTHER} --clear-groups"
    ));
    command.args(["sh", "-c", script]);
    command
}

/// SEMANTICS: names, addresses and attributes are not shown to who could not read `maps`.
fn what_one_caller_has_seen_is_not_shown_to_the_next() {
    let mount = shared();
    let binary = subject(&mount);
    let theirs = mount.outside().join("theirs-alone");
    install(&binary, &theirs);
    let target = Program::talking(words(&owner(&theirs.display().to_string())));
    let (point, pid) = (quote(mount.point()), target.pid());
    let stack = std::fs::canonicalize(mount.path(format!("{pid}/stack"))).unwrap();
    let (stack, command) = (quote(&stack), "theirs-alone");
    // Root looks at all of it first, and the kernel keeps what it was told.
    let look = format!(
        "ls -lR {point} > /dev/null; stat {point}/{pid} {point}/mem/{pid} {stack} > /dev/null;\n\
         getfattr -d {point}/{pid} {stack} > /dev/null 2>&1\n"
    );
    sh(&look);
    let seen = sh(&format!(
        "ls {point} {point}/mem {point}/by-name {point}/by-name/{command}"
    ))
    .success();
    assert!(
        seen.text()
            .lines()
            .filter(|name| *name == pid.to_string())
            .count()
            == 3
    );
    for path in [
        format!("{point}/{pid}"),
        format!("{point}/{pid}/stack"),
        format!("{point}/mem/{pid}"),
        stack.clone(),
    ] {
        for tool in [
            "stat",
            "ls -ld",
            "getfattr -d",
            "readlink -f",
            "head -c1",
            "test -e",
        ] {
            let output = run(&mut as_other(&format!("{tool} {path} && echo shown")));
            // `readlink -f` names a last part that need not be there.
            if tool != "readlink -f" {
                assert!(!output.text().contains("shown"), "{tool} {path}");
            }
            assert!(!output.text().contains("theirs"), "{tool} {path}");
        }
    }
    let listed = run(&mut as_other(&format!(
        "ls {point} {point}/mem {point}/by-name; ls {point}/by-name/{command}; ls {point}/by-name/*/; ls -R {point}/by-cgroup"
    )));
    assert!(listed.text().contains("stats"), "{}", listed.text());
    assert!(
        !listed
            .text()
            .lines()
            .any(|name| name == pid.to_string() || name == command)
    );
    // Who may read it sees all of it meanwhile.
    let mut command = words(&owner("sh -c"));
    command.arg(format!(
        "ls {point}/{pid} | grep -c stack && grep -c . {stack} > /dev/null"
    ));
    run(&mut command).success();
}

/// SEMANTICS: files of mappings are opened only where the caller could open them.
fn files_are_opened_only_where_the_caller_could() {
    let mount = shared();
    let binary = subject(&mount);
    let secret = mount.outside().join("file-of-root");
    std::fs::write(&secret, [b'S'; 4096]).unwrap();
    set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
    let public = mount.outside().join("file-of-all");
    std::fs::write(&public, [b'P'; 4096]).unwrap();
    for (path, of_owner) in [(&secret, Err(())), (&public, Ok("PPPPPPPP"))] {
        let command = format!("{} mapped {OWNER} {}", binary.display(), path.display());
        let target = Program::talking(words(&command));
        let start = usize::from_str_radix(target.said.split(' ').nth(1).unwrap(), 16).unwrap();
        let file = mount.mapping(target.pid(), start, start + 4096);
        let ask = |prefix: &str| {
            let mut command = words(prefix);
            run(command.arg(&binary).arg("show").arg(&file))
        };
        let answer = ask(owner("").trim_end());
        match of_owner {
            Ok(bytes) => assert_eq!(answer.success().text().trim(), bytes),
            Err(()) => drop(answer.failure().complains(&["Input/output error"])),
        }
        let all = if path == &secret { 'S' } else { 'P' };
        let of_root = ask("setpriv").success().text();
        assert_eq!(of_root.trim(), all.to_string().repeat(8));
    }
}

/// Such a worker has the credentials that its process had when it was started, and acts with those of who asks.
fn a_worker_of_io_uring_keeps_no_capabilities() {
    let mount = shared();
    let binary = mount.outside().join("worker");
    let source = binary.with_extension("c");
    std::fs::write(&source, WORKER).unwrap();
    run(Command::new("cc")
        .args(["-O1", "-o"])
        .arg(&binary)
        .arg(source))
    .success();
    let stronger = Program::talking(words(&subject(&mount).display().to_string()));
    let files = [
        PathBuf::from(format!("/proc/{}/mem", stronger.pid())),
        mount.path(format!("mem/{}", stronger.pid())),
        mount.path(format!("{}/stack", stronger.pid())),
        mount.path("stats"),
    ];
    let output = run(Command::new(&binary).args(files));
    if output.stderr.contains("io_uring") {
        return eprintln!("not tried: there is no io_uring");
    }
    let found = output.success().text();
    let denied = "EACCES EACCES";
    let found: Vec<&str> = found.lines().collect();
    assert_eq!(found, [denied, denied, denied, "ok ok"]);
}

/// The kernel lets a thread of the daemon look into the daemon, whatever its credentials.
fn the_daemon_itself_is_shown_to_nobody_else() {
    let mount = shared();
    let (point, daemon) = (quote(mount.point()), mount.daemon());
    let script =
        format!("ls {point}; ls {point}/{daemon} {point}/mem/{daemon}; cat {point}/{daemon}/stack");
    let output = run(&mut as_other(&script)).failure();
    assert!(output.text().contains("stats"));
    assert!(
        !output.text().contains(&daemon.to_string()),
        "{}",
        output.text()
    );
    output.complains(&["Permission denied"]);
}

fn without_it_nobody_else_enters() {
    let mount = Mount::new("write");
    let output = run(&mut as_other(&format!("ls {}", quote(mount.point()))));
    output.failure().complains(&["Permission denied"]);
}

/// SEMANTICS: without `CAP_SETUID` and `CAP_SETGID` nobody can be judged as themselves.
fn it_takes_the_right_to_act_as_others() {
    let point = crate::users::users_point();
    let daemon = quote(&crate::users::public_daemon(&point));
    let script = format!("exec {daemon} -o allow_other {}", quote(point.path()));
    let output = run(&mut crate::users::as_user(&point, "", &script)).failure();
    output.one_line(&["allow_other", "CAP_SETUID"]);
}
