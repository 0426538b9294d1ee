//! Entries of the page table that are neither empty nor present, and no swap either.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use super::{compare, page, pages};
use crate::plain;
use crate::support::{
    Footprint, Mount, PAGE, Region, Target, Turn, assert_bytes, eventually, extents, held, open,
    pattern, run, tests,
};
use crate::users::USER;

tests![
    write_protected_memory_that_was_never_touched_is_a_hole: [Need::Root],
    write_protected_memory_of_a_plain_user_is_a_hole: [Need::PlainUser],
    poisoned_and_guarded_pages_are_errors: [Need::Root],
    swapped_pages_are_read: [Need::Root, Need::Tool("mkswap"), Need::Tool("swapon")],
];

const GIB: usize = 1 << 30;

/// A shared memory object of a gibibyte under write protection, as virtual machines and Wine
/// have it: a sparse copy allocates nothing of it.
fn write_protected_memory_that_was_never_touched_is_a_hole() {
    for mode in ["protect", "async"] {
        for shape in ["object big", "shared", "reserve"] {
            let mut target = Target::new();
            let count = if shape == "reserve" { " 0" } else { "" };
            let region = Region::parse(&target.ask(&format!("{shape} {GIB}{count}"))).unwrap();
            let third = region.start + 2 * PAGE;
            target.ask(&format!("fill {third:x} {PAGE}"));
            let place = format!("{:x} {}", region.start, region.len());
            target.ask(&format!("register {mode} {place}"));
            target.ask(&format!("write-protect {place}"));
            is_sparse(&Mount::new(""), &target, &region, shape);
        }
    }
}

/// The kernel hides from a plain user what the entries are; of shared memory it is known all the same.
fn write_protected_memory_of_a_plain_user_is_a_hole() {
    let mut target = Target::of_user(USER);
    let region = Region::parse(&target.ask(&format!("object big {GIB}"))).unwrap();
    let third = region.start + 2 * PAGE;
    target.ask(&format!("fill {third:x} {PAGE}"));
    let place = format!("{:x} {}", region.start, region.len());
    target.ask(&format!("register async {place}"));
    target.ask(&format!("write-protect {place}"));
    let before = Footprint::of(target.pid());
    let file = plain::file(&region);
    let script = format!(
        "copy=$(mktemp); du --block-size=1 {file} | cut -f1; cp --sparse=always {file} $copy && \
         tail -c +{} $copy | head -c {PAGE} | cksum; rm $copy",
        2 * PAGE + 1
    );
    let output = plain::over_a_mount(&target, "cache_ttl=0", &script);
    let output = output.success().quiet();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines = text.lines();
    let blocks: usize = lines.next().unwrap().parse().unwrap();
    assert!(blocks <= 2 * PAGE, "{blocks} bytes");
    let expected = pattern::bytes(third as u64, PAGE, 1);
    let path = target.dir().join("expected");
    std::fs::write(&path, expected).unwrap();
    let expected = run(Command::new("cksum").stdin(std::fs::File::open(&path).unwrap()));
    let expected = String::from_utf8_lossy(&expected.success().stdout).into_owned();
    assert_eq!(lines.next().map(str::trim), Some(expected.trim()));
    assert_eq!(Footprint::of(target.pid()), before);
}

#[track_caller]
fn is_sparse(mount: &Mount, target: &Target, region: &Region, what: &str) {
    let before = Footprint::of(target.pid());
    let path = mount.mapping(target.pid(), region.start, region.end);
    assert!(
        held(&path) <= 2 * PAGE as u64,
        "{what}: {} bytes",
        held(&path)
    );
    let file = open(&path);
    let third = (2 * PAGE) as u64;
    assert_eq!(extents(&file), [(third, third + PAGE as u64)], "{what}");
    let copy = mount.outside().join("copy");
    let mut cp = Command::new("cp");
    run(cp.arg("--sparse=always").arg(&path).arg(&copy))
        .success()
        .quiet();
    let copy = open(&copy);
    let expected = pattern::bytes(region.start as u64 + third, PAGE, 1);
    assert_bytes(what, &page(&copy, 2 * PAGE).unwrap(), &expected);
    assert_bytes(what, &page(&copy, 3 * PAGE).unwrap(), &[0; PAGE]);
    assert_bytes(what, &page(&file, GIB - PAGE).unwrap(), &[0; PAGE]);
    assert_eq!(Footprint::of(target.pid()), before, "{what}");
}

