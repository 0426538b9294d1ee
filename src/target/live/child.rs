//! A process that a test starts.

use std::process::{Command, Stdio};

/// A process that ends with its test, also where that fails.
#[derive(Debug)]
pub(super) struct Child(std::process::Child);

impl Child {
    /// Starts it, if there is such a program. It holds nothing open that whoever runs the tests waits for.
    pub(super) fn start(command: &mut Command) -> Option<Self> {
        let command = command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(Stdio::null()).spawn().ok().map(Self)
    }

    /// Its number.
    pub(super) fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
