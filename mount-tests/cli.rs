//! The command line: forms, options, and one clear line for each mistake.

use std::path::Path;
use std::process::Command;

use crate::support::{
    Mount, MountPoint, Output, daemon_binary, daemon_on, daemons_on, eventually, is_mounted, quote,
    run, sh, tests,
};

tests![
    help_teaches_and_version_tells,
    unknown_options_are_named,
    bad_values_are_named_with_the_option,
    good_values_are_accepted,
    a_mount_point_that_will_not_do_is_named,
    without_dev_fuse_the_error_says_so: [Need::Root, Need::Tool("unshare")],
    it_answers_before_it_returns,
    source_and_mount_point,
    mount_is_a_command,
    words_of_commands_are_no_mount_points,
    a_source_is_called_anything,
    mount_t_fuse_procmemfs: [Need::Root, Need::Tool("mount.fuse3"), Need::Tool("unshare")],
    options_of_every_file_system_pass_through,
    debug_logs_to_the_terminal,
];

fn procmemfs() -> Command {
    Command::new(daemon_binary())
}

/// `--help` exits with 0 and shows usage, every option and an example;
/// `--version` shows the version.
fn help_teaches_and_version_tells() {
    for flag in ["--help", "-h"] {
        let text = run(procmemfs().arg(flag)).success().quiet().text();
        assert!(text.contains("Usage"), "{text}");
        assert!(text.contains("MOUNTPOINT"), "{text}");
    }
    let text = run(procmemfs().arg("--help")).success().quiet().text();
    for word in [
        "-f",
        "-d",
        "-o",
        "write",
        "ro",
        "cache_ttl",
        "cache_size",
        "fault",
        "force",
        "pid",
        "threads",
        "Examples",
        "fusermount3 -u",
    ] {
        assert!(text.contains(word), "--help does not name {word}: {text}");
    }
    for flag in ["--version", "-V"] {
        let text = run(procmemfs().arg(flag)).success().quiet().text();
        let expected = concat!("procmemfs ", env!("CARGO_PKG_VERSION"));
        assert_eq!(text.trim(), expected);
    }
}

/// Runs the command on a good mount point; it must fail with one line and
/// mount nothing.
#[track_caller]
fn refused(arguments: &[&str]) -> Output {
    let point = MountPoint::new();
    let output = run(procmemfs().args(arguments).arg(point.path())).failure();
    assert!(!is_mounted(point.path()), "{arguments:?} mounted");
    assert!(output.stdout.is_empty(), "stdout: {}", output.text());
    output
}

/// An unknown option is refused with one line that names it.
fn unknown_options_are_named() {
    for option in [
        "no_such_option",
        "no_such_option=1",
        "cache_ttl=1s,nonsense",
    ] {
        let word = option.split(',').next_back().unwrap();
        let word = word.split('=').next().unwrap();
        refused(&["-o", option]).one_line(&[word]);
        refused(&["-f", "-o", option]).one_line(&[word]);
    }
    refused(&["--no-such-flag"]).complains(&["--no-such-flag"]);
    run(procmemfs().args(["a", "b", "c"])).failure();
}

/// A value that makes no sense is refused with one line that names option and
/// value.
fn bad_values_are_named_with_the_option() {
    for (option, value) in [
        ("cache_ttl", "soon"),
        ("cache_ttl", "-1s"),
        ("cache_ttl", "5parsecs"),
        ("cache_ttl", ""),
        ("cache_size", "12Q"),
        ("cache_size", "-1"),
        ("cache_size", "99999999999999999999G"),
        ("fault", "maybe"),
        ("pid", "abc"),
        ("pid", "12:abc"),
        ("pid", ""),
        ("pid", "-5"),
        ("threads", "0"),
        ("threads", "many"),
    ] {
        let pair = format!("{option}={value}");
        refused(&["-o", &pair]).one_line(&[option, value]);
    }
    for option in ["cache_ttl", "cache_size", "fault", "pid", "threads"] {
        refused(&["-o", option]).one_line(&[option]);
    }
}

/// Times and sizes can be written in the usual ways, options together or one
/// by one.
fn good_values_are_accepted() {
    for options in [
        "cache_ttl=0",
        "cache_ttl=50ms",
        "cache_ttl=2s",
        "cache_ttl=5m",
        "cache_ttl=1h",
        "cache_size=0",
        "cache_size=65536",
        "cache_size=64K",
        "cache_size=16M,fault=error,threads=1",
        "cache_size=1G,write,force,fault=zero,threads=3",
    ] {
        let mount = Mount::new(options);
        let own = mount.process(std::process::id());
        assert!(own.is_dir(), "{options}: {}", mount.log());
    }
    let mut command = procmemfs();
    command.args(["-o", "write", "-o", "cache_ttl=0", "-ofault=zero"]);
    let mount = Mount::start(command);
    assert!(mount.path("self").exists());
}

