//! The daemon's life: signals, unmounting, sudden death.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::getpid;

use crate::support::{
    Mount, MountPoint, PAGE, Program, SOON, Target, assert_bytes, daemon_binary, drop_kernel_pages,
    eventually, install, is_mounted, open, pread_all, quote, run, sh, tests, unmount,
    unmount_lazily,
};
use crate::users::{as_user, gone, public_daemon, users_point};

tests![
    sigterm_and_sigint_unmount,
    sigterm_unmounts_a_mount_that_is_in_use,
    umount_ends_the_daemon: [Need::Root],
    fusermount_ends_the_daemon: [Need::Tool("fusermount3")],
    readers_of_a_killed_daemon_get_an_error,
    a_dead_mount_is_named_and_can_be_replaced,
    one_thread_and_many_serve_alike,
    two_mounts_beside_each_other,
    the_daemon_keeps_few_ended_processes_open: [Need::Ptrace],
    a_signal_that_was_ignored_at_the_start_stays_ignored: [Need::Tool("nohup")],
    a_signal_that_waits_from_the_start_ends_the_mount,
    a_signal_that_comes_while_mounting_ends_the_mount: [Need::PlainUser],
    a_service_manager_is_told_of_the_beginning_and_the_end: [Need::Root],
    a_service_manager_that_is_not_there_is_done_without,
];

/// SIGTERM and SIGINT unmount, and the daemon ends with exit code 0.
fn sigterm_and_sigint_unmount() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let target = Target::new();
        let mut mount = Mount::new("");
        std::fs::read(mount.file(&target, "private")).unwrap();
        mount.signal(signal);
        let status = mount.wait();
        assert_eq!(status.code(), Some(0), "after {signal}: {}", mount.log());
        assert!(!is_mounted(mount.point()), "still mounted after {signal}");
        std::fs::remove_dir(mount.point()).unwrap();
        std::fs::create_dir(mount.point()).unwrap();
    }
}

/// So they do while a file is open and read.
fn sigterm_unmounts_a_mount_that_is_in_use() {
    let target = Target::new();
    let mut mount = Mount::new("");
    let file = open(&mount.file(&target, "private"));
    pread_all(&file, 0, PAGE);
    mount.signal(Signal::SIGTERM);
    mount.wait();
    assert!(!is_mounted(mount.point()), "still mounted");
    drop_kernel_pages(&file);
    // The file has lost its file system.
    assert!(file.read_at(&mut [0; 16], 8 * PAGE as u64).is_err());
}

/// `umount` ends the daemon with exit code 0.
fn umount_ends_the_daemon() {
    let mut mount = Mount::new("");
    unmount(mount.point());
    assert_eq!(mount.wait().code(), Some(0), "{}", mount.log());
}

/// `fusermount3 -u` ends the daemon with exit code 0.
fn fusermount_ends_the_daemon() {
    let mut mount = Mount::new("");
    run(Command::new("fusermount3").arg("-u").arg(mount.point())).success();
    assert_eq!(mount.wait().code(), Some(0), "{}", mount.log());
}

/// Reads until that fails, checking the bytes, and gives the errno.
fn read_until_error(file: &File, expected: &[u8]) -> i32 {
    eventually("an error for the reader", || {
        let mut bytes = vec![0; expected.len()];
        match file.read_at(&mut bytes, 0) {
            Ok(count) => {
                assert!(count > 0, "an early end without an error");
                assert_bytes("a read", &bytes[..count], &expected[..count]);
                drop_kernel_pages(file);
                None
            }
            Err(error) => error.raw_os_error(),
        }
    })
}

/// When the daemon is killed under its readers, each gets true bytes and then
/// an error, soon; after `umount -l` (or `fusermount3 -uz`) the mount point
/// can be used again.
fn readers_of_a_killed_daemon_get_an_error() {
    let target = Target::new();
    let expected = target.bytes("scratch");
    for options in ["", "cache_ttl=0"] {
        let mut mount = Mount::new(options);
        let path = mount.file(&target, "scratch");
        let files: Vec<File> = (0..4).map(|_| open(&path)).collect();
        std::thread::scope(|scope| {
            let readers: Vec<_> = files
                .iter()
                .map(|file| scope.spawn(|| read_until_error(file, &expected)))
                .collect();
            mount.signal(Signal::SIGKILL);
            mount.wait();
            for reader in readers {
                let errno = reader.join().unwrap();
                let expected = crate::support::GONE;
                assert!(expected.contains(&errno), "errno {errno}");
            }
        });
        drop(files);
        unmount_lazily(mount.point());
        assert!(!is_mounted(mount.point()));
        run(Command::new(daemon_binary()).arg(mount.point()))
            .success()
            .quiet();
        let bytes = std::fs::read(mount.file(&target, "scratch")).unwrap();
        assert_bytes("mounted again", &bytes, &expected);
        let point = quote(mount.point());
        sh(&format!("fusermount3 -u {point} || umount {point}")).success();
    }
}

