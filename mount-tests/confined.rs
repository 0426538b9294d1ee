//! A host that keeps things from the daemon: it works as far as it can, and says what is missing.

use std::path::Path;
use std::process::Command;

use crate::support::{
    MountPoint, Output, Program, Target, daemon_binary, quote, run, secret, tests,
};
use crate::users::{USER, as_user, gone, public_daemon, users_point};

tests![
    a_plain_user_below_hidepid: [Need::PlainUser],
    root_without_ptrace_reads_its_like: [Need::PlainUser],
    root_without_ptrace_below_hidepid: [Need::PlainUser],
    ptrace_alone_as_a_file_capability: [Need::PlainUser, Need::Tool("setcap")],
    all_that_is_asked_for_as_file_capabilities: [Need::PlainUser, Need::Tool("setcap")],
    a_plain_user_is_told_nothing_of_capabilities: [Need::PlainUser],
];

/// Hides from everybody but a group that nobody is in; without `gid=` that is root's.
const HIDEPID: &str = "mount -t proc -o hidepid=invisible,gid=64999 none /proc";

/// For a script: waits for the mount, and for the end of its daemon.
fn script(daemon: &Path, point: &MountPoint, body: &str) -> String {
    let path = point.path().to_str().unwrap();
    format!(
        "set -e\n\
         point={path}\n\
         {daemon} -f $point 2> $point.log & daemon=$!\n\
         trap 'kill $daemon' EXIT\n\
         until test -e $point/stats; do kill -0 $daemon; done\n\
         {body}\n\
         trap - EXIT\n\
         kill $daemon\n\
         wait $daemon\n\
         cat $point.log >&2\n",
        daemon = quote(daemon),
    )
}

/// As the plain user, with a directory in which the log can be.
fn by_user(point: &MountPoint, first: &str, daemon: &Path, body: &str) -> Output {
    let first = format!("chmod 0777 {}\n{first}", quote(point.outside()));
    let output = run(&mut as_user(point, &first, &script(daemon, point, body)));
    gone(point.path());
    output.success()
}

/// As root with all capabilities but the one to trace others, as in a container that may mount.
fn by_root_without_ptrace(point: &MountPoint, first: &str, body: &str) -> Output {
    let script = script(daemon_binary(), point, body);
    let script = format!(
        "set -e\n\
         {first}\n\
         exec setpriv --bounding-set=-sys_ptrace --inh-caps=-sys_ptrace sh -c {}\n",
        quote(Path::new(&script))
    );
    let output = run(Command::new("unshare").args(["-m", "sh", "-c", &script]));
    gone(point.path());
    output.success()
}

/// A text in this shell, and how often it is found in its memory.
const OWN_TEXT: &str = "a=one; b=\"$a+two+three+four\"\n\
     grep -rl 'one+two+three+fou[r]' $point/$$ | grep -c heap";

/// With `hidepid` a plain user sees the own processes, and those of others are not there; the mount lives on for as
/// long as its daemon, whom its supervisor cannot see.
fn a_plain_user_below_hidepid() {
    let point = users_point();
    let target = Target::new();
    let body = format!(
        "{OWN_TEXT}\n\
         ls -f $point | grep -c '^[0-9]'\n\
         ls -d $point/{pid} $point/1 2>&1 | grep -c 'No such file'\n\
         sleep 1\n\
         ls -f $point | grep -cx $$",
        pid = target.pid()
    );
    let output = by_user(&point, HIDEPID, &public_daemon(&point), &body);
    let text = output.text();
    let lines: Vec<u32> = text.lines().map(|line| line.parse().unwrap()).collect();
    let [found, listed, missing, still] = lines[..] else {
        panic!("{text}");
    };
    assert_eq!([found, missing, still], [1, 2, 1], "{text}");
    // Those of other tests that are this user's, too.
    assert!(listed >= 1, "{text}");
}

