//! Options that come from mount(8), and what lets memory be written.

use std::path::Path;
use std::process::Command;

use crate::support::{
    Mount, MountPoint, Output, Target, daemon_binary, is_mounted, quote, run, sh, tests,
};
use crate::users::{as_user, public_daemon, users_point};

tests![
    memory_is_written_only_where_write_is_given_to_mount: [
        Need::Root, Need::Tool("mount.fuse3"), Need::Tool("unshare")
    ],
    rw_alone_is_answered_with_a_hint,
    options_that_contradict_each_other_are_refused,
    options_that_mount_adds_are_taken,
    a_mount_is_not_remounted,
    links_are_not_followed_with_nosymfollow: [Need::Root],
    a_helper_that_does_not_know_an_option_is_named: [Need::PlainUser],
    quotes_that_are_not_closed_are_named,
];

/// Runs `script` where mount(8) finds the program, in a mount namespace of its own.
fn with_mount(script: &str) -> Output {
    let script = format!(
        "set -e\n\
         mount -t tmpfs none /usr/local/bin\n\
         cp {daemon} /usr/local/bin/procmemfs\n\
         {script}",
        daemon = quote(daemon_binary()),
    );
    run(Command::new("unshare").args(["-m", "sh", "-c", &script]))
}

/// Through mount(8) and lines of `fstab`, which pass `rw` by themselves, memory is written with `write` and not
/// without; nothing is said of `rw` there.
fn memory_is_written_only_where_write_is_given_to_mount() {
    let mut target = Target::new();
    let region = target.region("private");
    let point = MountPoint::new();
    let name = format!("{:012x}-{:012x}.rw-p.anon", region.start, region.end);
    let file = point.path().join(target.pid().to_string()).join(name);
    let fstab = point.outside().join("fstab");
    for (options, outcome) in [
        ("defaults", "Permission denied"),
        ("rw", "Permission denied"),
        ("rw,nofail,x-systemd.automount,noauto", "Permission denied"),
        ("ro", "Read-only file system"),
        ("write", ""),
        ("rw,write,nosuid", ""),
    ] {
        let table = format!(
            "none {} fuse.procmemfs {options} 0 0\n",
            point.path().display()
        );
        std::fs::write(&fstab, table).unwrap();
        for mount in [
            format!(
                "mount -t fuse.procmemfs none {} -o {options}",
                quote(point.path())
            ),
            format!("mount -T {} {}", quote(&fstab), quote(point.path())),
        ] {
            target.write(region.start, b"before");
            let output = with_mount(&format!(
                "{mount}\n\
                 printf after_ 2>&1 1<>{file} || true\n\
                 umount {point}\n",
                file = quote(&file),
                point = quote(point.path()),
            ));
            let output = output.success();
            let expected: &[u8] = if outcome.is_empty() {
                b"after_"
            } else {
                b"before"
            };
            let said = format!("{}{}", output.text(), output.stderr);
            assert_eq!(target.read(region.start, 6), expected, "{mount}: {said}");
            assert!(said.contains(outcome), "{mount}: {said}");
            assert!(!said.contains("hint"), "{mount}: {said}");
        }
    }
}

/// Whoever types `-o rw` and not `write` is told, in one line, what writes; others are told nothing.
fn rw_alone_is_answered_with_a_hint() {
    let mounted = |before: &[&str], after: &[&str]| {
        let point = MountPoint::new();
        let mut command = Command::new(daemon_binary());
        let output = run(command.args(before).arg(point.path()).args(after)).success();
        assert!(is_mounted(point.path()));
        let path = quote(point.path());
        sh(&format!("fusermount3 -u {path} || umount {path}")).success();
        output
    };
    for (before, after) in [
        (&["-o", "rw"][..], &[][..]),
        (&["-o", "cache_ttl=0,rw"], &[]),
        (&["-o", "cache_ttl=0", "-o", "rw"], &[]),
        (&[], &["-o", "rw"]),
        (&["-o", "rw", "none"], &[]),
    ] {
        mounted(before, after).one_line(&["hint", "rw", "-o write"]);
    }
    for (before, after) in [
        (&[][..], &[][..]),
        (&["-o", "rw,write"], &[]),
        (&["-o", "rw,ro"], &[]),
        (&["-o", "write"], &[]),
        // As mount(8) calls it.
        (&["none"], &["-o", "rw,dev,suid"]),
    ] {
        mounted(before, after).quiet();
    }
}

