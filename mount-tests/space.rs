//! `mem/PID`: the whole address space as one sparse file.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::unistd::Whence;

use crate::support::{
    Footprint, Mount, PAGE, Region, Target, assert_bytes, expect_errno, extents, held, open,
    open_rw, pread, pread_all, run, seek, tests, timed,
};

tests![
    every_region_is_at_its_address,
    dd_xxd_and_python_take_addresses: [Need::Tool("dd"), Need::Tool("xxd"), Need::Tool("python3")],
    looking_for_data_finds_what_the_mappings_hold: [Need::Root],
    gaps_are_errors,
    gaps_are_zeros_where_that_was_asked_for,
    a_read_goes_across_neighbours,
    writes_are_seen_by_the_mapping_file_and_the_other_way_round,
    writes_obey_the_mappings,
    cp_makes_a_sparse_copy_of_a_whole_process: [Need::Tool("cp"), Need::Root],
    it_comes_and_goes_with_the_process,
];

/// Regions whose bytes the tests know, and which stay as they are.
const REGIONS: [&str; 9] = [
    "private",
    "readonly",
    "noaccess",
    "shared",
    "memfd",
    "sparse_private",
    "file_private",
    "deleted",
    "heap",
];

pub(crate) fn space(mount: &Mount, pid: u32) -> PathBuf {
    mount.path("mem").join(pid.to_string())
}

/// Offset is address: each region is read where it lies.
fn every_region_is_at_its_address() {
    let target = Target::new();
    for options in ["", "cache_ttl=0"] {
        let mount = Mount::new(options);
        let listed = std::fs::read_dir(mount.path("mem")).unwrap();
        let listed: Vec<_> = listed.map(|entry| entry.unwrap().file_name()).collect();
        assert!(
            listed.contains(&target.pid().to_string().into()),
            "{listed:?}"
        );
        let file = open(&space(&mount, target.pid()));
        for name in REGIONS {
            let region = target.region(name);
            let bytes = pread_all(&file, region.start, region.len());
            assert_bytes(name, &bytes, &target.bytes(name));
            let bytes = pread_all(&file, region.end - 5, 5);
            assert_bytes(name, &bytes, &target.bytes(name)[region.len() - 5..]);
        }
    }
}

/// `dd skip=`, `xxd -s` and `os.pread` work with addresses as they are.
fn dd_xxd_and_python_take_addresses() {
    let target = Target::new();
    let mount = Mount::new("");
    let path = space(&mount, target.pid());
    let region = target.region("private");
    let expected = target.bytes("private");
    let mut dd = Command::new("dd");
    dd.args(["bs=4096", "count=16", "status=none"]);
    dd.arg(format!("if={}", path.display()));
    dd.arg(format!("skip={}", region.start / PAGE));
    assert_bytes("dd", &run(&mut dd).success().quiet().stdout, &expected);
    let mut dd = Command::new("dd");
    dd.args([
        "bs=1M",
        "count=100",
        "iflag=skip_bytes,count_bytes",
        "status=none",
    ]);
    dd.arg(format!("if={}", path.display()));
    dd.arg(format!("skip={}", region.start + 4321));
    let output = run(&mut dd).success().quiet();
    assert_bytes("dd", &output.stdout, &expected[4321..4421]);
    let mut xxd = Command::new("xxd");
    xxd.args(["-p", "-c", "64", "-l", "64", "-s"]);
    xxd.arg(format!("{:#x}", region.start + 4096)).arg(&path);
    let digits: String = expected[4096..4160]
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    assert_eq!(run(&mut xxd).success().quiet().text().trim(), digits);
    let mut python = Command::new("python3");
    python.args([
        "-c",
        "import os, sys\n\
         fd = os.open(sys.argv[1], os.O_RDONLY)\n\
         sys.stdout.buffer.write(os.pread(fd, 8192, int(sys.argv[2])))",
    ]);
    python.arg(&path).arg((region.start + 100).to_string());
    let output = run(&mut python).success().quiet();
    assert_bytes("python", &output.stdout, &expected[100..8292]);
}

/// Joins stretches that touch each other.
fn joined(mut parts: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    parts.sort_unstable();
    let mut joined: Vec<(u64, u64)> = Vec::new();
    for (start, end) in parts {
        match joined.last_mut() {
            Some(last) if last.1 == start => last.1 = end,
            _ => joined.push((start, end)),
        }
    }
    joined
}

/// The data of all mapping files, by address.
fn data_of_mappings(mount: &Mount, pid: u32) -> Vec<(u64, u64)> {
    let mut data = Vec::new();
    for name in mount.names(pid) {
        let Some(region) = name.split('.').next().and_then(Region::parse) else {
            continue;
        };
        let start = region.start as u64;
        // No offset of a file reaches `vsyscall`.
        if start < i64::MAX as u64 {
            let file = open(&mount.process(pid).join(&name));
            let parts = extents(&file);
            data.extend(parts.iter().map(|part| (start + part.0, start + part.1)));
        }
    }
    joined(data)
}

