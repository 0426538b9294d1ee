//! A file belongs to one program: never a byte of another one.

use std::fs::File;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::{
    Mount, PAGE, Region, Target, assert_bytes, drop_kernel_pages, errno_name, eventually,
    expect_errno, open, open_rw, pread, pread_all, run, tests,
};

tests![
    after_the_end_an_open_file_gives_esrch,
    after_an_exec_an_open_file_gives_estale,
    a_target_that_ends_while_it_is_read,
    a_target_that_execs_while_it_is_read,
    after_the_end_a_write_gives_esrch,
    after_an_exec_nothing_is_written_to_the_new_program,
    after_an_exec_the_path_shows_the_new_program,
    a_process_id_that_is_used_again: [Need::Root],
    a_heap_that_grows_while_a_file_is_open,
    a_mapping_that_is_unmapped_while_a_file_is_open,
    tar_of_a_target_that_ends: [Need::Tool("tar")],
];

const MODES: [&str; 2] = ["", "cache_ttl=0"];

/// Reads again and again until that fails, checking each byte that arrives,
/// and gives the errno.
fn read_until_error(file: &File, expected: &[u8], what: &str) -> i32 {
    eventually(what, || match pread(file, 0, expected.len()) {
        Ok(bytes) => {
            assert_bytes(what, &bytes, &expected[..bytes.len()]);
            assert!(!bytes.is_empty(), "{what}: an early end without an error");
            drop_kernel_pages(file);
            None
        }
        Err(error) => error.raw_os_error(),
    })
}

/// After the process has ended, a read of an open file gives `ESRCH`, and the
/// process is no longer found.
fn after_the_end_an_open_file_gives_esrch() {
    for mode in MODES {
        let mut target = Target::new();
        let mount = Mount::new(mode);
        let files: Vec<File> = ["private", "noaccess", "shared", "file_private", "deleted"]
            .map(|name| open(&mount.file(&target, name)))
            .into();
        target.end();
        for (index, file) in files.iter().enumerate() {
            let what = format!("file {index} with {mode:?}");
            expect_errno(&what, pread(file, 0, 100), libc::ESRCH);
            expect_errno(&what, pread(file, 5 * PAGE, PAGE), libc::ESRCH);
        }
        let process = mount.process(target.pid());
        // Until the name expires the kernel asks for the inode that it knows.
        eventually("the directory is gone", || {
            let errno = process.metadata().err()?.raw_os_error()?;
            assert!([libc::ENOENT, libc::ESRCH].contains(&errno), "{errno}");
            (errno == libc::ENOENT).then_some(())
        });
        expect_errno("open", File::open(process), libc::ENOENT);
    }
}

/// After the process ran a new program, a read of an open file gives `ESTALE`,
/// though the new program has other bytes at the same address.
fn after_an_exec_an_open_file_gives_estale() {
    for mode in MODES {
        let mut target = Target::new();
        let mount = Mount::new(mode);
        let files: Vec<File> = ["private", "noaccess", "shared", "memfd", "file_private"]
            .map(|name| open(&mount.file(&target, name)))
            .into();
        let region = target.region("private");
        target.exec(2);
        assert_eq!(target.region("private"), region, "the same address");
        for (index, file) in files.iter().enumerate() {
            let what = format!("file {index} with {mode:?}");
            expect_errno(&what, pread(file, 0, 100), libc::ESTALE);
            expect_errno(&what, pread(file, 5 * PAGE, PAGE), libc::ESTALE);
        }
    }
}

/// A reader of a target that ends gets true bytes, then `ESRCH`; never zeros,
/// never an early end.
fn a_target_that_ends_while_it_is_read() {
    for mode in MODES {
        for name in ["scratch", "noaccess"] {
            let mut target = Target::new();
            let expected = target.bytes(name);
            let mount = Mount::new(mode);
            let file = open(&mount.file(&target, name));
            let what = format!("{name} with {mode:?}");
            let errno = std::thread::scope(|scope| {
                let reader = scope.spawn(|| read_until_error(&file, &expected, &what));
                target.kill();
                reader.join().unwrap()
            });
            assert_eq!(errno, libc::ESRCH, "{what}: {}", errno_name(errno));
        }
    }
}

