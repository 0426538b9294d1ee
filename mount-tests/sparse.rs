//! Holes are holes: tools pass over a tebibyte that holds ten mebibytes.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::unistd::Whence;

use crate::support::{
    Footprint, Mount, Numbers, PAGE, Region, Target, assert_bytes, extents, held, open, pattern,
    pread_all, run, scatter, seek, tests, timed,
};

tests![
    cp_sparse_always_of_a_tebibyte: [Need::Tool("cp")],
    cp_sparse_auto_of_a_tebibyte: [Need::Tool("cp")],
    tar_of_a_tebibyte: [Need::Tool("tar")],
    grep_in_a_tebibyte: [Need::Tool("grep")],
    qemu_img_of_a_tebibyte: [Need::Tool("qemu-img")],
    xfs_io_seeks_through_a_tebibyte: [Need::Tool("xfs_io")],
    rsync_keeps_holes: [Need::Tool("rsync")],
    du_shows_what_is_held_and_ls_what_is_reserved: [Need::Tool("du"), Need::Tool("ls")],
    reading_a_hole_costs_the_target_nothing,
    seeking_in_alternating_pages,
    seeking_at_and_past_the_end,
    what_is_written_into_a_hole_becomes_data,
];

const RESERVED: usize = 1 << 40;
const PAGES: usize = 2560;
/// What the target holds of it.
const HELD: u64 = (PAGES * PAGE) as u64;
/// Two seconds on a machine that does nothing else. Who does not pass over the holes copies a tebibyte, which takes
/// minutes on any; so this tells one from the other also where all of it is busy.
const LIMIT: Duration = Duration::from_secs(60);

/// A target that has reserved a tebibyte and uses ten mebibytes of it, and
/// what it used before anybody looked.
struct Tebibyte {
    target: Target,
    mount: Mount,
    region: Region,
    before: Footprint,
}

impl Tebibyte {
    fn new() -> Self {
        let mut target = Target::new();
        let answer = target.ask(&format!("reserve {RESERVED} {PAGES}"));
        let region = Region::parse(&answer).unwrap();
        Self {
            before: Footprint::of(target.pid()),
            mount: Mount::new(""),
            region,
            target,
        }
    }

    fn path(&self) -> PathBuf {
        let Region { start, end } = self.region;
        self.mount.mapping(self.target.pid(), start, end)
    }

    fn page(&self, offset: usize) -> Vec<u8> {
        let at = (self.region.start + offset) as u64;
        pattern::bytes(at, PAGE, self.target.generation())
    }

    /// Where there is data, neighbours joined.
    fn data(&self) -> Vec<(u64, u64)> {
        let mut data: Vec<(u64, u64)> = Vec::new();
        for offset in scatter::offsets(RESERVED, PAGES) {
            let (start, end) = (offset as u64, (offset + PAGE) as u64);
            match data.last_mut() {
                Some(last) if last.1 == start => last.1 = end,
                _ => data.push((start, end)),
            }
        }
        data
    }

    /// The target uses what it used before, to the page.
    #[track_caller]
    fn is_unharmed(&self) {
        assert_eq!(Footprint::of(self.target.pid()), self.before);
    }

    /// A copy has the size, takes up what the target holds (and what the file
    /// system needs to remember where), and has the bytes.
    #[track_caller]
    fn is_copied_to(&self, copy: &Path) {
        assert_eq!(copy.metadata().unwrap().len(), RESERVED as u64);
        let on_disk = held(copy);
        assert!(
            (HELD..HELD + (2 << 20)).contains(&on_disk),
            "{on_disk} bytes on disk"
        );
        let file = open(copy);
        for offset in scatter::offsets(RESERVED, PAGES) {
            let what = format!("page at {offset:#x}");
            assert_bytes(&what, &pread_all(&file, offset, PAGE), &self.page(offset));
        }
        let data = self.data();
        let mut numbers = Numbers::new(4711);
        for _ in 0..1000 {
            let offset = numbers.below((RESERVED / PAGE) as u64) * PAGE as u64;
            if !data
                .iter()
                .any(|(start, end)| (*start..*end).contains(&offset))
            {
                let bytes = pread_all(&file, offset as usize, PAGE);
                assert_bytes(&format!("hole at {offset:#x}"), &bytes, &[0; PAGE]);
            }
        }
    }
}

