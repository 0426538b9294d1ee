//! Identity under attack: programs that follow each other under one number and at the same addresses, faster than
//! anybody can look, while they are read and written. Not one byte comes from the wrong program or gets to it.

mod control;
mod programs;
mod setuid;
#[allow(dead_code, reason = "the program of the target uses the rest of it")]
mod worker;

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Instant;

use control::{Control, Word};
use nix::sys::signal::Signal;
use worker::{Duty, Tally, Worker};

use crate::support::{Test, current_test, end_with_us, errno_name, run};

/// The tests of all these modules.
pub(crate) fn tests() -> Vec<Test> {
    [programs::tests(), setuid::tests()]
        .into_iter()
        .flatten()
        .collect()
}

/// Errors of a handle whose program is gone; and what a machine gives that is so busy that nobody gets on.
const GONE: [i32; 3] = [libc::ESTALE, libc::ESRCH, libc::ETIMEDOUT];

/// Errors of opening a path while programs come and go.
const NOT_THERE: [i32; 4] = [libc::ENOENT, libc::ESRCH, libc::ESTALE, libc::ETIMEDOUT];

/// Builds the target: no program that cargo builds lies at fixed addresses.
#[track_caller]
fn build(dir: &Path) -> PathBuf {
    let (source, binary) = (dir.join("target.c"), dir.join("target"));
    std::fs::write(&source, include_str!("target.c")).unwrap();
    let mut cc = Command::new("cc");
    cc.args(["-O1", "-static", "-no-pie", "-o"]);
    run(cc.arg(&binary).arg(&source)).success();
    binary
}

/// A target that goes from generation to generation, and what is told of it.
#[derive(Debug)]
struct Attack {
    what: String,
    control_path: PathBuf,
    control: Control,
    target: Child,
    begun: Instant,
    rounds: u64,
}

impl Attack {
    /// Starts it with this command, of which the arguments are missing; `dir` is for its file.
    #[track_caller]
    fn start(
        mut command: Command,
        dir: &Path,
        [kind, layout]: [&str; 2],
        programs: [&Path; 2],
        workers: usize,
        rounds: u64,
    ) -> Self {
        let control_path = dir.join(format!("control-{kind}-{layout}"));
        let control = Control::create(&control_path, workers as u64, rounds).unwrap();
        command.args([kind, layout]).arg(&control_path);
        // As long as every later one, so that the stack of each begins at the same place.
        command.arg(format!("{:012}", 0)).args(programs);
        let target = end_with_us(&mut command, Signal::SIGKILL).spawn().unwrap();
        Self {
            what: format!("{kind}, {layout}"),
            control_path,
            control,
            target,
            begun: Instant::now(),
            rounds,
        }
    }

    /// Lets workers with these duties and on these mounts do them, until the target has ended; they are counted from
    /// `first` on.
    #[track_caller]
    fn run(&mut self, first: u64, jobs: &[(&Path, Duty)]) -> Tally {
        let mut tally = Tally::default();
        std::thread::scope(|scope| {
            let workers: Vec<_> = (first..)
                .zip(jobs)
                .map(|(index, (mount, duty))| {
                    let control = Control::open(&self.control_path).unwrap();
                    let worker = Worker::new(control, mount, *duty, index);
                    scope.spawn(|| worker.run())
                })
                .collect();
            for worker in workers {
                tally.add(&worker.join().unwrap().unwrap());
            }
        });
        tally
    }

    /// Fails unless everybody has kept to what is promised.
    #[track_caller]
    fn judge(&mut self, by: &str, tally: &Tally, unopened: &[i32]) {
        let status = self.target.wait().unwrap();
        assert!(status.success(), "the target ended with {status}");
        let word = |word| self.control.get(word).unwrap();
        let (wrong, value) = (word(Word::Wrong), word(Word::WrongValue));
        let seconds = self.begun.elapsed().as_secs_f64();
        // On the standard error: figures for docs/TESTING.md, and what a failure is judged by.
        eprintln!(
            "[{}] {}, {by}: {} rounds in {seconds:.1} s; {tally}; words written {}, in the wrong program {wrong}; \
             not waited for {}",
            current_test(),
            self.what,
            self.rounds,
            word(Word::Arrived),
            word(Word::Missed),
        );
        assert_eq!(
            tally.wrong, 0,
            "{}: read from the wrong program: {}",
            self.what, tally.example
        );
        assert_eq!(
            wrong,
            0,
            "{}: bytes of a handle of {} were written to the program {}",
            self.what,
            value >> 16,
            word(Word::WrongGeneration)
        );
        for errno in tally.refused.keys() {
            assert!(
                GONE.contains(errno),
                "{}: a handle gave {}",
                self.what,
                errno_name(*errno)
            );
        }
        for errno in tally.unopened.keys() {
            assert!(
                unopened.contains(errno),
                "{}: an open gave {}",
                self.what,
                errno_name(*errno)
            );
        }
        assert!(
            word(Word::Arrived) > 0,
            "{}: nothing was written",
            self.what
        );
        assert!(
            tally.handles > self.rounds / 2,
            "{}: only {} handles",
            self.what,
            tally.handles
        );
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        let _ = self.control.set(Word::Done, 0, 1);
        let _ = self.target.kill();
        let _ = self.target.wait();
    }
}
