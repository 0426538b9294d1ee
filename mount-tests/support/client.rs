//! A client in C, for what the standard library of Rust never does.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use nix::sys::signal::Signal;

use super::mount::end_with_us;
use super::{SOON, lines_of, run};

const SOURCE: &str = include_str!("../clients/client.c");

/// The width of a client's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Width {
    /// That of the machine.
    Native,
    /// 32 bits, without large-file support.
    Bits32,
}

/// Builds the client in `dir`.
#[track_caller]
pub(crate) fn build_client(dir: &Path, width: Width) -> PathBuf {
    let (source, binary) = (dir.join("client.c"), dir.join(format!("client-{width:?}")));
    std::fs::write(&source, SOURCE).unwrap();
    let mut cc = Command::new("cc");
    if width == Width::Bits32 {
        cc.arg("-m32");
    }
    run(cc.args(["-O1", "-o"]).arg(&binary).arg(source)).success();
    binary
}

/// A client that answers each line with a line. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Client {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Client {
    /// Starts it.
    #[track_caller]
    pub(crate) fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = end_with_us(command, Signal::SIGKILL).spawn().unwrap();
        let lines = lines_of(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line that it says.
    #[track_caller]
    pub(crate) fn line(&self) -> String {
        let line = self.lines.recv_timeout(SOON);
        line.unwrap_or_else(|error| panic!("no answer from the client: {error}"))
    }

    /// Asks for another line.
    #[track_caller]
    pub(crate) fn again(&mut self) -> String {
        let input = self.child.stdin.as_mut().expect("piped");
        writeln!(input).unwrap();
        self.line()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
