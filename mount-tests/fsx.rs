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

/// What it does how often. It cannot change the size of a mapping, and a
/// shared writable `mmap` would write whole pages back.
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
mapwrite = 0.0
read = 10.0
write = 10.0
";

/// 20,000 operations of block mode on a writable mapping: each read gives what
/// was written last, and the rest of the mapping is as it was.
fn exercise(options: &str, more: &str, seed: u32) {
    let target = Target::new();
    let mount = Mount::new(options);
    let path = mount.file(&target, "scratch");
    let config = mount.outside().join("fsx.toml");
    std::fs::write(&config, format!("{CONFIG}{more}")).unwrap();
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
    assert_bytes("behind fsx's part", &rest, &expected[LENGTH..]);
}

const BUFFERED: &str = "\
invalidate = 1.0
mapread = 5.0
sendfile = 2.0
posix_fadvise = 2.0
copy_file_range = 2.0
";

/// Without reads through shared `mmap`, which direct I/O does not have.
const DIRECT: &str = "\
mapread = 0.0
invalidate = 0.0
sendfile = 2.0
posix_fadvise = 2.0
copy_file_range = 2.0
";

/// Seed 1 through the kernel's page cache.
fn fsx_seed_1() {
    exercise("rw", BUFFERED, 1);
}

/// Seed 2 through the kernel's page cache, which never expires.
fn fsx_seed_2() {
    exercise("rw,cache_ttl=1h", BUFFERED, 2);
}

/// Seed 3 through the kernel's page cache, with a small cache behind it.
fn fsx_seed_3() {
    exercise("rw,cache_size=128K", BUFFERED, 3);
}

/// Seed 4 with `cache_ttl=0`.
fn fsx_with_direct_io() {
    exercise("rw,cache_ttl=0", DIRECT, 4);
}
