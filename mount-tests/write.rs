//! Writes: exact, seen by the target, and refused where they must be.

use std::os::unix::fs::FileExt;
use std::process::Command;

use crate::support::{
    Mount, MountPoint, PAGE, Target, assert_bytes, daemon_binary, eventually, expect_errno, open,
    open_flags, open_rw, pread_all, quote, run, sh, tests,
};

tests![
    the_target_sees_what_was_written,
    large_writes_are_exact,
    dd_patches_in_place: [Need::Tool("dd")],
    cp_into_a_mapping_and_o_trunc_change_no_size: [Need::Tool("cp")],
    without_write_a_mapping_cannot_be_opened_for_writing,
    a_remount_makes_nothing_writable: [Need::Root, Need::Tool("mount")],
    without_w_a_mapping_cannot_be_opened_for_writing,
    force_writes_where_the_protection_forbids_it,
    no_byte_is_written_past_the_end,
    writes_to_a_hole_fail_and_write_nothing_else,
    a_write_keeps_the_neighbours_that_the_target_changes,
    where_mem_cannot_be_opened_for_writing_nothing_is_written: [
        Need::Root, Need::Tool("unshare"), Need::Tool("dd")
    ],
];

const MODES: [&str; 2] = ["write", "write,cache_ttl=0"];

/// Bytes written at any offset are in the target's memory when the write
/// returns, the bytes around them are as before, and the file reads them back.
fn the_target_sees_what_was_written() {
    for mode in MODES {
        let mut target = Target::new();
        let mount = Mount::new(mode);
        for name in ["private", "shared", "memfd", "sysv", "file_private"] {
            let region = target.region(name);
            let mut expected = target.bytes(name);
            let file = open_rw(&mount.file(&target, name)).unwrap();
            for (offset, text) in [
                (0, "first"),
                (100, "x"),
                (PAGE - 3, "across two pages"),
                (region.len() - 4, "last"),
            ] {
                file.write_all_at(text.as_bytes(), offset as u64).unwrap();
                expected[offset..offset + text.len()].copy_from_slice(text.as_bytes());
                let said = target.read(region.start, region.len());
                assert_bytes(&format!("{name} in the target, {mode}"), &said, &expected);
            }
            let got = pread_all(&file, 0, region.len());
            assert_bytes(&format!("{name} read back, {mode}"), &got, &expected);
        }
    }
}

/// A write of several megabytes at an odd offset arrives whole.
fn large_writes_are_exact() {
    for mode in MODES {
        let target = Target::new();
        let mount = Mount::new(mode);
        let path = mount.file(&target, "scratch");
        let mut expected = target.bytes("scratch");
        let data = crate::support::pattern::bytes(0, 3_000_001, 9);
        let file = open_rw(&path).unwrap();
        file.write_all_at(&data, 1_234_567).unwrap();
        expected[1_234_567..1_234_567 + data.len()].copy_from_slice(&data);
        let got = pread_all(&file, 0, expected.len());
        assert_bytes(mode, &got, &expected);
        // The process's own view, without the mount.
        let start = target.region("scratch").start;
        let memory = open(std::path::Path::new(&format!("/proc/{}/mem", target.pid())));
        let got = pread_all(&memory, start, expected.len());
        assert_bytes(&format!("/proc/PID/mem with {mode}"), &got, &expected);
    }
}

/// `dd conv=notrunc` with `seek` changes exactly the bytes it names.
fn dd_patches_in_place() {
    let mut target = Target::new();
    let mount = Mount::new("write");
    let region = target.region("private");
    let mut expected = target.bytes("private");
    let path = quote(&mount.file(&target, "private"));
    for (size, seek, text) in [(1, 4093, "patched"), (511, 3, "odd"), (4096, 2, "page")] {
        sh(&format!(
            "printf %s {text} | dd of={path} bs={size} seek={seek} conv=notrunc status=none"
        ))
        .success()
        .quiet();
        expected[size * seek..][..text.len()].copy_from_slice(text.as_bytes());
    }
    let said = target.read(region.start, region.len());
    assert_bytes("the target", &said, &expected);
}

/// `O_TRUNC` and `truncate` change nothing, so `cp` over a file writes its
/// bytes and leaves the others.
fn cp_into_a_mapping_and_o_trunc_change_no_size() {
    for mode in MODES {
        let mut target = Target::new();
        let mount = Mount::new(mode);
        let region = target.region("private");
        let mut expected = target.bytes("private");
        let path = mount.file(&target, "private");

        drop(open_flags(&path, true, libc::O_TRUNC).unwrap());
        let said = target.read(region.start, region.len());
        assert_bytes(&format!("after O_TRUNC, {mode}"), &said, &expected);
        let size = path.metadata().unwrap().len();
        assert_eq!(size, region.len() as u64, "size after O_TRUNC, {mode}");

        let source = mount.outside().join("source");
        std::fs::write(&source, "copied over").unwrap();
        run(Command::new("cp").arg(&source).arg(&path))
            .success()
            .quiet();
        expected[..11].copy_from_slice(b"copied over");
        sh(&format!("printf again > {}", quote(&path)))
            .success()
            .quiet();
        expected[..5].copy_from_slice(b"again");
        let said = target.read(region.start, region.len());
        assert_bytes(&format!("after cp, {mode}"), &said, &expected);
        let size = path.metadata().unwrap().len();
        assert_eq!(size, region.len() as u64, "size after cp, {mode}");
        let bytes = std::fs::read(&path).unwrap();
        assert_bytes(&format!("read anew, {mode}"), &bytes, &expected);
    }
}

