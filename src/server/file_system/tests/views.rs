//! Directories that are held, their times, and what cannot be read.

use super::*;

impl Bench {
    fn names_from(&self, handle: u64, position: u64) -> Vec<String> {
        let listing = self.read_directory(handle, position).unwrap();
        let entries = listing.starting_at(position);
        entries.map(|(_, entry)| entry.name).collect()
    }
}

/// SEMANTICS: a walk that begins anew shows what is there by then.
#[test]
fn a_directory_that_is_rewound_is_listed_again() {
    let bench = bench();
    let open = |path: &str| bench.open_directory(bench.find(path).unwrap().inode);
    let (root, process) = (open("").unwrap(), open("7").unwrap());
    // Where the views end and the processes begin.
    let first = bench.names_from(root, 0).len() as u64 - 1;
    let processes = |names: Vec<String>| names[first as usize..].to_vec();
    let root_again = open("").unwrap();
    assert_eq!(bench.names_from(root_again, first), ["7"], "not begun yet");
    assert_eq!(bench.names_from(process, 0).len(), 6);
    let other = FakeProcess::new(8, b"other");
    bench.source.add(other);
    let first_line = MAPS.split_inclusive(|byte| *byte == b'\n').next();
    bench.process.set_maps(first_line.unwrap());
    // The walks go on over what they began with.
    assert_eq!(bench.names_from(root, first), ["7"]);
    assert_eq!(bench.names_from(process, 3), [HEAP, TEXT, VVAR]);
    assert_eq!(processes(bench.names_from(root, 0)), ["7", "8"]);
    assert_eq!(bench.names_from(root, first), ["7", "8"]);
    assert_eq!(bench.names_from(process, 0), [".", "..", "heap", HEAP]);
    bench.process.end();
    let ended = bench.read_directory(process, 0).unwrap_err();
    assert_eq!(ended.errno(), nix::errno::Errno::ENOENT);
    assert_eq!(processes(bench.names_from(root, 0)), ["8"]);
}

/// SEMANTICS: times of directories.
#[test]
fn times_of_directories_move_and_their_ctime_stays() {
    for bound in [Duration::ZERO, TTL, Duration::from_secs(3600)] {
        let bench = bench_with(FileOptions::default(), bound);
        for path in ["", "7", "mem", "by-name", "by-name/my_prog", "by-cgroup"] {
            let first = bench.stat(path);
            assert!(first.valid <= bound.min(Duration::from_secs(1)), "{path}");
            bench.clock.advance(Duration::from_millis(1));
            let later = bench.stat(path);
            assert!(later.modified > first.modified, "{path}");
            assert_eq!(later.changed, first.changed, "{path}");
            assert_eq!((later.links, later.size), (1, 0), "{path}");
        }
        let link = bench.stat("by-name/my_prog/7");
        assert_eq!(link.modified, link.changed);
    }
}

/// SEMANTICS: an extended attribute counts what cannot be read.
#[test]
fn unreadable_bytes_are_counted() {
    let bench = bench();
    let count = |path: &str| {
        let inode = bench.find(path).unwrap().inode;
        let value = bench.fs.extended_attribute(
            inode,
            OsStr::new("user.procmemfs.unreadable_bytes"),
            &subject(),
        );
        String::from_utf8(value.unwrap()).unwrap()
    };
    let (heap, vvar) = (format!("7/{HEAP}"), format!("7/{VVAR}"));
    assert_eq!(
        [count(&heap), count(&vvar), count("mem/7")],
        ["0", "4096", "4096"]
    );
    bench.process.unmap(0x11_000);
    bench.clock.advance(TTL);
    assert_eq!([count(&heap), count("mem/7")], ["4096", "8192"]);
}