/// Root without CAP_SYS_PTRACE may read processes of root that have no more capabilities than itself, so it keeps all
/// that it has; the others are refused, and one line says what is missing.
fn root_without_ptrace_reads_its_like() {
    let point = MountPoint::new();
    let target = Target::new();
    let body = format!(
        "{OWN_TEXT}\n\
         ls -d $point/{pid} 2>&1 | grep -c 'ermission denied'\n\
         ls -f $point | grep -cx {pid} || :\n\
         grep CapEff /proc/$daemon/status\n\
         grep CapEff /proc/$$/status",
        pid = target.pid()
    );
    let output = by_root_without_ptrace(&point, "", &body);
    let text = output.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..3], ["1", "1", "0"], "{text}");
    assert_eq!(lines[3], lines[4], "capabilities");
    output.complains(&[
        "hint: capabilities are missing: cap_sys_ptrace (to read processes of other users",
        "--cap-add",
        &format!("process {} may not be read", target.pid()),
    ]);
}

/// So it is with `hidepid`, which hides them.
fn root_without_ptrace_below_hidepid() {
    let point = MountPoint::new();
    let target = Target::new();
    let body = format!(
        "{OWN_TEXT}\n\
         ls -d $point/{pid} 2>&1 | grep -c 'No such file'\n\
         ls -f $point | grep -cx {pid} || :",
        pid = target.pid()
    );
    let output = by_root_without_ptrace(&point, HIDEPID, &body);
    assert_eq!(output.text().lines().collect::<Vec<_>>(), ["1", "1", "0"]);
    output.complains(&["capabilities are missing: cap_sys_ptrace"]);
}

/// A copy of the daemon with capabilities of its file.
fn with_capabilities(point: &MountPoint, list: &str) -> std::path::PathBuf {
    let daemon = public_daemon(point);
    let mut setcap = Command::new("setcap");
    run(setcap.arg(format!("{list}+ep")).arg(&daemon)).success();
    daemon
}

/// `setcap cap_sys_ptrace+ep` alone: the own processes are read, though its own files are root's now; those of others
/// are not, since their files are theirs, and one line names the capabilities that this takes.
fn ptrace_alone_as_a_file_capability() {
    let point = users_point();
    let daemon = with_capabilities(&point, "cap_sys_ptrace");
    let target = Target::new();
    let body = format!(
        "{OWN_TEXT}\n\
         ls -d $point/{pid} 2>&1 | grep -c 'ermission denied'\n\
         grep CapEff /proc/$daemon/status | cut -f 2\n\
         stat -c %U /proc/$daemon/mem",
        pid = target.pid()
    );
    let output = by_user(&point, "", &daemon, &body);
    let text = output.text();
    assert_eq!(
        text.lines().collect::<Vec<_>>(),
        ["1", "1", "0000000000080000", "root"],
        "{text}"
    );
    let hints = output.stderr.lines().filter(|line| line.contains("hint:"));
    assert_eq!(hints.count(), 1, "{}", output.stderr);
    output.complains(&[
        "cap_dac_read_search (to open /proc/PID/mem of other users)",
        "cap_checkpoint_restore (to ",
        "setcap cap_dac_read_search,cap_checkpoint_restore+ep",
        "CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH",
    ]);
}

/// With what that line asks for a plain user's daemon reads everybody's memory, and says nothing.
fn all_that_is_asked_for_as_file_capabilities() {
    let point = users_point();
    let list = "cap_sys_ptrace,cap_dac_read_search,cap_checkpoint_restore";
    let daemon = with_capabilities(&point, list);
    let root = Program::shell();
    let other = Target::of_user(USER - 1);
    let body = format!(
        "{OWN_TEXT}\n\
         grep -rl '{secret}' $point/{root}/heap | grep -c heap\n\
         test -d $point/{other}",
        secret = secret(),
        root = root.pid(),
        other = other.pid(),
    );
    let output = by_user(&point, "", &daemon, &body);
    assert_eq!(output.text().lines().collect::<Vec<_>>(), ["1", "1"]);
    assert!(!output.stderr.contains("hint"), "{}", output.stderr);
}

/// Who has no capabilities, and asks for none, is told nothing of them.
fn a_plain_user_is_told_nothing_of_capabilities() {
    let point = users_point();
    let output = by_user(&point, "", &public_daemon(&point), OWN_TEXT);
    assert_eq!(output.text().trim(), "1");
    assert!(!output.stderr.contains("capabilities"), "{}", output.stderr);
}
