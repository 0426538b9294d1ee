//! What a snapshot shows: what the process held, whatever becomes of it.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

use super::{file_of, names, stored, take, wait_for_state};
use crate::support::{
    Footprint, Mount, PAGE, Region, Target, assert_bytes, extents, held, open, page_or_hole,
    pattern, pread_all, run, scatter, tests,
};

tests![
    every_file_shows_what_the_target_held,
    it_stays_when_the_target_has_gone_on_or_ended,
    extents_hold_all_data_and_no_large_hole,
    a_tebibyte_stays_sparse: [Need::Tool("cp"), Need::Tool("tar"), Need::Tool("du")],
    it_takes_the_memory_that_the_target_holds_and_no_more,
    two_of_one_process_share_their_pages: [Need::Tool("cmp"), Need::Tool("diff")],
];

/// All pages of both files are the same, and so are their holes.
#[track_caller]
fn same_pages(live: &Path, copy: &Path) {
    let sizes = [live, copy].map(|path| path.symlink_metadata().unwrap().len());
    assert_eq!(sizes[0], sizes[1], "size of {copy:?}");
    let (live, copied) = (open(live), open(copy));
    for offset in (0..sizes[0]).step_by(PAGE) {
        let (one, other) = (page_or_hole(&live, offset), page_or_hole(&copied, offset));
        assert!(
            one.unwrap() == other.unwrap(),
            "page {offset:#x} of {copy:?}"
        );
    }
    assert_eq!(extents(&live), extents(&copied), "{copy:?}");
}

/// Names of what the directory of the process has, too: not of the file that identifies it.
fn mappings(copy: &Path) -> Vec<String> {
    let mut names = names(copy);
    names.retain(|name| name != "process");
    names
}

/// SEMANTICS: the directory of a snapshot shows the same mapping files, and in them what the target held: compared with the live files
/// and with `/proc/PID/mem` of a target that is stopped meanwhile.
fn every_file_shows_what_the_target_held() {
    let target = Target::new();
    let mount = Mount::new("");
    target.signal(Signal::SIGSTOP);
    wait_for_state(target.pid(), 'T');
    let copy = take(&mount, target.pid(), "x");
    assert_eq!(mappings(&copy), mount.names(target.pid()));
    let space = open(&copy.join("mem"));
    let mem = std::fs::File::open(format!("/proc/{}/mem", target.pid())).unwrap();
    for name in mappings(&copy) {
        let (live, copied) = (mount.process(target.pid()).join(&name), copy.join(&name));
        if copied.symlink_metadata().unwrap().is_symlink() {
            let links = [live, copied].map(|path| std::fs::read_link(path).unwrap());
            assert_eq!(links[0], links[1]);
            continue;
        }
        same_pages(&live, &copied);
        // Last, since it faults pages in.
        let range = Region::parse(name.split('.').next().unwrap()).unwrap();
        let file = open(&copied);
        for offset in (0..file.metadata().unwrap().len()).step_by(PAGE) {
            let shown = page_or_hole(&file, offset).unwrap();
            let at = range.start as u64 + offset;
            assert!(
                page_or_hole(&space, at).unwrap() == shown,
                "{name} in mem at {offset:#x}"
            );
            let mut bytes = vec![0; PAGE];
            let read = mem.read_exact_at(&mut bytes, at);
            assert!(
                read.is_ok().then_some(bytes) == shown,
                "{name} of /proc at {offset:#x}"
            );
        }
    }
    for name in target.regions().keys().filter(|name| *name != "heap") {
        let shown = std::fs::read(file_of(&copy, &target.region(name))).unwrap();
        assert_bytes(name, &shown, &target.bytes(name));
    }
    target.signal(Signal::SIGCONT);
}