/// Mounting where a killed daemon left its mount is refused with one line that
/// names the mount point, the state and the remedy; which works.
fn a_dead_mount_is_named_and_can_be_replaced() {
    let mut mount = Mount::new("");
    mount.kill_supervisor();
    mount.signal(Signal::SIGKILL);
    mount.wait();
    // Until then the kernel remembers the attributes of the root.
    let error = eventually("an error", || std::fs::metadata(mount.point()).err());
    assert_eq!(error.raw_os_error(), Some(libc::ENOTCONN));
    let point = mount.point().to_str().unwrap().to_string();
    for flags in [&[][..], &["-f"][..], &["none"][..]] {
        let mut command = Command::new(daemon_binary());
        let output = run(command.args(flags).arg(&point)).failure();
        output.one_line(&[&point, "died", "umount"]);
    }
    sh(&format!(
        "fusermount3 -u {0} || umount -l {0}",
        quote(mount.point())
    ))
    .success();
    run(Command::new(daemon_binary()).arg(&point)).success();
    assert!(mount.path("stats").exists());
    sh(&format!(
        "fusermount3 -u {0} || umount {0}",
        quote(mount.point())
    ))
    .success();
}

/// `threads=1` and `threads=8` give the same bytes to eight readers at once.
fn one_thread_and_many_serve_alike() {
    let target = Target::new();
    let expected = target.bytes("scratch");
    for threads in [1, 8] {
        let mount = Mount::new(&format!("threads={threads}"));
        let path = mount.file(&target, "scratch");
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let bytes = std::fs::read(&path).unwrap();
                    assert_bytes("one of eight", &bytes, &expected);
                });
            }
        });
    }
}

/// Two mounts show the same process; ending one leaves the other alone.
fn two_mounts_beside_each_other() {
    let target = Target::new();
    let mut one = Mount::new("");
    let two = Mount::new("cache_ttl=0");
    for mount in [&one, &two] {
        let bytes = std::fs::read(mount.file(&target, "private")).unwrap();
        assert_bytes("each", &bytes, &target.bytes("private"));
    }
    // One daemon is a process like any other, for the other mount.
    let daemon = two.names(one.daemon());
    assert!(daemon.iter().any(|name| name.ends_with(".procmemfs")));
    one.signal(Signal::SIGTERM);
    one.wait();
    let bytes = std::fs::read(two.file(&target, "private")).unwrap();
    assert_bytes("the other", &bytes, &target.bytes("private"));
}

/// Descriptors that pin a process are closed when others come: however many
/// processes come and go, the daemon holds those of a few.
fn the_daemon_keeps_few_ended_processes_open() {
    let mount = Mount::new("");
    let open_files = || {
        let dir = format!("/proc/{}/fd", mount.daemon());
        std::fs::read_dir(dir).unwrap().count()
    };
    let visit = || {
        let shell = Program::shell();
        std::fs::read(mount.process(shell.pid()).join("heap")).unwrap();
    };
    let before = open_files();
    for _ in 0..100 {
        visit();
    }
    let now = open_files();
    assert!(now < before + 100, "{before} files open before, {now} now");
}

/// Under `nohup` SIGHUP does nothing, and the other signals do what they do.
fn a_signal_that_was_ignored_at_the_start_stays_ignored() {
    let mut command = Command::new("nohup");
    command.arg(daemon_binary());
    let mut mount = Mount::start(command);
    assert!(mount.path("self").exists());
    mount.signal(Signal::SIGHUP);
    // Of two that wait the one of the smaller number would be taken first.
    mount.signal(Signal::SIGTERM);
    assert_eq!(mount.wait().code(), Some(0), "{}", mount.log());
    let log = mount.log();
    assert!(log.contains("SIGTERM"), "{log}");
    assert!(!log.contains("SIGHUP"), "{log}");
}

