//! System calls that few programs make of a file: each is answered as `docs/SEMANTICS.md` says.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use nix::fcntl::{Flock, FlockArg};
use rustix::fs::{self as sys, AtFlags, Mode, OFlags, StatxFlags};

use crate::support::{
    Client, Mount, PAGE, Target, Width, assert_bytes, build_client, expect_errno, open, open_flags,
    pread_all, quote, run, sh, tests,
};

tests![
    numbers_of_inodes_fit_into_32_bits,
    direct_reads_into_any_buffer,
    the_space_of_the_mount_is_the_room_for_snapshots: [Need::Tool("df"), Need::Tool("stat")],
    locks_are_those_of_any_file: [Need::Tool("flock"), Need::Tool("python3")],
    bytes_go_through_pipes_and_maps: [Need::Tool("python3")],
    statx_takes_every_mask,
    flags_of_open_are_answered,
    ioctls_that_ask_for_something_else_are_refused: [Need::Tool("lsattr"), Need::Tool("cp")],
    a_handle_opens_the_same_file_or_none: [Need::Root, Need::Tool("cc")],
    asynchronous_reads: [Need::Tool("qemu-img")],
    requests_that_are_seldom_made_are_known,
    owners_modes_and_times_cannot_be_changed,
];

/// Of files, directories and links, as `stat` and as a listing tells them.
fn numbers_of_inodes_fit_into_32_bits() {
    use std::os::unix::fs::DirEntryExt;
    let mut target = Target::new();
    target.ask("many 2000");
    let mount = Mount::new("");
    let mut seen = std::collections::BTreeSet::new();
    for dir in [mount.point().to_owned(), mount.process(target.pid())] {
        for entry in std::fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            assert!(entry.ino() <= u64::from(u32::MAX), "{entry:?}");
            if let Ok(status) = entry.metadata() {
                assert!(status.ino() <= u64::from(u32::MAX), "{entry:?}");
                seen.insert(status.ino());
            }
        }
    }
    assert!(seen.len() > 2000, "{}", seen.len());
}

/// `O_DIRECT` asks for no alignment: any length, offset and place in memory.
fn direct_reads_into_any_buffer() {
    let target = Target::new();
    let expected = target.bytes("scratch");
    for options in ["", "cache_ttl=0"] {
        let mount = Mount::new(options);
        let file = open_flags(&mount.file(&target, "scratch"), false, libc::O_DIRECT).unwrap();
        let mut buffer = vec![0; (3 << 20) + 64];
        for (shift, offset, len) in [
            (0, 0, 1),
            (1, 3, 100),
            (7, 4095, 2),
            (13, 4095, 4098),
            (0, 1, 1 << 20),
            (511, 5000, (1 << 20) + 1),
            (3, 12_345, 3 << 20),
        ] {
            let shift = shift % 64;
            let part = &mut buffer[shift..shift + len];
            file.read_exact_at(part, offset as u64).unwrap();
            let what = format!("{len} bytes at {offset}, {options:?}");
            assert_bytes(&what, part, &expected[offset..offset + len]);
        }
        let end = expected.len();
        assert_eq!(file.read_at(&mut buffer, end as u64).unwrap(), 0);
        assert_eq!(file.read_at(&mut buffer[..100], end as u64 - 3).unwrap(), 3);
    }
}

/// SEMANTICS: `df` shows the room for snapshots; it is none, as in `/proc`, where no snapshot can be taken.
fn the_space_of_the_mount_is_the_room_for_snapshots() {
    let target = Target::new();
    let mount = Mount::new("snap_size=64m");
    let of = |mount: &Mount| sys::statvfs(mount.point()).unwrap();
    let empty = of(&mount);
    assert_eq!(
        (empty.f_bsize, empty.f_frsize, empty.f_namemax),
        (4096, 4096, 255)
    );
    assert_eq!((empty.f_files, empty.f_ffree), (0, 0), "not counted");
    assert_eq!(empty.f_bfree, empty.f_blocks, "nothing is taken");
    assert_eq!(empty.f_blocks, (64 << 20) / 4096);
    let copy = mount.path(format!("snap/{}@x", target.pid()));
    std::fs::create_dir(&copy).unwrap();
    let held = of(&mount);
    assert!(held.f_bfree < held.f_blocks, "a snapshot takes room");
    assert_eq!(held.f_bavail, held.f_bfree);
    std::fs::remove_dir(&copy).unwrap();
    assert_eq!(of(&mount).f_bfree, empty.f_blocks);
    for script in ["df", "df -h", "df -i", "df -a", "stat -f", "stat"] {
        let output = sh(&format!("{script} {}", quote(mount.point())));
        output.success().quiet();
    }
    for options in ["ro", "nostop"] {
        let mount = Mount::new(options);
        let closed = of(&mount);
        let numbers = (closed.f_blocks, closed.f_bfree, closed.f_bavail);
        assert_eq!(numbers, (0, 0, 0), "{options}");
    }
}

