//! A plain user, who may not open `map_files`: what is read of memory that is
//! not in the process, and what is an error rather than a guess.

use crate::support::{Footprint, PAGE, Region, Target, assert_bytes, pattern, quote, run, tests};
use crate::users::{USER, as_user, gone, public_daemon, users_point};

tests![
    untouched_files_that_can_be_opened_are_read: [Need::PlainUser],
    untouched_memory_without_a_path_is_an_error_and_not_zeros: [Need::PlainUser],
    absent_private_memory_is_zeros: [Need::PlainUser],
];

const LEN: usize = 64 * PAGE;

/// Runs a script as the plain user over a mount of theirs; `$dir` is the
/// directory of the target.
fn over_a_mount(target: &Target, options: &str, script: &str) -> crate::support::Output {
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
fn file(region: &Region) -> String {
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

/// Pages of a deleted file that the target has not mapped and does not hold open
/// cannot be had: `EIO`, never zeros. Those of a memfd that it holds open are
/// read through its descriptor, and those that it has mapped are read anyhow.
fn untouched_memory_without_a_path_is_an_error_and_not_zeros() {
    for options in ["cache_ttl=100ms", "cache_ttl=0"] {
        let mut target = Target::of_user(USER);
        let answer = target.ask(&format!("object odd {LEN}"));
        let object = Region::parse(&answer).unwrap();
        let start = object.start;
        target.ask(&format!("put odd {start:x} {} {}", 8 * PAGE, 4 * PAGE));
        target.ask(&format!("fill {start:x} {}", 2 * PAGE));
        let path = target.dir().join("untouched.bin");
        std::fs::write(&path, pattern::bytes(0, LEN, 9)).unwrap();
        let deleted = target.map("gone", path.to_str().unwrap(), LEN, "shared r");
        std::fs::remove_file(&path).unwrap();
        let before = Footprint::of(target.pid());
        let page = |region: &Region, page| {
            let name = file(region);
            let script = format!("dd if=$(echo {name}) bs=4096 skip={page} count=1 status=none");
            over_a_mount(&target, options, &script)
        };
        let output = page(&deleted, 0).failure();
        assert_eq!(output.stdout, b"", "bytes of the deleted file");
        output.complains(&["Input/output error"]);
        for (number, is_hole) in [(8, false), (2, true), (63, true)] {
            let output = page(&object, number).success().quiet();
            assert_eq!(output.stdout.len(), PAGE);
            let zeros = output.stdout.iter().all(|byte| *byte == 0);
            assert_eq!(zeros, is_hole, "page {number}");
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
