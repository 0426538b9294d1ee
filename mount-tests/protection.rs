//! A kernel that was started with `proc_mem.force_override=never` (Linux 6.12): `/proc/PID/mem` obeys the protection
//! of mappings there.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Command;

use procmemfs::target::live::Feature;

use crate::support::{
    Footprint, Inside, Mount, PAGE, Target, assert_bytes, expect_errno, extents, open, open_rw,
    pread, run, tests,
};
use crate::xattr::text;

tests![
    memory_without_r_is_a_hole_and_an_error,
    other_memory_is_read_and_written_as_ever,
    copies_go_over_memory_without_r: [Need::Tool("cp")],
];

fn restricted(options: &str) -> Inside {
    Inside::without(&[Feature::ForcedAccess], options)
}

/// Pages of `PROT_NONE` that are in memory are holes to `lseek`, `EIO` to a read, zeros with `fault=zero`, and counted as
/// unreadable; the target notices nothing. A mapping that may be read by then is read.
fn memory_without_r_is_a_hole_and_an_error() {
    for options in ["", "cache_ttl=0", "touch"] {
        let mut target = Target::new();
        let region = target.region("noaccess");
        let before = Footprint::of(target.pid());
        let mount = Mount::new("");
        let path = mount.file(&target, "noaccess");
        let inside = restricted(options);
        let same = inside.same(&mount, &path);
        let file = open(&same);
        if options != "touch" {
            assert_eq!(extents(&file), []);
            let unreadable = text(&same, "unreadable_bytes");
            assert_eq!(unreadable, region.len().to_string());
        }
        for offset in [0, PAGE + 1, region.len() - 1] {
            let read = pread(&file, offset, PAGE);
            expect_errno(&format!("{options:?} at {offset}"), read, libc::EIO);
        }
        let whole = open(&inside.point().join(format!("mem/{}", target.pid())));
        expect_errno("mem/PID", pread(&whole, region.start, PAGE), libc::EIO);
        // Elsewhere its bytes are shown.
        assert_bytes(
            "",
            &std::fs::read(&path).unwrap(),
            &target.bytes("noaccess"),
        );
        if options != "touch" {
            assert_eq!(Footprint::of(target.pid()), before, "{options:?}");
        }
        let (start, len) = (region.start, region.len());
        target.ask(&format!("protect {start:x} {len} r--"));
        let now = pread(&file, 0, PAGE).unwrap();
        assert_bytes("r by now", &now, &target.bytes("noaccess")[..PAGE]);
    }
    let target = Target::new();
    let mount = Mount::new("");
    let zeros = restricted("fault=zero");
    let same = zeros.same(&mount, &mount.file(&target, "noaccess"));
    let read = std::fs::read(same).unwrap();
    assert_bytes("zeros", &read, &vec![0; target.region("noaccess").len()]);
}

/// What may be read is read, what may be written is written, also with `force`, which passes over nothing there.
fn other_memory_is_read_and_written_as_ever() {
    let mut target = Target::new();
    let mount = Mount::new("write,force");
    let inside = restricted("write,force");
    for region in ["private", "readonly", "shared", "memfd", "file_private"] {
        let path = inside.same(&mount, &mount.file(&target, region));
        let read = std::fs::read(path).unwrap();
        let expected = target.bytes(region);
        assert_bytes(region, &read[..expected.len()], &expected);
    }
    let file_of = |region: &str| -> File {
        open_rw(&inside.same(&mount, &mount.file(&target, region))).unwrap()
    };
    let (private, readonly) = (file_of("private"), file_of("readonly"));
    private.write_all_at(b"written", 100).unwrap();
    expect_errno(
        "a write to r--",
        readonly.write_at(b"written", 100),
        libc::EIO,
    );
    let region = target.region("private");
    assert_bytes("private", &target.read(region.start + 100, 7), b"written");
    let (region, bytes) = (target.region("readonly"), target.bytes("readonly"));
    assert_bytes("readonly", &target.read(region.start, PAGE), &bytes[..PAGE]);
}

/// A sparse copy of all mappings of a process ends well.
fn copies_go_over_memory_without_r() {
    let target = Target::new();
    let mount = Mount::new("");
    let inside = restricted("");
    let copy = mount.outside().join("copy");
    let from = inside.point().join(target.pid().to_string());
    run(Command::new("cp")
        .args(["-r", "--sparse=always"])
        .arg(from)
        .arg(&copy))
    .success()
    .quiet();
    let copied = |region: &str| {
        let path = mount.file(&target, region);
        std::fs::read(copy.join(path.file_name().unwrap())).unwrap()
    };
    let hidden = vec![0; target.region("noaccess").len()];
    assert_bytes("noaccess", &copied("noaccess"), &hidden);
    assert_bytes("private", &copied("private"), &target.bytes("private"));
}