/// `flock` and locks of ranges work and exclude each other, though nothing but advice hangs on them.
fn locks_are_those_of_any_file() {
    let target = Target::new();
    let mount = Mount::new("");
    let path = mount.file(&target, "private");
    let lock = |how| Flock::lock(open(&path), how).map_err(|(_, errno)| errno);
    let shared = lock(FlockArg::LockSharedNonblock).unwrap();
    let other = lock(FlockArg::LockSharedNonblock).unwrap();
    let errno = lock(FlockArg::LockExclusiveNonblock).unwrap_err();
    assert_eq!(errno, nix::errno::Errno::EWOULDBLOCK);
    drop((shared, other));
    drop(lock(FlockArg::LockExclusiveNonblock).unwrap());
    let mut flock = Command::new("flock");
    let output = run(flock.arg("-n").arg(&path).args(["echo", "held"])).success();
    assert_eq!(output.text().trim(), "held");
    // A directory, too.
    let mut flock = Command::new("flock");
    run(flock.arg("-n").arg(mount.process(target.pid())).arg("true")).success();
    let script = "\
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
fcntl.lockf(fd, fcntl.LOCK_SH | fcntl.LOCK_NB, 100, 5)
child = os.fork()
if child == 0:
    fcntl.lockf(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_SH | fcntl.LOCK_NB)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
fcntl.lockf(fd, fcntl.LOCK_UN)
";
    run(Command::new("python3").args(["-c", script]).arg(&path))
        .success()
        .quiet();
}

/// `sendfile`, `splice`, `copy_file_range`, `mmap`, `preadv`, `readahead`: the bytes of the process.
fn bytes_go_through_pipes_and_maps() {
    let target = Target::new();
    let script = "\
import errno, mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
expected = open(sys.argv[2], 'rb').read()
out = os.open(sys.argv[3], os.O_RDWR | os.O_CREAT | os.O_TRUNC)
size = os.fstat(fd).st_size
os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_WILLNEED)
done = 0
while done < size:
    done += os.sendfile(out, fd, done, size - done)
assert os.pread(out, size, 0) == expected, 'sendfile'
assert os.sendfile(out, fd, size, 10) == 0, 'sendfile past the end'
one, other = os.pipe()
got, at = b'', 5
while at < size:
    count = os.splice(fd, other, 4099, offset_src=at)
    got += os.read(one, count)
    at += count
assert got == expected[5:], 'splice'
os.ftruncate(out, 0)
try:
    os.copy_file_range(fd, out, 5000, 7, 0)
    assert os.pread(out, 5000, 0) == expected[7:5007], 'copy_file_range'
except OSError as error:
    # Between two file systems; tools go on with read and write.
    assert error.errno == errno.EXDEV, error
for flags in (mmap.MAP_PRIVATE, mmap.MAP_SHARED):
    view = mmap.mmap(fd, size, flags, mmap.PROT_READ)
    assert view[:] == expected, 'mmap'
    view.close()
first, second = bytearray(100), bytearray(5000)
assert os.preadv(fd, [first, second], 50) == 5100
assert first + second == expected[50:5150], 'preadv'
try:
    os.preadv(fd, [first], 0, os.RWF_NOWAIT)
except OSError as error:
    assert error.errno in (errno.EAGAIN, errno.EOPNOTSUPP), error
os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
os.fsync(fd)
os.fdatasync(fd)
";
    let reference = target.dir().join("reference");
    std::fs::write(&reference, target.bytes("memfd")).unwrap();
    for options in ["", "cache_ttl=1h"] {
        let mount = Mount::new(options);
        let mut python = Command::new("python3");
        python
            .args(["-c", script])
            .arg(mount.file(&target, "memfd"));
        python.arg(&reference).arg(mount.outside().join("out"));
        run(&mut python).success().quiet();
    }
}

