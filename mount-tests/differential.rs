//! For each address of any process the mount gives what `/proc/PID/mem` gives, or an error; it never changes
//! the target, and a walk over the directory never complains.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::support::{
    Footprint, Mount, PAGE, Region, Target, eventually, open, page_or_hole, run, tests,
};

tests![
    every_page_of_a_process_with_all_kinds_of_memory: [Need::Root],
    every_page_in_memory_of_every_process_of_the_machine: [Need::Root],
];

/// Mappings of a process, by the names of their files.
fn regions(mount: &Mount, pid: u32) -> io::Result<Vec<(Region, PathBuf)>> {
    let names = mount.listing(pid)?.into_iter();
    let region = |name: &str| Region::parse(name.split('.').next()?);
    Ok(names
        .filter_map(|name| Some((region(&name)?, mount.process(pid).join(&name))))
        .collect())
}

/// Memory of every kind at once, the target stopped: each page by the mapping's file, by `mem/PID` and by the kernel.
fn every_page_of_a_process_with_all_kinds_of_memory() {
    for options in ["", "cache_ttl=0"] {
        let mut target = Target::new();
        let whole = |region: &Region| format!("{:x} {}", region.start, region.len());
        let part = |region: &Region| format!("{:x} {}", region.start + 4 * PAGE, 4 * PAGE);
        let make = |target: &mut Target, shape: &str| {
            let region = Region::parse(&target.ask(shape)).unwrap();
            let fill = format!("fill {:x} {}", region.start + PAGE, 2 * PAGE);
            target.ask(&fill);
            region
        };
        let reserve = format!("reserve {} 3", 64 * PAGE);
        for shape in [&reserve, "shared 262144", "object plain 262144"] {
            make(&mut target, shape);
        }
        for shape in [&reserve, "shared 262144"] {
            let poisoned = make(&mut target, shape);
            target.ask(&format!("register poison {}", whole(&poisoned)));
            target.ask(&format!("poison {}", part(&poisoned)));
        }
        let guarded = make(&mut target, &reserve);
        target.ask(&format!("guard {}", part(&guarded)));
        for shape in [&reserve, "object protected 262144"] {
            let protected = make(&mut target, shape);
            target.ask(&format!("register async {}", whole(&protected)));
            target.ask(&format!("write-protect {}", whole(&protected)));
        }
        let mut lazy = Vec::new();
        for (mode, shape) in [("missing", &reserve[..]), ("minor", "object lazy 262144")] {
            let region = make(&mut target, shape);
            target.ask(&format!("register {mode} {}", whole(&region)));
            lazy.push(region);
        }
        for kind in ["aio", "io_uring", "packet", "perf"] {
            target.ask(&format!("ring {kind}"));
        }
        target.signal(Signal::SIGSTOP);
        let stopped = format!("/proc/{}/stat", target.pid());
        eventually("the stop", || {
            let stat = std::fs::read_to_string(&stopped).unwrap();
            stat.contains(") T ").then_some(())
        });
        let mount = Mount::new(options);
        let is_lazy = |at: usize| lazy.iter().any(|l| (l.start..l.end).contains(&at));
        compare_all(&mount, target.pid(), is_lazy);
        walk(&mount, target.pid());
        target.signal(Signal::SIGCONT);
    }
}

#[track_caller]
fn compare_all(mount: &Mount, pid: u32, is_lazy: impl Fn(usize) -> bool) {
    let before = Footprint::of(pid);
    let space = open(&mount.path(format!("mem/{pid}")));
    let mut seen = Vec::new();
    for (region, path) in regions(mount, pid).unwrap() {
        let file = open(&path);
        let size = file.metadata().unwrap().len();
        for offset in (0..region.len() as u64).step_by(PAGE) {
            let at = region.start + offset as usize;
            // Past the end of a file there is nothing.
            let bytes = match offset < size {
                true => page_or_hole(&file, offset)
                    .unwrap_or_else(|e| panic!("{path:?} {offset:#x}: {e}")),
                false => None,
            };
            if let Ok(known) = i64::try_from(at) {
                let by_space = page_or_hole(&space, known as u64);
                let by_space = by_space.unwrap_or_else(|e| panic!("mem at {at:#x}: {e}"));
                assert_eq!(by_space, bytes, "mem and {path:?} at {at:#x}");
            }
            seen.push((at, bytes, path.clone()));
        }
    }
    assert_eq!(Footprint::of(pid), before, "what looking has cost");
    // Last, since this faults pages in; and not what nobody will ever fill in.
    let mem = File::open(format!("/proc/{pid}/mem")).unwrap();
    for (at, bytes, path) in seen {
        // What only the kernel can bring in, by a fault of the process.
        let is_ring = ["[aio]", "socket:", "anon_inode:"]
            .iter()
            .any(|name| path.to_string_lossy().contains(name));
        if bytes.is_none() && (is_lazy(at) || is_ring) {
            continue;
        }
        let mut expected = vec![0; PAGE];
        let read = mem.read_exact_at(&mut expected, at as u64);
        let expected = read.is_ok().then_some(expected);
        assert_eq!(bytes.is_some(), expected.is_some(), "{path:?} at {at:#x}");
        assert!(bytes == expected, "the bytes of {path:?} at {at:#x}");
    }
}

