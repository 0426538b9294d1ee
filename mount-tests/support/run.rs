//! Runs commands with a time limit and shows all of one that went wrong.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Read};
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use libtest_mimic::Failed;

use super::mount::UNKNOWN_CALLS;

/// How long a command may take: the longest takes 20 s where nothing else runs.
const LIMIT: Duration = Duration::from_secs(600);

/// A test that takes longer says so: the whole suite is to stay within some minutes.
const SLOW: Duration = Duration::from_secs(5);

thread_local! {
    /// The test that runs on this thread.
    static CURRENT: RefCell<String> = const { RefCell::new(String::new()) };
}

/// The name of the test that runs on this thread.
pub(crate) fn current_test() -> String {
    CURRENT.with_borrow(Clone::clone)
}

/// Runs a test body and turns a panic into a failure. The message itself went
/// to the standard error by then.
pub(crate) fn caught(name: &str, body: fn()) -> Result<(), Failed> {
    CURRENT.replace(name.to_string());
    let started = Instant::now();
    let ended = std::panic::catch_unwind(AssertUnwindSafe(body));
    let took = started.elapsed();
    if took > SLOW {
        eprintln!("[{name}] took {:.1} s", took.as_secs_f64());
    }
    ended.map_err(|payload| {
        let text = payload
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| payload.downcast_ref::<&str>().copied());
        text.unwrap_or("panicked").into()
    })
}

/// A text for the shell.
pub(crate) fn quote(path: &Path) -> String {
    let text = path.to_str().expect("a path that a script names is UTF-8");
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
    shown: String,
}

impl Output {
    /// Everything, for the message of a failure.
    fn report(&self) -> String {
        format!(
            "\n{}\nended with {}\nstdout ({} bytes): {}\nstderr: {}\n",
            self.shown,
            self.status,
            self.stdout.len(),
            String::from_utf8_lossy(&self.stdout[..self.stdout.len().min(2000)]),
            self.stderr
        )
    }

    /// Fails unless the exit code is `code`.
    #[track_caller]
    pub(crate) fn code(self, code: i32) -> Self {
        assert!(
            self.status.code() == Some(code),
            "expected exit code {code}:{}",
            self.report()
        );
        self
    }

    /// Fails unless the command succeeded.
    #[track_caller]
    pub(crate) fn success(self) -> Self {
        self.code(0)
    }

    /// Fails if the command succeeded.
    #[track_caller]
    pub(crate) fn failure(self) -> Self {
        assert!(
            !self.status.success(),
            "expected a failure:{}",
            self.report()
        );
        self
    }

    /// Fails if the command complained.
    #[track_caller]
    pub(crate) fn quiet(self) -> Self {
        assert!(
            self.stderr.is_empty(),
            "expected no complaint:{}",
            self.report()
        );
        self
    }

    /// Fails unless the error output is one line that contains `words`.
    #[track_caller]
    pub(crate) fn one_line(self, words: &[&str]) -> Self {
        assert!(
            self.stderr.trim_end().lines().count() == 1 && !self.stderr.trim().is_empty(),
            "expected one line of error:{}",
            self.report()
        );
        self.complains(words)
    }

    /// Fails unless the error output contains `words`, whatever their case.
    #[track_caller]
    pub(crate) fn complains(self, words: &[&str]) -> Self {
        let stderr = self.stderr.to_lowercase();
        for word in words {
            assert!(
                stderr.contains(&word.to_lowercase()),
                "expected the error to name `{word}`:{}",
                self.report()
            );
        }
        self
    }

    /// The standard output as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// Runs a script of the shell.
#[track_caller]
pub(crate) fn sh(script: &str) -> Output {
    run(Command::new("sh").arg("-c").arg(script))
}

/// Runs a command, and fails if it takes longer than two minutes.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Output {
    run_within(LIMIT, command)
}

/// Runs a command, and fails if it takes longer than `limit`. The standard
/// input is empty unless the caller set another one.
#[track_caller]
pub(crate) fn run_within(limit: Duration, command: &mut Command) -> Output {
    let dir = command.get_current_dir().unwrap_or(Path::new("."));
    let shown = format!("in {dir:?}: {command:?}");
    command
        .env("LC_ALL", "C")
        .env(UNKNOWN_CALLS.0, UNKNOWN_CALLS.1)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .unwrap_or_else(|error| panic!("{shown}: {error}"));
    let stdout = collect(child.stdout.take().expect("piped"));
    let stderr = collect(child.stderr.take().expect("piped"));
    let deadline = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait().expect("our child") {
            break status;
        }
        if Instant::now() >= deadline {
            // A process that waits in the kernel for a dead mount stays; do
            // not wait for it.
            let _ = child.kill();
            panic!("{shown}: not done within {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let rest = || deadline.saturating_duration_since(Instant::now()) + Duration::from_secs(5);
    let message = "its output stayed open: something it started still holds it";
    let take = |stream: mpsc::Receiver<Vec<u8>>| {
        stream
            .recv_timeout(rest())
            .unwrap_or_else(|_| panic!("{shown}: {message}"))
    };
    Output {
        status,
        stdout: take(stdout),
        stderr: String::from_utf8_lossy(&take(stderr)).into_owned(),
        shown: shown.clone(),
    }
}

/// Reads a stream to its end on a thread of its own.
fn collect(mut stream: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        let _ = sender.send(bytes);
    });
    receiver
}

/// Copies a program. Were it written by this process, another test that is just starting a program would
/// have it open for writing, too, and nobody could run it ("Text file busy").
pub(crate) fn install(program: &Path, path: &Path) {
    let mut command = Command::new("install");
    run(command.args(["-m", "0755"]).arg(program).arg(path)).success();
}

/// The lines of an output, which a thread of its own reads.
pub(crate) fn lines_of(output: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    lines
}
