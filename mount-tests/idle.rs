//! A daemon that nobody asks for anything.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::support::{
    Mount, Target, descriptors, eventually, field, of_threads, open, pread_all, run_within, tests,
};

tests![
    an_idle_daemon_holds_no_descriptor_of_a_target_and_sleeps: [Need::Ptrace],
    descriptors_of_open_files_stay: [Need::Ptrace],
];

const LIMIT: Duration = Duration::from_secs(30);

/// Descriptors of the daemon that lead to any process.
fn of_targets(mount: &Mount) -> Vec<PathBuf> {
    let mut links = descriptors(mount.daemon());
    links.retain(|link| {
        let link = link.to_string_lossy();
        let is_pidfd = link.contains("pidfd");
        let is_memfd = link.contains("memfd") && !link.contains("procmemfs-ring");
        is_pidfd || link.starts_with("/proc/") || link.contains(".bin") || is_memfd
    });
    links
}

/// How often the daemon's threads went to sleep, all together.
fn switches(mount: &Mount) -> u64 {
    let statuses = of_threads(mount.daemon(), "status");
    let switches = statuses
        .iter()
        .filter_map(|status| field(status, "voluntary_ctxt_switches:"));
    switches.map(|number| number.parse::<u64>().unwrap()).sum()
}

/// About a second after the last request nothing is open of any target, dead or alive, and nobody
/// wakes any more.
fn an_idle_daemon_holds_no_descriptor_of_a_target_and_sleeps() {
    for options in ["", "cache_ttl=10s"] {
        let mount = Mount::new(options);
        let targets: Vec<Target> = (0..4).map(Target::of_generation).collect();
        for target in &targets {
            for region in ["private", "file_shared", "memfd", "deleted"] {
                std::fs::read(mount.file(target, region)).unwrap();
            }
            let mut getfattr = Command::new("getfattr");
            getfattr.arg("-d").arg(mount.process(target.pid()));
            run_within(LIMIT, &mut getfattr).success();
        }
        let held = open(&mount.file(&targets[0], "private"));
        assert!(!of_targets(&mount).is_empty(), "one is in use");
        drop(held);
        let mut targets = targets.into_iter();
        drop((targets.next(), targets.next()));
        eventually("nothing is left open", || {
            of_targets(&mount).is_empty().then_some(())
        });
        // Once the last timers of the last request have gone off, however late.
        eventually("nobody wakes", || {
            let before = switches(&mount);
            std::thread::sleep(Duration::from_secs(2));
            (switches(&mount) == before).then_some(())
        });
        assert_eq!(of_targets(&mount), Vec::<PathBuf>::new());
    }
}

/// A file that is open goes on to show its program, however long nobody asks.
fn descriptors_of_open_files_stay() {
    let mount = Mount::new("cache_ttl=0");
    let mut target = Target::new();
    let file = open(&mount.file(&target, "private"));
    std::thread::sleep(Duration::from_millis(2500));
    assert!(!of_targets(&mount).is_empty(), "they are in use");
    let start = target.region("private").start;
    target.write(start, b"later");
    assert_eq!(pread_all(&file, 0, 5), b"later");
    drop(file);
    eventually("nothing is left open", || {
        of_targets(&mount).is_empty().then_some(())
    });
}
