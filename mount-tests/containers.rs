//! Processes by control group, and so by container; mounts within namespaces.

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use crate::support::{
    Mount, ProcessGroup, Program, Stats, Target, daemon_binary, eventually, quote, run, secret, sh,
    tests,
};
use crate::users::{as_user, gone, public_daemon, users_point};
use crate::xattr::text;

tests![
    processes_are_shown_in_their_groups: [Need::Root, Need::Cgroup],
    a_group_whose_name_is_a_process_beside_it: [Need::Root, Need::Cgroup],
    groups_and_processes_say_their_container: [Need::Root, Need::Cgroup],
    tools_walk_through_groups_and_read_no_memory: [
        Need::Root, Need::Cgroup, Need::Tool("find"), Need::Tool("du")
    ],
    groups_outside_of_a_cgroup_namespace: [Need::Root, Need::Cgroup, Need::Tool("unshare")],
    a_plain_user_mounts_in_namespaces_of_their_own: [Need::PlainUser],
    a_container_sees_its_own_processes: [Need::Root, Need::Tool("unshare"), Need::Tool("setpriv")],
];

const ID: &str = "5d1c0e9b7a3f42860123456789abcdef5d1c0e9b7a3f42860123456789abcdef";

/// The names in a directory of groups; none where it is not there.
fn names(path: &Path) -> BTreeSet<String> {
    let Ok(entries) = std::fs::read_dir(path) else {
        return BTreeSet::new();
    };
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// Waits until a directory of groups has these names and no others.
#[track_caller]
fn shows(path: &Path, expected: &[&str]) {
    let expected: BTreeSet<String> = expected.iter().map(|name| (*name).to_owned()).collect();
    eventually(&format!("{expected:?} in {path:?}"), || {
        (names(path) == expected).then_some(())
    });
}

/// `by-cgroup` mirrors the groups that have processes, each of which is a link to its directory.
fn processes_are_shown_in_their_groups() {
    let group = ProcessGroup::new().unwrap();
    let inner = group.inside("nginx.service");
    let (one, two) = (Program::sleep(), Program::sleep());
    let mount = Mount::new("");
    let shown = |group: &ProcessGroup| mount.path("by-cgroup").join(group.path());
    group.add(one.pid());
    inner.add(two.pid());
    let (first, second) = (one.pid().to_string(), two.pid().to_string());
    shows(&shown(&group), &["nginx.service", &first]);
    shows(&shown(&inner), &[&second]);
    for (group, pid) in [(&group, one.pid()), (&inner, two.pid())] {
        let link = shown(group).join(pid.to_string());
        assert!(link.symlink_metadata().unwrap().is_symlink());
        assert_eq!(link.canonicalize().unwrap(), mount.process(pid));
        let up = "../".repeat(1 + group.path().components().count());
        let target = std::fs::read_link(&link).unwrap();
        assert_eq!(target, Path::new(&format!("{up}{pid}")));
    }
    // The top has the first part of each path, or the process itself.
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let is_in_a_group = own.lines().any(|line| !line.ends_with(":/"));
    let itself = mount.path(format!("by-cgroup/{}", std::process::id()));
    assert_ne!(itself.exists(), is_in_a_group, "{own}");
    // It moves, and the empty group goes.
    group.add(two.pid());
    shows(&shown(&group), &[&first, &second]);
    eventually("the group is gone", || {
        (!shown(&inner).exists()).then_some(())
    });
    drop((one, two));
    eventually("the group is gone", || {
        (!shown(&group).exists()).then_some(())
    });
}

/// Such a group has another name there, so that both are shown.
fn a_group_whose_name_is_a_process_beside_it() {
    let group = ProcessGroup::new().unwrap();
    let (beside, within) = (Program::sleep(), Program::sleep());
    let number = group.inside(&beside.pid().to_string());
    group.add(beside.pid());
    number.add(within.pid());
    let mount = Mount::new("");
    let top = mount.path("by-cgroup").join(group.path());
    let (pid, renamed) = (beside.pid().to_string(), format!("{}.cgroup", beside.pid()));
    shows(&top, &[&pid, &renamed]);
    assert!(top.join(&pid).is_symlink());
    shows(&top.join(renamed), &[&within.pid().to_string()]);
}

/// The path as the kernel says it, and the identifier that Docker would have for the container.
fn groups_and_processes_say_their_container() {
    let group = ProcessGroup::new().unwrap();
    let scope = group.inside(&format!("docker-{ID}.scope"));
    let (outside, inside) = (Program::sleep(), Program::sleep());
    group.add(outside.pid());
    scope.add(inside.pid());
    let mount = Mount::new("");
    let shown = mount.path("by-cgroup").join(scope.path());
    shows(&shown, &[&inside.pid().to_string()]);
    let path = |group: &ProcessGroup| format!("/{}", group.path().display());
    for directory in [&shown, &mount.process(inside.pid())] {
        assert_eq!(text(directory, "cgroup"), path(&scope));
        assert_eq!(text(directory, "container"), ID);
    }
    for directory in [shown.parent().unwrap(), &mount.process(outside.pid())] {
        assert_eq!(text(directory, "cgroup"), path(&group));
        assert_eq!(text(directory, "container"), "");
    }
}

/// What walks through the tree finds links there and follows none: nothing is found twice, or read at all.
fn tools_walk_through_groups_and_read_no_memory() {
    let target = Target::new();
    let shell = Program::shell();
    let group = ProcessGroup::new().unwrap();
    group.add(shell.pid());
    // All that others do on this machine is left out.
    let mount = Mount::new(&format!("pid={}:{}", target.pid(), shell.pid()));
    let groups = mount.path("by-cgroup");
    let link = groups.join(group.path()).join(shell.pid().to_string());
    eventually("the shell's group", || link.exists().then_some(()));
    let (point, quoted) = (quote(mount.point()), quote(&groups));
    // It is there to be found.
    let secret = secret();
    let found = format!("grep -rl '{secret}' {point}/{}", shell.pid());
    sh(&found).success().quiet();
    let before = Stats::of(&mount);
    for script in [
        format!("! grep -r '{secret}' {quoted}"),
        format!("ls -lRa {quoted} | grep -c -- '-> .*/{}$'", shell.pid()),
        format!("test -z \"$(find {quoted} -type f)\""),
        format!("test $(find {quoted} -type l | wc -l) = 2"),
        format!("test $(du -s {quoted} | cut -f1) = 0"),
        format!("tar -C {point} -cf - by-cgroup | tar -tvf - | grep -c '^l'"),
    ] {
        sh(&script).success().quiet();
    }
    let read = Stats::of(&mount).since(&before, "read_bytes_total");
    // The counters themselves.
    assert!(read < 64 << 10, "{read} bytes were read");
    let inode = |path: &Path| {
        let output = run(Command::new("stat").args(["-c", "%i"]).arg(path));
        output.success().text()
    };
    let first = inode(&link);
    std::thread::sleep(std::time::Duration::from_millis(250));
    assert_eq!(inode(&link), first, "the same after the freshness bound");
}

/// A mount within a cgroup namespace: paths go from its root on, and begin with `__` (`..`) for processes outside.
fn groups_outside_of_a_cgroup_namespace() {
    let (own, beside) = (ProcessGroup::new().unwrap(), ProcessGroup::new().unwrap());
    let other = Program::sleep();
    beside.add(other.pid());
    let mount = crate::support::MountPoint::new();
    // The shell enters the group before it makes that the root.
    let script = format!(
        "set -e\n\
         echo $$ > {procs}\n\
         exec unshare -mC sh -c '\n\
         set -e\n\
         {daemon} {point}\n\
         readlink {point}/by-cgroup/$$\n\
         until readlink {point}/by-cgroup/__/{beside}/{pid}; do :; done\n\
         umount {point}'\n",
        procs = quote(&own.procs()),
        daemon = daemon_binary().display(),
        point = mount.path().display(),
        beside = beside.path().file_name().unwrap().to_str().unwrap(),
        pid = other.pid(),
    );
    let output = sh(&script).success();
    let text = output.text();
    let links: Vec<&str> = text.lines().collect();
    let there = format!("../../../{}", other.pid());
    assert!(links[0].starts_with("../"), "{text}");
    assert_eq!(links[1], there, "{text}");
}

/// Without root and without `fusermount3`: who makes a user namespace may mount in it, and sees the processes of its PID
/// namespace by the numbers that they have there.
fn a_plain_user_mounts_in_namespaces_of_their_own() {
    let point = users_point();
    let script = point.outside().join("script");
    std::fs::write(
        &script,
        "set -e\n\
         a=one; export b=\"$a+two+three\"\n\
         sleep 600 & child=$!\n\
         until grep -q '^sleep' /proc/$child/comm && grep -q '^State:.S' /proc/$child/status; do sleep 0.01; done\n\
         PATH=/nowhere $1 $2\n\
         ls $2 | grep '^[0-9]' | sort -n | tr '\\n' ' '\n\
         readlink $2/by-name/sleep/*\n\
         readlink $2/self\n\
         grep -rl 'one+two+thre[e]' $2/1 | grep -c heap\n\
         umount $2\n",
    )
    .unwrap();
    let enter = format!(
        "exec unshare -Urpf --kill-child --mount-proc sh {} {} {}",
        quote(&script),
        quote(&public_daemon(&point)),
        quote(point.path()),
    );
    let output = run(&mut as_user(&point, "", &enter)).success();
    let text = output.text();
    let lines: Vec<&str> = text.lines().collect();
    // The shell, `sleep`, the daemon and what watches it, `ls` or what is in a pipe with it.
    let shown: Vec<u32> = lines[0]
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect();
    assert!(shown.starts_with(&[1, 2]), "{text}");
    assert!(shown.iter().all(|pid| *pid < 1000), "{text}");
    assert!(lines[0].ends_with("../../2"), "{text}");
    assert!(lines[1].parse::<u32>().unwrap() < 1000, "{text}");
    assert_eq!(lines[2], "1", "{text}");
    gone(point.path());
}

/// With what a container of Docker has by default and `CAP_SYS_ADMIN`, processes of the same user are read, and those of others
/// are told of as denied.
fn a_container_sees_its_own_processes() {
    let point = crate::support::MountPoint::new();
    let daemon = point.outside().join("daemon");
    symlink(daemon_binary(), &daemon).unwrap();
    // Capabilities that Docker gives, and one more (`DefaultCapabilities` in moby's `oci/caps/defaults.go`).
    let capabilities = "-all,+chown,+dac_override,+fsetid,+fowner,+mknod,+net_raw,+setgid,+setuid,+setfcap,\
                        +setpcap,+net_bind_service,+sys_chroot,+kill,+audit_write,+sys_admin";
    let script = format!(
        "set -e\n\
         export secret=one+two+three\n\
         setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all sleep 600 & other=$!\n\
         until grep -q '^sleep' /proc/$other/comm && grep -q '^State:.S' /proc/$other/status; do :; done\n\
         {daemon} {point} 2> {point}.log\n\
         grep -c one+two+thre[e] {point}/1/stack\n\
         ls {point}/$other 2>&1 | grep -c 'Permission denied'\n\
         grep -c cap_sys_ptrace {point}.log\n\
         umount {point}\n\
         kill $other\n",
        daemon = quote(&daemon),
        point = quote(point.path()),
    );
    let mut command = Command::new("unshare");
    command.args(["-mpfC", "--kill-child", "--mount-proc", "setpriv"]);
    command.arg(format!("--bounding-set={capabilities}"));
    command.arg(format!("--inh-caps={capabilities}"));
    let output = run(command.args(["sh", "-c", &script])).success();
    assert_eq!(output.text(), "1\n1\n1\n");
}