/// SEMANTICS: a snapshot shows the same bytes for as long as it is kept: after `munmap`, writes, a new program, and the end.
fn it_stays_when_the_target_has_gone_on_or_ended() {
    let mut target = Target::new();
    let mount = Mount::new("");
    let copy = take(&mount, target.pid(), "x");
    let listed = names(&copy);
    let regions: Vec<_> = target
        .regions()
        .keys()
        .filter(|name| *name != "heap")
        .cloned()
        .collect();
    let known: Vec<_> = regions
        .iter()
        .map(|name| (file_of(&copy, &target.region(name)), target.bytes(name)))
        .collect();
    let check = |when: &str| {
        assert_eq!(names(&copy), listed, "{when}");
        for (path, bytes) in &known {
            let file = open(path);
            crate::support::drop_kernel_pages(&file);
            assert_bytes(
                &format!("{path:?} {when}"),
                &pread_all(&file, 0, bytes.len()),
                bytes,
            );
        }
    };
    check("at once");
    let private = target.region("private");
    target.write(private.start, &[0xee; PAGE]);
    let shared = target.region("shared");
    target.write(shared.start, &[0xee; PAGE]);
    check("after writes");
    let victim = target.region("victim");
    target.ask(&format!("unmap {:x} {}", victim.start, victim.len()));
    check("after munmap");
    // The new program makes its files anew, beside those that were removed.
    target.exec(2);
    check("after an exec");
    target.end();
    check("after the end");
    std::fs::remove_dir(&copy).unwrap();
    super::nothing_is_left(&mount);
}

const RESERVED: usize = 1 << 40;
const PAGES: usize = 2560;
const HELD: u64 = (PAGES * PAGE) as u64;

/// SEMANTICS: holes are holes: tools pass over a tebibyte, and the snapshot takes what the target holds of it.
fn a_tebibyte_stays_sparse() {
    let mut target = Target::new();
    let answer = target.ask(&format!("reserve {RESERVED} {PAGES}"));
    let region = Region::parse(&answer).unwrap();
    let before = Footprint::of(target.pid());
    let mount = Mount::new("");
    let copy = take(&mount, target.pid(), "x");
    assert_eq!(Footprint::of(target.pid()), before, "it is unharmed");
    let generation = target.generation();
    let live = extents(&open(&mount.mapping(
        target.pid(),
        region.start,
        region.end,
    )));
    target.kill();
    let path = file_of(&copy, &region);
    assert_eq!(extents(&open(&path)), live);
    assert_eq!(held(&path), HELD);
    let out = mount.outside().join("copy");
    run(std::process::Command::new("cp")
        .arg("--sparse=always")
        .args([&path, &out]))
    .success()
    .quiet();
    let check = |out: &Path| {
        assert_eq!(out.metadata().unwrap().len(), RESERVED as u64);
        assert!((HELD..HELD + (2 << 20)).contains(&held(out)));
        let file = open(out);
        for offset in scatter::offsets(RESERVED, PAGES) {
            let bytes = pattern::bytes((region.start + offset) as u64, PAGE, generation);
            assert_bytes(
                &format!("{out:?} at {offset:#x}"),
                &pread_all(&file, offset, PAGE),
                &bytes,
            );
        }
    };
    check(&out);
    std::fs::remove_file(&out).unwrap();
    let (dir, name) = (mount.outside(), path.file_name().unwrap());
    let (from, to) = (crate::support::quote(&copy), crate::support::quote(dir));
    let script = format!(
        "tar -c -S -f - -C {from} {} | tar -x -f - -C {to}",
        name.to_str().unwrap()
    );
    crate::support::sh(&script).success().quiet();
    check(&dir.join(name));
    let mut du = std::process::Command::new("du");
    let used = run(du.arg("-B1").arg(&path)).success().quiet().text();
    assert!(used.starts_with(&format!("{HELD}\t")), "{used}");
}