/// Without `write` every open for writing gives `EACCES`, whatever else is given, and a line in the
/// log names the option; with `ro` it gives `EROFS`. Nothing changes.
fn without_write_a_mapping_cannot_be_opened_for_writing() {
    for (options, errno) in [
        ("", libc::EACCES),
        ("rw", libc::EACCES),
        ("ro,rw,dev,suid", libc::EACCES),
        ("cache_ttl=0", libc::EACCES),
        ("ro", libc::EROFS),
        ("rw,ro", libc::EROFS),
    ] {
        let target = Target::new();
        let mount = Mount::new(options);
        for name in ["private", "readonly", "noaccess"] {
            let path = mount.file(&target, name);
            for flags in [0, libc::O_TRUNC, libc::O_APPEND] {
                let what = format!("{name} with flags {flags:#x}, options {options:?}");
                expect_errno(&what, open_flags(&path, true, flags), errno);
            }
            expect_errno(name, open_rw(&path), errno);
            let truncated = nix::unistd::truncate(&path, 0).map_err(std::io::Error::from);
            expect_errno(name, truncated, errno);
            let bytes = std::fs::read(&path).unwrap();
            assert_bytes(name, &bytes, &target.bytes(name));
        }
        if errno == libc::EACCES {
            eventually("a line that names the option", || {
                mount.log().contains("-o write").then_some(())
            });
        }
    }
}

/// A mount with `ro` stays one for us, even where root lets the kernel forget it.
fn a_remount_makes_nothing_writable() {
    let target = Target::new();
    let mount = Mount::new("ro");
    let path = mount.file(&target, "private");
    let mut remount = Command::new("mount");
    remount.args(["-i", "-o", "remount,rw"]).arg(mount.point());
    run(&mut remount).success();
    expect_errno("remounted", open_rw(&path), libc::EROFS);
    let mount = Mount::new("");
    let mut remount = Command::new("mount");
    remount.args(["-i", "-o", "remount,rw"]).arg(mount.point());
    run(&mut remount).success();
    let path = mount.file(&target, "private");
    expect_errno("remounted", open_rw(&path), libc::EACCES);
}

/// On a mount with `write` a mapping without `w` gives `EACCES` at open, to root too.
fn without_w_a_mapping_cannot_be_opened_for_writing() {
    let target = Target::new();
    let mount = Mount::new("write");
    for name in ["readonly", "exec", "noaccess"] {
        let path = mount.file(&target, name);
        for flags in [0, libc::O_TRUNC] {
            expect_errno(name, open_flags(&path, true, flags), libc::EACCES);
        }
        expect_errno(name, open_rw(&path), libc::EACCES);
        assert_bytes(name, &std::fs::read(&path).unwrap(), &target.bytes(name));
    }
    // Write-only memory is writable.
    open_rw(&mount.file(&target, "writeonly")).unwrap();
}

/// With `force` a write reaches mappings without `w` as well.
fn force_writes_where_the_protection_forbids_it() {
    let mut target = Target::new();
    let mount = Mount::new("write,force");
    for name in ["readonly", "exec", "noaccess", "private"] {
        let region = target.region(name);
        let mut expected = target.bytes(name);
        let file = open_rw(&mount.file(&target, name)).unwrap();
        file.write_all_at(b"forced", PAGE as u64 - 2).unwrap();
        expected[PAGE - 2..PAGE + 4].copy_from_slice(b"forced");
        let said = target.read_mem(region.start, region.len());
        assert_bytes(name, &said, &expected);
        assert_bytes(name, &pread_all(&file, 0, region.len()), &expected);
    }
}

