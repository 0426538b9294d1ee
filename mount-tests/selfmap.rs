//! Mounts that would read themselves: targets that map files of the mount, the
//! daemon's own memory, two mounts that show each other.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::{
    BUSY, Mount, PAGE, Region, Target, assert_bytes, expect_errno, measured, open, pread_within,
    run_within, tests,
};

tests![
    a_process_that_maps_its_own_file_over_itself,
    two_processes_that_map_each_others_files,
    the_daemons_own_memory_is_never_read,
    two_mounts_that_look_at_each_others_daemons: [Need::Root],
    a_process_that_maps_the_file_of_another_mount,
];

/// How long a read may take, as promised, and what a busy machine may add.
const PROMISED: Duration = Duration::from_secs(2 + BUSY.as_secs());
const LIMIT: Duration = Duration::from_secs(60);
const LEN: usize = 16 * PAGE;

/// Reads a file at several places, with all that the kernel may ask for.
fn reads(file: &Arc<File>) -> Vec<(std::io::Result<Vec<u8>>, Duration)> {
    let places = [(0, PAGE), (5 * PAGE + 7, 100), (0, LEN), (LEN - PAGE, PAGE)];
    places
        .iter()
        .map(|(offset, len)| pread_within(LIMIT, file, *offset, *len))
        .collect()
}

/// Reads the files, at the same time, while `ls` lists the mount. Every read
/// must end in time; with `EIO`, unless timing out is allowed as well.
#[track_caller]
fn end_in_time(what: &str, mount: &Mount, files: &[Arc<File>], may_time_out: bool) {
    let (results, listings) = std::thread::scope(|scope| {
        let readers: Vec<_> = files
            .iter()
            .map(|file| scope.spawn(move || reads(file)))
            .collect();
        let mut listings = Vec::new();
        while listings.len() < 5 || readers.iter().any(|reader| !reader.is_finished()) {
            let started = Instant::now();
            let mut ls = Command::new("ls");
            run_within(LIMIT, ls.arg(mount.point())).success();
            listings.push(started.elapsed());
        }
        let results = readers
            .into_iter()
            .flat_map(|reader| reader.join().unwrap());
        (results.collect::<Vec<_>>(), listings)
    });
    let slowest = results.iter().map(|(_, took)| *took).max().unwrap();
    measured(&format!("the slowest read, {what}"), slowest);
    let mut listings = listings;
    listings.sort_unstable();
    let (median, longest) = (listings[listings.len() / 2], listings[listings.len() - 1]);
    measured(
        &format!("ls meanwhile (median of {}), {what}", listings.len()),
        median,
    );
    for (result, took) in results {
        let errno = result.as_ref().err().and_then(std::io::Error::raw_os_error);
        let timed_out = may_time_out && errno == Some(libc::ETIMEDOUT);
        assert!(errno == Some(libc::EIO) || timed_out, "{what}: {result:?}");
        assert!(took < PROMISED, "{what}: a read took {took:?}");
    }
    // Who waited for the mount's own answers would wait for 2 s, each time.
    assert!(median < Duration::from_secs(1), "{what}: {listings:?}");
    assert!(longest < PROMISED, "{what}: {listings:?}");
}

/// The mount serves another process as ever.
#[track_caller]
fn serves(mount: &Mount, other: &Target) {
    let bytes = std::fs::read(mount.file(other, "private")).unwrap();
    assert_bytes("another", &bytes, &other.bytes("private"));
}

/// A process maps its own file over itself, privately and shared: reading the
/// file that was open before, and the one that is there now, is `EIO`, soon.
/// The process's own access is an error of its own.
fn a_process_that_maps_its_own_file_over_itself() {
    let other = Target::of_generation(2);
    for options in ["", "cache_ttl=0", "threads=1", "touch", "touch,threads=1"] {
        let touch = options.contains("touch");
        for kind in ["private", "shared"] {
            if kind == "shared" && options == "cache_ttl=0" {
                // The kernel refuses shared mappings of files that it does not cache.
                continue;
            }
            let what = format!("{kind} with {options:?}");
            let mut target = Target::new();
            let region = target.region("private");
            let Region { start, end } = region;
            let mount = Mount::new(options);
            let path = mount.file(&target, "private");
            let before = Arc::new(open(&path));
            target.ask(&format!("open own {}", path.display()));
            target.ask(&format!("lay own {start:x} {LEN} {kind} r"));
            let now = mount.mapping(target.pid(), start, end);
            assert_ne!(now, path, "it is another mapping");
            let now = Arc::new(open(&now));
            end_in_time(&what, &mount, &[before.clone(), now.clone()], touch);
            let log = mount.log();
            let told = log
                .lines()
                .any(|line| line.contains("EIO") && line.contains("own mount"));
            assert!(told, "{what}: {log}");
            // SIGBUS, as for any file that cannot be read.
            assert_eq!(target.ask(&format!("poke {start:x}")), "signal 7", "{what}");
            end_in_time(&what, &mount, &[before, now], touch);
            serves(&mount, &other);
        }
    }
}

