//! Copies of memory that cannot be read everywhere: a sparse one is never cut short, any other
//! says what it lacks.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::{Whence, lseek};

use crate::space::{InMemory, space};
use crate::support::{
    Mount, Output, PAGE, Region, Target, assert_bytes, eventually, expect_errno, extents, held,
    open, pattern, pread, pread_all, quote, run, tests,
};
use crate::users::{USER, as_user, gone, public_daemon, users_point};
use crate::xattr::text;

tests![
    what_was_unmapped_is_a_hole_of_an_open_file,
    cp_goes_over_what_was_unmapped: [Need::Tool("cp")],
    qemu_img_goes_over_what_was_unmapped: [Need::Tool("qemu-img"), Need::Tool("cp")],
    sparse_copies_of_odd_mappings_are_complete: [Need::Root, Need::Tool("cp"), Need::Tool("tar")],
    sparse_copies_of_the_daemon_itself_are_holes: [Need::Root, Need::Tool("cp"), Need::Tool("tar")],
    sparse_copies_by_a_plain_user_are_complete: [
        Need::PlainUser, Need::Tool("cp"), Need::Tool("tar"), Need::Tool("getfattr")
    ],
    data_in_very_many_stretches_is_copied: [Need::Root, Need::Tool("cp"), Need::Tool("tar")],
    unreadable_bytes_are_counted,
    with_fault_zero_a_walk_has_nothing_to_complain_about: [
        Need::Tool("grep"), Need::Tool("tar"), Need::Tool("rsync")
    ],
    with_fault_zero_every_tool_goes_to_the_end: [
        Need::Tool("cat"), Need::Tool("rsync"), Need::Tool("dd"), Need::Tool("grep"),
        Need::Tool("tar")
    ],
    dd_goes_on_after_an_error: [Need::Tool("dd")],
    a_copy_of_a_process_that_maps_and_unmaps_ends_well_or_says_why: [
        Need::Tool("cp"), Need::Tool("tar")
    ],
];

/// Pages 6 to 8 of `victim` are unmapped in these tests.
const HOLE: std::ops::Range<usize> = 6 * PAGE..9 * PAGE;

/// A target, a file that was opened before pages in its middle were unmapped, and its bytes with
/// zeros for those.
fn with_hole(mount: &Mount) -> (Target, File, Vec<u8>) {
    let mut target = Target::new();
    let file = open(&mount.file(&target, "victim"));
    let at = target.region("victim").start + HOLE.start;
    target.ask(&format!("unmap {at:x} {}", HOLE.len()));
    let mut expected = target.bytes("victim");
    expected[HOLE].fill(0);
    (target, file, expected)
}

/// Runs a command whose standard input is the file, from its start on.
#[track_caller]
fn run_on(file: &File, command: &mut Command) -> Output {
    lseek(file, 0, Whence::SeekSet).unwrap();
    run(command.stdin(Stdio::from(file.try_clone().unwrap())))
}

/// Unmapped pages are a hole to `lseek` and `EIO` to a read, with every bound and for both kinds of file.
fn what_was_unmapped_is_a_hole_of_an_open_file() {
    for options in ["", "cache_ttl=0", "cache_ttl=1h", "fault=zero"] {
        let mount = Mount::new(options);
        let (target, file, expected) = with_hole(&mount);
        let (start, end) = (HOLE.start as u64, HOLE.end as u64);
        let len = expected.len() as u64;
        assert_eq!(extents(&file), [(0, start), (end, len)], "{options}");
        let region = target.region("victim");
        let whole = open(&space(&mount, target.pid()));
        let at = region.start as u64;
        let of_region = extents(&whole)
            .into_iter()
            .filter(|(start, _)| (region.start..region.end).contains(&(*start as usize)));
        let of_region: Vec<_> = of_region.collect();
        assert_eq!(of_region, [(at, at + start), (at + end, at + len)]);
        if options != "fault=zero" {
            for (file, base) in [(&file, 0), (&whole, region.start)] {
                let result = pread(file, base + HOLE.start, PAGE);
                expect_errno(options, result, libc::EIO);
            }
        }
    }
}