fn copied_with_cp(how: &str) {
    let tebibyte = Tebibyte::new();
    let copy = tebibyte.mount.outside().join("copy");
    let mut cp = Command::new("cp");
    cp.arg(format!("--sparse={how}"))
        .args([tebibyte.path(), copy.clone()]);
    timed("cp of 1 TiB", LIMIT, &mut cp).success().quiet();
    tebibyte.is_copied_to(&copy);
    tebibyte.is_unharmed();
}

/// `cp --sparse=always` takes two seconds at most for a tebibyte of which
/// ten mebibytes are there, and changes nothing in the target.
fn cp_sparse_always_of_a_tebibyte() {
    copied_with_cp("always");
}

/// So does `cp` as it is used every day.
fn cp_sparse_auto_of_a_tebibyte() {
    copied_with_cp("auto");
}

/// `tar -S` does, too, and what is unpacked is the same.
fn tar_of_a_tebibyte() {
    let tebibyte = Tebibyte::new();
    let path = tebibyte.path();
    let name = path.file_name().unwrap();
    let outside = tebibyte.mount.outside();
    let mut tar = Command::new("tar");
    tar.arg("-Scf").arg(outside.join("archive"));
    tar.arg("-C").arg(path.parent().unwrap()).arg(name);
    timed("tar -S of 1 TiB", LIMIT, &mut tar).success().quiet();
    tebibyte.is_unharmed();
    let mut tar = Command::new("tar");
    tar.arg("-xf").arg(outside.join("archive"));
    run(tar.arg("-C").arg(outside)).success().quiet();
    tebibyte.is_copied_to(&outside.join(name));
}

/// `grep -c` finds what is in the last page of a tebibyte.
fn grep_in_a_tebibyte() {
    let mut tebibyte = Tebibyte::new();
    let words = "a needle in the stack";
    let line = format!("\n{words}\n");
    let at = tebibyte.region.end - PAGE;
    tebibyte.target.write(at, line.as_bytes());
    let mut grep = Command::new("grep");
    grep.args(["-c", words]).arg(tebibyte.path());
    let output = timed("grep -c in 1 TiB", LIMIT, &mut grep)
        .success()
        .quiet();
    assert_eq!(output.text().trim(), "1");
    tebibyte.is_unharmed();
}

/// The stretches of data in the output of `qemu-img map`.
fn qemu_data(text: &str) -> Vec<(u64, u64)> {
    let number = |line: &str, key: &str| {
        let rest = line.split(&format!("\"{key}\": ")).nth(1)?;
        rest.split([',', '}']).next()?.trim().parse().ok()
    };
    let lines = text.lines().filter(|line| line.contains("\"data\": true"));
    lines
        .map(|line| {
            let start: u64 = number(line, "start").unwrap();
            let len: u64 = number(line, "length").unwrap();
            (start, start + len)
        })
        .collect()
}

/// `qemu-img map` tells exactly the pages that are there, and `convert` copies
/// them and nothing else.
fn qemu_img_of_a_tebibyte() {
    let tebibyte = Tebibyte::new();
    let mut map = Command::new("qemu-img");
    map.args(["map", "-f", "raw", "--output=json"]);
    let output = timed("qemu-img map of 1 TiB", LIMIT, map.arg(tebibyte.path()));
    assert_eq!(qemu_data(&output.success().text()), tebibyte.data());
    let copy = tebibyte.mount.outside().join("copy");
    let mut convert = Command::new("qemu-img");
    convert.args(["convert", "-f", "raw", "-O", "raw", "-S", "4k"]);
    convert.args([tebibyte.path(), copy.clone()]);
    timed("qemu-img convert of 1 TiB", LIMIT, &mut convert).success();
    tebibyte.is_copied_to(&copy);
    tebibyte.is_unharmed();
}