/// `SEEK_DATA` jumps over gaps and holes and stops at nothing but what the
/// files of the mappings call data; size and blocks fit.
fn looking_for_data_finds_what_the_mappings_hold() {
    let mut target = Target::new();
    target.ask(&format!("reserve {} 1000", 1_usize << 40));
    let answer = target.ask(&format!("object odd {}", 1 << 30));
    let object = Region::parse(&answer).unwrap();
    target.ask(&format!("put odd {:x} 40960 20480", object.start));
    let mount = Mount::new("");
    let path = space(&mount, target.pid());
    let file = open(&path);
    let walked = extents(&file);
    assert_eq!(walked, joined(walked.clone()), "neighbours are one stretch");
    let expected = data_of_mappings(&mount, target.pid());
    assert!(expected.len() > 1000);
    assert_eq!(walked, expected);
    // All that the kernel gives out unless it is asked for more.
    let end = (1_u64 << 47) - PAGE as u64;
    let status = file.metadata().unwrap();
    assert_eq!(status.len(), end);
    for whence in [Whence::SeekData, Whence::SeekHole] {
        assert_eq!(seek(&file, end, whence).unwrap(), None);
    }
    assert_eq!(seek(&file, 0, Whence::SeekHole).unwrap(), Some(0));
    // What the kernel counts for each processor apart it adds up from time to time only.
    let resident = Footprint::of(target.pid()).pages * 1024;
    let shown = held(&path);
    assert!(shown.abs_diff(resident) < 1 << 20, "{shown} {resident}");
}

/// Reading a gap between two mappings is `EIO`; a read that comes to one later
/// ends there; nothing is there after the last mapping.
fn gaps_are_errors() {
    let target = Target::new();
    let region = target.region("private");
    for options in ["", "cache_ttl=0"] {
        let mount = Mount::new(options);
        let path = space(&mount, target.pid());
        let file = open(&path);
        for address in [0, 4096, region.start - PAGE, region.end, region.end + 5] {
            expect_errno(
                &format!("{address:#x}"),
                pread(&file, address, 64),
                libc::EIO,
            );
        }
        let bytes = pread(&file, region.end - PAGE, 3 * PAGE).unwrap();
        let expected = target.bytes("private");
        assert_bytes("up to the gap", &bytes, &expected[region.len() - PAGE..]);
        let end = file.metadata().unwrap().len();
        assert_eq!(pread(&file, end as usize, 10).unwrap(), b"", "the end");
    }
}

/// With `fault=zero` a gap reads as zeros.
fn gaps_are_zeros_where_that_was_asked_for() {
    let target = Target::new();
    let region = target.region("private");
    for options in ["fault=zero", "fault=zero,cache_ttl=0"] {
        let mount = Mount::new(options);
        let file = open(&space(&mount, target.pid()));
        assert_eq!(pread_all(&file, 4096, 100), [0; 100]);
        let got = pread_all(&file, region.start - 2 * PAGE, region.len() + 4 * PAGE);
        let mut expected = vec![0; 2 * PAGE];
        expected.extend(target.bytes("private"));
        expected.extend([0; 2 * PAGE]);
        assert_bytes(options, &got, &expected);
    }
}

/// One read goes over the boundary between two mappings.
fn a_read_goes_across_neighbours() {
    let mut target = Target::new();
    let region = target.region("victim");
    let middle = region.start + 8 * PAGE;
    target.ask(&format!("protect {middle:x} {} r--", 4 * PAGE));
    for options in ["", "cache_ttl=0"] {
        let mount = Mount::new(options);
        let file = open(&space(&mount, target.pid()));
        let bytes = pread_all(&file, region.start + 11, region.len() - 11);
        assert_bytes(options, &bytes, &target.bytes("victim")[11..]);
    }
}

/// What is written through one file is read from the other at once, however
/// long data may be kept.
fn writes_are_seen_by_the_mapping_file_and_the_other_way_round() {
    let mut target = Target::new();
    let region = target.region("private");
    for options in ["write,cache_ttl=1h", "write,cache_ttl=0"] {
        let mount = Mount::new(options);
        let paths = [
            (mount.file(&target, "private"), 0),
            (space(&mount, target.pid()), region.start),
        ];
        let readers = paths.clone().map(|(path, base)| (open(&path), base));
        for round in 0..20 {
            let offset = (round * 3001) % (region.len() - 8);
            let (path, base) = &paths[round % 2];
            let text = format!("round{round:03}");
            // All of it is in every cache.
            for (reader, base) in &readers {
                pread_all(reader, base + offset, 8);
            }
            let writer = open_rw(path).unwrap();
            let written = writer.write_at(text.as_bytes(), (base + offset) as u64);
            assert_eq!(written.unwrap(), 8);
            for (reader, base) in &readers {
                assert_bytes(&text, &pread_all(reader, base + offset, 8), text.as_bytes());
            }
            let inside = target.read(region.start + offset, 8);
            assert_bytes("the target", &inside, text.as_bytes());
        }
    }
}