/// `cp` in all its ways copies what is there, and makes a hole of the rest.
fn cp_goes_over_what_was_unmapped() {
    for options in ["", "cache_ttl=0", "fault=zero"] {
        let mount = Mount::new(options);
        let (_target, file, expected) = with_hole(&mount);
        for how in ["auto", "always"] {
            let copy = mount.outside().join(how);
            // `cp` looks for holes where blocks are missing, and those are as old as the bound.
            eventually("blocks are missing", || {
                let status = file.metadata().unwrap();
                (status.blocks() * 512 < status.len()).then_some(())
            });
            let mut cp = Command::new("cp");
            cp.arg(format!("--sparse={how}")).arg("/proc/self/fd/0");
            run_on(&file, cp.arg(&copy)).success().quiet();
            assert_bytes(how, &std::fs::read(&copy).unwrap(), &expected);
            assert!(held(&copy) <= (expected.len() - HOLE.len()) as u64);
        }
    }
}

/// So does `qemu-img convert`.
fn qemu_img_goes_over_what_was_unmapped() {
    let mount = Mount::new("");
    let (_target, file, expected) = with_hole(&mount);
    let copy = mount.outside().join("copy");
    let mut convert = Command::new("qemu-img");
    convert.args(["convert", "-f", "raw", "-O", "raw", "-S", "4k"]);
    run_on(&file, convert.arg("/proc/self/fd/0").arg(&copy)).success();
    assert_bytes("qemu-img", &std::fs::read(&copy).unwrap(), &expected);
}

/// Copies the directory and the address space of `pid` with tools that look for holes; each must
/// end without a complaint. Gives the copies of the directory and the address space.
#[track_caller]
fn sparse_copies(mount: &Mount, pid: u32) -> (PathBuf, InMemory) {
    let outside = mount.outside();
    for how in ["auto", "always"] {
        let mut cp = Command::new("cp");
        cp.arg("-r").arg(format!("--sparse={how}"));
        cp.arg(mount.process(pid));
        run(cp.arg(outside.join(format!("{pid}.{how}"))))
            .success()
            .quiet();
    }
    let archive = outside.join("archive");
    for what in [pid.to_string(), format!("mem/{pid}")] {
        let mut tar = Command::new("tar");
        tar.arg("-Scf").arg(&archive).arg("-C").arg(mount.point());
        run(tar.arg(what)).success().quiet();
    }
    let whole = InMemory::new(mount, &format!("backup-{pid}"));
    let mut cp = Command::new("cp");
    cp.arg("--sparse=always").arg(space(mount, pid));
    run(cp.arg(&whole.0)).success().quiet();
    (outside.join(format!("{pid}.auto")), whole)
}

/// Lays the file of a region of this mount over another one, and lets the target touch it.
fn map_own_mount(mount: &Mount, target: &mut Target, over: &str) -> Region {
    let region = target.region(over);
    let path = mount.file(target, "readonly");
    target.ask(&format!("open own {}", path.display()));
    target.ask(&format!(
        "lay own {:x} {} private r",
        region.start,
        region.len()
    ));
    target.read(region.start, region.len());
    region
}

/// Guard pages, memory without protection, files that end in the middle of their mapping, deleted
/// ones, and files of this very mount: a sparse copy is complete, and has holes for what cannot be read.
fn sparse_copies_of_odd_mappings_are_complete() {
    for options in ["", "cache_ttl=0"] {
        let mut target = Target::new();
        let mount = Mount::new(options);
        // A file that is not cached cannot be mapped in a way that lasts.
        let own = map_own_mount(&mount, &mut target, "victim2");
        let path = mount.mapping(target.pid(), own.start, own.end);
        // Tools look for holes where blocks are missing.
        assert!(held(&path) < PAGE as u64, "{} bytes", held(&path));
        assert_eq!(text(&path, "unreadable_bytes"), own.len().to_string());
        let (copies, whole) = sparse_copies(&mount, target.pid());
        let copy_of = |path: &Path| std::fs::read(copies.join(path.file_name().unwrap())).unwrap();
        assert_bytes("own mount", &copy_of(&path), &vec![0; own.len()]);
        let whole = open(&whole.0);
        assert_bytes(
            "own mount in the address space",
            &pread_all(&whole, own.start, own.len()),
            &vec![0; own.len()],
        );
        for name in [
            "private",
            "noaccess",
            "past_end",
            "deleted",
            "sparse_shared",
        ] {
            let expected = target.bytes(name);
            assert_bytes(name, &copy_of(&mount.file(&target, name)), &expected);
            let bytes = pread_all(&whole, target.region(name).start, expected.len());
            assert_bytes(name, &bytes, &expected);
        }
    }
}