/// `xfs_io -c "seek -a -r 0"` lists the pages that are there.
fn xfs_io_seeks_through_a_tebibyte() {
    let tebibyte = Tebibyte::new();
    let mut command = Command::new(crate::support::tool("xfs_io").unwrap());
    command
        .args(["-r", "-c", "seek -a -r 0"])
        .arg(tebibyte.path());
    let output = timed("xfs_io seek of 1 TiB", LIMIT, &mut command).success();
    let mut expected = String::from("Whence\tResult\n");
    let data = tebibyte.data();
    if data[0].0 > 0 {
        expected += "HOLE\t0\n";
    }
    for (start, end) in data {
        expected += &format!("DATA\t{start}\nHOLE\t{end}\n");
    }
    assert!(output.text() == expected, "{}", output.text());
    tebibyte.is_unharmed();
}

/// `rsync -S` makes holes of holes. It reads them all, so this takes a smaller
/// reservation.
fn rsync_keeps_holes() {
    const LEN: usize = 256 << 20;
    let mut target = Target::new();
    let region = Region::parse(&target.ask(&format!("reserve {LEN} 100"))).unwrap();
    let mount = Mount::new("");
    let before = Footprint::of(target.pid());
    let path = mount.mapping(target.pid(), region.start, region.end);
    let copy = mount.outside().join("copy");
    let mut rsync = Command::new("rsync");
    rsync.arg("-S").arg(&path).arg(&copy);
    timed("rsync -S of 256 MiB", Duration::from_secs(60), &mut rsync)
        .success()
        .quiet();
    assert_eq!(copy.metadata().unwrap().len(), LEN as u64);
    assert!(held(&copy) < 2 << 20, "{} bytes on disk", held(&copy));
    let file = open(&copy);
    for offset in scatter::offsets(LEN, 100) {
        let expected = pattern::bytes((region.start + offset) as u64, PAGE, 1);
        assert_bytes("a page", &pread_all(&file, offset, PAGE), &expected);
    }
    assert_eq!(Footprint::of(target.pid()), before);
}

/// `du` shows the memory that is held, `ls -l` the memory that is reserved.
fn du_shows_what_is_held_and_ls_what_is_reserved() {
    let tebibyte = Tebibyte::new();
    let path = tebibyte.path();
    let du = run(Command::new("du").arg("-k").arg(&path))
        .success()
        .text();
    let kib: u64 = du.split_whitespace().next().unwrap().parse().unwrap();
    assert_eq!(kib, HELD / 1024);
    let ls = run(Command::new("ls").arg("-l").arg(&path))
        .success()
        .text();
    let size = ls.split_whitespace().nth(4).unwrap();
    assert_eq!(size, RESERVED.to_string());
    tebibyte.is_unharmed();
}

/// Holes that are read nevertheless are zeros, and cost the target neither a
/// page nor a page table, whatever the cache does.
fn reading_a_hole_costs_the_target_nothing() {
    for options in ["", "cache_ttl=0"] {
        let mut target = Target::new();
        let region = Region::parse(&target.ask(&format!("reserve {} 0", 1 << 30))).unwrap();
        let before = Footprint::of(target.pid());
        let mount = Mount::new(options);
        let file = open(&mount.mapping(target.pid(), region.start, region.end));
        let mut bytes = vec![0xa5; 1 << 20];
        for offset in (0..region.len()).step_by(bytes.len()) {
            file.read_exact_at(&mut bytes, offset as u64).unwrap();
            assert!(bytes.iter().all(|byte| *byte == 0), "at {offset:#x}");
            bytes.fill(0xa5);
        }
        assert_eq!(Footprint::of(target.pid()), before, "{options}");
    }
}

fn seek_data(file: &File, offset: u64) -> Option<u64> {
    seek(file, offset, Whence::SeekData).unwrap()
}

fn seek_hole(file: &File, offset: u64) -> Option<u64> {
    seek(file, offset, Whence::SeekHole).unwrap()
}