/// Starts a program to which SIGTERM has come, and for which it is held back.
fn with_a_signal_that_waits(command: &mut Command) -> &mut Command {
    let send = || {
        let mut held = SigSet::empty();
        held.add(Signal::SIGTERM);
        held.thread_block()?;
        kill(getpid(), Signal::SIGTERM)?;
        Ok(())
    };
    // SAFETY: the closure makes system calls only and allocates nothing.
    unsafe { command.pre_exec(send) }
}

/// A signal that is there by the time the mount is made ends it: in the foreground by the way of any signal, and
/// the command that would go to the background says so, and fails.
fn a_signal_that_waits_from_the_start_ends_the_mount() {
    let point = MountPoint::new();
    let mut command = Command::new(daemon_binary());
    let command = command.arg("-f").arg(point.path());
    let output = run(with_a_signal_that_waits(command)).success();
    output.one_line(&["SIGTERM: unmounting"]);
    assert!(!is_mounted(point.path()));
    let mut command = Command::new(daemon_binary());
    let command = command.arg(point.path());
    let output = run(with_a_signal_that_waits(command)).failure();
    output.one_line(&["SIGTERM came while mounting"]);
    assert!(!is_mounted(point.path()));
    gone(point.path());
}

/// So does one that comes while the mount is made: here the helper sends it, once it has mounted.
fn a_signal_that_comes_while_mounting_ends_the_mount() {
    for (flag, code) in [("-f", 0), ("", 1)] {
        let point = users_point();
        let helpers = point.outside().join("helpers");
        std::fs::create_dir(&helpers).unwrap();
        let source = point.outside().join("helper");
        std::fs::write(
            &source,
            "#!/bin/sh\n\
             PATH=${PATH#*:}\n\
             test \"$1\" = -u && exec fusermount3 \"$@\"\n\
             fusermount3 \"$@\"\n\
             status=$?\n\
             kill -TERM $PPID\n\
             exit $status\n",
        )
        .unwrap();
        install(&source, &helpers.join("fusermount3"));
        let script = format!(
            "code=0\n\
             PATH={helpers}:$PATH {daemon} {flag} {point} || code=$?\n\
             grep ' {bare} ' /proc/self/mounts\n\
             exit $code",
            helpers = quote(&helpers),
            daemon = quote(&public_daemon(&point)),
            point = quote(point.path()),
            bare = point.path().display(),
        );
        let output = run(&mut as_user(&point, "", &script)).code(code);
        assert_eq!(output.text(), "", "{flag:?}: it is still mounted");
        output.one_line(&["SIGTERM"]);
    }
}

/// The next thing that the service manager is told; none, where it is told nothing soon.
fn told(manager: &UnixDatagram) -> String {
    let mut text = [0; 100];
    manager.set_read_timeout(Some(SOON)).unwrap();
    let len = manager.recv(&mut text).unwrap();
    String::from_utf8_lossy(&text[..len]).into_owned()
}

/// As a service (sd_notify(3)) it says `READY=1` once the mount answers, and `STOPPING=1` where a signal, as `systemctl stop`
/// sends it, or an unmount ends it; it then ends with 0. It has its filter of system calls by then.
fn a_service_manager_is_told_of_the_beginning_and_the_end() {
    for by_signal in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("notify");
        let manager = UnixDatagram::bind(&socket).unwrap();
        let mut command = Command::new(daemon_binary());
        command.env("NOTIFY_SOCKET", &socket);
        let mut mount = Mount::start(command);
        assert_eq!(told(&manager), "READY=1\n");
        assert!(std::fs::read_dir(mount.path("self/")).is_ok());
        match by_signal {
            true => mount.signal(Signal::SIGTERM),
            false => unmount(mount.point()),
        }
        assert_eq!(told(&manager), "STOPPING=1\n");
        assert_eq!(mount.wait().code(), Some(0), "{}", mount.log());
        assert!(!is_mounted(mount.point()));
    }
}

/// Where nobody listens one line says so, and the mount works.
fn a_service_manager_that_is_not_there_is_done_without() {
    let mut command = Command::new(daemon_binary());
    command.env("NOTIFY_SOCKET", "/no/such/socket");
    let mount = Mount::start(command);
    assert!(std::fs::read_dir(mount.path("self/")).is_ok());
    let log = eventually("a line in the log", || {
        Some(mount.log()).filter(|log| !log.is_empty())
    });
    assert!(log.contains("READY=1"), "{log}");
}
