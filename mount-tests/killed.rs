//! The end of a daemon under its users, again and again.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::{
    BUSY, Mount, Target, assert_bytes, daemon_binary, eventually, is_mounted, measured, rounds,
    run, tests, unmount,
};

tests![
    a_killed_daemon_lets_its_readers_go_and_leaves_no_mount: [Need::Root],
];

/// How many read when the daemon is killed.
const READERS: usize = 16;

/// Reads until that fails, checking each byte; returns the errno, and when it came.
fn read_until_error(file: &File, expected: &[u8], reading: &AtomicUsize) -> (i32, Instant) {
    let mut bytes = vec![0; expected.len()];
    let mut is_first = true;
    loop {
        match file.read_at(&mut bytes, 0) {
            Ok(count) => {
                assert!(count > 0, "an early end without an error");
                assert_bytes("a read", &bytes[..count], &expected[..count]);
            }
            Err(error) => return (error.raw_os_error().unwrap(), Instant::now()),
        }
        if std::mem::take(&mut is_first) {
            reading.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// SIGKILL under sixteen readers: each gets true bytes and then an error, the mount goes by itself, and the mount
/// point can be used again at once.
fn a_killed_daemon_lets_its_readers_go_and_leaves_no_mount() {
    let target = Target::new();
    let expected = &target.bytes("scratch")[..256 << 10];
    let mut slowest = [Duration::ZERO; 3];
    for _ in 0..rounds(2, 100) {
        let mut mount = Mount::new("cache_ttl=0");
        let path = mount.file(&target, "scratch");
        let files: Vec<File> = (0..READERS).map(|_| File::open(&path).unwrap()).collect();
        let reading = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let readers: Vec<_> = files
                .iter()
                .map(|file| scope.spawn(|| read_until_error(file, expected, &reading)))
                .collect();
            eventually("all of them read", || {
                (reading.load(Ordering::SeqCst) == READERS).then_some(())
            });
            mount.signal(Signal::SIGKILL);
            let killed = Instant::now();
            for reader in readers {
                let (errno, at) = reader.join().unwrap();
                let expected = crate::support::GONE;
                assert!(expected.contains(&errno), "errno {errno}");
                slowest[0] = slowest[0].max(at.saturating_duration_since(killed));
            }
            eventually("the mount is gone", || {
                (!is_mounted(mount.point())).then_some(())
            });
            slowest[1] = slowest[1].max(killed.elapsed());
        });
        mount.wait();
        drop(files);
        let started = Instant::now();
        run(Command::new(daemon_binary()).arg(mount.point()))
            .success()
            .quiet();
        assert!(mount.path("stats").exists());
        slowest[2] = slowest[2].max(started.elapsed());
        unmount(mount.point());
    }
    measured("the slowest reader", slowest[0]);
    measured("until the mount was gone", slowest[1]);
    measured("the slowest mount in its place", slowest[2]);
    assert!(slowest[0] < BUSY, "{slowest:?}");
}
