//! Hosts as they are: PID namespaces, odd `/proc`s, odd mount points.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;

use crate::support::{
    Mount, MountPoint, Output, Target, daemon_binary, eventually, is_mounted, open, quote, run, sh,
    tests, unmount, unmount_lazily,
};

tests![
    a_proc_of_another_pid_namespace_is_refused: [Need::Root, Need::Tool("unshare")],
    a_proc_of_its_own_pid_namespace_is_taken: [Need::Root, Need::Tool("unshare")],
    a_proc_that_is_no_proc_is_named: [Need::Root, Need::Tool("unshare")],
    a_proc_that_shows_less_is_taken: [Need::Root, Need::Tool("unshare")],
    another_proc_that_is_mounted_later_shows_nothing: [
        Need::Root, Need::Tool("unshare"), Need::Tool("python3")
    ],
    mount_points_with_any_bytes: [Need::Root],
    other_mounts_may_have_any_bytes: [Need::Root, Need::Tool("unshare")],
    mount_points_by_other_paths,
    a_mount_point_inside_a_mount_is_refused,
    a_mount_that_came_later_is_not_unmounted: [Need::Root],
    the_next_mount_of_the_same_device_is_not_unmounted: [Need::Root],
    an_aborted_mount_is_unmounted: [Need::Root],
    copies_of_the_mount_go_with_it: [Need::Root],
];

/// Runs a script in namespaces of its own.
fn unshared(flags: &[&str], script: &str) -> Output {
    run(Command::new("unshare")
        .args(flags)
        .args(["sh", "-c", script]))
}

const FOREIGN: [&str; 3] = ["/proc", "PID namespace", "mount -t proc proc /proc"];

/// In a PID namespace without a `/proc` of its own each number means two processes: it does not mount, and
/// one line names the fix. So with namespaces in namespaces, and with the `/proc` of a namespace beside.
fn a_proc_of_another_pid_namespace_is_refused() {
    let point = MountPoint::new();
    let daemon = format!("{} {}", quote(daemon_binary()), quote(point.path()));
    let refused = |output: Output| {
        output.failure().one_line(&FOREIGN);
        assert!(!is_mounted(point.path()));
    };
    refused(unshared(&["-m", "--pid", "--fork"], &daemon));
    let deeper = format!("unshare --pid --fork {daemon}");
    refused(unshared(&["-m", "--pid", "--fork"], &deeper));
    refused(unshared(
        &["-m", "--pid", "--fork", "--mount-proc"],
        &deeper,
    ));
    // A namespace beside: none of its numbers is ours.
    let beside = quote(&point.outside().join("proc"));
    let script = format!(
        "set -e\n\
         mkdir {beside}\n\
         mkfifo {beside}.end\n\
         unshare --pid --fork sh -c 'mount -t proc proc {beside}; echo; read -r line < {beside}.end' | (\n\
         read -r line\n\
         mount --bind {beside} /proc\n\
         {daemon} || code=$?\n\
         echo > {beside}.end\n\
         exit $code)\n"
    );
    refused(unshared(
        &["-m"],
        &script.replace("'", "\"").replace('"', "'"),
    ));
}

/// With its own `/proc` a namespace has its own processes only, however deep it is.
fn a_proc_of_its_own_pid_namespace_is_taken() {
    let point = MountPoint::new();
    let script = format!(
        "set -e\n\
         {daemon} {point}\n\
         ls {point} | grep -c '^[0-9]*$'\n\
         test -e {point}/1/stack\n\
         test $(readlink {point}/self) -lt 100\n\
         cat {point}/1/stack | grep -c one+two+three\n\
         umount {point}\n",
        daemon = quote(daemon_binary()),
        point = quote(point.path()),
    );
    let own = ["--pid", "--fork", "--mount-proc"];
    let path = point.outside().join("script");
    std::fs::write(&path, script).unwrap();
    for script in [
        format!("export secret=one+two+three; exec sh {}", quote(&path)),
        format!(
            "unshare {} env secret=one+two+three sh {}",
            own.join(" "),
            quote(&path)
        ),
    ] {
        unshared(&["--pid", "--fork", "--mount-proc"], &script).success();
    }
}

/// No `/proc`, and something else in its place: that is said, and nothing else.
fn a_proc_that_is_no_proc_is_named() {
    let point = MountPoint::new();
    let daemon = format!("{} {}", quote(daemon_binary()), quote(point.path()));
    for hidden in ["umount -l /proc", "mount -t tmpfs none /proc"] {
        let output = unshared(&["-m"], &format!("{hidden}; {daemon}"));
        output
            .failure()
            .one_line(&["/proc is not mounted", "mount -t proc"]);
    }
}

