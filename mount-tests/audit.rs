//! `audit`: a line for each open and for what each handle has written, wherever it is to go.

use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};

use crate::support::{
    Mount, MountPoint, SOON, Target, daemon_binary, eventually, expect_errno, open, open_rw, quote,
    run, tests,
};

tests![
    each_open_and_what_was_written_is_told,
    refusals_are_told: [Need::Judging],
    snapshots_are_told,
    refused_snapshots_are_told: [Need::Judging],
    no_filter_of_the_log_takes_it_away,
    syslog_and_the_journal_take_it: [Need::Root, Need::Tool("unshare")],
    a_log_that_is_not_there_is_named: [Need::Root, Need::Tool("unshare")],
];

/// The audit lines of a log that hold all these words.
fn lines(log: &str, words: &[&str]) -> Vec<String> {
    let lines = log
        .lines()
        .filter_map(|line| line.split_once("procmemfs::audit] "));
    let lines = lines.map(|(_, line)| line.to_owned());
    lines
        .filter(|line| words.iter().all(|word| line.contains(word)))
        .collect()
}

/// The one such line, once it is there.
#[track_caller]
fn line(mount: &Mount, words: &[&str]) -> String {
    let found = eventually(&format!("a line with {words:?}"), || {
        let found = lines(&mount.log(), words);
        (!found.is_empty()).then_some(found)
    });
    assert_eq!(found.len(), 1, "{found:#?}");
    found[0].clone()
}

fn own_command() -> String {
    let name = std::fs::read_to_string("/proc/thread-self/comm").unwrap();
    format!("comm={:?}", name.trim_end())
}

/// SEMANTICS: who, of what, how many bytes, and whether it was granted; never bytes of memory.
fn each_open_and_what_was_written_is_told() {
    let target = Target::new();
    let mount = Mount::new("write,audit");
    let path = mount.file(&target, "private");
    let name = path.file_name().unwrap().to_str().unwrap();
    let pid = target.pid();
    let file = format!("file=\"{pid}/{name}\"");
    let who = format!("uid={} ", nix::unistd::geteuid());
    let process = format!(" pid={} ", std::process::id());
    let subject = format!("target={pid} ");
    let mut read = [0; 16];
    open(&path).read_exact(&mut read).unwrap();
    let told = line(&mount, &["open ", &file, "access=read "]);
    for word in [
        &who,
        &process,
        &own_command(),
        &subject,
        "target_comm=\"",
        "target_exe=\"/",
    ] {
        assert!(told.contains(word), "{word} in {told}");
    }
    assert!(told.ends_with("verdict=granted"), "{told}");
    let mut written = open_rw(&path).unwrap();
    line(
        &mount,
        &["open ", &file, "access=read,write ", "verdict=granted"],
    );
    for _ in 0..3 {
        written.write_all(b"procmemfs keeps a secret").unwrap();
    }
    written.seek(SeekFrom::End(0)).unwrap();
    expect_errno("a write past the end", written.write(b"x"), libc::ENOSPC);
    assert!(lines(&mount.log(), &["written "]).is_empty(), "it is open");
    drop(written);
    let told = line(&mount, &["written ", &file, &subject]);
    assert!(told.ends_with("writes=3 bytes=72 failures=1"), "{told}");
    let code = mount.file(&target, "readonly");
    expect_errno("no w", open_rw(&code), libc::EACCES);
    line(&mount, &["open ", "access=read,write ", "verdict=EACCES"]);
    std::fs::read(mount.path("stats")).unwrap();
    let told = line(&mount, &["open ", "file=\"stats\""]);
    assert!(!told.contains("target="), "{told}");
    assert!(!mount.log().contains("secret"), "never bytes of memory");
}

/// Who is not shown a process does not come to open a file of it: that is told, too.
fn refusals_are_told() {
    let target = Target::new();
    let mount = Mount::new("allow_other,audit");
    let script = format!("cat {}/{}/stack", quote(mount.point()), target.pid());
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "54322", "--regid", "54322", "--clear-groups"]);
    run(command.args(["sh", "-c", &script])).failure();
    let name = format!("name=\"{}\"", target.pid());
    let told = line(&mount, &["lookup ", "uid=54322 ", "comm=\"cat\"", &name]);
    assert!(told.ends_with("verdict=EACCES"), "{told}");
}

/// SEMANTICS: a snapshot that is taken or dropped is told in a line for each of its processes.
fn snapshots_are_told() {
    let (mut first, second) = (Target::new(), Target::of_generation(2));
    let mount = Mount::new("audit");
    let snap = mount.path("snap");
    let pids = [first.pid(), second.pid()];
    let name = format!("{}+{}@a", pids[0], pids[1]);
    std::fs::create_dir(snap.join(&name)).unwrap();
    let who = format!("uid={} ", nix::unistd::geteuid());
    let process = format!(" pid={} ", std::process::id());
    let file = format!("file=\"snap/{name}\"");
    let told = |operation: &str, pid: u32| {
        let told = line(&mount, &[operation, &format!(" target={pid} ")]);
        assert!(told.starts_with(operation), "{told}");
        for word in [&who, &process, &own_command(), &file] {
            assert!(told.contains(word), "{word} in {told}");
        }
        for word in ["target_uid=", "target_comm=\"", "target_exe=\"/"] {
            assert!(told.contains(word), "{word} in {told}");
        }
        assert!(told.ends_with("verdict=granted"), "{told}");
    };
    told("mkdir ", pids[0]);
    told("mkdir ", pids[1]);
    // Who they were is known when they have ended.
    first.kill();
    std::fs::remove_dir(snap.join(&name)).unwrap();
    told("rmdir ", pids[0]);
    told("rmdir ", pids[1]);
    // One whose name is chosen is told by the name that it has.
    std::fs::create_dir(snap.join(format!("{}@", pids[1]))).unwrap();
    let mut names = std::fs::read_dir(&snap).unwrap();
    let chosen = names.next().unwrap().unwrap().file_name();
    let file = format!("file=\"snap/{}\"", chosen.to_str().unwrap());
    line(&mount, &["mkdir ", &file, "verdict=granted"]);
    for (name, errno, words) in [
        (
            "4000000@x",
            libc::ENOENT,
            [" target=4000000 ", "verdict=ENOENT reason=\""],
        ),
        (
            "later",
            libc::EINVAL,
            [" file=\"snap/later\" ", "verdict=EINVAL reason=\""],
        ),
    ] {
        expect_errno("mkdir", std::fs::create_dir(snap.join(name)), errno);
        line(&mount, &["mkdir ", &who, words[0], words[1]]);
    }
}