/// A mount point that is missing, is a file, or is not given is named in one
/// line.
fn a_mount_point_that_will_not_do_is_named() {
    let point = MountPoint::new();
    let missing = point.outside().join("missing");
    let file = point.outside().join("file");
    std::fs::write(&file, "").unwrap();
    for path in [&missing, &file, &missing.join("deeper")] {
        let name = path.to_str().unwrap();
        for flags in [&[][..], &["-f"][..], &["source"][..]] {
            let output = run(procmemfs().args(flags).arg(path));
            output.failure().one_line(&[name]);
        }
    }
    let file_name = file.to_str().unwrap();
    let output = run(procmemfs().arg(&file)).failure();
    output.one_line(&[file_name, "not a directory"]);
    let output = run(procmemfs().arg(&missing)).failure();
    output.one_line(&["no such"]);
    run(&mut procmemfs()).failure().complains(&["MOUNTPOINT"]);
}

/// Without `/dev/fuse` the error is one line that names it.
fn without_dev_fuse_the_error_says_so() {
    let point = MountPoint::new();
    // A mount namespace of its own, in which /dev is empty.
    let script = format!(
        "mount -t tmpfs none /dev && exec {} {}",
        quote(daemon_binary()),
        quote(point.path())
    );
    let mut unshare = Command::new("unshare");
    let output = run(unshare.args(["-m", "sh", "-c", &script]));
    output.failure().one_line(&["/dev/fuse"]);
}

/// Waits until the mount is gone and no daemon of it is left.
#[track_caller]
fn gone(point: &Path) {
    eventually("the mount is gone", || (!is_mounted(point)).then_some(()));
    eventually("the daemon has ended", || {
        daemons_on(point).is_empty().then_some(())
    });
}

/// Without `-f` the command returns 0 once the mount answers, lets go of the
/// terminal, and works on in the background until it is unmounted.
fn it_answers_before_it_returns() {
    let point = MountPoint::new();
    // `run` waits until the output is closed as well.
    run(procmemfs().arg(point.path())).success().quiet();
    assert!(is_mounted(point.path()));
    let own = point.path().join(std::process::id().to_string());
    assert!(own.is_dir());
    daemon_on(point.path());
    // A relative path means the directory where the command was given.
    let other = MountPoint::new();
    let mut command = procmemfs();
    run(command.arg("mnt").current_dir(other.outside())).success();
    assert!(other.path().join("stats").exists());
    for point in [&point, &other] {
        let path = quote(point.path());
        sh(&format!("fusermount3 -u {path} || umount {path}")).success();
    }
    gone(point.path());
    eventually("the other mount is gone", || {
        (!is_mounted(other.path())).then_some(())
    });
}

/// The line of `/proc/self/mounts` for `point`.
fn mounts_line(point: &Path) -> String {
    let text = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let point = format!(" {} ", point.display());
    let line = text.lines().find(|line| line.contains(&point));
    line.unwrap_or_else(|| panic!("{point} is not mounted"))
        .to_string()
}

/// `procmemfs SOURCE MOUNTPOINT` works like `procmemfs MOUNTPOINT`, options
/// before or after; the type is `fuse.procmemfs`.
fn source_and_mount_point() {
    for (before, after) in [
        (&["none"][..], &[][..]),
        (&["-o", "cache_ttl=0", "none"], &[]),
        (&["none"], &["-o", "cache_ttl=0"]),
        (&[], &["-o", "cache_ttl=0"]),
    ] {
        let point = MountPoint::new();
        let mut command = procmemfs();
        command.args(before).arg(point.path()).args(after);
        run(&mut command).success().quiet();
        assert!(point.path().join("self").exists());
        let line = mounts_line(point.path());
        assert!(line.contains(" fuse.procmemfs "), "{line}");
        unmount(point.path());
        gone(point.path());
    }
}

/// Words that are commands, or may become some.
const COMMANDS: [&str; 7] = ["mount", "doctor", "map", "restore", "stats", "help", "snap"];

/// Unmounts.
#[track_caller]
fn unmount(point: &Path) {
    let path = quote(point);
    sh(&format!("fusermount3 -u {path} || umount {path}")).success();
}

/// `procmemfs mount` takes what the bare form takes, and does the same; options may stand before it.
fn mount_is_a_command() {
    for (before, after) in [
        (&["mount"][..], &[][..]),
        (&["mount", "none"], &[]),
        (&["mount", "mount"], &[]),
        (&["mount", "-o", "cache_ttl=0"], &[]),
        (&["mount"], &["-o", "cache_ttl=0"]),
        (&["-o", "cache_ttl=0", "mount"], &[]),
    ] {
        let point = MountPoint::new();
        let mut command = procmemfs();
        command.args(before).arg(point.path()).args(after);
        run(&mut command).success().quiet();
        assert!(point.path().join("self").exists());
        unmount(point.path());
        gone(point.path());
    }
    let mut command = procmemfs();
    command.arg("mount");
    assert!(Mount::start(command).path("self").exists());
    for flags in [&["mount"][..], &["-f", "mount"], &["mount", "-o", "ro"]] {
        let output = run(procmemfs().args(flags)).failure();
        output.one_line(&["no mount point", "procmemfs mount MOUNTPOINT"]);
    }
    refused(&["mount", "-o", "nonsense"]).one_line(&["nonsense"]);
    refused(&["mount", "a", "b"]).complains(&["unexpected"]);
}