/// The daemon's own memory is all holes: it is never read, and a backup of everything goes past it.
fn sparse_copies_of_the_daemon_itself_are_holes() {
    let mount = Mount::new("threads=1");
    let pid = mount.daemon();
    let file = open(&space(&mount, pid));
    assert_eq!(extents(&file), []);
    let whole = InMemory::new(&mount, "daemon");
    let mut cp = Command::new("cp");
    cp.arg("--sparse=always").arg(space(&mount, pid));
    run(cp.arg(&whole.0)).success().quiet();
    assert_eq!(held(&whole.0), 0);
    let unreadable: u64 = text(&space(&mount, pid), "unreadable_bytes")
        .parse()
        .unwrap();
    assert!(unreadable > 1 << 20, "{unreadable}");
    // Threads come and go, and mappings with them: those of the program stay.
    for name in mount.names(pid) {
        if !name.ends_with(".procmemfs") {
            continue;
        }
        let (path, copy) = (mount.process(pid).join(&name), mount.outside().join(&name));
        run(Command::new("cp").arg(&path).arg(&copy))
            .success()
            .quiet();
        assert_eq!(
            copy.metadata().unwrap().len(),
            path.metadata().unwrap().len()
        );
        let mut tar = Command::new("tar");
        tar.arg("-Scf").arg(mount.outside().join("archive"));
        tar.arg("-C").arg(mount.process(pid));
        run(tar.arg(&name)).success().quiet();
    }
}

/// A plain user's daemon cannot have the pages of a memfd that its process has not mapped and holds
/// no descriptor of: they are holes between those that it has mapped, and counted.
fn sparse_copies_by_a_plain_user_are_complete() {
    const PAGES: usize = 64;
    let mut target = Target::of_user(USER);
    let len = PAGES * PAGE;
    let region = Region::parse(&target.ask(&format!("object odd {len}"))).unwrap();
    let start = region.start;
    target.ask(&format!("put odd {start:x} 0 {len}"));
    let mut expected = vec![0; len];
    for page in (0..PAGES).step_by(5) {
        let at = start + page * PAGE;
        target.ask(&format!("fill {at:x} {PAGE}"));
        let bytes = pattern::bytes(at as u64, PAGE, target.generation());
        expected[page * PAGE..][..PAGE].copy_from_slice(&bytes);
    }
    target.ask("close odd");
    let unmapped = (len - PAGES.div_ceil(5) * PAGE) as u64;
    let point = users_point();
    let script = format!(
        "set -e\n\
         {daemon} {mount}\n\
         dir=$(mktemp -d -p /dev/shm)\n\
         trap 'chmod -R u+w $dir; rm -rf $dir; fusermount3 -u {mount}' EXIT\n\
         cd {mount}/{pid}\n\
         file=$(echo {start:012x}-*)\n\
         count() {{ getfattr --only-values -n user.procmemfs.unreadable_bytes $1; echo; }}\n\
         count $file >&2\n\
         count ../mem/{pid} >&2\n\
         cp -r --sparse=always . $dir/always\n\
         cp -r . $dir/auto\n\
         cd ..\n\
         tar -Scf $dir/archive {pid}\n\
         tar -xf $dir/archive -C $dir\n\
         tar -Scf $dir/archive mem/{pid}\n\
         cp --sparse=always mem/{pid} $dir/whole\n\
         cd /\n\
         cat $dir/always/$file $dir/auto/$file $dir/{pid}/$file\n\
         dd if=$dir/whole bs=4096 skip={skip} count={PAGES} status=none\n",
        daemon = quote(&public_daemon(&point)),
        mount = quote(point.path()),
        pid = target.pid(),
        skip = start / PAGE,
    );
    let output = run(&mut as_user(&point, "", &script)).success();
    gone(point.path());
    let number = |line: &str| line.parse().unwrap_or_else(|_| panic!("{}", output.stderr));
    let counts = output.stderr.lines().map(number);
    let counts: Vec<u64> = counts.collect();
    assert_eq!(counts[0], unmapped, "{counts:?}");
    // The target has other such memory: what is shared without a name, deleted, ...
    assert!(counts[1] >= unmapped, "{counts:?}");
    let what = "cp always, cp auto, tar -S, the address space";
    assert_bytes(what, &output.stdout, &expected.repeat(4));
}

