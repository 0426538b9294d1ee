//! A file is not opened where that would break a lease: its holder is told by a signal, which kills who does
//! not expect it.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;

use super::{compare, page, pages};
use crate::support::{Mount, PAGE, Region, Target, assert_bytes, eventually, pattern, run, tests};

tests![
    a_target_that_holds_a_lease_survives: [Need::Root],
    a_lease_of_somebody_else_is_not_broken: [Need::Root],
    files_are_held_for_a_request_only: [Need::Root],
];

const LEN: usize = 16 * PAGE;

/// Lets a target map a file that it never touches, and keep it open under the same name.
fn with_file(target: &mut Target) -> (PathBuf, Region) {
    let path = target.dir().join("leased.bin");
    std::fs::write(&path, pattern::bytes(0, LEN, 9)).unwrap();
    let region = Region::parse(&target.ask(&format!("reserve {LEN} 0"))).unwrap();
    // A lease is given where the file is open once only.
    target.ask(&format!("open leased {}", path.display()));
    target.ask(&format!("lay leased {:x} {LEN} private rw", region.start));
    (path, region)
}

/// Whether a process holds a lease that nobody has broken.
fn holds_lease(pid: u32) -> bool {
    let locks = std::fs::read_to_string("/proc/locks").unwrap();
    let holder = format!(" {pid} ");
    let mut leases = locks.lines().filter(|line| line.contains("LEASE"));
    leases.any(|line| line.contains("ACTIVE") && line.contains(&holder))
}

/// The bytes come from the descriptor that the target has.
fn a_target_that_holds_a_lease_survives() {
    let mut target = Target::new();
    let (_, region) = with_file(&mut target);
    target.ask("lease leased");
    let mount = Mount::new("");
    let found = pages(&mount, &target, &region);
    assert!(found.iter().all(Option::is_some), "it has a descriptor");
    let file = mount.mapping(target.pid(), region.start, region.end);
    let copy = mount.outside().join("copy");
    run(Command::new("cp")
        .arg("--sparse=always")
        .arg(&file)
        .arg(&copy))
    .success()
    .quiet();
    assert_bytes(
        "a copy",
        &std::fs::read(&copy).unwrap(),
        &pattern::bytes(0, LEN, 9),
    );
    assert!(holds_lease(target.pid()));
    // It is still there to answer.
    target.ask("read 100000000000 8");
    compare(&target, &region, &found, |_| false);
}

/// A child has the mapping and no descriptor: what it has not touched cannot be known without harm to its parent.
fn a_lease_of_somebody_else_is_not_broken() {
    let mut holder = Target::new();
    let (_, region) = with_file(&mut holder);
    holder.write(region.start + 3 * PAGE, b"changed");
    holder.ask("lease leased");
    let child: u32 = holder.ask("fork-closing leased").parse().unwrap();
    let mount = Mount::new("");
    let read = || {
        let file = crate::support::open(&mount.mapping(child, region.start, region.end));
        (0..LEN / PAGE)
            .map(|index| page(&file, index * PAGE))
            .collect::<Vec<_>>()
    };
    let found = read();
    assert!(
        found[3]
            .as_ref()
            .is_some_and(|bytes| bytes.starts_with(b"changed"))
    );
    assert_eq!(found.iter().flatten().count(), 1);
    assert!(mount.log().contains("lease"), "{}", mount.log());
    assert!(holds_lease(holder.pid()));
    holder.ask("read 100000000000 8");
    holder.ask("release leased");
    // Leases are believed for a second.
    eventually("no lease, no harm", || {
        (read().iter().flatten().count() == LEN / PAGE).then_some(())
    });
}

/// A file of another file system is not held: that can be unmounted while the mount's file stays open.
fn files_are_held_for_a_request_only() {
    let mut target = Target::new();
    let (path, region) = with_file(&mut target);
    target.ask("close leased");
    let mount = Mount::new("");
    let file = File::open(mount.mapping(target.pid(), region.start, region.end)).unwrap();
    let mut bytes = [0; 8];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, 0).unwrap();
    assert_bytes("the file", &bytes, &pattern::bytes(0, 8, 9));
    let descriptors = format!("/proc/{}/fd", mount.daemon());
    let held = std::fs::read_dir(descriptors).unwrap();
    let held = held.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    assert!(
        !held.into_iter().any(|held| held == path),
        "the daemon holds {path:?}"
    );
}
