//! The file system exerciser: random reads and writes, checked each.

use std::process::Command;

use crate::support::{Mount, Target, assert_bytes, fsx, open, pread_all, run, tests};

tests![
    fsx_seed_1: [Need::Fsx],
    fsx_seed_2: [Need::Fsx],
    fsx_seed_3: [Need::Fsx],
    fsx_with_direct_io: [Need::Fsx],
];

/// How much of the mapping fsx works on.
const LENGTH: usize = 256 << 10;

/// What it does how often. It cannot change the size of a mapping; and its one
/// descriptor is open for writing, which has no `mmap` (direct I/O).
const CONFIG: &str = "\
flen = 262144
nosizechecks = true
blockmode = true

[opsize]
max = 65536
min = 0

[weights]
close_open = 0.0
truncate = 0.0
fsync = 1.0
fdatasync = 1.0
posix_fallocate = 0.0
punch_hole = 0.0
mapread = 0.0
mapwrite = 0.0
read = 10.0
write = 10.0
sendfile = 2.0
posix_fadvise = 2.0
copy_file_range = 2.0
";

/// 20,000 operations of block mode on a writable mapping: each read gives what
/// was written last, and the rest of the mapping is as it was.
fn exercise(options: &str, seed: u32) {
    let target = Target::new();
    let mount = Mount::new(options);
    let path = mount.file(&target, "scratch");
    let config = mount.outside().join("fsx.toml");
    std::fs::write(&config, CONFIG).unwrap();
    let mut command = Command::new(fsx().expect("declared as needed"));
    command
        .args(["-N", "20000", "-S", &seed.to_string(), "-f"])
        .arg(config)
        .arg("-P")
        .arg(mount.outside())
        .arg(&path);
    run(&mut command).success();
    let expected = target.bytes("scratch");
    let rest = pread_all(&open(&path), LENGTH, expected.len() - LENGTH);
    assert_bytes("past fsx's part", &rest, &expected[LENGTH..]);
}

/// Seed 1 with the default options.
fn fsx_seed_1() {
    exercise("write", 1);
}

/// Seed 2 with a cache that never expires.
fn fsx_seed_2() {
    exercise("write,cache_ttl=1h", 2);
}

/// Seed 3 with a small cache.
fn fsx_seed_3() {
    exercise("write,cache_size=128K", 3);
}

/// Seed 4 with `cache_ttl=0`.
fn fsx_with_direct_io() {
    exercise("write,cache_ttl=0", 4);
}