/// Pages that the target has mapped, and pages that are in the object of the mapping alone, by
/// turns, more of them than one `lseek` passes over: no page is lost.
fn data_in_very_many_stretches_is_copied() {
    const PAGES: usize = 4000;
    let mut target = Target::new();
    let len = PAGES * PAGE;
    let region = Region::parse(&target.ask(&format!("object odd {len}"))).unwrap();
    target.ask(&format!("put odd {:x} 0 {len}", region.start));
    for page in (0..PAGES).step_by(2) {
        target.ask(&format!("fill {:x} {PAGE}", region.start + page * PAGE));
    }
    let expected = pattern::bytes(region.start as u64, len, target.generation());
    for options in ["", "cache_ttl=0"] {
        let mount = Mount::new(options);
        let path = mount.mapping(target.pid(), region.start, region.end);
        let found = extents(&open(&path));
        let last = found
            .iter()
            .try_fold(0, |end, (from, to)| (*from == end).then_some(*to));
        assert_eq!(last, Some(len as u64), "{options}: {found:?}");
        assert!(found.len() > 1, "{options}: {found:?}");
        let name = path.file_name().unwrap();
        let (copy, archive) = (
            mount.outside().join("copy"),
            mount.outside().join("archive"),
        );
        let mut cp = Command::new("cp");
        run(cp.arg("--sparse=always").args([&path, &copy]))
            .success()
            .quiet();
        assert_bytes("cp", &std::fs::read(&copy).unwrap(), &expected);
        let mut tar = Command::new("tar");
        tar.arg("-Scf")
            .arg(&archive)
            .arg("-C")
            .arg(path.parent().unwrap());
        run(tar.arg(name)).success().quiet();
        let mut tar = Command::new("tar");
        tar.arg("-xf").arg(&archive).arg("-C").arg(mount.outside());
        run(&mut tar).success().quiet();
        let unpacked = std::fs::read(mount.outside().join(name)).unwrap();
        assert_bytes("tar", &unpacked, &expected);
    }
}

/// The count is of what cannot be read now: that of an address space is the sum of its mappings'.
fn unreadable_bytes_are_counted() {
    for options in ["", "cache_ttl=0"] {
        let mount = Mount::new(options);
        let mut target = Target::new();
        let pid = target.pid();
        let count = |path: &Path| -> u64 { text(path, "unreadable_bytes").parse().unwrap() };
        let past_end = mount.file(&target, "past_end");
        assert_eq!(count(&past_end), 2 * PAGE as u64);
        for name in ["private", "noaccess", "sparse_shared", "file_shared"] {
            assert_eq!(count(&mount.file(&target, name)), 0, "{name}");
        }
        let mut sum = 0;
        for name in mount.names(pid) {
            let path = mount.process(pid).join(&name);
            if name.ends_with(".vvar") {
                let region = Region::parse(name.split('.').next().unwrap()).unwrap();
                assert_eq!(count(&path), region.len() as u64);
            }
            // No offset of the address space's file reaches that.
            if name.contains('-') && !name.ends_with(".vsyscall") {
                sum += count(&path);
            }
        }
        assert_eq!(count(&space(&mount, pid)), sum, "{options}");
        let file = open(&mount.file(&target, "victim"));
        let at = target.region("victim").start + HOLE.start;
        target.ask(&format!("unmap {at:x} {}", HOLE.len()));
        let open = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        eventually("the count is of now", || {
            (count(&open) == HOLE.len() as u64).then_some(())
        });
        // Gaps between mappings are no memory at all.
        eventually("the count is of the mappings of now", || {
            (count(&space(&mount, pid)) == sum).then_some(())
        });
    }
}

/// With `fault=zero` tools that know nothing of holes go to the end, too.
fn with_fault_zero_every_tool_goes_to_the_end() {
    let mount = Mount::new("fault=zero");
    let (_target, file, expected) = with_hole(&mount);
    let copy = mount.outside().join("copy");
    let fd = "/proc/self/fd/0";
    let mut dd = Command::new("dd");
    dd.args(["bs=64K", "status=none"]);
    for mut command in [Command::new("cat"), dd] {
        let output = run_on(&file, &mut command).success().quiet();
        assert_bytes("cat, dd", &output.stdout, &expected);
    }
    let mut grep = Command::new("grep");
    grep.args(["-c", "-a", "no such text in any memory", fd]);
    run_on(&file, &mut grep).code(1).quiet();
    let mut rsync = Command::new("rsync");
    rsync.args(["-S", "--copy-links", fd]);
    run_on(&file, rsync.arg(&copy)).success().quiet();
    assert_bytes("rsync", &std::fs::read(&copy).unwrap(), &expected);
    let mut tar = Command::new("tar");
    tar.args(["-chPf", "-", fd]);
    let archive = run_on(&file, &mut tar).success().quiet().stdout;
    assert_bytes("tar", &archive[512..][..expected.len()], &expected);
}