/// `subset=pid` and `hidepid` leave what is needed.
fn a_proc_that_shows_less_is_taken() {
    let target = Target::new();
    let point = MountPoint::new();
    for options in [
        "subset=pid",
        "hidepid=invisible",
        "hidepid=ptraceable,subset=pid",
    ] {
        let output = unshared(
            &["-m"],
            &format!(
                "set -e\n\
                 mount -t proc -o {options} none /proc\n\
                 {daemon} -o pid={pid} {point}\n\
                 stat -c %Y {point}/{pid}\n\
                 wc -c < {point}/{pid}/heap\n\
                 umount {point}\n",
                daemon = quote(daemon_binary()),
                point = quote(point.path()),
                pid = target.pid(),
            ),
        );
        let text = output.success().quiet().text();
        let mut lines = text.lines().map(|line| line.parse::<u64>().unwrap());
        // When it started, though `/proc/stat` may be gone.
        let now = std::time::SystemTime::now();
        let now = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let started = lines.next().unwrap();
        assert!(
            started.abs_diff(now) < 600,
            "{options}: started {started}, now {now}"
        );
        assert!(lines.next().unwrap() > 0, "{options}");
    }
}

/// Where another namespace's `/proc`, or nothing, lies on `/proc` later, listings and new look-ups are `EIO` and the
/// log says why; what is open reads on; with the own one back all is as before.
fn another_proc_that_is_mounted_later_shows_nothing() {
    let point = MountPoint::new();
    let script = format!(
        r##"set -e
        cd {outside}
        mkdir elsewhere
        mkfifo ready
        unshare --pid --fork --kill-child sh -c \
            'mount -t proc proc elsewhere && echo > ready && exec sleep 600' > /dev/null & holder=$!
        read -r line < ready
        {daemon} -f -o cache_ttl=0 mnt 2> log & daemon=$!
        sleep 600 > /dev/null & victim=$!
        # `unshare` ignores all but this.
        trap 'kill -KILL $holder $victim; kill $daemon' EXIT
        until test -e mnt/stats; do :; done
        until grep -q '^sleep' /proc/$victim/comm && grep -q '^State:.S' /proc/$victim/status; do :; done
        exec 3< mnt/$victim/stack
        for hide in '--bind elsewhere' '-t tmpfs none'; do
            mount $hide /proc
            ls mnt 2>&1 | grep -c 'Input/output error' || echo "a listing with $hide"
            for pid in 1 2 $victim; do
                stat mnt/$pid 2>&1 | grep -c 'Input/output error' || echo "look-up of $pid with $hide"
            done
            dd bs=4096 count=1 status=none <&3 | wc -c >> read
            # umount(8) wants a `/proc`.
            python3 -c 'import ctypes; ctypes.CDLL(None).umount2(b"/proc", 2)'
            ls mnt/$victim | grep -c '\.heap$'
        done
        grep -c 'PID namespace now' log
        uniq read"##,
        outside = quote(point.outside()),
        daemon = quote(daemon_binary()),
    );
    let output = unshared(&["-m"], &script).success();
    let text = output.text();
    let lines: Vec<&str> = text.lines().collect();
    // Twice four errors and the heap; two kinds of failures in the log; the open file is read page by page.
    let expected = ["1", "1", "1", "1", "1", "1", "1", "1", "1", "1"];
    assert_eq!(lines[..10], expected, "{text}{}", output.stderr);
    assert!(lines[10].parse::<u32>().unwrap() > 0, "{text}");
    assert_eq!(lines[11..], ["4096"], "{text}");
}

/// A mount point is a path of bytes, whatever they are.
fn mount_points_with_any_bytes() {
    let point = MountPoint::new();
    for name in [
        &b"not\xff\xfeUTF-8"[..],
        b"blanks and\ttabs",
        b"new\nline",
        b"back\\slash and \\040",
        b"#hash",
        b"- fuse.procmemfs x",
    ] {
        let path = point.outside().join(OsStr::from_bytes(name));
        std::fs::create_dir(&path).unwrap();
        let mut command = Command::new(daemon_binary());
        run(command.arg(&path)).success().quiet();
        let shown = is_mounted(&path);
        let own = path.join(std::process::id().to_string()).is_dir();
        // The second is refused, so it is found in the list.
        let again = run(Command::new(daemon_binary()).arg(&path));
        unmount(&path);
        assert!(shown && own, "{}", path.display());
        again.failure().complains(&["mounted there already"]);
        assert!(!is_mounted(&path), "{}", path.display());
    }
}

/// Mounts of others, with names that are no text, and of types that look like this one, are nobody's fault.
fn other_mounts_may_have_any_bytes() {
    let point = MountPoint::new();
    let odd = point.outside().join(OsStr::from_bytes(b"odd\xff \n\\"));
    std::fs::create_dir(&odd).unwrap();
    std::os::unix::fs::symlink(&odd, point.outside().join("link")).unwrap();
    let script = format!(
        "set -e\n\
         source=$(printf 'a\\377b c')\n\
         mount -t tmpfs \"$source\" {link}\n\
         {daemon} {point}\n\
         test -e {point}/self/stack\n\
         umount {point}\n",
        link = quote(&point.outside().join("link")),
        daemon = quote(daemon_binary()),
        point = quote(point.path()),
    );
    unshared(&["-m"], &script).success().quiet();
}