/// Touching such a page kills the target: nobody can read it, and so it is an error and no zeros.
fn poisoned_and_guarded_pages_are_errors() {
    for (command, shape) in [
        ("poison", "reserve"),
        ("poison", "shared"),
        ("guard", "reserve"),
    ] {
        let mut target = Target::new();
        let count = if shape == "reserve" { " 0" } else { "" };
        let region = Region::parse(&target.ask(&format!("{shape} {}{count}", 8 * PAGE))).unwrap();
        target.ask(&format!("fill {:x} {PAGE}", region.start));
        target.ask(&format!("fill {:x} {PAGE}", region.start + 7 * PAGE));
        let place = format!("{:x} {}", region.start + 2 * PAGE, 2 * PAGE);
        if command == "poison" {
            let whole = format!("{:x} {}", region.start, region.len());
            target.ask(&format!("register poison {whole}"));
        }
        target.ask(&format!("{command} {place}"));
        let mount = Mount::new("");
        let found = pages(&mount, &target, &region);
        let path = mount.mapping(target.pid(), region.start, region.end);
        let places = [(0, PAGE as u64), (7 * PAGE as u64, 8 * PAGE as u64)];
        assert_eq!(extents(&open(&path)), places, "{command} {shape}");
        compare(&target, &region, &found, |index| index == 2 || index == 3);
    }
}

/// A swap area of a few mebibytes. Switched off when dropped.
struct SwapArea {
    dir: tempfile::TempDir,
    /// Whoever switches an area off brings back what is in it, whosever that is.
    _turn: Turn,
}

impl SwapArea {
    fn new() -> Self {
        let area = Self {
            dir: tempfile::tempdir().unwrap(),
            _turn: Turn::at("/proc/swaps"),
        };
        let path = area.path();
        std::fs::write(&path, vec![0; 16 << 20]).unwrap();
        run(Command::new("chmod").arg("0600").arg(&path)).success();
        run(Command::new("mkswap").arg(&path)).success();
        run(Command::new("swapon").arg(&path)).success();
        area
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("swap")
    }
}

impl Drop for SwapArea {
    fn drop(&mut self) {
        let _ = Command::new("swapoff").arg(self.path()).status();
    }
}

/// Whether a page that was touched is in swap, by its entry in `pagemap`.
fn is_in_swap(pid: u32, address: usize) -> bool {
    let pagemap = open(Path::new(&format!("/proc/{pid}/pagemap")));
    let mut entry = [0; 8];
    let at = (address / PAGE * entry.len()) as u64;
    pagemap.read_exact_at(&mut entry, at).unwrap();
    u64::from_ne_bytes(entry) >> 62 & 1 == 1
}

/// Pages in swap are data, also under write protection, and not taken for markers.
fn swapped_pages_are_read() {
    const PAGE_OUT: i32 = 21;
    let _area = SwapArea::new();
    for protect in [false, true] {
        let mut target = Target::new();
        target.stay_on_one_cpu();
        let region = Region::parse(&target.ask(&format!("reserve {} 0", 16 * PAGE))).unwrap();
        let place = |first: usize, count: usize| {
            format!("{:x} {}", region.start + first * PAGE, count * PAGE)
        };
        target.ask(&format!("fill {}", place(2, 3)));
        if protect {
            target.ask(&format!("register async {}", place(0, 16)));
            target.ask(&format!("write-protect {}", place(0, 16)));
        }
        // Advice, and no order: a page that somebody holds for a moment stays.
        eventually("three pages of the target are in swap", || {
            target.ask(&format!("advise {} {PAGE_OUT}", place(2, 3)));
            let mut pages = (2..5).map(|index| region.start + index * PAGE);
            pages
                .all(|page| is_in_swap(target.pid(), page))
                .then_some(())
        });
        let mount = Mount::new("");
        let path = mount.mapping(target.pid(), region.start, region.end);
        assert_eq!(held(&path), 3 * PAGE as u64);
        let file = open(&path);
        assert_eq!(extents(&file), [(2 * PAGE as u64, 5 * PAGE as u64)]);
        for index in 0..16 {
            let at = region.start + index * PAGE;
            let expected = match index {
                2..5 => pattern::bytes(at as u64, PAGE, 1),
                _ => vec![0; PAGE],
            };
            assert_bytes("a page", &page(&file, index * PAGE).unwrap(), &expected);
        }
    }
}
