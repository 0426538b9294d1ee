//! What the benchmarks need outside of their own process: targets with memory
//! to read, a file system to compare with, and loops of reads that are timed
//! without a tool's own work in them.
//!
//! Reached by the hidden arguments of the benchmark `units`, so that the script
//! `throughput` finds all of it in one program.

mod empty;
mod reads;
mod scan;
mod scattered;
mod targets;

use std::process::{Child, Command, Stdio};

use empty::{Content, Tree};

const PAGE: usize = 4096;

const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// Runs what the arguments ask for; `false` where they are not ours.
pub(crate) fn run(arguments: &[String]) -> bool {
    let number = |index: usize| -> u64 { arguments[index].parse().expect("a number") };
    let size = |index: usize| -> usize { arguments[index].parse().expect("a number") };
    match arguments.first().map(String::as_str) {
        Some("--probe-hold") => targets::hold(size(1)),
        Some("--probe-busy") => targets::busy(size(1)),
        Some("--probe-heap") => targets::heap(size(1)),
        Some("--probe-reserve") => targets::reserve(size(1), number(2)),
        Some("--probe-many") => targets::many(size(1)),
        Some("--probe-fuse") => empty::serve(
            &arguments[1],
            Tree::new(size(2), size(3)),
            Content::full(number(4)),
        ),
        Some("--probe-fuse-sparse") => empty::serve(
            &arguments[1],
            Tree::new(1, 1),
            Content::sparse(number(2), number(3)),
        ),
        Some("--probe-sequential") => {
            reads::sequential(&arguments[1], number(2), number(3), size(4), number(5));
        }
        Some("--probe-random") => reads::random(&arguments[1], number(2), number(3), number(4)),
        Some("--probe-scan") => scan::scan(number(1), number(2), number(3)),
        Some("--probe-copy") => scan::copy_all(number(1), size(2), size(3)),
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
