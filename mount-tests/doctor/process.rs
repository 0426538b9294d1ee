//! `procmemfs doctor PID`: why a process, or a part of it, cannot be read.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::thread;

use nix::sys::ptrace;
use nix::unistd::Pid;
use serde_json::Value;

use super::{Report, of_user, without_calls};
use crate::support::{Footprint, Mount, PAGE, Program, Region, Target, quote, sh, tests};
use crate::users::{USER, users_point};

tests![
    why_there_is_no_such_process: [Need::Root],
    why_a_process_is_refused: [Need::PlainUser],
    a_traced_process_is_read_and_that_is_told: [Need::Root],
    bytes_that_cannot_be_read_are_those_of_the_mount: [Need::Root],
    files_that_a_plain_user_cannot_open_are_named: [Need::PlainUser],
];

/// No number of a process: none at all, a thread, a zombie, a thread of the kernel.
fn why_there_is_no_such_process() {
    let mut target = Target::new();
    let told = |number: &str, words: &[&str]| {
        let report = super::report(&[number]);
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
        "{} 600 & child=$!; trap 'kill $child' EXIT; until grep -q ^sleep /proc/$child/comm && grep -q '^State:.S' /proc/$child/status; do :; done;",
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
        super::report(&[&pid.to_string()])
    });
    let report = traced.join().unwrap();
    assert!(report.works(), "{report:?}");
    assert_eq!(report.0["process"]["readable"], true);
    report.has("traced", "warning", &["traces it", "EBUSY"]);
    drop(target);
    let program = without_calls(&[libc::SYS_swapon], || {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let report = super::report(&[&child.id().to_string()]);
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
    let before = Footprint::of(target.pid());
    let report = super::report(&[&target.pid().to_string()]);
    assert_eq!(Footprint::of(target.pid()), before);
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
        of(&super::report(&[&pid.to_string()])),
        [] as [Value; 0],
        "root reads it"
    );
}