/// Writing needs `write`; where the mapping forbids it, it needs `force`; a gap
/// takes nothing.
fn writes_obey_the_mappings() {
    let mut target = Target::new();
    let pid = target.pid();
    let readonly = target.region("readonly");
    let private = target.region("private");
    let mount = Mount::new("");
    expect_errno("without write", open_rw(&space(&mount, pid)), libc::EACCES);
    let mount = Mount::new("write");
    let file = open_rw(&space(&mount, pid)).unwrap();
    let result = file.write_at(b"x", readonly.start as u64);
    expect_errno("a mapping without w", result, libc::EACCES);
    expect_errno("a gap", file.write_at(b"x", private.end as u64), libc::EIO);
    let written = file.write_at(&[7; PAGE], (private.end - 100) as u64);
    assert_eq!(written.unwrap(), 100, "up to the gap");
    assert_eq!(target.read(private.end - 100, 100), [7; 100]);
    assert_eq!(
        target.read(readonly.start, 1),
        target.bytes("readonly")[..1]
    );
    let mount = Mount::new("write,force");
    let file = open_rw(&space(&mount, pid)).unwrap();
    assert_eq!(file.write_at(b"x", readonly.start as u64).unwrap(), 1);
    assert_eq!(target.read(readonly.start, 1), b"x");
}

/// A file in memory that goes with the test: other file systems take no 128 TiB.
pub(crate) struct InMemory(pub(crate) PathBuf);

impl InMemory {
    /// A name that no other test uses at the same time.
    pub(crate) fn new(mount: &Mount, name: &str) -> Self {
        let shm = Path::new("/dev/shm");
        let dir = if shm.is_dir() { shm } else { mount.outside() };
        Self(dir.join(format!("procmemfs-test-{}-{name}", mount.daemon())))
    }
}

impl Drop for InMemory {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// `cp --sparse=always` copies a whole address space of 128 TiB into a file
/// that holds what the process holds, and does the process no harm.
fn cp_makes_a_sparse_copy_of_a_whole_process() {
    let mut target = Target::new();
    target.ask(&format!("reserve {} 2560", 1_usize << 40));
    let before = Footprint::of(target.pid());
    let mount = Mount::new("");
    let path = space(&mount, target.pid());
    let copy = InMemory::new(&mount, "space");
    let mut cp = Command::new("cp");
    cp.arg("--sparse=always").args([&path, &copy.0]);
    timed("cp of an address space", Duration::from_secs(20), &mut cp)
        .success()
        .quiet();
    let size = path.metadata().unwrap().len();
    assert_eq!(copy.0.metadata().unwrap().len(), size);
    let data: u64 = data_of_mappings(&mount, target.pid())
        .iter()
        .map(|(start, end)| end.next_multiple_of(PAGE as u64) - start)
        .sum();
    assert!(held(&copy.0) <= data, "{} of {data}", held(&copy.0));
    let file = open(&copy.0);
    for name in REGIONS {
        let region = target.region(name);
        let bytes = pread_all(&file, region.start, region.len());
        assert_bytes(name, &bytes, &target.bytes(name));
    }
    assert_eq!(Footprint::of(target.pid()), before);
}

/// Its errors are those of the mapping files: no process, no file; a process
/// that has ended is `ESRCH` for who has it open.
fn it_comes_and_goes_with_the_process() {
    let mut target = Target::new();
    let region = target.region("private");
    let mount = Mount::new("cache_ttl=0");
    let path = space(&mount, target.pid());
    let file = open(&path);
    pread_all(&file, region.start, 10);
    target.exec(2);
    let result = pread(&file, region.start, 10);
    expect_errno("another program", result, libc::ESTALE);
    let file = open(&path);
    let bytes = pread_all(&file, region.start, 64);
    assert_bytes("the new program", &bytes, &target.bytes("private")[..64]);
    target.kill();
    expect_errno("after the end", pread(&file, region.start, 10), libc::ESRCH);
    let result = std::fs::metadata(mount.path("mem/4194305"));
    expect_errno("no process", result, libc::ENOENT);
    expect_errno(
        "not a number",
        std::fs::metadata(mount.path("mem/x")),
        libc::ENOENT,
    );
}