/// A link, `.`, a relative path, a slash at the end: the directory that it leads to is mounted on.
fn mount_points_by_other_paths() {
    let point = MountPoint::new();
    let link = point.outside().join("link");
    std::os::unix::fs::symlink(point.path(), &link).unwrap();
    let with_slash = PathBuf::from(format!("{}/", point.path().display()));
    let table: [(&Path, &Path); 5] = [
        (&link, point.outside()),
        (Path::new("."), point.path()),
        (Path::new("link"), point.outside()),
        (Path::new("mnt/../mnt"), point.outside()),
        (&with_slash, point.outside()),
    ];
    for (path, directory) in table {
        let mut command = Command::new(daemon_binary());
        run(command.arg(path).current_dir(directory))
            .success()
            .quiet();
        assert!(point.path().join("stats").exists(), "{path:?}");
        let again = run(Command::new(daemon_binary()).arg(point.path()));
        again.failure().one_line(&["mounted there already"]);
        let quoted = quote(point.path());
        sh(&format!("fusermount3 -u {quoted} || umount {quoted}")).success();
        eventually("unmounted", || (!is_mounted(point.path())).then_some(()));
    }
}

/// Directories of a mount go with their processes: nothing is mounted on them.
fn a_mount_point_inside_a_mount_is_refused() {
    let mount = Mount::new("");
    let own = std::process::id().to_string();
    for name in ["by-name", "by-cgroup", "mem", "self", &own] {
        let output = run(Command::new(daemon_binary()).arg(mount.path(name)));
        output
            .failure()
            .one_line(&[name, "inside a procmemfs mount"]);
    }
    let output = run(Command::new(daemon_binary()).arg(mount.path("stats")));
    output.failure().one_line(&["stats", "not a directory"]);
}

/// A daemon whose mount has left the tree leaves alone what was mounted there since.
fn a_mount_that_came_later_is_not_unmounted() {
    let mut first = Mount::new("");
    let held = open(first.point());
    unmount_lazily(first.point());
    let mut second = Command::new(daemon_binary());
    run(second.arg(first.point())).success().quiet();
    // The first one's last user is gone: it ends.
    drop(held);
    assert_eq!(first.wait().code(), Some(0), "{}", first.log());
    assert!(first.path("self/stack").exists(), "the second mount");
    unmount(first.point());
    assert_eq!(first.log(), "");
}

/// The kernel gives the device number of a mount that is gone to the next one: a daemon that ends then leaves
/// that alone.
fn the_next_mount_of_the_same_device_is_not_unmounted() {
    let mut first = Mount::new("");
    let device = first.point().metadata().unwrap().dev();
    first.signal(Signal::SIGSTOP);
    run(Command::new("umount").arg("-l").arg(first.point())).success();
    // Others mount, too: one of these will get the number.
    let mut others = Vec::new();
    for _ in 0..20 {
        others.push(Mount::new(""));
        let last = others.last().unwrap().point();
        if last.metadata().unwrap().dev() == device {
            break;
        }
    }
    first.signal(Signal::SIGCONT);
    assert_eq!(first.wait().code(), Some(0), "{}", first.log());
    for other in &others {
        assert!(other.path("self/stack").exists(), "{}", other.log());
    }
}

/// Where somebody has aborted the connection, the daemon ends and its mount goes, too.
fn an_aborted_mount_is_unmounted() {
    let mut mount = Mount::new("");
    let device = libc::minor(mount.point().metadata().unwrap().dev());
    let abort = format!("/sys/fs/fuse/connections/{device}/abort");
    let connections = MountPoint::new();
    let mut abort_path = PathBuf::from(&abort);
    if !abort_path.exists() {
        let mut control = Command::new("mount");
        run(control
            .args(["-t", "fusectl", "none"])
            .arg(connections.path()))
        .success();
        abort_path = connections.path().join(device.to_string()).join("abort");
    }
    std::fs::write(abort_path, "1").unwrap();
    mount.wait();
    assert!(!is_mounted(mount.point()), "{}", mount.log());
}

/// A mount that is bound to other places, too, leaves all of them.
fn copies_of_the_mount_go_with_it() {
    let mut mount = Mount::new("");
    let copy = mount.outside().join("copy");
    std::fs::create_dir(&copy).unwrap();
    run(Command::new("mount")
        .arg("--bind")
        .arg(mount.point())
        .arg(&copy))
    .success();
    assert!(copy.join("self/stack").exists());
    mount.signal(Signal::SIGTERM);
    let status = mount.wait();
    let left = is_mounted(&copy);
    if left {
        unmount_lazily(&copy);
    }
    assert!(!left, "the copy was left behind");
    assert_eq!(status.code(), Some(0), "{}", mount.log());
    assert!(!is_mounted(mount.point()));
}
