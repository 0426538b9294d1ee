//! Memory that a `userfaultfd` handler fills in as it is touched (VM restore, lazily restored checkpoints).

use std::os::unix::fs::FileExt;

use super::{compare, pages};
use crate::support::{Mount, PAGE, Region, Target, assert_bytes, extents, open, pattern, tests};

tests![
    absent_pages_under_a_userfaultfd_are_unknown: [Need::Root],
    memory_beside_it_is_known: [Need::Root],
];

/// What is absent is neither zeros nor what its object holds: it is an error and a hole.
fn absent_pages_under_a_userfaultfd_are_unknown() {
    let shapes = [
        ("missing", "reserve"),
        ("missing", "shared"),
        ("minor", "object big"),
    ];
    for (mode, shape) in shapes {
        for options in ["", "cache_ttl=0", "threads=1"] {
            let mut target = Target::new();
            let count = if shape == "reserve" { " 0" } else { "" };
            let answer = target.ask(&format!("{shape} {}{count}", 8 * PAGE));
            let region = Region::parse(&answer).unwrap();
            target.ask(&format!("fill {:x} {PAGE}", region.start + 5 * PAGE));
            let place = format!("{:x} {}", region.start, region.len());
            target.ask(&format!("register {mode} {place}"));
            let mount = Mount::new(options);
            let found = pages(&mount, &target, &region);
            let expected = pattern::bytes((region.start + 5 * PAGE) as u64, PAGE, 1);
            for (index, page) in found.iter().enumerate() {
                match page {
                    Some(bytes) => assert_bytes(mode, bytes, &expected),
                    None => assert_ne!(index, 5, "{mode} {shape}"),
                }
            }
            assert_eq!(found.iter().flatten().count(), 1, "{mode} {shape}");
            let path = mount.mapping(target.pid(), region.start, region.end);
            let place = (5 * PAGE as u64, 6 * PAGE as u64);
            assert_eq!(extents(&open(&path)), [place], "{mode} {shape}");
            assert!(mount.log().contains("userfaultfd"), "{}", mount.log());
        }
    }
}

/// The process may have other memory, and that stays known.
fn memory_beside_it_is_known() {
    let mut target = Target::new();
    target.ask("userfault");
    let region = Region::parse(&target.ask(&format!("reserve {} 0", 8 * PAGE))).unwrap();
    let mount = Mount::new("");
    let found = pages(&mount, &target, &region);
    assert!(found.iter().all(Option::is_some));
    compare(&target, &region, &found, |_| false);
    let named = open(&mount.file(&target, "sparse_private"));
    let mut bytes = vec![1; PAGE];
    named.read_exact_at(&mut bytes, 7 * PAGE as u64).unwrap();
    assert_bytes("absent memory", &bytes, &[0; PAGE]);
}
