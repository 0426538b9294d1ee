//! What the benchmarks need outside of their own process: a target with memory
//! to read, and loops of reads that are timed without a tool's own work in them.
//!
//! Reached by the hidden arguments of the benchmark `units`, so that the script
//! `throughput` finds all of it in one program.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

const PAGE: usize = 4096;

/// Runs what the arguments ask for; `false` where they are not ours.
pub(crate) fn run(arguments: &[String]) -> bool {
    let number = |index: usize| -> u64 { arguments[index].parse().expect("a number") };
    match arguments.first().map(String::as_str) {
        Some("--probe-hold") => hold(number(1) as usize),
        Some("--probe-sequential") => {
            sequential(&arguments[1], number(2), number(3), number(4) as usize);
        }
        Some("--probe-random") => random(&arguments[1], number(2), number(3), number(4)),
        _ => return false,
    }
    true
}

/// A generator of numbers that are random enough to be neither zeros nor alike (xorshift64).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Holds `bytes` of resident memory, tells where they are, and waits until standard input closes.
fn hold(bytes: usize) {
    // Standard input may stay open in another child of a parent that is killed.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).expect("prctl");
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let memory: Vec<u64> = (0..(bytes + PAGE) / size_of::<u64>())
        .map(|_| noise.next())
        .collect();
    let address = (memory.as_ptr() as usize).next_multiple_of(PAGE);
    let mut output = std::io::stdout();
    writeln!(output, "{address}").expect("standard output");
    let _ = std::io::stdin().read(&mut [0]);
    std::hint::black_box(&memory);
}

/// Reads `len` bytes from `start` on twice through one open file, and tells how many seconds the second time took.
fn sequential(path: &str, start: u64, len: u64, block: usize) {
    let file = File::open(path).expect(path);
    let mut buffer = vec![0; block];
    let mut pass = || {
        let began = Instant::now();
        let mut at = start;
        while at < start + len {
            let want = block.min((start + len - at) as usize);
            let got = file.read_at(&mut buffer[..want], at).expect("a read");
            assert!(got > 0, "the file ends early");
            at += got as u64;
        }
        began.elapsed()
    };
    pass();
    println!("{}", pass().as_secs_f64());
}

/// Reads 8 bytes at random places of `len` bytes for some time, and tells how many seconds one read took.
fn random(path: &str, start: u64, len: u64, milliseconds: u64) {
    let file = File::open(path).expect(path);
    // The working set is warm, on a mount that keeps it.
    let mut block = vec![0; 1 << 20];
    for at in (start..start + len).step_by(block.len()) {
        file.read_exact_at(&mut block, at).expect("a read");
    }
    let mut noise = Noise(1);
    let mut reads = 0_u32;
    let limit = Duration::from_millis(milliseconds);
    let began = Instant::now();
    let elapsed = loop {
        for _ in 0..64 {
            let at = start + noise.next() % (len - 8);
            file.read_exact_at(&mut [0; 8], at).expect("a read");
        }
        reads += 64;
        let elapsed = began.elapsed();
        if elapsed >= limit {
            break elapsed;
        }
    };
    println!("{}", elapsed.as_secs_f64() / f64::from(reads));
}

/// A child with resident memory; dropping it ends it.
pub(crate) struct Holder {
    child: Child,
    /// Where its memory starts: at the start of a page.
    pub(crate) address: u64,
}

impl Holder {
    /// Starts one that holds `bytes`.
    pub(crate) fn start(bytes: usize) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--probe-hold", &bytes.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child");
        let mut told = String::new();
        let mut output = std::io::BufReader::new(child.stdout.take().expect("a pipe"));
        std::io::BufRead::read_line(&mut output, &mut told).expect("a line");
        Self {
            child,
            address: told.trim().parse().expect("an address"),
        }
    }

    /// Its process's number.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
