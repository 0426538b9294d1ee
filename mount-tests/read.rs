//! Reads: the bytes of the file are the bytes of the process.

use std::process::Command;

use crate::support::{
    Mount, PAGE, Program, Region, Target, assert_bytes, drop_kernel_pages, open, pread, pread_all,
    quote, run, secret, sh, tests,
};

tests![
    every_kind_of_mapping_reads_as_the_target_holds_it,
    the_target_and_the_mount_agree,
    absent_pages_read_as_zeros_and_untouched_shared_pages_as_their_data,
    reads_at_odd_offsets_and_at_the_end,
    dd_reads_any_block_size: [Need::Tool("dd")],
    python_reads_with_pread_and_mmap: [Need::Tool("python3")],
    gdb_dumps_the_same_bytes: [Need::Tool("gdb"), Need::Ptrace],
    a_python_object_is_where_it_says: [Need::Tool("python3"), Need::Ptrace],
    a_32_bit_program_reads_as_it_says: [Need::Cc32, Need::Ptrace],
    a_stopped_target_can_be_read,
    an_open_file_keeps_reading_after_the_protection_changed,
];

/// Both ways in which the kernel asks: through its page cache and directly.
const MODES: [&str; 2] = ["cache_ttl=100ms", "cache_ttl=0"];

/// A file holds exactly the bytes of its mapping, whatever its protection
/// (`---p` and `-w-p` included) and whatever it maps: private and shared
/// anonymous memory, memfd, System V, files, deleted files, `/dev/zero`; and
/// it ends where the backing file ends.
fn every_kind_of_mapping_reads_as_the_target_holds_it() {
    let target = Target::new();
    for mode in MODES {
        let mount = Mount::new(mode);
        for name in target.regions().keys().filter(|name| *name != "heap") {
            let path = mount.file(&target, name);
            let expected = target.bytes(name);
            let what = format!("{name} with {mode}");
            let size = path.metadata().unwrap().len();
            assert_eq!(size, expected.len() as u64, "{what}: size");
            let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_bytes(&what, &bytes, &expected);
            let output = run(Command::new("cat").arg(&path)).success().quiet();
            assert_bytes(&format!("cat of {what}"), &output.stdout, &expected);
        }
        // The region of the heap lies within the mapping of the heap.
        let heap = mount.process(target.pid()).join("heap");
        let name = std::fs::read_link(&heap).unwrap();
        let range = name.to_str().unwrap().split('.').next().unwrap();
        let mapping = Region::parse(range).unwrap();
        let region = target.region("heap");
        let bytes = pread_all(&open(&heap), region.start - mapping.start, region.len());
        assert_bytes(&format!("heap with {mode}"), &bytes, &target.bytes("heap"));
    }
}

/// What the target reads through its own pointers is what the mount gives.
fn the_target_and_the_mount_agree() {
    let mut target = Target::new();
    let mount = Mount::new("");
    for name in ["private", "readonly", "shared", "memfd", "sysv", "devzero"] {
        let region = target.region(name);
        let bytes = std::fs::read(mount.file(&target, name)).unwrap();
        let said = target.read(region.start, region.len());
        assert_bytes(name, &bytes, &said);
    }
    for name in ["noaccess", "writeonly"] {
        let region = target.region(name);
        let bytes = std::fs::read(mount.file(&target, name)).unwrap();
        let said = target.read_mem(region.start, region.len());
        assert_bytes(name, &bytes, &said);
    }
}

/// Pages that private memory does not hold yet read as zeros; pages of shared
/// memory that the process never touched read as what the memory holds.
fn absent_pages_read_as_zeros_and_untouched_shared_pages_as_their_data() {
    let target = Target::new();
    for mode in MODES {
        let mount = Mount::new(mode);
        for name in ["sparse_private", "sparse_shared"] {
            let file = open(&mount.file(&target, name));
            let expected = target.bytes(name);
            // Single reads in the middle, before anything read the rest.
            for page in [512, 511, 513, 0, 1, 1023] {
                let got = pread_all(&file, page * PAGE, PAGE);
                let expected = &expected[page * PAGE..][..PAGE];
                assert_bytes(&format!("{name}, page {page}, {mode}"), &got, expected);
            }
        }
    }
}

