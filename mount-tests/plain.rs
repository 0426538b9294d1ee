//! A plain user, who may not open `map_files`: what is read of memory that is
//! not in the process, and what is an error rather than a guess.

use crate::support::{Footprint, PAGE, Region, Target, assert_bytes, pattern, quote, run, tests};
use crate::users::{USER, as_user, gone, public_daemon, users_point};

tests![
    untouched_files_that_can_be_opened_are_read: [Need::PlainUser],
    untouched_memory_that_has_a_descriptor_is_read: [Need::PlainUser],
    untouched_memory_without_a_path_is_an_error_and_not_zeros: [Need::PlainUser],
    absent_private_memory_is_zeros: [Need::PlainUser],
];

const LEN: usize = 64 * PAGE;

/// Runs a script as the plain user over a mount of theirs; `$dir` is the
/// directory of the target.
pub(crate) fn over_a_mount(target: &Target, options: &str, script: &str) -> crate::support::Output {
    let point = users_point();
    let script = format!(
        "{daemon} -o {options} {mount} || exit 9\n\
         dir={mount}/{pid}\n\
         {script}\n\
         status=$?\n\
         fusermount3 -u {mount}\n\
         exit $status\n",
        daemon = quote(&public_daemon(&point)),
        mount = quote(point.path()),
        pid = target.pid(),
    );
    let output = run(&mut as_user(&point, "", &script));
    gone(point.path());
    output
}

/// The file of a region, for the shell.
pub(crate) fn file(region: &Region) -> String {
    format!("$dir/{:012x}-{:012x}.*", region.start, region.end)
}

/// A file that the target maps and never touches is read by its path, where it
/// still leads there; nothing comes into the target.
fn untouched_files_that_can_be_opened_are_read() {
    for options in ["cache_ttl=100ms", "cache_ttl=0"] {
        let mut target = Target::of_user(USER);
        let path = target.dir().join("untouched.bin");
        let mut bytes = pattern::bytes(0, LEN, 9);
        std::fs::write(&path, &bytes).unwrap();
        let region = target.map("untouched", path.to_str().unwrap(), LEN, "private rw");
        target.write(region.start + 3 * PAGE, b"changed");
        bytes[3 * PAGE..][..7].copy_from_slice(b"changed");
        let before = Footprint::of(target.pid());
        let output = over_a_mount(&target, options, &format!("cat {}", file(&region)));
        assert_bytes(options, &output.success().quiet().stdout, &bytes);
        assert_eq!(Footprint::of(target.pid()), before, "{options}");
    }
}

/// Pages of a memfd that the target has not mapped are read through a
/// descriptor that it holds, and nothing is allocated.
fn untouched_memory_that_has_a_descriptor_is_read() {
    for options in ["cache_ttl=100ms", "cache_ttl=0"] {
        let mut target = Target::of_user(USER);
        let region = Region::parse(&target.ask(&format!("object odd {LEN}"))).unwrap();
        let start = region.start;
        target.ask(&format!("put odd {start:x} {} {}", 8 * PAGE, 4 * PAGE));
        let before = Footprint::of(target.pid());
        let output = over_a_mount(&target, options, &format!("cat {}", file(&region)));
        let mut expected = vec![0; LEN];
        let bytes = pattern::bytes((start + 8 * PAGE) as u64, 4 * PAGE, 1);
        expected[8 * PAGE..12 * PAGE].copy_from_slice(&bytes);
        assert_bytes(options, &output.success().quiet().stdout, &expected);
        assert_eq!(Footprint::of(target.pid()), before, "{options}");
    }
}

/// Pages of a deleted file, a memfd or shared memory that the target has not
/// mapped, and holds no descriptor of, cannot be had: `EIO`, never zeros. Those
/// that it has mapped are read.
fn untouched_memory_without_a_path_is_an_error_and_not_zeros() {
    for options in ["cache_ttl=100ms", "cache_ttl=0"] {
        let mut target = Target::of_user(USER);
        let answer = target.ask(&format!("object odd {LEN}"));
        let object = Region::parse(&answer).unwrap();
        let start = object.start;
        target.ask(&format!("put odd {start:x} {} {}", 8 * PAGE, 4 * PAGE));
        target.ask(&format!("fill {start:x} {}", 2 * PAGE));
        let answer = target.ask(&format!("shared {LEN}"));
        let shared = Region::parse(&answer).unwrap();
        target.ask(&format!("fill {:x} {PAGE}", shared.start));
        target.ask(&format!("forget {:x} {PAGE}", shared.start));
        let path = target.dir().join("untouched.bin");
        std::fs::write(&path, pattern::bytes(0, LEN, 9)).unwrap();
        let deleted = target.map("gone", path.to_str().unwrap(), LEN, "shared r");
        std::fs::remove_file(&path).unwrap();
        target.ask("close odd");
        let before = Footprint::of(target.pid());
        for (region, page) in [
            (&shared, 0),
            (&shared, 9),
            (&object, 8),
            (&object, 2),
            (&object, 63),
            (&deleted, 0),
        ] {
            let script = format!(
                "dd if=$(echo {}) bs=4096 skip={page} count=1 status=none",
                file(region)
            );
            let output = over_a_mount(&target, options, &script).failure();
            assert_eq!(output.stdout, b"", "bytes of page {page}");
            output.complains(&["Input/output error"]);
        }
        let script = format!(
            "dd if=$(echo {}) bs=4096 count=2 status=none",
            file(&object)
        );
        let output = over_a_mount(&target, options, &script).success().quiet();
        let expected = pattern::bytes(start as u64, 2 * PAGE, target.generation());
        assert_bytes("mapped pages", &output.stdout, &expected);
        assert_eq!(Footprint::of(target.pid()), before, "{options}");
    }
}

/// Private memory that is not there is zeros for them, too, and holes.
fn absent_private_memory_is_zeros() {
    let mut target = Target::of_user(USER);
    let answer = target.ask(&format!("reserve {} 2560", 1_usize << 40));
    let region = Region::parse(&answer).unwrap();
    let before = Footprint::of(target.pid());
    let file = file(&region);
    let script = format!(
        "du -k {file} | cut -f1\n\
         dd if=$(echo {file}) bs=1M count=64 status=none | wc -c\n\
         grep -c 'no such text' {file}; test $? = 1"
    );
    let output = over_a_mount(&target, "cache_ttl=100ms", &script);
    let text = output.success().quiet().text();
    assert_eq!(text.lines().collect::<Vec<_>>(), ["10240", "67108864", "0"]);
    assert_eq!(Footprint::of(target.pid()), before);
}
