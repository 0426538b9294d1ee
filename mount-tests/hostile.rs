//! Hostile and odd targets: they harm nobody but themselves.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::{
    Mount, PAGE, Region, Target, assert_bytes, eventually, open, pread_all, run, run_within, tests,
};

tests![
    names_with_any_bytes_become_printable,
    names_of_255_bytes_are_cut_to_fit,
    command_names_with_any_bytes,
    a_target_that_maps_a_file_of_this_mount,
    pages_that_wait_for_a_userfaultfd_hold_no_other_process_up: [Need::Root],
    pages_that_wait_for_a_userfaultfd_are_given_up: [Need::Root],
    a_target_that_maps_and_unmaps_all_the_time,
];

/// How long a reader of something hostile may take.
const LIMIT: Duration = Duration::from_secs(30);

/// The name of a region's file.
fn file_name(mount: &Mount, target: &Target, region: &str) -> String {
    let path = mount.file(target, region);
    path.file_name().unwrap().to_str().unwrap().to_string()
}

/// Newlines, white space and bytes that are no text become `_` in a label; the
/// bytes of the mapping are read as ever.
fn names_with_any_bytes_become_printable() {
    let target = Target::new();
    let mount = Mount::new("");
    for (region, label) in [
        ("memfd", ".rw-s.memfd:odd_name.deleted"),
        ("nonutf8", ".rw-p.bad___name"),
        ("deleted", ".rw-p.deleted.bin.deleted"),
    ] {
        let name = file_name(&mount, &target, region);
        assert!(name.ends_with(label), "{region} is called {name:?}");
        let bytes = std::fs::read(mount.file(&target, region)).unwrap();
        assert_bytes(region, &bytes, &target.bytes(region));
    }
    if target.anon_names {
        let name = file_name(&mount, &target, "named");
        assert!(name.ends_with(".rw-p.anon:odd_name"), "{name:?}");
    } else {
        eprintln!("this kernel has no names for anonymous memory (CONFIG_ANON_VMA_NAME)");
    }
}

/// A file name of 255 bytes gives a file name of 255 bytes, which can be
/// opened.
fn names_of_255_bytes_are_cut_to_fit() {
    let target = Target::new();
    let mount = Mount::new("");
    let name = file_name(&mount, &target, "longname");
    assert_eq!(name.len(), 255, "{name}");
    assert!(name.contains(".rw-s.nnnn"), "{name}");
    let bytes = std::fs::read(mount.file(&target, "longname")).unwrap();
    assert_bytes("longname", &bytes, &target.bytes("longname"));
}

/// A process can call itself anything: `by-name` stays listable, no entry is
/// `.` or `..` or holds a `/`, and the process is found by its number.
fn command_names_with_any_bytes() {
    let mut target = Target::new();
    let mount = Mount::new("");
    let pid = target.pid();
    for comm in [
        &b"a/b/c"[..],
        b"..",
        b".",
        b"",
        b"two\nlines",
        b"\xff\xfe\x01\x7f",
        b") S 1 1 1",
        b"with space",
        b"fifteen-bytes-x",
    ] {
        let digits: String = comm.iter().map(|byte| format!("{byte:02x}")).collect();
        target.ask(&format!("comm {digits}"));
        let name = String::from_utf8_lossy(comm).into_owned();
        eventually("the name is in by-name, once", || {
            let mut times = 0;
            for entry in std::fs::read_dir(mount.path("by-name")).unwrap() {
                let entry = entry.unwrap();
                let shown = entry.file_name();
                let shown = shown.to_str().expect("names are text");
                assert!(
                    !["", ".", ".."].contains(&shown),
                    "{name:?} became {shown:?}"
                );
                assert!(shown.bytes().all(|b| b.is_ascii_graphic()), "{shown:?}");
                let link = entry.path().join(pid.to_string());
                times += usize::from(link.symlink_metadata().is_ok());
            }
            (times == 1).then_some(())
        });
        let bytes = std::fs::read(mount.file(&target, "private")).unwrap();
        assert_bytes(&name, &bytes, &target.bytes("private"));
    }
}

