//! `fio` on a mapping: random reads and writes, each block with its checksum.

use std::process::Command;

use crate::support::{Mount, Target, open, pread_all, rounds, run, tests};

tests![
    random_blocks_keep_their_checksums: [Need::Root, Need::Tool("fio")],
];

/// Whatever the cache does, each block that comes back has the checksum that it was written with.
fn random_blocks_keep_their_checksums() {
    let target = Target::new();
    for options in ["write", "write,cache_ttl=0", "write,cache_size=128K"] {
        let mount = Mount::new(options);
        let scratch = mount.file(&target, "scratch");
        let len = target.region("scratch").len();
        let mut fio = Command::new("fio");
        fio.args([
            "--name=mapping",
            "--rw=randrw",
            "--bsrange=512-64k",
            "--bs_unaligned=1",
        ])
        .args([
            "--ioengine=psync",
            "--verify=crc32c",
            "--verify_fatal=1",
            "--do_verify=1",
        ])
        // The file has the length of the mapping, whatever is asked of it.
        .args(["--allow_file_create=0", "--fallocate=none", "--overwrite=1"])
        .arg(format!("--size={len}"))
        .arg(format!("--loops={}", rounds(1, 50)))
        .arg("--output-format=terse")
        .arg(format!("--filename={}", scratch.to_str().unwrap()))
        // Its state files.
        .current_dir(mount.outside());
        run(&mut fio).success();
        // Beside it: what the process itself holds is what was written last.
        let file = open(&scratch);
        let mem = open(format!("/proc/{}/mem", target.pid()).as_ref());
        let start = target.region("scratch").start;
        assert!(
            pread_all(&file, 0, len) == pread_all(&mem, start, len),
            "{options}"
        );
    }
}