/// A reader of a target that runs a new program gets bytes of the old program,
/// then `ESTALE`; never a byte of the new one. Five times, with four readers.
fn a_target_that_execs_while_it_is_read() {
    let mut target = Target::new();
    for mode in MODES {
        let mount = Mount::new(mode);
        for round in 0..5 {
            let name = ["scratch", "private", "noaccess", "shared", "file_shared"][round];
            let expected = target.bytes(name);
            let path = mount.file(&target, name);
            let files: Vec<File> = (0..4).map(|_| open(&path)).collect();
            let what = format!("{name} with {mode:?}");
            std::thread::scope(|scope| {
                let readers: Vec<_> = files
                    .iter()
                    .map(|file| scope.spawn(|| read_until_error(file, &expected, &what)))
                    .collect();
                target.exec(target.generation() + 1);
                for reader in readers {
                    let errno = reader.join().unwrap();
                    assert_eq!(errno, libc::ESTALE, "{what}: {}", errno_name(errno));
                }
            });
        }
    }
}

/// After the process has ended, a write to an open file gives `ESRCH`.
fn after_the_end_a_write_gives_esrch() {
    use std::os::unix::fs::FileExt;
    for mode in ["write", "write,cache_ttl=0", "write,force"] {
        let mut target = Target::new();
        let mount = Mount::new(mode);
        let file = open_rw(&mount.file(&target, "private")).unwrap();
        file.write_all_at(b"before", 0).unwrap();
        target.end();
        expect_errno(mode, file.write_at(b"after", 0), libc::ESRCH);
    }
}

/// A write through a file that was opened before an exec gives `ESTALE` and
/// changes nothing in the new program, also after writes and the exec have met.
fn after_an_exec_nothing_is_written_to_the_new_program() {
    use std::os::unix::fs::FileExt;
    for mode in ["write", "write,cache_ttl=0", "write,force"] {
        let mut target = Target::new();
        let mount = Mount::new(mode);
        for _ in 0..5 {
            let file = open_rw(&mount.file(&target, "private")).unwrap();
            let stop = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let writer = scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        if let Err(error) = file.write_all_at(&[7; 3 * PAGE], 100) {
                            return error.raw_os_error();
                        }
                    }
                    None
                });
                target.exec(target.generation() + 1);
                // The target has filled its memory: what is written from here
                // on stays.
                eventually("an error for the writer", || {
                    writer.is_finished().then_some(())
                });
                stop.store(true, Ordering::Relaxed);
                assert_eq!(writer.join().unwrap(), Some(libc::ESTALE), "{mode}");
            });
            let region = target.region("private");
            let said = target.read(region.start, region.len());
            let expected = target.bytes("private");
            assert_bytes(mode, &said, &expected);
            expect_errno(mode, file.write_at(&[8; PAGE], 50), libc::ESTALE);
            let after = target.read(region.start, region.len());
            assert_bytes(mode, &after, &expected);
        }
    }
}

/// The path, opened after an exec, gives the new program's bytes at once, even
/// though its name is the same.
fn after_an_exec_the_path_shows_the_new_program() {
    for mode in ["", "cache_ttl=0", "cache_ttl=1h"] {
        let mut target = Target::new();
        let mount = Mount::new(mode);
        let path = mount.file(&target, "private");
        let old = open(&path);
        let expected = target.bytes("private");
        assert_bytes("before", &pread_all(&old, 0, expected.len()), &expected);
        for _ in 0..5 {
            target.exec(target.generation() + 1);
            let bytes = std::fs::read(&path).unwrap();
            assert_bytes(
                &format!("after exec, {mode:?}"),
                &bytes,
                &target.bytes("private"),
            );
        }
        // What a cache still holds of the old program is true within the bound.
        match pread(&old, 0, expected.len()) {
            Ok(bytes) if mode == "cache_ttl=1h" => assert_bytes("old", &bytes, &expected),
            result if mode == "cache_ttl=0" => expect_errno("old", result, libc::ESTALE),
            _ => {
                let errno = read_until_error(&old, &expected, "the old file");
                assert_eq!(errno, libc::ESTALE, "{}", errno_name(errno));
            }
        }
    }
}