/// Pages there and not there by turns: each boundary is found, also from
/// within a page, and the bytes are those of a dense read.
fn seeking_in_alternating_pages() {
    const COUNT: usize = 300;
    let mut target = Target::new();
    let len = COUNT * PAGE;
    let region = Region::parse(&target.ask(&format!("reserve {len} 0"))).unwrap();
    for page in (1..COUNT).step_by(2) {
        target.ask(&format!("fill {:x} {PAGE}", region.start + page * PAGE));
    }
    for options in ["", "cache_ttl=0", "cache_ttl=1h"] {
        let mount = Mount::new(options);
        let path = mount.mapping(target.pid(), region.start, region.end);
        let file = open(&path);
        let page = PAGE as u64;
        for index in 0..COUNT as u64 {
            let (at, next) = (index * page, (index + 1) * page);
            for offset in [at, at + 1, next - 1] {
                let (data, hole) = match index % 2 {
                    0 => (Some(next), Some(offset)),
                    _ => (Some(offset), Some(next)),
                };
                assert_eq!(seek_data(&file, offset), data, "data from {offset:#x}");
                assert_eq!(seek_hole(&file, offset), hole, "hole from {offset:#x}");
            }
        }
        let mut expected = pattern::bytes(region.start as u64, len, 1);
        for index in (0..COUNT).step_by(2) {
            expected[index * PAGE..(index + 1) * PAGE].fill(0);
        }
        assert_bytes(options, &std::fs::read(&path).unwrap(), &expected);
        assert_eq!(held(&path), (len / 2) as u64, "{options}");
    }
}

/// `lseek` at and past the end is `ENXIO`, and so is looking for data where
/// only a hole is left; the end itself counts as a hole.
fn seeking_at_and_past_the_end() {
    let mut target = Target::new();
    let len = 16 * PAGE;
    let region = Region::parse(&target.ask(&format!("reserve {len} 0"))).unwrap();
    target.ask(&format!("fill {:x} {PAGE}", region.start));
    let mount = Mount::new("");
    let full = open(&mount.file(&target, "private"));
    let file = open(&mount.mapping(target.pid(), region.start, region.end));
    let (len, page) = (len as u64, PAGE as u64);
    for file in [&full, &file] {
        assert_eq!(file.metadata().unwrap().size(), len);
        for offset in [len, len + 1, len * 1000, i64::MAX as u64] {
            assert_eq!(seek_data(file, offset), None, "data at {offset:#x}");
            assert_eq!(seek_hole(file, offset), None, "hole at {offset:#x}");
        }
    }
    assert_eq!(seek_data(&full, len - 1), Some(len - 1));
    assert_eq!(seek_hole(&full, 0), Some(len));
    assert_eq!(seek_hole(&full, len - 1), Some(len));
    assert_eq!(seek_hole(&file, 0), Some(page));
    assert_eq!(seek_data(&file, page), None);
    assert_eq!(seek_data(&file, len - 1), None);
    assert_eq!(seek_hole(&file, len - 1), Some(len - 1));
    assert_eq!(extents(&full), [(0, len)]);
    assert_eq!(extents(&file), [(0, page)]);
}

/// A page that the target, or a writer, puts into a hole is data from the next
/// look on: the scan keeps to the freshness bound.
fn what_is_written_into_a_hole_becomes_data() {
    let mut target = Target::new();
    let len = 1 << 30;
    let region = Region::parse(&target.ask(&format!("reserve {len} 0"))).unwrap();
    let page = PAGE as u64;
    for options in ["write,cache_ttl=0", "write,cache_ttl=1h"] {
        let mount = Mount::new(options);
        let path = mount.mapping(target.pid(), region.start, region.end);
        target.ask(&format!("forget {:x} {len}", region.start));
        let file = open(&path);
        assert_eq!(extents(&file), [], "{options}");
        drop(file);
        target.ask(&format!("fill {:x} {PAGE}", region.start + 5 * PAGE));
        // Every open starts fresh.
        let file = open(&path);
        assert_eq!(extents(&file), [(5 * page, 6 * page)], "{options}");
        let writer = crate::support::open_rw(&path).unwrap();
        writer.write_all_at(b"x", 9 * page + 7).unwrap();
        let expected = [(5 * page, 6 * page), (9 * page, 10 * page)];
        assert_eq!(extents(&file), expected, "{options}");
        assert_eq!(pread_all(&file, 9 * PAGE + 7, 1), b"x");
    }
}
