//! Bytes that cannot be read: never a silent early end, never made up.

use std::fs::File;
use std::process::{Command, Stdio};

use crate::support::{
    Mount, PAGE, Stats, Target, assert_bytes, drop_kernel_pages, expect_errno, open, pread,
    pread_all, run, tests,
};

tests![
    a_direct_read_gives_the_bytes_before_the_hole_and_then_eio,
    a_buffered_read_fails_on_the_hole_alone,
    cat_of_a_file_with_a_hole_fails: [Need::Tool("cat")],
    fault_zero_fills_the_hole,
    a_file_that_shrinks_while_it_is_open_ends_in_eio,
    vvar_and_vsyscall_have_no_bytes_and_no_errors,
];

/// Pages 6 to 8 of `victim` are unmapped in these tests.
const HOLE: std::ops::Range<usize> = 6 * PAGE..9 * PAGE;

/// A target, and a file that was opened before pages in its middle were
/// unmapped.
fn with_hole(mount: &Mount) -> (Target, File) {
    let mut target = Target::new();
    let file = open(&mount.file(&target, "victim"));
    let at = target.region("victim").start + HOLE.start;
    target.ask(&format!("unmap {at:x} {}", HOLE.len()));
    (target, file)
}

/// With `cache_ttl=0`: a read that meets an unreadable byte later gives the
/// bytes before it as a short count; one that starts on it gives `EIO`.
fn a_direct_read_gives_the_bytes_before_the_hole_and_then_eio() {
    let mount = Mount::new("cache_ttl=0");
    let (target, file) = with_hole(&mount);
    let expected = target.bytes("victim");
    let before = Stats::of(&mount);
    let all = pread(&file, 0, expected.len()).unwrap();
    assert_bytes("before the hole", &all, &expected[..HOLE.start]);
    let odd = pread(&file, 5 * PAGE + 7, 2 * PAGE).unwrap();
    assert_bytes(
        "at an odd offset",
        &odd,
        &expected[5 * PAGE + 7..HOLE.start],
    );
    for offset in [HOLE.start, HOLE.start + 1, HOLE.end - 1] {
        let result = pread(&file, offset, PAGE);
        expect_errno(&format!("read at {offset}"), result, libc::EIO);
    }
    let after = pread(&file, HOLE.end, 3 * PAGE).unwrap();
    let end = HOLE.end + 3 * PAGE;
    assert_bytes("after the hole", &after, &expected[HOLE.end..end]);
    let errors = Stats::of(&mount).since(&before, "errors_total{errno=\"EIO\"}");
    assert_eq!(errors, 3, "errors that the counters name");
}

/// Through the kernel's page cache every readable page arrives, also after
/// the hole, and the size does not shrink; the unreadable ones give `EIO`.
fn a_buffered_read_fails_on_the_hole_alone() {
    let mount = Mount::new("");
    let (target, file) = with_hole(&mount);
    let expected = target.bytes("victim");
    for offset in (0..expected.len()).step_by(PAGE) {
        let what = format!("page at {offset:#x}");
        let result = pread(&file, offset, PAGE);
        if HOLE.contains(&offset) {
            expect_errno(&what, result, libc::EIO);
        } else {
            assert_bytes(&what, &result.unwrap(), &expected[offset..offset + PAGE]);
        }
    }
    drop_kernel_pages(&file);
    // One large read: all bytes before the hole, never more, never zeros.
    let all = pread(&file, 0, expected.len()).unwrap();
    assert_bytes("before the hole", &all, &expected[..HOLE.start]);
    let size = file.metadata().unwrap().len();
    assert_eq!(size, expected.len() as u64, "the size stays");
}

/// `cat` of a file with an unreadable middle says so and fails; it never ends
/// early as if that were all.
fn cat_of_a_file_with_a_hole_fails() {
    for mode in ["", "cache_ttl=0", "cache_ttl=1h"] {
        let mount = Mount::new(mode);
        let (target, file) = with_hole(&mount);
        let output = run(Command::new("cat").stdin(Stdio::from(file)));
        let output = output.failure().complains(&["Input/output error"]);
        let expected = target.bytes("victim");
        let what = format!("cat's output with {mode:?}");
        assert_bytes(&what, &output.stdout, &expected[..HOLE.start]);
    }
}

/// With `fault=zero` the same bytes read as zeros, and no others do.
fn fault_zero_fills_the_hole() {
    for mode in ["fault=zero", "fault=zero,cache_ttl=0"] {
        let mount = Mount::new(mode);
        let (target, file) = with_hole(&mount);
        let mut expected = target.bytes("victim");
        expected[HOLE].fill(0);
        assert_bytes(mode, &pread_all(&file, 0, expected.len()), &expected);
        let from = HOLE.start + 5;
        let got = pread_all(&file, from, 3 * PAGE);
        assert_bytes(mode, &got, &expected[from..from + 3 * PAGE]);
        let output = run(Command::new("cat").stdin(Stdio::from(file))).success();
        assert_bytes("cat", &output.quiet().stdout, &expected);
    }
}

/// Pages that a truncated file no longer backs are an error (touching them
/// would be `SIGBUS`), the ones before are not.
fn a_file_that_shrinks_while_it_is_open_ends_in_eio() {
    for mode in ["", "cache_ttl=0"] {
        let target = Target::new();
        let mount = Mount::new(mode);
        let path = mount.file(&target, "shrinking");
        let file = open(&path);
        let expected = target.bytes("shrinking");
        let backing = std::fs::OpenOptions::new()
            .write(true)
            .open(target.dir().join("shrinking.bin"))
            .unwrap();
        backing.set_len(4 * PAGE as u64).unwrap();
        let got = pread_all(&file, 0, 4 * PAGE);
        assert_bytes("what is left", &got, &expected[..4 * PAGE]);
        // A kernel that asked for the size meanwhile knows the new end of file.
        let result = pread(&file, 4 * PAGE, PAGE);
        if mode == "cache_ttl=0" || !matches!(&result, Ok(bytes) if bytes.is_empty()) {
            expect_errno(&format!("beyond the end, {mode:?}"), result, libc::EIO);
        }
        // Found anew it has the new size, and tools read it to its end.
        let size = crate::support::eventually("the new size", || {
            let size = path.metadata().unwrap().len();
            (size != expected.len() as u64).then_some(size)
        });
        assert_eq!(size, 4 * PAGE as u64);
        let bytes = std::fs::read(&path).unwrap();
        assert_bytes("read anew", &bytes, &expected[..4 * PAGE]);
    }
}

/// Mappings that nobody can read are there with size 0 and read as empty.
fn vvar_and_vsyscall_have_no_bytes_and_no_errors() {
    let target = Target::new();
    let mount = Mount::new("");
    let names = mount.names(target.pid());
    let special: Vec<&String> = names
        .iter()
        .filter(|name| name.ends_with(".vvar"))
        .collect();
    assert!(!special.is_empty(), "no vvar among {names:#?}");
    for name in &names {
        let special = ["vvar", "vvar_vclock", "vsyscall"]
            .iter()
            .any(|label| name.ends_with(&format!(".{label}")));
        if special {
            let path = mount.process(target.pid()).join(name);
            assert_eq!(path.metadata().unwrap().len(), 0, "size of {name}");
            assert_eq!(std::fs::read(&path).unwrap(), b"", "bytes of {name}");
        }
        if name.ends_with(".vdso") {
            let bytes = std::fs::read(mount.process(target.pid()).join(name)).unwrap();
            assert!(bytes.starts_with(b"\x7fELF"), "{name} is an ELF image");
        }
    }
}