/// A new process that got the process id of an ended one: a file opened before
/// gives an error (`ESTALE`, or `ESRCH` as the old one did), a new open gives
/// the new process's bytes.
fn a_process_id_that_is_used_again() {
    for mode in MODES {
        let mut old = Target::new();
        let mount = Mount::new(mode);
        let path = mount.file(&old, "private");
        let file = open(&path);
        pread_all(&file, 0, PAGE);
        old.end();
        let new = Target::with_pid(old.pid(), 2);
        assert_eq!(new.region("private"), old.region("private"));
        let errno = read_until_error(&file, &old.bytes("private"), "the old file");
        assert!(
            [libc::ESTALE, libc::ESRCH].contains(&errno),
            "{}",
            errno_name(errno)
        );
        let bytes = std::fs::read(&path).unwrap();
        assert_bytes("the new process", &bytes, &new.bytes("private"));
    }
}

/// A file of the heap that is open while the heap grows reads on; the path of
/// the grown heap shows all of it.
fn a_heap_that_grows_while_a_file_is_open() {
    for mode in MODES {
        let mut target = Target::new();
        let mount = Mount::new(mode);
        let link = mount.process(target.pid()).join("heap");
        let old_name = std::fs::read_link(&link).unwrap();
        let file = open(&link);
        let size = file.metadata().unwrap().len() as usize;
        let heap = target.region("heap");
        let start = Region::parse(old_name.to_str().unwrap().split('.').next().unwrap())
            .unwrap()
            .start;
        let answer = target.ask(&format!("grow-heap {}", 300 * PAGE));
        let grown = Region::parse(&answer).unwrap();

        let got = pread_all(&file, heap.start - start, heap.len());
        assert_bytes("the old file", &got, &target.bytes("heap"));
        assert_eq!(pread(&file, size, 10).unwrap(), b"", "its end stays");

        let new_name = eventually("the new name of the heap", || {
            let name = std::fs::read_link(&link).unwrap();
            (name != old_name).then_some(name)
        });
        assert!(
            mount
                .names(target.pid())
                .contains(&new_name.to_string_lossy().into_owned())
        );
        let got = pread_all(&open(&link), grown.start - start, grown.len());
        assert_bytes(
            "the grown heap",
            &got,
            &target.read(grown.start, grown.len()),
        );
        let old_path = mount.process(target.pid()).join(old_name);
        eventually("the old name is gone", || {
            old_path
                .metadata()
                .is_err_and(|e| e.raw_os_error() == Some(libc::ENOENT))
                .then_some(())
        });
    }
}

/// A file that is open while all of its mapping is unmapped gives `EIO`; its
/// name is gone.
fn a_mapping_that_is_unmapped_while_a_file_is_open() {
    for mode in MODES {
        let mut target = Target::new();
        let mount = Mount::new(mode);
        for name in ["victim", "noaccess", "memfd", "file_shared"] {
            let path = mount.file(&target, name);
            let file = open(&path);
            let region = target.region(name);
            target.ask(&format!("unmap {:x} {}", region.start, region.len()));
            let what = format!("{name} with {mode:?}");
            expect_errno(&what, pread(&file, 0, PAGE), libc::EIO);
            expect_errno(&what, pread(&file, 5 * PAGE, 10), libc::EIO);
            let prefix = format!("{:012x}-", region.start);
            eventually("the name is gone", || {
                let gone = path
                    .metadata()
                    .is_err_and(|e| e.raw_os_error() == Some(libc::ENOENT));
                let listed = mount.names(target.pid());
                (gone && !listed.iter().any(|name| name.starts_with(&prefix))).then_some(())
            });
        }
    }
}

/// `tar` of a target that ends meanwhile comes to an end and does not succeed
/// with less than it promised.
fn tar_of_a_target_that_ends() {
    let mut target = Target::new();
    let mount = Mount::new("");
    let mut tar = Command::new("tar");
    tar.args(["cf", "-", "-C"])
        .arg(mount.point())
        .arg(target.pid().to_string())
        .stdin(Stdio::null());
    let names = mount.names(target.pid()).len();
    let output = std::thread::scope(|scope| {
        let tar = scope.spawn(|| run(&mut tar));
        target.kill();
        tar.join().unwrap()
    });
    if output.status.success() {
        // It was faster than the kill.
        let mut list = Command::new("tar");
        let archive = mount.outside().join("archive");
        std::fs::write(&archive, &output.stdout).unwrap();
        let listed = run(list.arg("tf").arg(archive)).success().text();
        assert_eq!(listed.lines().count(), names + 1, "{listed}");
    } else {
        output.complains(&["tar:"]);
    }
}