/// Any offset and length gives those bytes; a read across the end gives the
/// bytes before it, a read at or past the end gives none.
fn reads_at_odd_offsets_and_at_the_end() {
    let target = Target::new();
    let expected = target.bytes("scratch");
    let size = expected.len();
    for mode in MODES {
        let mount = Mount::new(mode);
        let file = open(&mount.file(&target, "scratch"));
        for (offset, len) in [
            (0, 1),
            (1, 1),
            (4095, 2),
            (4097, 8192),
            (1 << 20, 1 << 20),
            ((1 << 20) - 3, 7),
            (12345, 3_000_001),
            (size - 1, 1),
            (0, size),
        ] {
            let got = pread_all(&file, offset, len);
            let what = format!("{len} bytes at {offset} with {mode}");
            assert_bytes(&what, &got, &expected[offset..offset + len]);
        }
        let tail = pread(&file, size - 100, 5000).unwrap();
        assert_bytes("across the end", &tail, &expected[size - 100..]);
        for offset in [size, size + 1, size + 12345] {
            assert_eq!(pread(&file, offset, 10).unwrap(), b"", "at {offset}");
        }
    }
}

/// `dd` with block sizes 1, 511, 4K and 1M, with `skip` and `seek`, copies
/// exactly the bytes it names.
fn dd_reads_any_block_size() {
    let target = Target::new();
    let expected = target.bytes("scratch");
    for mode in MODES {
        let mount = Mount::new(mode);
        let input = quote(&mount.file(&target, "scratch"));
        let output = mount.outside().join("copy");
        for (size, skip, count, seek) in [
            (1, 4000, 200, 3),
            (511, 7, 300, 2),
            (4096, 5, 1000, 1),
            (1 << 20, 1, 6, 1),
            (1 << 20, 7, 100, 0),
        ] {
            let _ = std::fs::remove_file(&output);
            sh(&format!(
                "dd if={input} of={} bs={size} skip={skip} count={count} seek={seek} status=none",
                quote(&output)
            ))
            .success()
            .quiet();
            let from = skip * size;
            let to = (from + count * size).min(expected.len());
            let mut copy = vec![0; seek * size];
            copy.extend_from_slice(&expected[from..to]);
            let what = format!("dd bs={size} skip={skip} count={count} seek={seek}, {mode}");
            assert_bytes(&what, &std::fs::read(&output).unwrap(), &copy);
        }
    }
}

/// Python's `os.pread` and a read-only `mmap` of a file give its bytes.
fn python_reads_with_pread_and_mmap() {
    let target = Target::new();
    let mount = Mount::new("");
    let expected = target.bytes("scratch");
    let reference = mount.outside().join("expected");
    std::fs::write(&reference, &expected).unwrap();
    let script = "\
import mmap, os, sys
path, reference = sys.argv[1:]
expected = open(reference, 'rb').read()
fd = os.open(path, os.O_RDONLY)
for offset, length in [(0, 10), (4095, 3), (1234567, 65536), (len(expected) - 5, 5)]:
    assert os.pread(fd, length, offset) == expected[offset:offset + length], (offset, length)
assert os.pread(fd, 10, len(expected)) == b''
with mmap.mmap(fd, 0, access=mmap.ACCESS_READ) as memory:
    assert len(memory) == len(expected)
    assert memory[:] == expected
    assert memory.find(expected[5000000:5000016]) == 5000000
print('same')
";
    let path = mount.file(&target, "scratch");
    let mut python = Command::new("python3");
    let output = run(python.args(["-c", script]).arg(path).arg(reference));
    assert_eq!(output.success().quiet().text(), "same\n");
}