/// SEMANTICS: `extents` has a file for each part of a mapping that holds data: for tools that read holes, too.
fn extents_hold_all_data_and_no_large_hole() {
    let mut target = Target::new();
    target.ask(&format!("reserve {RESERVED} {PAGES}"));
    let mount = Mount::new("");
    let copy = take(&mount, target.pid(), "x");
    target.kill();
    let directory = copy.join("extents");
    assert!(!names(&copy).contains(&"extents".to_owned()), "not listed");
    let mut parts: BTreeMap<PathBuf, Vec<(usize, usize)>> = BTreeMap::new();
    for name in names(&directory) {
        let path = directory.join(&name);
        let range = Region::parse(name.split('.').next().unwrap()).unwrap();
        let (whole, start) = names(&copy)
            .into_iter()
            .find_map(|whole| {
                let all = Region::parse(whole.split('.').next()?)?;
                let is_in = all.start <= range.start && range.end <= all.end;
                is_in.then(|| (copy.join(whole), all.start))
            })
            .unwrap_or_else(|| panic!("{name} is a part of nothing"));
        let offset = range.start - start;
        let expected = pread_all(&open(&whole), offset, range.len());
        assert_eq!(path.metadata().unwrap().len(), range.len() as u64);
        assert_bytes(&name, &std::fs::read(&path).unwrap(), &expected);
        let label = |path: &Path| path.to_str().unwrap().split_once('.').unwrap().1.to_owned();
        assert_eq!(
            label(Path::new(&name)),
            label(Path::new(whole.file_name().unwrap()))
        );
        parts.entry(whole).or_default().push((offset, range.len()));
    }
    // All data of each mapping lies in them, and little else.
    let gap = 64 << 10;
    for (whole, parts) in &parts {
        let data = extents(&open(whole));
        for (start, end) in &data {
            let (start, end) = (*start as usize, *end as usize);
            let is_in = |(at, len): &(usize, usize)| *at <= start && end <= at + len;
            assert!(parts.iter().any(is_in), "{whole:?} {start:x}-{end:x}");
        }
        let shown: usize = parts.iter().map(|(_, len)| len).sum();
        let held: u64 = data.iter().map(|(start, end)| end - start).sum();
        assert!(
            shown as u64 <= held + (gap * data.len()) as u64,
            "{whole:?}"
        );
    }
    let listed: u64 = names(&directory)
        .iter()
        .map(|name| directory.join(name).metadata().unwrap().len())
        .sum();
    assert!(listed < 256 << 20, "{listed} bytes of a tebibyte");
    std::fs::remove_dir(&copy).unwrap();
    assert!(std::fs::read_dir(&directory).is_err());
}

/// SEMANTICS: a snapshot takes at most 1.02 of what is resident in the target.
fn it_takes_the_memory_that_the_target_holds_and_no_more() {
    let mut target = Target::new();
    target.ask(&format!("grow-heap {}", 64 << 20));
    let mount = Mount::new("");
    let copy = take(&mount, target.pid(), "x");
    let (rss, stored) = (Footprint::of(target.pid()).pages << 10, stored(&mount));
    assert!(stored >= 64 << 20, "{stored}");
    assert!(
        stored * 100 <= rss * 102,
        "{stored} bytes for {rss} that are resident"
    );
    let shown: u64 = names(&copy)
        .iter()
        .map(|name| copy.join(name).symlink_metadata().unwrap().blocks() * 512)
        .sum();
    // A file of which nothing is copied shows a block.
    assert!(
        (stored..stored + (1 << 20)).contains(&shown),
        "{shown} of {stored}"
    );
}

/// SEMANTICS: pages that two snapshots of one process have in common are kept once, and both can be compared.
fn two_of_one_process_share_their_pages() {
    let mut target = Target::new();
    target.ask(&format!("grow-heap {}", 32 << 20));
    target.signal(Signal::SIGSTOP);
    wait_for_state(target.pid(), 'T');
    let mount = Mount::new("");
    let first = take(&mount, target.pid(), "1");
    let one = stored(&mount);
    let second = take(&mount, target.pid(), "2");
    let two = stored(&mount);
    assert!(one > 32 << 20, "{one}");
    assert!(two - one <= 64 << 10, "{} bytes more", two - one);
    let differences = |second: &Path| {
        let mut diff = std::process::Command::new("diff");
        run(diff.arg("-r").args([&first, second]))
    };
    differences(&second).success().quiet();
    target.signal(Signal::SIGCONT);
    // A page that changes is found, and it alone.
    let scratch = target.region("scratch");
    target.write(scratch.start + 100 * PAGE + 7, b"changed");
    let third = take(&mount, target.pid(), "3");
    let (old, new) = (file_of(&first, &scratch), file_of(&third, &scratch));
    let mut cmp = std::process::Command::new("cmp");
    let said = run(cmp.args([&old, &new])).code(1).quiet().text();
    assert!(said.contains(&(100 * PAGE + 8).to_string()), "{said}");
    differences(&third).code(1).quiet();
    // What the first one has is kept for the others when that is dropped.
    let bytes = std::fs::read(&old).unwrap();
    std::fs::remove_dir(&first).unwrap();
    let of_second = std::fs::read(file_of(&second, &scratch)).unwrap();
    assert_bytes("the second one", &of_second, &bytes);
    let mut changed = bytes;
    changed[100 * PAGE + 7..100 * PAGE + 14].copy_from_slice(b"changed");
    let of_third = std::fs::read(file_of(&third, &scratch)).unwrap();
    assert_bytes("the third one", &of_third, &changed);
    std::fs::remove_dir(&second).unwrap();
    std::fs::remove_dir(&third).unwrap();
    super::nothing_is_left(&mount);
}