/// A process that maps a file of this very mount cannot make the mount wait
/// for itself: the read ends, and everybody else is served.
fn a_target_that_maps_a_file_of_this_mount() {
    let mut target = Target::new();
    let other = Target::of_generation(2);
    for options in ["threads=2", "threads=2,cache_ttl=0"] {
        let mount = Mount::new(options);
        let path = mount.file(&other, "private");
        let len = 16 * PAGE;
        let name = format!("own{}", options.len());
        let own = target.map(&name, path.to_str().unwrap(), len, "private r");
        let path = mount.mapping(target.pid(), own.start, own.end);
        std::thread::scope(|scope| {
            let readers: Vec<_> = (0..4)
                .map(|_| {
                    let mut cat = Command::new("cat");
                    cat.arg(&path);
                    scope.spawn(move || run_within(LIMIT, &mut cat))
                })
                .collect();
            for reader in readers {
                let output = reader.join().unwrap();
                assert!(output.stdout.is_empty(), "bytes of the own mount");
            }
        });
        let mut tar = Command::new("tar");
        tar.args(["cf", "/dev/null", "-C"]).arg(mount.point());
        run_within(LIMIT, tar.arg(target.pid().to_string()));
        let bytes = std::fs::read(mount.file(&other, "private")).unwrap();
        assert_bytes("the others", &bytes, &other.bytes("private"));
        target.ask(&format!("unmap {:x} {len}", own.start));
    }
}

/// A target with a mapping whose missing pages a userfaultfd holds back, and
/// readers of that mapping.
struct Waiting {
    target: Target,
    mount: Mount,
    readers: Vec<Child>,
}

impl Waiting {
    /// Starts the readers. From here on only other processes may look at the
    /// target's directory: the test must not wait with them.
    fn new(options: &str) -> Self {
        let mut target = Target::new();
        let answer = target.ask("userfault");
        let region = Region::parse(&answer).unwrap();
        let mount = Mount::new(options);
        let path = mount.mapping(target.pid(), region.start, region.end);
        let readers = (0..3)
            .map(|_| {
                let mut cat = Command::new("cat");
                cat.arg(&path).stdout(Stdio::null()).stderr(Stdio::null());
                cat.spawn().unwrap()
            })
            .collect();
        Self {
            target,
            mount,
            readers,
        }
    }

    /// Waits until every reader has ended.
    fn readers_end(&mut self) {
        eventually("the readers end", || {
            let mut readers = self.readers.iter_mut();
            let ended = readers.all(|reader| reader.try_wait().unwrap().is_some());
            ended.then_some(())
        });
    }
}

/// Readers of memory whose missing pages a userfaultfd holds back do not hold
/// up those who look at another process, with as few as two threads.
fn pages_that_wait_for_a_userfaultfd_hold_no_other_process_up() {
    let other = Target::of_generation(2);
    for options in ["", "threads=2", "cache_ttl=0"] {
        let mut waiting = Waiting::new(options);
        let mut cat = Command::new("cat");
        cat.arg(waiting.mount.file(&other, "private"));
        let output = run_within(LIMIT, &mut cat).success().quiet();
        assert_bytes("the other", &output.stdout, &other.bytes("private"));
        let mut ls = Command::new("ls");
        ls.arg("-l").arg(waiting.mount.process(other.pid()));
        run_within(LIMIT, &mut ls).success().quiet();
        // With the target its userfaultfd goes, and every wait for it.
        waiting.target.kill();
        waiting.readers_end();
    }
}

/// Nobody waits for such pages for ever: readers get an answer, and the
/// process itself can be listed and read.
fn pages_that_wait_for_a_userfaultfd_are_given_up() {
    for options in ["", "cache_ttl=0"] {
        let mut waiting = Waiting::new(options);
        let directory = waiting.mount.process(waiting.target.pid());
        for flag in ["-f", "-l"] {
            let mut ls = Command::new("ls");
            run_within(LIMIT, ls.arg(flag).arg(&directory))
                .success()
                .quiet();
        }
        waiting.readers_end();
    }
}

/// Reading and listing a process whose mappings come and go all the time gives
/// only the errors of the table, and true bytes from what stays.
fn a_target_that_maps_and_unmaps_all_the_time() {
    let mut target = Target::new();
    let mount = Mount::new("");
    let file = open(&mount.file(&target, "private"));
    let expected = target.bytes("private");
    let region = target.region("victim");
    for round in 0..60 {
        let page = region.start + (round % 16) * PAGE;
        let protection = ["---", "r--", "rw-", "r-x"][round % 4];
        target.ask(&format!("protect {page:x} {PAGE} {protection}"));
        for name in mount.names(target.pid()) {
            let Some(range) = name.split('.').next() else {
                continue;
            };
            let Some(part) = Region::parse(range) else {
                continue;
            };
            if part.start < region.start || part.end > region.end {
                continue;
            }
            let offset = part.start - region.start;
            let bytes = std::fs::read(mount.process(target.pid()).join(&name)).unwrap();
            let all = target.bytes("victim");
            assert_bytes(&name, &bytes, &all[offset..offset + part.len()]);
        }
        let got = pread_all(&file, 0, expected.len());
        assert_bytes("private", &got, &expected);
    }
    let mut ls = Command::new("ls");
    run(ls.arg("-l").arg(mount.process(target.pid())))
        .success()
        .quiet();
}
