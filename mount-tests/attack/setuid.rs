//! A program of a plain user that runs one of root's (set-user-ID).

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::worker::{Duty, Tally};
use super::{Attack, NOT_THERE, build};
use crate::support::{Mount, Target, install, quote, rounds, run, run_within, tests};
use crate::users::{USER, as_user, gone, public_daemon, users_point};

tests![
    a_target_that_execs_a_program_of_root: [Need::PlainUser, Need::Tool("cc")],
];

/// A script of the plain user: mounts, works, and unmounts.
fn script(daemon: &Path, target: &Path, control: &Path, point: &Path, duties: &[Duty]) -> String {
    let (daemon, target, control, point) =
        (quote(daemon), quote(target), quote(control), quote(point));
    let mut script = format!("{daemon} -o write {point} || exit 9\n");
    for (index, duty) in duties.iter().enumerate() {
        script += &format!("{target} attack-worker {control} {point} {duty:?} {index} &\n");
    }
    script + &format!("wait\nfusermount3 -u {point}\n")
}

/// A plain user runs a program of root's again and again, and from there their own. Their mount has nothing of root's
/// program and writes nothing to it, whatever was open before; root's mount has both, each through its own handles.
fn a_target_that_execs_a_program_of_root() {
    let point = users_point();
    let mount = Mount::new("write,cache_ttl=0");
    let program = build(point.outside());
    let root = point.outside().join("target-root");
    let mut copy = Command::new("install");
    run(copy.args(["-m", "4755"]).args([&program, &root])).success();
    let worker = point.outside().join("mount-target");
    install(&Target::binary(), &worker);

    // The first of the workers are the plain user's.
    let users = [Duty::Write, Duty::Mapping, Duty::Space, Duty::Path];
    let roots = [Duty::Write, Duty::Mapping, Duty::Path];
    let user = USER.to_string();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &user, "--regid", &user, "--clear-groups"]);
    command.arg(&program);
    let mut attack = Attack::start(
        command,
        point.outside(),
        ["setuid", "random"],
        [&program, &root],
        users.len() + roots.len(),
        rounds(100, 10_000),
    );
    let script = script(
        &public_daemon(&point),
        &worker,
        &attack.control_path,
        point.path(),
        &users,
    );
    let mut shell = as_user(&point, "", &script);
    let users_work =
        std::thread::spawn(move || run_within(Duration::from_secs(14_000), &mut shell));
    let jobs = roots.map(|duty| (mount.point(), duty));
    let tally = attack.run(users.len() as u64, &jobs);
    let said = users_work.join().unwrap().success();
    gone(point.path());
    let mut users_tally = Tally::default();
    let text = said.text();
    let lines: Vec<Tally> = text
        .lines()
        .map(|line| Tally::parse(line.strip_prefix("tally ").unwrap()).unwrap())
        .collect();
    assert_eq!(lines.len(), users.len(), "{text}");
    lines.iter().for_each(|line| users_tally.add(line));
    attack.judge("root's mount", &tally, &NOT_THERE);
    let denied = [&NOT_THERE[..], &[libc::EACCES]].concat();
    attack.judge("the plain user's mount", &users_tally, &denied);
    let refused = users_tally.unopened.get(&libc::EACCES);
    assert!(
        refused.is_some_and(|count| *count > 0),
        "root's program was not there"
    );
}
