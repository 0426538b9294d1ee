//! Loops of reads through one open file.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use super::Noise;

/// Reads `len` bytes from `start` on once, and then again and again for some
/// time, and tells how many seconds one of the later passes took.
pub(super) fn sequential(path: &str, start: u64, len: u64, block: usize, milliseconds: u64) {
    let file = File::open(path).expect(path);
    let mut buffer = vec![0; block];
    let mut pass = || {
        let mut at = start;
        while at < start + len {
            let want = block.min((start + len - at) as usize);
            let got = file.read_at(&mut buffer[..want], at).expect("a read");
            assert!(got > 0, "the file ends early");
            at += got as u64;
        }
    };
    pass();
    let (passes, elapsed) = repeat(milliseconds, &mut pass);
    println!("{}", elapsed.as_secs_f64() / f64::from(passes));
}

/// Reads 8 bytes at random places of `len` bytes for some time, and tells how many seconds one read took.
pub(super) fn random(path: &str, start: u64, len: u64, milliseconds: u64) {
    const AT_A_TIME: u32 = 64;
    let file = File::open(path).expect(path);
    // The working set is warm, on a mount that keeps it.
    let mut block = vec![0; 1 << 20];
    for at in (start..start + len).step_by(block.len()) {
        file.read_exact_at(&mut block, at).expect("a read");
    }
    let mut noise = Noise(1);
    let (times, elapsed) = repeat(milliseconds, || {
        for _ in 0..AT_A_TIME {
            let at = start + noise.next() % (len - 8);
            file.read_exact_at(&mut [0; 8], at).expect("a read");
        }
    });
    println!(
        "{}",
        elapsed.as_secs_f64() / f64::from(times) / f64::from(AT_A_TIME)
    );
}

/// Does it until the time is up, once at least: how often, and how long that took.
fn repeat(milliseconds: u64, mut work: impl FnMut()) -> (u32, Duration) {
    let limit = Duration::from_millis(milliseconds);
    let began = Instant::now();
    let mut times = 0;
    loop {
        work();
        times += 1;
        let elapsed = began.elapsed();
        if elapsed >= limit {
            return (times, elapsed);
        }
    }
}
