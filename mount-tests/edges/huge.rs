//! Huge pages of hugetlbfs, whose files know no holes.

use std::os::unix::fs::FileExt;
use std::process::Command;
use std::time::Duration;

use crate::support::{
    Footprint, Mount, PAGE, Region, Target, Turn, assert_bytes, eventually, extents, held, open,
    pattern, run_within, tests,
};

tests![
    reserved_huge_pages_are_holes: [Need::Root],
    huge_pages_of_another_process_are_read: [Need::Root],
    a_snapshot_holds_huge_pages: [Need::Root],
];

const GIB: usize = 1 << 30;
const HUGE_PAGE: usize = 2 << 20;
const LIMIT: Duration = Duration::from_secs(20);

/// Huge pages of the system, which all tests share. Given back when dropped.
struct HugePages {
    before: usize,
    /// A page that the target has not touched yet is anybody's: who finds none left is killed.
    _turn: Turn,
}

const COUNT: &str = "/proc/sys/vm/nr_hugepages";

impl HugePages {
    /// Adds pages until as many are free, and promised to nobody.
    fn reserve(count: usize) -> Self {
        let turn = Turn::at(COUNT);
        let pages = Self {
            before: number(COUNT, ""),
            _turn: turn,
        };
        // The kernel gives as many as it finds, and says so by their number alone.
        pages.add_up_to(count);
        eventually("so many huge pages", || {
            if Self::free() < count {
                std::fs::write("/proc/sys/vm/compact_memory", "1").unwrap();
                pages.add_up_to(count);
            }
            (Self::free() >= count).then_some(())
        });
        pages
    }

    fn add_up_to(&self, free: usize) {
        let wanted = self.before + free.saturating_sub(Self::free());
        if wanted > number(COUNT, "") {
            std::fs::write(COUNT, wanted.to_string()).unwrap();
        }
    }

    fn free() -> usize {
        let field = |name| number("/proc/meminfo", name);
        field("HugePages_Free:").saturating_sub(field("HugePages_Rsvd:"))
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        let _ = std::fs::write(COUNT, self.before.to_string());
    }
}

/// The number after `name` at the start of a line.
#[track_caller]
fn number(path: &str, name: &str) -> usize {
    let text = std::fs::read_to_string(path).unwrap();
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(name));
    lines.next().unwrap().trim().parse().unwrap()
}

/// 64 GiB with one huge page: `cp` and `grep` pass over what was never there, of all three kinds.
fn reserved_huge_pages_are_holes() {
    let _pages = HugePages::reserve(3);
    for kind in ["private", "shared", "sysv"] {
        let mut target = Target::new();
        let region = Region::parse(&target.ask(&format!("huge {kind} {}", 64 * GIB))).unwrap();
        let mount = Mount::new("");
        let before = Footprint::of(target.pid());
        let path = mount.mapping(target.pid(), region.start, region.end);
        assert_eq!(held(&path), HUGE_PAGE as u64, "{kind}");
        let file = open(&path);
        let third = (2 * HUGE_PAGE as u64, 3 * HUGE_PAGE as u64);
        assert_eq!(extents(&file), [third], "{kind}");
        let copy = mount.outside().join("copy");
        let mut cp = Command::new("cp");
        cp.arg("--sparse=always").arg(&path).arg(&copy);
        run_within(LIMIT, &mut cp).success().quiet();
        let mut grep = Command::new("grep");
        let output = run_within(LIMIT, grep.args(["-c", "never there"]).arg(&path));
        assert_eq!(output.stdout, b"0\n", "{kind}");
        let expected = pattern::bytes(region.start as u64 + third.0, PAGE, 1);
        let mut bytes = vec![0; PAGE];
        for file in [&file, &open(&copy)] {
            file.read_exact_at(&mut bytes, third.0).unwrap();
            assert_bytes(kind, &bytes, &expected);
            file.read_exact_at(&mut bytes, 40 * GIB as u64).unwrap();
            assert_bytes(kind, &bytes, &[0; PAGE]);
        }
        assert_eq!(Footprint::of(target.pid()), before, "{kind}");
    }
}

/// A page that only another process has brought in is there all the same.
fn huge_pages_of_another_process_are_read() {
    let _pages = HugePages::reserve(2);
    let mut target = Target::new();
    let region = Region::parse(&target.ask(&format!("huge shared {}", 16 * HUGE_PAGE))).unwrap();
    let fifth = region.start + 5 * HUGE_PAGE;
    target.ask(&format!("poke-child {fifth:x}"));
    let mount = Mount::new("");
    let before = Footprint::of(target.pid());
    let file = open(&mount.mapping(target.pid(), region.start, region.end));
    let mut bytes = vec![0; PAGE];
    file.read_exact_at(&mut bytes, 5 * HUGE_PAGE as u64)
        .unwrap();
    assert_eq!(bytes[0], b'c', "what the child wrote");
    let extents = extents(&file);
    let holds = |at: usize| {
        let at = (at * HUGE_PAGE) as u64;
        extents.iter().any(|(data, hole)| *data <= at && at < *hole)
    };
    assert!(holds(2) && holds(5), "{extents:?}");
    assert_eq!(extents.len(), 2, "{extents:?}");
    assert_eq!(Footprint::of(target.pid()), before);
}

/// SEMANTICS: a snapshot holds the huge pages that there were, of all three kinds, also after the end of the process and of the object.
fn a_snapshot_holds_huge_pages() {
    let _pages = HugePages::reserve(3);
    for kind in ["private", "shared", "sysv"] {
        let mut target = Target::new();
        let region = Region::parse(&target.ask(&format!("huge {kind} {}", 64 * GIB))).unwrap();
        let mount = Mount::new("");
        let copy = mount.path(format!("snap/{}@x", target.pid()));
        std::fs::create_dir(&copy).unwrap();
        let live = mount.mapping(target.pid(), region.start, region.end);
        let name = live.file_name().unwrap().to_owned();
        let expected = pattern::bytes(region.start as u64 + 2 * HUGE_PAGE as u64, PAGE, 1);
        target.kill();
        let file = open(&copy.join(name));
        assert_eq!(file.metadata().unwrap().len(), 64 * GIB as u64, "{kind}");
        let third = (2 * HUGE_PAGE as u64, 3 * HUGE_PAGE as u64);
        assert_eq!(extents(&file), [third], "{kind}");
        let mut bytes = vec![0; PAGE];
        file.read_exact_at(&mut bytes, third.0).unwrap();
        assert_bytes(kind, &bytes, &expected);
        file.read_exact_at(&mut bytes, 40 * GIB as u64).unwrap();
        assert_bytes(kind, &bytes, &[0; PAGE]);
        drop(file);
        std::fs::remove_dir(&copy).unwrap();
    }
}
