//! The helper of a plain user, who may not call mount(2) and umount(2).

use std::io;
use std::process::Command;

/// Names of the helper, and where it is where `PATH` is short.
const NAMES: [&str; 4] = [
    "fusermount3",
    "fusermount",
    "/usr/bin/fusermount3",
    "/bin/fusermount3",
];

/// Runs the first helper that is there.
///
/// # Errors
/// What `run` gives, or `NotFound`.
pub(super) fn run<T>(mut run: impl FnMut(&mut Command) -> io::Result<T>) -> io::Result<T> {
    let mut answer = Err(io::ErrorKind::NotFound.into());
    for name in NAMES {
        answer = run(&mut Command::new(name));
        match &answer {
            Err(error) if error.kind() == io::ErrorKind::NotFound => (),
            _ => break,
        }
    }
    answer
}
