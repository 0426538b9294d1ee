//! Whose snapshots they are, and mounts of plain users.

use std::path::Path;
use std::process::Command;

use super::{file_of, mkdir, nothing_is_left, take};
use crate::support::{Mount, Output, Target, assert_bytes, quote, run, tests};
use crate::users::{USER, as_user, gone, public_daemon, users_point};

tests![
    a_snapshot_is_shown_to_its_owner_alone: [Need::Judging],
    nobody_copies_what_they_may_not_read: [Need::Judging],
    a_plain_user_takes_snapshots: [Need::PlainUser, Need::Tool("cmp")],
];

const OTHER: u32 = 54_322;

fn as_uid(uid: u32, script: &str) -> Output {
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={uid}"), format!("--regid={uid}")]);
    run(command.args(["--clear-groups", "sh", "-c", script]))
}

/// SEMANTICS: with `allow_other` a snapshot is seen, opened and dropped by the user who has taken it, and by nobody else.
fn a_snapshot_is_shown_to_its_owner_alone() {
    let target = Target::of_user(USER);
    let mount = Mount::new("allow_other");
    let (pid, snap) = (target.pid(), mount.path("snap"));
    let name = format!("{pid}@mine");
    let copy = snap.join(&name);
    as_uid(USER, &format!("mkdir {}", quote(&copy)))
        .success()
        .quiet();
    let file = format!("{name}/$(ls {name} | grep rw-p.heap)");
    let look = format!(
        "cd {} && ls && ls -l {name} > /dev/null && cat {file} | wc -c",
        quote(&snap)
    );
    let seen = as_uid(USER, &look).success().quiet().text();
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!(lines[0], name);
    assert!(lines[1].trim().parse::<u64>().unwrap() > 4096);
    let region = target.region("private");
    let path = {
        let prefix = format!("{:012x}-{:012x}.", region.start, region.end);
        let listed = as_uid(USER, &format!("ls {}", quote(&copy)))
            .success()
            .text();
        let found = listed.lines().find(|name| name.starts_with(&prefix));
        copy.join(found.unwrap())
    };
    // Whoever has mounted it is not judged.
    for uid in [OTHER] {
        let listed = as_uid(uid, &format!("ls -A {}", quote(&snap)))
            .success()
            .text();
        assert_eq!(listed, "", "user {uid}");
        for script in [
            format!("ls {}", quote(&copy)),
            format!("stat {}", quote(&copy)),
            format!("cat {}", quote(&path)),
            format!("cat {}", quote(&copy.join("mem"))),
            format!("cat {}", quote(&copy.join("core"))),
            format!("rmdir {}", quote(&copy)),
        ] {
            as_uid(uid, &script).failure();
        }
    }
    // Whoever looks again sees what was there.
    as_uid(USER, &look).success().quiet();
    as_uid(USER, &format!("rmdir {}", quote(&copy)))
        .success()
        .quiet();
    nothing_is_left(&mount);
}

/// SEMANTICS: a snapshot of a process is taken by whoever may read it.
fn nobody_copies_what_they_may_not_read() {
    let own = Target::of_user(USER);
    let of_root = Target::new();
    let mount = Mount::new("allow_other");
    let refused = |pids: &str| {
        let path = mount.path("snap").join(format!("{pids}@x"));
        let output = as_uid(USER, &format!("mkdir {}", quote(&path)));
        output.failure().complains(&["Permission denied"]);
        nothing_is_left(&mount);
    };
    refused(&of_root.pid().to_string());
    refused(&format!("{}+{}", own.pid(), of_root.pid()));
    let path = mount.path("snap").join(format!("{}@x", own.pid()));
    let other = as_uid(OTHER, &format!("mkdir {}", quote(&path)));
    other.failure().complains(&["Permission denied"]);
    // Root may.
    mkdir(&mount, &format!("{}@root", own.pid())).unwrap();
    let copy = take(&mount, of_root.pid(), "root");
    let shown = std::fs::read(file_of(&copy, &of_root.region("private"))).unwrap();
    assert_bytes("of root", &shown, &of_root.bytes("private"));
}

/// SEMANTICS: a mount of a plain user takes snapshots of their processes; the kernel reads none of it itself, and the bytes are the same.
fn a_plain_user_takes_snapshots() {
    let target = Target::of_user(USER);
    let others = Target::new();
    let point = users_point();
    let (pid, other) = (target.pid(), others.pid());
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid as i32),
        nix::sys::signal::SIGSTOP,
    )
    .unwrap();
    super::wait_for_state(pid, 'T');
    let script = format!(
        "set -e\n\
         {daemon} {point}\n\
         cd {point}/snap\n\
         mkdir {pid}@x\n\
         for file in $(ls {pid}@x); do cat ../{pid}/$file > /dev/null 2>&1 || continue; cmp {pid}@x/$file ../{pid}/$file || echo differ >&2; echo $file; done | wc -l\n\
         mkdir {other}@x 2> {errors} && exit 9\n\
         rmdir {pid}@x\n\
         ls -A\n\
         cd /\n\
         fusermount3 -u {point}\n",
        daemon = quote(&public_daemon(&point)),
        point = quote(point.path()),
        errors = quote(Path::new("/dev/null")),
    );
    let output = run(&mut as_user(&point, "", &script)).success().quiet();
    // All but a file or two that a plain user cannot open: those that have no name.
    let compared: usize = output.text().trim().parse().unwrap();
    assert!(compared >= 30, "{compared}");
    gone(point.path());
}