/// Two processes lay each other's files over themselves, from descriptors that
/// were open before there was anything odd about them.
fn two_processes_that_map_each_others_files() {
    let other = Target::of_generation(2);
    for options in ["", "cache_ttl=0", "threads=1", "touch", "touch,threads=1"] {
        let touch = options.contains("touch");
        let mount = Mount::new(options);
        let mut pair = [Target::new(), Target::new()];
        let paths = [0, 1].map(|index| mount.file(&pair[index], "private"));
        let mut files: Vec<_> = paths.iter().map(|path| Arc::new(open(path))).collect();
        for index in [0, 1] {
            let theirs = &paths[1 - index];
            pair[index].ask(&format!("open theirs {}", theirs.display()));
        }
        for target in &mut pair {
            let start = target.region("private").start;
            target.ask(&format!("lay theirs {start:x} {LEN} private rw"));
        }
        for target in &pair {
            files.push(Arc::new(open(&mount.file(target, "private"))));
        }
        let what = format!("two with {options:?}");
        end_in_time(&what, &mount, &files, touch);
        for target in &mut pair {
            let start = target.region("private").start;
            assert_eq!(target.ask(&format!("poke {start:x}")), "signal 7", "{what}");
        }
        serves(&mount, &other);
    }
}

/// The daemon's own memory is listed, with its sizes, and never read: `EIO`,
/// and the log says why.
fn the_daemons_own_memory_is_never_read() {
    for options in ["", "cache_ttl=0", "threads=1", "touch", "write"] {
        let mount = Mount::new(options);
        let pid = mount.daemon();
        let names = mount.names(pid);
        let mut seen = 0;
        for name in names.iter().filter(|name| name.contains('-')) {
            let path = mount.process(pid).join(name);
            // The daemon's own threads come and go, and their memory with them.
            let Ok(status) = path.metadata() else {
                continue;
            };
            if status.len() > 0 {
                let Ok(file) = std::fs::File::open(&path).map(Arc::new) else {
                    continue;
                };
                let (result, took) = pread_within(LIMIT, &file, 0, PAGE);
                expect_errno(name, result, libc::EIO);
                assert!(took < PROMISED, "{name}: {took:?}");
                seen += 1;
            }
        }
        assert!(seen > 5, "{names:#?}");
        let log = mount.log();
        assert!(log.contains("EIO") && log.contains("this daemon"), "{log}");
        let space = Arc::new(open(&mount.path(format!("mem/{pid}"))));
        let heap = Region::parse(names[1].split('.').next().unwrap()).unwrap();
        let (result, _) = pread_within(LIMIT, &space, heap.start, PAGE);
        expect_errno("mem/PID", result, libc::EIO);
    }
}

/// All of the files in a directory, read at the same time by two; every one
/// must end.
fn read_all(mount: &Mount, pid: u32) {
    let dir = mount.process(pid);
    let mut readers = Vec::new();
    for _ in 0..2 {
        let dir = dir.clone();
        readers.push(std::thread::spawn(move || {
            let mut grep = Command::new("grep");
            grep.args(["-rc", "no such text in any memory"]).arg(dir);
            run_within(LIMIT, &mut grep);
        }));
    }
    for reader in readers {
        reader.join().unwrap();
    }
}

/// Two mounts each of which shows the other's daemon, read at the same time:
/// neither waits for the other for ever.
fn two_mounts_that_look_at_each_others_daemons() {
    let target = Target::new();
    for options in ["", "threads=1", "touch,threads=1", "cache_ttl=0"] {
        let mounts = [Mount::new(options), Mount::new(options)];
        let started = Instant::now();
        std::thread::scope(|scope| {
            for (one, other) in [(&mounts[0], &mounts[1]), (&mounts[1], &mounts[0])] {
                scope.spawn(move || read_all(one, other.daemon()));
            }
        });
        measured(&format!("two mounts, {options:?}"), started.elapsed());
        for mount in &mounts {
            serves(mount, &target);
        }
    }
}

/// Opens the file of `target`'s private memory as another mount has it.
fn through(mount: &Mount, target: &Target) -> String {
    mount.file(target, "private").display().to_string()
}

/// A process lays the file of one mount over itself that shows, through
/// another mount, its own memory: a circle over two daemons. Every read ends.
fn a_process_that_maps_the_file_of_another_mount() {
    let other = Target::of_generation(2);
    for options in ["", "threads=1", "touch,threads=1"] {
        let mounts = [Mount::new(options), Mount::new(options)];
        let mut pair = [Target::new(), Target::new()];
        let files: Vec<_> = [0, 1]
            .map(|index| Arc::new(open(Path::new(&through(&mounts[index], &pair[index])))))
            .into();
        for index in [0, 1] {
            let path = through(&mounts[1 - index], &pair[1 - index]);
            pair[index].ask(&format!("open theirs {path}"));
        }
        for target in &mut pair {
            let start = target.region("private").start;
            target.ask(&format!("lay theirs {start:x} {LEN} private r"));
        }
        let what = format!("a circle with {options:?}");
        let started = Instant::now();
        std::thread::scope(|scope| {
            for file in &files {
                scope.spawn(|| {
                    for (result, took) in reads(file) {
                        assert!(
                            result.is_err() && took < PROMISED,
                            "{what}: {result:?}, {took:?}"
                        );
                    }
                });
            }
        });
        measured(&what, started.elapsed());
        for mount in &mounts {
            serves(mount, &other);
        }
    }
}
