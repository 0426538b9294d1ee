//! Memory that comes and goes while it is read.

use std::os::unix::fs::FileExt;

use crate::support::{Mount, PAGE, Region, Target, open, open_flags, tests};

tests![reads_of_memory_that_comes_and_goes_never_fail];

const READS: usize = 5000;

/// Pages are brought in and given back all the time: each read gives zeros or what was written, and no error.
fn reads_of_memory_that_comes_and_goes_never_fail() {
    for options in ["", "cache_ttl=0"] {
        let mut target = Target::new();
        let len = 64 * PAGE;
        let region = Region::parse(&target.ask(&format!("reserve {len} 0"))).unwrap();
        target.ask(&format!("come-and-go {:x} {len}", region.start));
        let mount = Mount::new(options);
        let path = mount.mapping(target.pid(), region.start, region.end);
        let files = [
            open(&path),
            open_flags(&path, false, libc::O_DIRECT).unwrap(),
        ];
        let mut bytes = vec![0; len];
        let mut seen = [false; 2];
        for read in 0..READS {
            let file = &files[read % 2];
            bytes.fill(0xa5);
            file.read_exact_at(&mut bytes, 0)
                .unwrap_or_else(|e| panic!("read {read}: {e}"));
            for page in bytes.chunks(PAGE) {
                assert!(matches!(page[0], 0 | b'x'), "{}", page[0]);
                assert!(page[1..].iter().all(|byte| *byte == 0));
                seen[usize::from(page[0] != 0)] = true;
            }
        }
        assert_eq!(seen, [true; 2], "pages were there and were not");
    }
}