/// A word alone that is kept for a command is no mount point, even where there is such a directory; one line says
/// how that is named.
fn words_of_commands_are_no_mount_points() {
    let point = MountPoint::new();
    for word in COMMANDS {
        let directory = point.outside().join(word);
        std::fs::create_dir(&directory).unwrap();
        for arguments in [&[word][..], &["-f", word], &[word, "-o", "ro"]] {
            if arguments == ["doctor"] {
                // It is one that needs nothing more.
                continue;
            }
            let mut command = procmemfs();
            let command = command.args(arguments).current_dir(point.outside());
            let output = run(command).failure();
            assert!(output.stdout.is_empty(), "{}", output.text());
            let words = [word, &format!("./{word}")];
            let output = output.one_line(&words);
            if !["mount", "restore", "doctor", "map", "stats"].contains(&word) {
                output.complains(&["no command"]);
            }
            assert!(!is_mounted(&directory), "{arguments:?} mounted");
        }
    }
    for path in ["./doctor", "doctor/"] {
        let mut command = procmemfs();
        run(command.arg(path).current_dir(point.outside())).success();
        unmount(&point.outside().join("doctor"));
    }
}

/// mount(8) passes any source: `procmemfs SOURCE MOUNTPOINT -o OPTIONS` mounts, whatever it is called.
fn a_source_is_called_anything() {
    for source in COMMANDS {
        let point = MountPoint::new();
        let mut command = procmemfs();
        command.arg(source).arg(point.path());
        run(command.args(["-o", "rw,dev,suid"])).success().quiet();
        assert!(point.path().join("self").exists(), "{source}");
        unmount(point.path());
        gone(point.path());
    }
}

/// `mount -t fuse.procmemfs` works as a line of `/etc/fstab` would use it, with
/// the options that `mount` adds by itself (`rw`, `dev`, `suid`).
fn mount_t_fuse_procmemfs() {
    let point = MountPoint::new();
    // `mount` looks for the program in the directories of the system only: in
    // a mount namespace of its own it is put there.
    let script = format!(
        "set -e\n\
         mount -t tmpfs none /usr/local/bin\n\
         cp {daemon} /usr/local/bin/procmemfs\n\
         for options in defaults cache_ttl=0 nosuid,nodev,noexec,ro; do\n\
         mount -t fuse.procmemfs none {point} -o $options\n\
         test -d {point}/self/\n\
         grep ' {bare} fuse.procmemfs ' /proc/self/mounts\n\
         umount {point}\n\
         done\n\
         for source in mount doctor; do\n\
         mount -t fuse.procmemfs $source {point} -o nosuid,nodev,noexec,ro\n\
         grep ' {bare} fuse.procmemfs ' /proc/self/mounts\n\
         umount {point}\n\
         done\n",
        daemon = quote(daemon_binary()),
        point = quote(point.path()),
        bare = point.path().display(),
    );
    let mut unshare = Command::new("unshare");
    let output = run(unshare.args(["-m", "sh", "-c", &script]));
    let lines = output.success().quiet().text();
    assert_eq!(lines.lines().count(), 5, "{lines}");
    let last = lines.lines().last().unwrap();
    assert!(last.contains(" ro,nosuid,nodev,noexec,"), "{last}");
    gone(point.path());
}

/// `nosuid`, `nodev`, `noexec`, `noatime`, `fsname=` and the like reach the
/// kernel; `ro` makes the whole mount read-only.
fn options_of_every_file_system_pass_through() {
    let mount = Mount::new("nosuid,nodev,noexec,noatime,fsname=a_name,ro");
    let line = mounts_line(mount.point());
    let words: Vec<&str> = line.split(' ').collect();
    assert_eq!(words[0], "a_name", "{line}");
    assert_eq!(words[2], "fuse.procmemfs", "{line}");
    let options: Vec<&str> = words[3].split(',').collect();
    for option in ["ro", "nosuid", "nodev", "noexec", "noatime"] {
        assert!(options.contains(&option), "no {option}: {line}");
    }
    // Nothing that lies in memory is to be run or to grant rights.
    let mount = Mount::new("");
    let line = mounts_line(mount.point());
    for option in ["nosuid", "nodev"] {
        assert!(line.contains(option), "no {option}: {line}");
    }
}

/// `-d` logs what happens; without it a mount that works logs nothing.
fn debug_logs_to_the_terminal() {
    let quiet = Mount::new("");
    assert!(quiet.path("self").exists());
    assert_eq!(quiet.log(), "", "a mount that works is quiet");
    let mut command = procmemfs();
    command.arg("-d");
    let mount = Mount::start(command);
    assert!(mount.path("self").exists());
    eventually("something in the log", || {
        mount.log().contains("DEBUG").then_some(())
    });
}