/// `gdb`'s `dump binary memory` and the mount give the same bytes.
fn gdb_dumps_the_same_bytes() {
    let target = Target::new();
    let sleep = Program::sleep();
    let mount = Mount::new("");
    let mut cases = Vec::new();
    for name in ["private", "noaccess", "shared", "memfd", "file_private"] {
        let region = target.region(name);
        cases.push((target.pid(), region, mount.file(&target, name)));
    }
    // All of a program that is not ours.
    for name in mount.names(sleep.pid()) {
        let Some(range) = name.split('.').next().and_then(Region::parse) else {
            continue;
        };
        let path = mount.process(sleep.pid()).join(&name);
        if path.metadata().unwrap().len() == range.len() as u64 {
            cases.push((sleep.pid(), range, path));
        }
    }
    let dump = mount.outside().join("dump");
    for pid in [target.pid(), sleep.pid()] {
        let mut gdb = Command::new("gdb");
        gdb.args(["-nx", "-batch", "-p", &pid.to_string()]);
        for (index, (_, region, _)) in cases.iter().enumerate().filter(|(_, c)| c.0 == pid) {
            let (start, end) = (region.start, region.end);
            let file = format!("{}.{index}", dump.display());
            gdb.args([
                "-ex",
                &format!("dump binary memory {file} {start:#x} {end:#x}"),
            ]);
        }
        run(&mut gdb).success();
    }
    assert!(cases.len() > 15, "sleep has more mappings than that");
    for (index, (_, _, path)) in cases.iter().enumerate() {
        let dumped = std::fs::read(format!("{}.{index}", dump.display()))
            .unwrap_or_else(|e| panic!("gdb did not dump {path:?}: {e}"));
        let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        assert_bytes(&format!("{path:?}"), &bytes, &dumped);
    }
}

/// The bytes of a Python object are found at the address that Python names.
fn a_python_object_is_where_it_says() {
    let python = Program::python();
    let mount = Mount::new("");
    let address = usize::from_str_radix(python.said.trim_start_matches("0x"), 16).unwrap();
    let (name, region) = mount
        .names(python.pid())
        .into_iter()
        .filter_map(|name| {
            let region = Region::parse(name.split('.').next()?)?;
            Some((name, region))
        })
        .find(|(_, region)| (region.start..region.end).contains(&address))
        .unwrap();
    let file = open(&mount.process(python.pid()).join(name));
    let object = pread_all(&file, address - region.start, 128);
    let secret = secret();
    assert!(
        object.windows(secret.len()).any(|w| w == secret.as_bytes()),
        "{:?} does not hold the secret",
        String::from_utf8_lossy(&object)
    );
}

/// The array of a 32-bit program reads as the program filled it.
fn a_32_bit_program_reads_as_it_says() {
    let mount = Mount::new("");
    let program = Program::bits_32(mount.outside());
    let address = usize::from_str_radix(&program.said, 16).unwrap();
    let expected: Vec<u8> = (0..16384_u32)
        .flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    let mut got = Vec::new();
    // The array may begin in one mapping and end in the next.
    for name in mount.names(program.pid()) {
        let Some(region) = name.split('.').next().and_then(Region::parse) else {
            continue;
        };
        let from = region.start.max(address);
        let to = region.end.min(address + expected.len());
        if from < to {
            let file = open(&mount.process(program.pid()).join(&name));
            got.extend(pread_all(&file, from - region.start, to - from));
        }
    }
    assert_bytes("the array", &got, &expected);
}

/// A target that is stopped by a signal reads like any other.
fn a_stopped_target_can_be_read() {
    let target = Target::new();
    target.signal(nix::sys::signal::Signal::SIGSTOP);
    let mount = Mount::new("");
    for name in ["private", "noaccess", "scratch"] {
        let path = mount.file(&target, name);
        let output = run(Command::new("cat").arg(path)).success().quiet();
        assert_bytes(name, &output.stdout, &target.bytes(name));
    }
}

/// A file that is open reads on after the mapping became unreadable for the
/// process itself, and after it was split in two.
fn an_open_file_keeps_reading_after_the_protection_changed() {
    let mut target = Target::new();
    let expected = target.bytes("private");
    let region = target.region("private");
    for mode in MODES {
        let mount = Mount::new(mode);
        let file = open(&mount.file(&target, "private"));
        for protection in ["---", "r--", "-w-", "rw-"] {
            let at = region.start + 4 * PAGE;
            target.ask(&format!("protect {at:x} {} {protection}", 4 * PAGE));
            drop_kernel_pages(&file);
            let got = pread_all(&file, 0, region.len());
            assert_bytes(&format!("after {protection} with {mode}"), &got, &expected);
        }
    }
}