/// Writing past the end gives `ENOSPC`; a write across it reaches no further
/// than the end.
fn no_byte_is_written_past_the_end() {
    for mode in MODES {
        let mut target = Target::new();
        // Two mappings side by side: what follows the file is memory, too.
        let region = target.region("victim");
        let middle = region.start + 8 * PAGE;
        target.ask(&format!("protect {middle:x} {} r-x", 8 * PAGE));
        target.ask(&format!("protect {middle:x} {} rwx", 8 * PAGE));
        let mount = Mount::new(mode);
        let path = mount.mapping(target.pid(), region.start, middle);
        let size = 8 * PAGE;
        let file = open_rw(&path).unwrap();
        for offset in [size, size + 1, size + PAGE, 1 << 40] {
            let result = file.write_at(b"past the end", offset as u64);
            expect_errno(&format!("write at {offset}, {mode}"), result, libc::ENOSPC);
        }
        let appending = open_flags(&path, true, libc::O_APPEND).unwrap();
        expect_errno("append", appending.write_at(b"x", 0), libc::ENOSPC);
        let mut expected = target.bytes("victim");
        let written = file.write_at(&[7; 100], size as u64 - 50).unwrap_or(0);
        assert!(
            written == 50 || written == 0,
            "{written} bytes written across the end"
        );
        expected[size - 50..size - 50 + written].fill(7);
        let said = target.read(region.start, region.len());
        assert_bytes(&format!("both mappings, {mode}"), &said, &expected);

        let output = sh(&format!(
            "dd if=/dev/zero of={} bs=1M count=1 conv=notrunc status=none",
            quote(&path)
        ));
        output.failure().complains(&["No space left on device"]);
        let said = target.read(middle, region.end - middle);
        assert_bytes("the next mapping", &said, &expected[size..]);
        let length = path.metadata().unwrap().len();
        assert_eq!(length, size as u64, "the size stays");
    }
}

/// A write that starts on an unmapped page gives `EIO`; one that meets it
/// later writes the bytes before it and says how many.
fn writes_to_a_hole_fail_and_write_nothing_else() {
    for mode in MODES {
        let mut target = Target::new();
        let mount = Mount::new(mode);
        let file = open_rw(&mount.file(&target, "victim")).unwrap();
        let region = target.region("victim");
        let hole = region.start + 6 * PAGE;
        let mut expected = target.bytes("victim");
        target.ask(&format!("unmap {hole:x} {}", 3 * PAGE));
        let result = file.write_at(&[7; 10], 7 * PAGE as u64);
        expect_errno(&format!("write to the hole, {mode}"), result, libc::EIO);
        let written = file.write_at(&[7; 2 * PAGE], 5 * PAGE as u64).unwrap();
        assert_eq!(written, PAGE, "bytes written before the hole, {mode}");
        expected[5 * PAGE..6 * PAGE].fill(7);
        let said = target.read(region.start, 6 * PAGE);
        assert_bytes("before the hole", &said, &expected[..6 * PAGE]);
        let said = target.read(region.start + 9 * PAGE, 7 * PAGE);
        assert_bytes("after the hole", &said, &expected[9 * PAGE..]);
    }
}

/// A write carries its own bytes only: the page around it is never written
/// back, so a value that the target changes meanwhile is not set back.
fn a_write_keeps_the_neighbours_that_the_target_changes() {
    for mode in MODES {
        let mut target = Target::new();
        let mount = Mount::new(mode);
        let region = target.region("counter");
        let file = open_rw(&mount.file(&target, "counter")).unwrap();
        pread_all(&file, 0, PAGE);
        target.ask("counter");
        // Read as a whole: bytes one by one would mix two values.
        let value = |target: &mut Target| -> u64 {
            let answer = target.ask(&format!("value {:x}", region.start));
            answer.parse().unwrap()
        };
        let mut last = value(&mut target);
        for round in 0..200_u64 {
            file.write_all_at(&round.to_le_bytes(), 8).unwrap();
            let now = value(&mut target);
            assert!(now >= last, "the counter fell from {last} to {now}, {mode}");
            last = now;
        }
        assert_eq!(target.read(region.start + 8, 8), 199_u64.to_le_bytes());
    }
}

/// Where the kernel does not let the daemon open `mem` for writing, here since `/proc` is read-only, a write gives
/// `EACCES` and writes nothing: by the number of the process it could get to another program. Reading goes on.
fn where_mem_cannot_be_opened_for_writing_nothing_is_written() {
    let mut target = Target::new();
    let point = MountPoint::new();
    let region = target.region("private");
    let file = point
        .path()
        .join(target.pid().to_string())
        .join(format!("{:012x}-{:012x}.rw-p.*", region.start, region.end));
    let script = format!(
        "set -e\n\
         mount --make-rprivate /\n\
         mount --bind /proc /proc\n\
         mount -o remount,bind,ro /proc\n\
         {daemon} -o write,cache_ttl=0 {point}\n\
         file=$(echo {file})\n\
         head -c 8 $file | wc -c\n\
         code=0\n\
         printf x | dd of=$file conv=notrunc,nocreat status=none || code=$?\n\
         umount {point}\n\
         exit $code\n",
        daemon = quote(daemon_binary()),
        point = quote(point.path()),
        file = file.display(),
    );
    let output = run(Command::new("unshare").args(["-m", "sh", "-c", &script])).failure();
    assert_eq!(output.text().trim(), "8", "what was read");
    output.complains(&["Permission denied"]);
    let said = target.read(region.start, region.len());
    assert_bytes("private", &said, &target.bytes("private"));
}