/// With `fault=zero` a walk over everything goes past files of this mount that the target maps, and
/// past the daemon's own memory.
fn with_fault_zero_a_walk_has_nothing_to_complain_about() {
    for options in ["fault=zero", "fault=zero,cache_ttl=0"] {
        let mut target = Target::new();
        let mount = Mount::new(options);
        let own = map_own_mount(&mount, &mut target, "victim2");
        let path = mount.mapping(target.pid(), own.start, own.end);
        assert_bytes(options, &std::fs::read(path).unwrap(), &vec![0; own.len()]);
        let process = mount.process(target.pid());
        let mut tar = Command::new("tar");
        tar.arg("-cPf").arg(mount.outside().join("archive"));
        run(tar.arg(&process)).success().quiet();
        let mut grep = Command::new("grep");
        grep.args(["-r", "no such text in any memory"]);
        run(grep.arg(&process)).code(1).quiet();
        let mut rsync = Command::new("rsync");
        rsync.arg("-rlS").arg(&process);
        run(rsync.arg(mount.outside().join("copies")))
            .success()
            .quiet();
        // Threads come and go, and mappings with them: those of the program stay.
        for name in mount.names(mount.daemon()) {
            if name.ends_with(".procmemfs") {
                let path = mount.process(mount.daemon()).join(name);
                let bytes = std::fs::read(&path).unwrap();
                assert_bytes("the daemon", &bytes, &vec![0; bytes.len()]);
                assert_eq!(bytes.len() as u64, path.metadata().unwrap().len());
            }
        }
    }
}

/// `dd conv=noerror,sync` puts zeros in place of what cannot be read, and all else where it belongs.
fn dd_goes_on_after_an_error() {
    for options in ["", "cache_ttl=0"] {
        let mount = Mount::new(options);
        let (_target, file, expected) = with_hole(&mount);
        let mut dd = Command::new("dd");
        dd.args(["bs=4096", "conv=noerror,sync"]);
        let output = run_on(&file, &mut dd).success();
        assert_bytes(options, &output.stdout, &expected);
        output.complains(&["Input/output error"]);
    }
}

/// A process that maps and unmaps while it is copied: the copy is complete, or the tool says that a
/// read failed, since memory that was there when it asked for data was gone when it read. With
/// `fault=zero` it is always complete, and so it is of a process that is stopped.
fn a_copy_of_a_process_that_maps_and_unmaps_ends_well_or_says_why() {
    let mut target = Target::new();
    target.ask(&format!("churn {}", 16 << 20));
    let pid = target.pid();
    let private = target.region("private");
    let copy = |mount: &Mount| {
        let copy = InMemory::new(mount, "churn");
        let mut cp = Command::new("cp");
        cp.arg("--sparse=always")
            .args([&space(mount, pid), &copy.0]);
        let output = run(&mut cp);
        if output.status.success() {
            let file = open(&copy.0);
            let bytes = pread_all(&file, private.start, private.len());
            assert_bytes("private", &bytes, &target.bytes("private"));
        }
        output
    };
    let archive = |mount: &Mount| {
        let mut tar = Command::new("tar");
        tar.arg("-ScPf").arg(mount.outside().join("archive"));
        run(tar.arg(space(mount, pid)))
    };
    let ends_well_or_says_why = |output: Output| {
        if !output.status.success() || !output.stderr.is_empty() {
            output.complains(&["Input/output error"]);
        }
    };
    for options in ["", "cache_ttl=0"] {
        let mount = Mount::new(options);
        for _ in 0..3 {
            ends_well_or_says_why(copy(&mount));
        }
        // Without a bound each of its many small reads looks at all mappings.
        if options.is_empty() {
            ends_well_or_says_why(archive(&mount));
        }
    }
    let mount = Mount::new("fault=zero");
    for _ in 0..3 {
        copy(&mount).success().quiet();
        archive(&mount).success().quiet();
    }
    target.signal(nix::sys::signal::Signal::SIGSTOP);
    let mount = Mount::new("");
    copy(&mount).success().quiet();
    archive(&mount).success().quiet();
}
