//! A process whose first thread has ended while others live on.

use std::os::unix::fs::FileExt;

use crate::support::{
    Mount, PAGE, Stats, Target, assert_bytes, eventually, expect_errno, open, open_rw, pread, tests,
};

tests![
    a_process_without_its_first_thread_is_shown: [Need::Root],
    the_first_thread_ends_while_files_are_open: [Need::Root],
];

/// Ends the first thread, and waits until the kernel shows it as a zombie.
fn end_first_thread(target: &mut Target) {
    target.ask("end-first-thread");
    let path = format!("/proc/{0}/task/{0}/stat", target.pid());
    eventually("the end of the first thread", || {
        let stat = std::fs::read_to_string(&path).unwrap();
        stat.rsplit_once(')')?.1.starts_with(" Z").then_some(())
    });
}

/// Under its number the kernel shows no memory; the mount shows it all the same.
fn a_process_without_its_first_thread_is_shown() {
    for options in ["write", "write,cache_ttl=0"] {
        let mut target = Target::new();
        end_first_thread(&mut target);
        let maps = std::fs::read(format!("/proc/{}/maps", target.pid())).unwrap();
        assert!(maps.is_empty(), "the kernel shows it by now");
        let mount = Mount::new(options);
        let listed = std::fs::read_dir(mount.point()).unwrap();
        let pid = target.pid().to_string();
        let mut names = listed.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert!(names.any(|name| name == pid), "{options}");
        for region in [
            "private",
            "noaccess",
            "shared",
            "sparse_shared",
            "file_private",
        ] {
            let bytes = std::fs::read(mount.file(&target, region)).unwrap();
            assert_bytes(region, &bytes, &target.bytes(region));
        }
        let file = open_rw(&mount.file(&target, "scratch")).unwrap();
        file.write_all_at(b"written", 0).unwrap();
        assert_eq!(target.read(target.region("scratch").start, 7), b"written");
        let name = mount.file(&target, "readonly");
        expect_errno("a mapping without w", open_rw(&name), libc::EACCES);
        let space = open(&mount.path(format!("mem/{pid}")));
        let bytes = pread(&space, target.region("private").start, PAGE).unwrap();
        assert_bytes("mem", &bytes, &target.bytes("private")[..PAGE]);
        assert!(std::fs::read_link(mount.process(target.pid()).join("heap")).is_ok());
        target.end();
        expect_errno("after the end", pread(&file, 0, 8), libc::ESRCH);
    }
}

/// What is open stays open, and another thread is asked from then on.
fn the_first_thread_ends_while_files_are_open() {
    for options in ["", "cache_ttl=0"] {
        let mut target = Target::new();
        target.ask("threads 3");
        let mount = Mount::new(options);
        let file = open(&mount.file(&target, "private"));
        let sparse = open(&mount.file(&target, "sparse_shared"));
        pread(&file, 0, 8).unwrap();
        end_first_thread(&mut target);
        let mut bytes = vec![0; target.region("private").len()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_bytes(options, &bytes, &target.bytes("private"));
        bytes.resize(target.region("sparse_shared").len(), 0);
        sparse.read_exact_at(&mut bytes, 0).unwrap();
        assert_bytes(options, &bytes, &target.bytes("sparse_shared"));
        assert_eq!(Stats::of(&mount).get("errors_total{errno=\"ESRCH\"}"), 0);
        target.end();
        // What was read lives for as long as the freshness bound.
        let error = eventually("the end", || pread(&file, 0, 8).err());
        assert_eq!(error.raw_os_error(), Some(libc::ESRCH), "{options}");
    }
}