/// Runs the command on a good mount point; it must fail with one line that names `words`.
#[track_caller]
fn refused(options: &[&str], words: &[&str]) {
    let point = MountPoint::new();
    let mut command = Command::new(daemon_binary());
    for option in options {
        command.args(["-o", option]);
    }
    run(command.arg(point.path())).failure().one_line(words);
    assert!(!is_mounted(point.path()), "{options:?} mounted");
}

/// `write` with `ro`, and `force` without `write`, in whatever order and lists.
fn options_that_contradict_each_other_are_refused() {
    for options in [
        &["write,ro"][..],
        &["ro,write"],
        &["ro", "write"],
        &["ro,write,force"],
    ] {
        refused(options, &["write", "ro", "exclude"]);
    }
    for options in [
        &["force"][..],
        &["rw,force"],
        &["ro,force"],
        &["rw", "force"],
    ] {
        refused(options, &["force needs write"]);
    }
    refused(&["write=1"], &["write takes no value"]);
    refused(&["wrte"], &["wrte", "did you mean 'write'"]);
}

/// What mount(8), systemd and desktops leave in the list is no mistake.
fn options_that_mount_adds_are_taken() {
    for options in [
        "defaults,user=alice,nofail,_netdev,x-systemd.requires=a.service",
        "rw,noexec,nosuid,nodev,user=nobody,uhelper=udisks2",
        "ro,relatime,comment=mine,X-mount.mkdir",
    ] {
        let point = MountPoint::new();
        let mut command = Command::new(daemon_binary());
        let output = run(command.arg("none").arg(point.path()).args(["-o", options]));
        output.success().quiet();
        assert!(Path::exists(&point.path().join("stats")), "{options}");
    }
}

/// `-o remount` reaches the program through mount(8): it says that it cannot.
fn a_mount_is_not_remounted() {
    refused(&["remount,rw"], &["remount", "unmount"]);
    refused(&["rw,remount,write"], &["remount", "unmount"]);
}

/// With `nosymfollow` the links of the mount can be read and not followed; the later of it and `symfollow` holds.
fn links_are_not_followed_with_nosymfollow() {
    for (options, expected) in [
        ("nosymfollow", Some(libc::ELOOP)),
        ("symfollow,nosymfollow", Some(libc::ELOOP)),
        ("nosymfollow,symfollow", None),
    ] {
        let mount = Mount::new(options);
        let link = mount.path("self");
        assert!(std::fs::read_link(&link).is_ok(), "{options}");
        let followed = std::fs::metadata(&link);
        let errno = followed.err().and_then(|error| error.raw_os_error());
        assert_eq!(errno, expected, "{options}");
    }
}

/// A plain user who asks for what the helper does not know gets one line that names it and what helps.
fn a_helper_that_does_not_know_an_option_is_named() {
    let point = users_point();
    // A context of SELinux's is for root alone, whatever the helper's version.
    let script = format!(
        "{daemon} -o context=a:b:c:s0 {point}",
        daemon = quote(&public_daemon(&point)),
        point = quote(point.path()),
    );
    let output = run(&mut as_user(&point, "", &script)).failure();
    output.one_line(&["fusermount3", "context=a:b:c:s0", "leave that option out"]);
    assert!(!is_mounted(point.path()));
}

/// A double quote without its second one.
fn quotes_that_are_not_closed_are_named() {
    refused(
        &["ro,context=\"u:o:t:s0:c1,c2"],
        &["context=\"u:o:t:s0:c1,c2", "quote is not closed"],
    );
}
