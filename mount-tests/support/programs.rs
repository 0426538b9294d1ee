//! Ordinary programs as targets: a shell, Python, `sleep`, a 32-bit program.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::errno::Errno;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::mount::end_with_us;
use super::{eventually, run};

/// The text that the programs keep in their memory. In two parts here, so that
/// neither the test's own memory nor a script's text holds it by accident.
pub(crate) fn secret() -> String {
    ["procmemfs", "keeps", "a", "secret", "4711"].join("+")
}

/// A 32-bit program that keeps the pattern `i * 2654435761` in an array.
const PROGRAM_32: &str = r#"
#include <stdio.h>
#include <unistd.h>
static unsigned words[16384];
int main(void) {
    char byte;
    for (unsigned i = 0; i < 16384; i++) words[i] = i * 2654435761u;
    printf("%lx\n", (unsigned long)(void *)words);
    fflush(stdout);
    while (read(0, &byte, 1) > 0) {}
    return 0;
}
"#;

/// Keeps a thread, or with 0 this one, on one CPU. Allocates nothing.
pub(super) fn stay_on_one_cpu(thread: Pid) -> nix::Result<()> {
    let allowed = sched_getaffinity(thread)?;
    let first = (0..CpuSet::count()).find(|cpu| allowed.is_set(*cpu).unwrap_or(false));
    let mut one = CpuSet::new();
    one.set(first.ok_or(Errno::EINVAL)?)?;
    sched_setaffinity(thread, &one)
}

/// A running program. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    /// The first line that it printed.
    pub(crate) said: String,
}

impl Program {
    /// Starts a program and waits for its first line.
    #[track_caller]
    pub(crate) fn talking(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        end_with_us(&mut command, Signal::SIGKILL);
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut said = String::new();
        let output = child.stdout.as_mut().unwrap();
        BufReader::new(output).read_line(&mut said).unwrap();
        Self {
            child,
            said: said.trim().to_string(),
        }
    }

    /// The same, once its first thread waits for more input: nothing of its memory changes from then on.
    #[track_caller]
    fn waiting(command: Command) -> Self {
        let program = Self::talking(command);
        let path = format!("/proc/{}/syscall", program.pid());
        eventually("it waits", || {
            let call = std::fs::read_to_string(&path).unwrap();
            (call != "running\n").then_some(())
        });
        program
    }

    /// Any program that prints a line when it is ready, and ends when its input does.
    #[track_caller]
    pub(crate) fn of(command: Command) -> Self {
        Self::talking(command)
    }

    /// A shell that holds the secret in a variable and waits.
    #[track_caller]
    pub(crate) fn shell() -> Self {
        let mut command = Command::new("sh");
        command.args([
            "-c",
            r#"a=procmemfs; b="$a+keeps+a+secret+4711"; echo ready; read -r line"#,
        ]);
        Self::waiting(command)
    }

    /// A shell that runs a new shell, which does the same, over and over in one process.
    #[track_caller]
    pub(crate) fn restarting() -> Self {
        let mut command = Command::new("sh");
        let again = r#"exec sh -c "$0" "$0""#;
        command.args(["-c", r#"echo ready; exec sh -c "$0" "$0""#, again]);
        Self::talking(command)
    }

    /// A Python interpreter that holds the secret in an object and waits. It
    /// prints the address of the object.
    #[track_caller]
    pub(crate) fn python() -> Self {
        // A launcher script is not the interpreter.
        let output = run(Command::new("python3").args(["-c", "import sys; print(sys.executable)"]));
        let mut command = Command::new(output.success().text().trim());
        command.args([
            "-c",
            "import sys\n\
             secret = b'+'.join([b'procmemfs', b'keeps', b'a', b'secret', b'4711'])\n\
             print(hex(id(secret)), flush=True)\n\
             sys.stdin.read()",
        ]);
        Self::waiting(command)
    }

    /// `sleep`, once it sleeps. Nothing changes its memory then.
    #[track_caller]
    pub(crate) fn sleep() -> Self {
        let mut command = Command::new("sleep");
        end_with_us(command.arg("600"), Signal::SIGKILL);
        // The kernel writes the number of the CPU into the memory of the process (see rseq(2)) when it changes.
        let stay = || Ok(stay_on_one_cpu(Pid::from_raw(0))?);
        // SAFETY: the closure makes two system calls and allocates nothing.
        unsafe { command.pre_exec(stay) };
        let program = Self {
            child: command.spawn().unwrap(),
            said: String::new(),
        };
        let path = format!("/proc/{}/syscall", program.pid());
        let sleeping = [libc::SYS_clock_nanosleep, libc::SYS_nanosleep];
        eventually("sleep sleeps", || {
            let text = std::fs::read_to_string(&path).unwrap();
            let number = text.split(' ').next()?.parse().ok()?;
            sleeping.contains(&number).then_some(())
        });
        program
    }

    /// A 32-bit program, built in `dir`. It prints the address of its array.
    #[track_caller]
    pub(crate) fn bits_32(dir: &Path) -> Self {
        let source = dir.join("bits32.c");
        std::fs::write(&source, PROGRAM_32).unwrap();
        let binary = dir.join("bits32");
        let mut compiler = Command::new("cc");
        run(compiler
            .args(["-m32", "-O1", "-o"])
            .arg(&binary)
            .arg(source))
        .success();
        Self::talking(Command::new(binary))
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends its input, and waits for it to end.
    #[track_caller]
    pub(crate) fn end(&mut self) -> ExitStatus {
        drop(self.child.stdin.take());
        eventually("its end", || self.child.try_wait().unwrap())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
