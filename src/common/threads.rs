//! Threads that are started while the program serves, also where memory is short.

use std::io;
use std::thread;

use memmap2::MmapMut;

/// The stack of a thread.
const STACK: usize = 2 << 20;

/// More than a thread needs beside its stack before its work begins: Rust gives it a second stack for signals, of some
/// pages, and ends the whole program where there is no memory for that.
const FIRST_STEPS: usize = 256 << 10;

/// Starts a thread that nobody waits for.
///
/// # Errors
/// Where the system has no thread, or no memory for one.
pub(crate) fn start(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    // As far as it can be told: another thread may take it in between.
    drop(MmapMut::map_anon(STACK + FIRST_STEPS)?);
    let thread = thread::Builder::new().name(name.to_owned());
    thread.stack_size(STACK).spawn(work).map(drop)
}
