//! The helper of a plain user, who may not call mount(2) and umount(2).

use std::io;
use std::path::PathBuf;
use std::process::Command;

/// Names of the helper, and where it is where `PATH` is short.
const NAMES: [&str; 4] = [
    "fusermount3",
    "fusermount",
    "/usr/bin/fusermount3",
    "/bin/fusermount3",
];

/// Where the helper is that [`run`] runs.
pub(super) fn path() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
    let places = |name: &'static str| -> Vec<PathBuf> {
        match name.starts_with('/') {
            true => vec![name.into()],
            false => std::env::split_paths(&path)
                .map(|directory| directory.join(name))
                .collect(),
        }
    };
    let mut places = NAMES.into_iter().flat_map(places);
    places.find(|path| path.is_file())
}

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