/// SEMANTICS: so is one that its caller may not take, once.
fn refused_snapshots_are_told() {
    let target = Target::new();
    let mount = Mount::new("allow_other,audit");
    let script = format!("mkdir {}/snap/{}@x", quote(mount.point()), target.pid());
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "54322", "--regid", "54322", "--clear-groups"]);
    run(command.args(["sh", "-c", &script])).failure();
    let of_target = format!(" target={} ", target.pid());
    let told = line(
        &mount,
        &["mkdir ", "uid=54322 ", "comm=\"mkdir\"", "verdict="],
    );
    for word in [of_target.as_str(), "verdict=EACCES reason=\""] {
        assert!(told.contains(word), "{word} in {told}");
    }
}

fn no_filter_of_the_log_takes_it_away() {
    // `Mount` sets a filter of its own.
    let mut command = Command::new("env");
    command.arg("RUST_LOG=off").arg(daemon_binary());
    command.args(["-o", "audit"]);
    let mount = Mount::start(command);
    std::fs::read(mount.path("stats")).unwrap();
    line(&mount, &["open ", "file=\"stats\"", "verdict=granted"]);
}

/// A log that takes datagrams, as both of them do.
fn listen(path: &Path) -> Receiver<String> {
    let socket = UnixDatagram::bind(path).unwrap();
    let (sender, received) = channel();
    std::thread::spawn(move || {
        let mut bytes = [0; 8192];
        while let Ok(len) = socket.recv(&mut bytes) {
            let text = String::from_utf8_lossy(&bytes[..len]).into_owned();
            if sender.send(text).is_err() {
                break;
            }
        }
    });
    received
}

/// A script of the shell where `/dev/log` and the journal are sockets of the test, or nowhere.
fn with_logs(point: &MountPoint, logs: &[&str], script: &str) -> Command {
    let outside = quote(point.outside());
    let links = logs.iter().map(|log| match *log {
        "syslog" => format!("ln -s {outside}/syslog $dev/log\n"),
        _ => format!("ln -s {outside}/journal /run/systemd/journal/socket\n"),
    });
    let links: String = links.collect();
    let script = format!(
        "set -e; dev={outside}/dev; mkdir $dev; mount -t tmpfs none $dev\n\
         mknod -m 666 $dev/fuse c 10 229; mknod -m 666 $dev/null c 1 3\n\
         mount -t tmpfs none /run; mkdir -p /run/systemd/journal\n\
         {links}mount --rbind $dev /dev\n\
         {script}"
    );
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &script]);
    command
}

/// SEMANTICS: it goes to the standard error, syslog or the journal; where the log goes if nothing is said, which is the journal where there
/// is one.
fn syslog_and_the_journal_take_it() {
    let both = &["syslog", "journal"][..];
    for (sink, logs, log) in [
        ("audit", both, "journal"),
        ("audit", &["syslog"], "syslog"),
        ("audit=syslog", both, "syslog"),
        ("audit=journald", both, "journal"),
    ] {
        let point = MountPoint::new();
        let received = listen(&point.outside().join(log));
        let script = format!(
            "{daemon} -o {sink} {point}; cat {point}/stats > /dev/null; umount {point}",
            daemon = quote(daemon_binary()),
            point = quote(point.path()),
        );
        run(&mut with_logs(&point, logs, &script)).success().quiet();
        let told = loop {
            let told = received.recv_timeout(SOON);
            let told = told.unwrap_or_else(|error| panic!("{sink}: no line: {error}"));
            if told.contains("file=\"stats\"") {
                break told;
            }
        };
        assert!(told.contains("verdict=granted"), "{sink}: {told}");
        if log == "journal" {
            for field in [
                "AUDIT_EVENT",
                "AUDIT_UID",
                "AUDIT_VERDICT",
                "SYSLOG_IDENTIFIER",
            ] {
                assert!(told.contains(field), "{field} in {told}");
            }
        }
    }
}

fn a_log_that_is_not_there_is_named() {
    for (options, words) in [
        ("-f -o audit=journald", &["audit=journald", "journal"][..]),
        ("-o audit=syslog", &["audit=syslog", "/dev/log"]),
        ("-o audit=stderr", &["audit=stderr", "-f"]),
        ("-o audit=paper", &["audit=paper", "syslog"]),
    ] {
        let point = MountPoint::new();
        let script = format!(
            "{} {options} {}",
            quote(daemon_binary()),
            quote(point.path())
        );
        let output = run(&mut with_logs(&point, &[], &script)).failure();
        output.one_line(words);
    }
}