/// Copies are complete: what cannot be read is a hole.
#[track_caller]
fn walk(mount: &Mount, pid: u32) {
    let dir = mount.process(pid);
    let mut tar = Command::new("tar");
    run(tar.args(["-cSf", "/dev/null", "-C"]).arg(&dir).arg("."))
        .success()
        .quiet();
    let copy = mount.outside().join(format!("copy-{pid}"));
    let mut cp = Command::new("cp");
    run(cp.args(["-r", "--sparse=always"]).arg(&dir).arg(&copy))
        .success()
        .quiet();
}

/// Numbers of processes that are older than this test, whose memory is their own.
fn others() -> Vec<u32> {
    let own = eventually("our own start", || start_of("self"));
    let entries = std::fs::read_dir("/proc").unwrap();
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers
        .filter(|pid: &u32| start_of(&pid.to_string()).is_some_and(|start| start < own))
        .collect()
}

fn start_of(process: &str) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let fields = stat.rsplit_once(") ")?.1;
    let state = fields.split(' ').next()?;
    (state != "Z" && state != "D").then(|| fields.split(' ').nth(19)?.parse().ok())?
}

/// Pages that are compared of a mapping, spread over it.
const SAMPLES: u64 = 48;

/// Processes run while they are looked at: a word that changes under both looks is not compared.
fn every_page_in_memory_of_every_process_of_the_machine() {
    let mount = Mount::new("cache_ttl=0");
    let mut compared = 0;
    for pid in others() {
        let Ok(mem) = File::open(format!("/proc/{pid}/mem")) else {
            continue;
        };
        let Ok(pagemap) = File::open(format!("/proc/{pid}/pagemap")) else {
            continue;
        };
        let regions = match regions(&mount, pid) {
            Ok(regions) => regions,
            // A kernel thread, or it has ended; or it runs another program since.
            Err(error) => {
                let errno = error.raw_os_error().unwrap();
                let expected = [libc::ENOENT, libc::ESRCH, libc::ESTALE];
                assert!(expected.contains(&errno), "{pid}: {error}");
                continue;
            }
        };
        for (region, path) in regions {
            let Ok(file) = File::open(&path) else {
                continue;
            };
            let pages = (region.len() / PAGE) as u64;
            for index in (0..pages).step_by(pages.div_ceil(SAMPLES).max(1) as usize) {
                let at = region.start as u64 + index * PAGE as u64;
                if is_present(&pagemap, at) {
                    compared += u64::from(agree(&mem, &file, at, index * PAGE as u64, &path));
                }
            }
        }
    }
    assert!(compared > 100, "{compared} pages were compared");
}

fn is_present(pagemap: &File, at: u64) -> bool {
    let mut entry = [0; 8];
    let read = pagemap.read_exact_at(&mut entry, at / PAGE as u64 * 8);
    read.is_ok() && u64::from_ne_bytes(entry) >> 63 == 1
}

/// Compares a page; returns whether there was one to compare.
#[track_caller]
fn agree(mem: &File, file: &File, at: u64, offset: u64, path: &std::path::Path) -> bool {
    // What is another word each time was changed meanwhile, and back.
    let mut suspects: Option<BTreeSet<usize>> = None;
    let mut wrong = None;
    for _ in 0..20 {
        let (mut before, mut after) = (vec![0; PAGE], vec![0; PAGE]);
        if mem.read_exact_at(&mut before, at).is_err() {
            // Devices and the kernel's own pages; or it has gone.
            return false;
        }
        let got = match page_or_hole(file, offset) {
            Ok(Some(got)) => got,
            // It was unmapped, or the process has ended or runs another program.
            Ok(None) | Err(_) if mem.read_exact_at(&mut after, at).is_err() => return false,
            Err(error) if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::ESTALE)) => {
                return false;
            }
            other => {
                wrong = Some(format!("{other:?}"));
                continue;
            }
        };
        if mem.read_exact_at(&mut after, at).is_err() {
            return false;
        }
        let words = |bytes: &[u8]| bytes.chunks(8).map(<[u8]>::to_vec).collect::<Vec<_>>();
        let (before, got, after) = (words(&before), words(&got), words(&after));
        let mut bad: BTreeSet<usize> = (0..got.len())
            .filter(|&word| before[word] == after[word] && got[word] != before[word])
            .collect();
        if let Some(suspects) = &suspects {
            bad.retain(|word| suspects.contains(word));
        }
        match bad.first() {
            None => return true,
            Some(&word) => wrong = Some(format!("word {word}: {:x?}", got[word])),
        }
        suspects = Some(bad);
    }
    panic!("{path:?} at {at:#x}: {wrong:?}");
}
