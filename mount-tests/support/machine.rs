//! What there is only once on a machine, so that tests take turns: those of this run, and of others on the same machine.

use std::fs::File;

use nix::fcntl::{Flock, FlockArg};

/// The right to change a setting of the system, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn(#[expect(dead_code, reason = "held for its lock")] Flock<File>);

impl Turn {
    /// Waits until nobody else who asks for it has the setting, which is a file of `/proc`.
    #[track_caller]
    pub(crate) fn at(setting: &str) -> Self {
        let file = File::open(setting).unwrap_or_else(|error| panic!("{setting}: {error}"));
        match Flock::lock(file, FlockArg::LockExclusive) {
            Ok(lock) => Self(lock),
            Err((_, errno)) => panic!("the lock of {setting}: {errno}"),
        }
    }
}