/// Whatever is asked for, and however fresh: what is known is answered; a time of birth is not.
fn statx_takes_every_mask() {
    let target = Target::new();
    let mount = Mount::new("");
    for path in [
        mount.file(&target, "private"),
        mount.process(target.pid()),
        mount.path("self"),
    ] {
        let expected = path.symlink_metadata().unwrap();
        for sync in [
            AtFlags::empty(),
            AtFlags::STATX_FORCE_SYNC,
            AtFlags::STATX_DONT_SYNC,
        ] {
            for mask in [
                StatxFlags::empty(),
                StatxFlags::SIZE,
                StatxFlags::BTIME,
                StatxFlags::ALL,
            ] {
                let flags = sync | AtFlags::SYMLINK_NOFOLLOW;
                let got = sys::statx(sys::CWD, &path, flags, mask).unwrap();
                assert_eq!(got.stx_size, expected.size(), "{path:?}");
                assert_eq!(got.stx_ino, expected.ino(), "{path:?}");
                assert_eq!(u32::from(got.stx_mode), expected.mode(), "{path:?}");
                assert_eq!(got.stx_mask & StatxFlags::BTIME.bits(), 0, "{path:?}");
            }
        }
    }
}

/// `open` with all that it knows.
fn flags_of_open_are_answered() {
    let target = Target::new();
    let mount = Mount::new("");
    let (file, dir) = (mount.file(&target, "private"), mount.process(target.pid()));
    let try_open = |path: &Path, flags: OFlags| {
        let opened = sys::open(path, flags, Mode::RUSR | Mode::WUSR);
        opened.map(File::from).map_err(std::io::Error::from)
    };
    for flags in [
        OFlags::CREATE,
        OFlags::APPEND,
        OFlags::NOATIME,
        OFlags::NONBLOCK,
        OFlags::SYNC,
        OFlags::NOFOLLOW,
        OFlags::LARGEFILE,
        OFlags::NOCTTY,
    ] {
        let mut opened = try_open(&file, flags).unwrap_or_else(|e| panic!("{flags:?}: {e}"));
        opened.read_exact(&mut [0; 10]).unwrap();
    }
    let path_only = try_open(&file, OFlags::PATH).unwrap();
    assert_eq!(path_only.metadata().unwrap().len(), 16 * PAGE as u64);
    let link = dir.join("heap");
    let long = dir.join("x".repeat(256));
    for (what, path, flags, errno) in [
        (
            "exclusive",
            &file,
            OFlags::CREATE | OFlags::EXCL,
            libc::EEXIST,
        ),
        ("a directory", &file, OFlags::DIRECTORY, libc::ENOTDIR),
        ("a link", &link, OFlags::NOFOLLOW, libc::ELOOP),
        ("to be written", &dir, OFlags::WRONLY, libc::EISDIR),
        (
            "unnamed",
            &dir,
            OFlags::TMPFILE | OFlags::RDWR,
            libc::EOPNOTSUPP,
        ),
        ("too long a name", &long, OFlags::RDONLY, libc::ENOENT),
    ] {
        expect_errno(what, try_open(path, flags), errno);
    }
}

/// What is no terminal, has no attributes of ext2 and shares no blocks says so; `cp` goes on without.
fn ioctls_that_ask_for_something_else_are_refused() {
    let target = Target::new();
    let mount = Mount::new("");
    let path = mount.file(&target, "private");
    let output = run(Command::new("lsattr").arg("-d").arg(mount.point()));
    output.failure().complains(&["Operation not supported"]);
    let out = File::create(mount.outside().join("out")).unwrap();
    let clone = sys::ioctl_ficlone(out.as_fd(), open(&path).as_fd());
    expect_errno("FICLONE", clone.map_err(std::io::Error::from), libc::EXDEV);
    for how in ["--reflink=auto", "--reflink=never"] {
        let copy = mount.outside().join("copy");
        run(Command::new("cp").arg(how).args([&path, &copy]))
            .success()
            .quiet();
        assert_bytes(
            how,
            &std::fs::read(&copy).unwrap(),
            &target.bytes("private"),
        );
    }
}

