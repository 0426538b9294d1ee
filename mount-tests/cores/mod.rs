//! `core/PID`: core files, read by debuggers and held against those of the kernel and of gdb.

mod debuggers;
mod elf;
mod files;
mod kernel;
mod killed;
mod programs;
mod refusals;
mod threads;

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::resource::{Resource, setrlimit};
use tempfile::TempDir;

use crate::support::{Mount, Program, Test, run};

/// The tests of all these modules.
pub(crate) fn tests() -> Vec<Test> {
    [
        killed::tests(),
        threads::tests(),
        kernel::tests(),
        debuggers::tests(),
        files::tests(),
        programs::tests(),
        refusals::tests(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

const SOURCE: &str = include_str!("subject.c");

/// The core file of a process.
fn core_of(mount: &Mount, pid: u32) -> PathBuf {
    mount.path(format!("core/{pid}"))
}

/// Builds the program whose core is taken.
#[track_caller]
fn build(dir: &Path, flags: &[&str]) -> PathBuf {
    let (source, binary) = (dir.join("subject.c"), dir.join("subject"));
    std::fs::write(&source, SOURCE).unwrap();
    let mut cc = Command::new("cc");
    cc.args(["-g", "-O1", "-pthread"]).args(flags);
    run(cc.arg("-o").arg(&binary).arg(source)).success();
    binary
}

/// A process whose core is taken. Killed when dropped.
#[derive(Debug)]
struct Subject {
    program: Program,
    said: BTreeMap<String, usize>,
    binary: PathBuf,
    dir: TempDir,
}

impl Subject {
    /// Starts one in this state (see `subject.c`), with so many threads or mappings.
    #[track_caller]
    fn new(state: &str, number: usize) -> Self {
        Self::built(&[], state, number)
    }

    /// The same, built with these flags of the compiler.
    #[track_caller]
    fn built(flags: &[&str], state: &str, number: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let binary = build(dir.path(), flags);
        let mut command = Command::new(&binary);
        command
            .arg(state)
            .arg(dir.path())
            .arg(number.to_string())
            .current_dir(dir.path());
        // For those whose core the kernel is to write, too.
        let unlimited = || Ok(setrlimit(Resource::RLIMIT_CORE, u64::MAX, u64::MAX)?);
        // SAFETY: the closure makes one system call and allocates nothing.
        unsafe { command.pre_exec(unlimited) };
        let program = Program::of(command);
        let words = program.said.split_whitespace();
        let number = |text| usize::from_str_radix(text, 16).unwrap();
        let said = words
            .filter_map(|word| word.split_once('='))
            .map(|(name, value)| (name.to_owned(), number(value)))
            .collect();
        Self {
            program,
            said,
            binary,
            dir,
        }
    }

    fn pid(&self) -> u32 {
        self.program.pid()
    }

    /// What it said of something: mostly its address.
    #[track_caller]
    fn at(&self, name: &str) -> usize {
        let found = self.said.get(name).copied();
        found.unwrap_or_else(|| panic!("no {name} in {:?}", self.said))
    }
}
