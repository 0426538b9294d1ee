//! The same over and over: nothing is left of it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::{
    Footprint, Mount, PAGE, Stats, Target, assert_bytes, current_test, eventually, measured,
    rounds, tests,
};

tests![
    processes_come_and_go_and_nothing_is_left: [Need::Root],
    operations_leave_nothing: [Need::Root],
];

/// Memory that the daemon may take beyond its cache, in KiB (docs/ARCHITECTURE.md, Memory).
const BOUND: u64 = 32 << 10;

/// The cache of these mounts, in KiB.
const CACHE: u64 = 16 << 10;

/// What a daemon holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    descriptors: usize,
    threads: usize,
    inodes: u64,
}

fn held(mount: &Mount) -> Held {
    let count = |what: &str| {
        let dir = format!("/proc/{}/{what}", mount.daemon());
        std::fs::read_dir(dir).unwrap().count()
    };
    Held {
        descriptors: count("fd"),
        threads: mount.threads(),
        inodes: Stats::of(mount).get("inodes"),
    }
}

/// What it holds once it is idle, and the kernel has forgotten what it can.
#[track_caller]
fn idle(mount: &Mount) -> Held {
    // Of the whole machine, which other tests would notice: in the long form alone.
    let forget = || {
        if rounds(0, 1) == 1 {
            std::fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
        }
    };
    eventually("it is idle", || {
        forget();
        let before = held(mount);
        std::thread::sleep(Duration::from_millis(1200));
        forget();
        let now = held(mount);
        (now == before).then_some(now)
    })
}

fn mounted() -> Mount {
    Mount::new("write,cache_size=16M")
}

#[track_caller]
fn nothing_is_left(mount: &Mount, before: Held) {
    eventually("all is back to where it was", || {
        let now = idle(mount);
        (now.descriptors <= before.descriptors
            && now.threads <= before.threads
            && (rounds(0, 1) == 0 || now.inodes <= before.inodes))
            .then_some(())
    });
    let resident = Footprint::of(mount.daemon()).rss;
    eprintln!(
        "[{}] resident: {resident} KiB, {:?}",
        current_test(),
        held(mount)
    );
    assert!(resident <= CACHE + BOUND, "{resident} KiB resident");
}

/// Processes that are looked at, and gone.
fn processes_come_and_go_and_nothing_is_left() {
    let mount = mounted();
    let visit = || {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let dir = mount.process(child.id());
        // It may be on its way from one program to the next: any answer will do.
        if let Ok(entries) = std::fs::read_dir(&dir) {
            for entry in entries.flatten().take(4) {
                let file = File::open(entry.path());
                let _ = file.and_then(|file| file.read_at(&mut [0; PAGE], 0));
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
    };
    for _ in 0..20 {
        visit();
    }
    let before = idle(&mount);
    let (started, count) = (Instant::now(), rounds(200, 20_000));
    for _ in 0..count {
        visit();
    }
    measured(&format!("{count} processes"), started.elapsed());
    nothing_is_left(&mount, before);
}

/// Operations on one process by two at a time.
fn operations_leave_nothing() {
    let target = Target::new();
    let mount = mounted();
    let path = mount.file(&target, "scratch");
    let expected = target.bytes("scratch");
    let process = mount.process(target.pid());
    let some = |count: u64, seed: u64| {
        let mut file = File::options().read(true).write(true).open(&path).unwrap();
        let buffered = File::open(&path).unwrap();
        for number in 0..count {
            let number = number * 2 + seed;
            let at = (number * 7919 % 2047) as usize * PAGE + (number % 4000) as usize;
            let len = 1 + (number % 64) as usize;
            let mut bytes = vec![0; len];
            match number / 2 % 1000 {
                0 => file = File::options().read(true).write(true).open(&path).unwrap(),
                1 => assert!(std::fs::read_dir(&process).unwrap().count() > 5),
                2 => drop(path.metadata().unwrap()),
                3..20 => file
                    .write_all_at(&expected[at..at + len], at as u64)
                    .unwrap(),
                20..120 => file.read_exact_at(&mut bytes, at as u64).unwrap(),
                _ => buffered.read_exact_at(&mut bytes, at as u64).unwrap(),
            }
            if number / 2 % 1000 >= 20 {
                assert_bytes("a read", &bytes, &expected[at..at + len]);
            }
        }
    };
    some(1000, 0);
    let before = idle(&mount);
    let (started, count) = (Instant::now(), rounds(20_000, 10_000_000));
    std::thread::scope(|scope| {
        scope.spawn(|| some(count / 2, 0));
        scope.spawn(|| some(count / 2, 1));
    });
    measured(&format!("{count} operations"), started.elapsed());
    nothing_is_left(&mount, before);
}