/// A file's handle opens the same file as long as the kernel knows it, and never another one.
fn a_handle_opens_the_same_file_or_none() {
    let mut target = Target::new();
    let mount = Mount::new("cache_ttl=0");
    let path = mount.file(&target, "private");
    let binary = build_client(mount.outside(), Width::Native);
    let mut command = Command::new(binary);
    let mut client = Client::start(command.arg("handle").arg(mount.point()).arg(&path));
    let first = format!("byte {}", target.bytes("private")[0]);
    assert_eq!(client.line(), first);
    target.exec(2);
    let stale = "open_by_handle_at: Stale file handle";
    assert_eq!(client.again(), stale, "another program");
    // The same name is another file now.
    let now = pread_all(&open(&mount.file(&target, "private")), 0, 1);
    assert_ne!(format!("byte {}", now[0]), first);
    assert_eq!(client.again(), stale, "another program that is known");
    target.end();
    assert!(client.again().starts_with("open_by_handle_at: "), "ended");
}

/// Through io_uring and the kernel's own asynchronous I/O.
fn asynchronous_reads() {
    let target = Target::new();
    let mount = Mount::new("");
    let path = mount.file(&target, "scratch");
    for arguments in [
        &["-i", "io_uring"][..],
        &["-i", "io_uring", "-n", "-t", "none"],
        &["-i", "native", "-n", "-t", "none"],
        &["-i", "threads"],
    ] {
        let mut bench = Command::new("qemu-img");
        bench.args(["bench", "-f", "raw", "-c", "200"]);
        let output = run(bench.args(arguments).arg(&path));
        // Not every build of it, and not every kernel, has both.
        if output.stderr.contains("io_uring") || output.stderr.contains("aio") {
            continue;
        }
        output.success().quiet();
    }
}

/// `poll`, `fsync` of a directory and `fallocate` are answered, without a word in the log.
fn requests_that_are_seldom_made_are_known() {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let target = Target::new();
    let mount = Mount::new("write");
    let file = crate::support::open_rw(&mount.file(&target, "private")).unwrap();
    let ready = PollFlags::POLLIN | PollFlags::POLLOUT;
    let mut asked = [PollFd::new(file.as_fd(), ready)];
    assert_eq!(poll(&mut asked, PollTimeout::from(1000_u16)), Ok(1));
    assert_eq!(asked[0].revents(), Some(ready));
    let dir = File::open(mount.process(target.pid())).unwrap();
    dir.sync_all().unwrap();
    dir.sync_data().unwrap();
    file.sync_all().unwrap();
    for flags in [
        sys::FallocateFlags::empty(),
        sys::FallocateFlags::PUNCH_HOLE | sys::FallocateFlags::KEEP_SIZE,
    ] {
        let result = sys::fallocate(&file, flags, 0, PAGE as u64);
        let result = result.map_err(std::io::Error::from);
        expect_errno(&format!("{flags:?}"), result, libc::EOPNOTSUPP);
    }
    let log = mount.log();
    assert!(!log.contains("Not Implemented"), "{log}");
    assert_bytes(
        "unchanged",
        &pread_all(&file, 0, 16 * PAGE),
        &target.bytes("private"),
    );
}

/// `chmod`, `chown` and `touch` are refused, of files, directories and links.
fn owners_modes_and_times_cannot_be_changed() {
    let target = Target::new();
    for options in ["", "write"] {
        let mount = Mount::new(options);
        let process = mount.process(target.pid());
        for path in [
            mount.file(&target, "private"),
            mount.path("mem").join(target.pid().to_string()),
            mount.point().to_owned(),
            process,
        ] {
            let what = format!("{path:?}, {options:?}");
            let refused = |result: rustix::io::Result<()>| {
                expect_errno(&what, result.map_err(std::io::Error::from), libc::EPERM);
            };
            refused(sys::chmod(&path, Mode::RUSR));
            let nobody = rustix::fs::Uid::from_raw(1);
            refused(sys::chownat(
                sys::CWD,
                &path,
                Some(nobody),
                None,
                AtFlags::empty(),
            ));
            let time = sys::Timespec {
                tv_sec: 1,
                tv_nsec: 0,
            };
            let times = sys::Timestamps {
                last_access: time,
                last_modification: time,
            };
            refused(sys::utimensat(sys::CWD, &path, &times, AtFlags::empty()));
        }
    }
}
