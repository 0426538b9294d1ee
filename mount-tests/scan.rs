//! A kernel without `PAGEMAP_SCAN` (before 6.7).

use std::fs::File;

use procmemfs::target::live::Feature;

use crate::support::{
    Footprint, Inside, Mount, PAGE, Region, Target, assert_bytes, extents, held, open, pread_all,
    tests,
};

tests![
    without_the_scan_bytes_and_holes_are_the_same: [Need::Root],
    without_the_scan_a_large_reservation_is_passed_over,
];

/// The bytes of the stretches of data of a file.
fn data(file: &File) -> Vec<Vec<u8>> {
    let extents = extents(file);
    let parts = extents.iter();
    parts
        .map(|(start, end)| pread_all(file, *start as usize, (end - start) as usize))
        .collect()
}

/// For every mapping of a target, and for its whole address space: the same
/// size, the same holes, the same bytes as with the scan.
fn without_the_scan_bytes_and_holes_are_the_same() {
    let mut target = Target::new();
    let pid = target.pid();
    let holes = Region::parse(&target.ask(&format!("reserve {} 300", 64 << 20))).unwrap();
    let zeros = Region::parse(&target.ask(&format!("reserve {} 0", 600 * PAGE))).unwrap();
    for page in (1..600).step_by(2) {
        target.ask(&format!("fill {:x} {PAGE}", zeros.start + page * PAGE));
    }
    let object = Region::parse(&target.ask(&format!("object odd {}", 64 << 20))).unwrap();
    target.ask(&format!("put odd {:x} 40960 20480", object.start));
    target.ask(&format!("fill {:x} {PAGE}", object.start + 20 * PAGE));
    target.ask(&format!("protect {:x} {} ---", holes.start, 1 << 20));
    let before = Footprint::of(pid);
    for options in ["", "cache_ttl=0"] {
        let mount = Mount::new(options);
        let scanless = Inside::without(&[Feature::PagemapScan], options);
        let names = mount.names(pid);
        for name in names.iter().filter(|name| name.contains('-')) {
            let path = mount.process(pid).join(name);
            let other = scanless.same(&mount, &path);
            let (file, other_file) = (open(&path), open(&other));
            let size = file.metadata().unwrap().len();
            assert_eq!(other_file.metadata().unwrap().len(), size, "size of {name}");
            assert_eq!(extents(&other_file), extents(&file), "holes of {name}");
            assert_eq!(held(&other), held(&path), "blocks of {name}");
            for (got, expected) in data(&other_file).iter().zip(data(&file)) {
                assert_bytes(name, got, &expected);
            }
            if size <= 64 << 20 {
                let all = std::fs::read(&path).unwrap();
                assert_bytes(name, &std::fs::read(&other).unwrap(), &all);
            }
        }
    }
    assert_eq!(Footprint::of(pid), before);
}

/// Page by page a larger reservation takes longer, and is as sparse.
fn without_the_scan_a_large_reservation_is_passed_over() {
    let mut target = Target::new();
    let answer = target.ask(&format!("reserve {} 100", 4_usize << 30));
    let region = Region::parse(&answer).unwrap();
    let before = Footprint::of(target.pid());
    let mount = Mount::new("");
    let scanless = Inside::without(&[Feature::PagemapScan], "");
    let path = mount.mapping(target.pid(), region.start, region.end);
    let other = scanless.same(&mount, &path);
    let found = extents(&open(&other));
    assert_eq!(found, extents(&open(&path)));
    assert_eq!(found.len(), 100);
    assert_eq!(held(&other), (100 * PAGE) as u64);
    assert_eq!(Footprint::of(target.pid()), before);
}
