//! The target program, seen from a test.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::{PAGE, SOON, built_binary, install, lines_of, pattern, programs};

/// A mapping of the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Region {
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl Region {
    /// Its length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }

    /// Parses `START-END`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (start, end) = text.split_once('-')?;
        Some(Self {
            start: usize::from_str_radix(start, 16).ok()?,
            end: usize::from_str_radix(end, 16).ok()?,
        })
    }
}

/// A running target. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Target {
    dir: TempDir,
    child: Child,
    input: Option<ChildStdin>,
    lines: mpsc::Receiver<String>,
    pid: u32,
    generation: u64,
    regions: BTreeMap<String, Region>,
    /// Whether the kernel knows names for anonymous memory.
    pub(crate) anon_names: bool,
}

impl Target {
    /// Starts a target with the bytes of generation 1.
    #[track_caller]
    pub(crate) fn new() -> Self {
        Self::start(1, None, None)
    }

    /// Starts a target with the bytes of `generation`.
    #[track_caller]
    pub(crate) fn of_generation(generation: u64) -> Self {
        Self::start(generation, None, None)
    }

    /// Starts a target whose process id is `pid`.
    #[track_caller]
    pub(crate) fn with_pid(pid: u32, generation: u64) -> Self {
        Self::start(generation, Some(pid), None)
    }

    /// Starts a target that belongs to the user `uid`.
    #[track_caller]
    pub(crate) fn of_user(uid: u32) -> Self {
        Self::start(1, None, Some(uid))
    }

    #[track_caller]
    fn start(generation: u64, pid: Option<u32>, uid: Option<u32>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut command = match uid {
            Some(uid) => Self::command_of(uid, dir.path()),
            None => Command::new(Self::binary()),
        };
        match pid {
            Some(pid) => command.args(["as-pid", &pid.to_string()]),
            None => command.arg("serve"),
        };
        command.arg(dir.path()).arg(generation.to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = lines_of(child.stdout.take().unwrap());
        let mut target = Self {
            dir,
            input: child.stdin.take(),
            child,
            lines,
            pid: 0,
            generation,
            regions: BTreeMap::new(),
            anon_names: false,
        };
        target.take_ready();
        // Once it has obeyed, what it runs while it waits for more is in memory: the kernel maps its code as it comes to it.
        let private = target.region("private");
        target.read(private.start, 1);
        target
    }

    /// The program, as a user who may not reach the original.
    fn command_of(uid: u32, dir: &Path) -> Command {
        let copy = dir.join("mount-target");
        install(&Self::binary(), &copy);
        chown(dir, Some(uid), Some(uid)).unwrap();
        let mut command = Command::new("setpriv");
        command.args([format!("--reuid={uid}"), format!("--regid={uid}")]);
        command.arg("--clear-groups").arg(copy);
        command
    }

    /// Where the target program is.
    pub(crate) fn binary() -> PathBuf {
        let dir = built_binary().parent().expect("a file has a directory");
        let path = dir.join("examples/mount-target");
        assert!(
            path.exists(),
            "{path:?} is missing: `cargo test` builds it, and so does `cargo build --examples`"
        );
        path
    }

    #[track_caller]
    fn line(&self) -> String {
        self.lines
            .recv_timeout(SOON)
            .unwrap_or_else(|error| panic!("no answer from the target: {error}"))
    }

    /// Takes in the line with which the target, or its new program, begins.
    #[track_caller]
    pub(crate) fn take_ready(&mut self) {
        let line = self.line();
        let mut words = line.split(' ');
        assert_eq!(words.next(), Some("ready"), "the target said: {line}");
        self.regions.clear();
        for word in words {
            match word.split_once('=') {
                Some(("pid", pid)) => self.pid = pid.parse().unwrap(),
                Some(("generation", number)) => self.generation = number.parse().unwrap(),
                Some(("anon_names", known)) => self.anon_names = known == "true",
                Some((name, range)) => {
                    let region = Region::parse(range).unwrap();
                    self.regions.insert(name.to_string(), region);
                }
                None => panic!("the target said: {line}"),
            }
        }
    }

    /// Sends a command without waiting for an answer.
    pub(crate) fn send(&mut self, command: &str) {
        let input = self.input.as_mut().expect("the input is open");
        writeln!(input, "{command}").unwrap();
    }

    /// Sends a command and gives the answer.
    #[track_caller]
    pub(crate) fn ask(&mut self, command: &str) -> String {
        self.send(command);
        let line = self.line();
        let Some(answer) = line.strip_prefix("ok") else {
            panic!("{command}: the target said: {line}");
        };
        answer.trim().to_string()
    }

    /// Keeps its first thread on one CPU: each CPU keeps pages that were touched last for itself for a while,
    /// and the kernel pages those out that the CPU of the one who advises that keeps.
    #[track_caller]
    pub(crate) fn stay_on_one_cpu(&self) {
        programs::stay_on_one_cpu(Pid::from_raw(self.pid as i32)).unwrap();
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Which bytes it holds.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// The directory of the files that it maps.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// All regions with their names.
    pub(crate) fn regions(&self) -> &BTreeMap<String, Region> {
        &self.regions
    }

    /// The region called `name`.
    #[track_caller]
    pub(crate) fn region(&self, name: &str) -> Region {
        self.regions
            .get(name)
            .cloned()
            .unwrap_or_else(|| panic!("no region {name}"))
    }

    /// What the region called `name` holds from the start.
    #[track_caller]
    pub(crate) fn bytes(&self, name: &str) -> Vec<u8> {
        let region = self.region(name);
        let mut bytes = pattern::bytes(region.start as u64, region.len(), self.generation);
        match name {
            "sparse_private" | "sparse_shared" => {
                bytes[PAGE..512 * PAGE].fill(0);
                bytes[513 * PAGE..].fill(0);
            }
            // The file ends in its second page; the pages after it are none.
            "past_end" => {
                bytes[6000..].fill(0);
                bytes.truncate(2 * PAGE);
            }
            _ => {}
        }
        bytes
    }

    /// What the target reads from its own memory.
    #[track_caller]
    pub(crate) fn read(&mut self, at: usize, len: usize) -> Vec<u8> {
        let answer = self.ask(&format!("read {at:x} {len}"));
        unhex(&answer)
    }

    /// What the target's own `/proc/self/mem` gives, whatever the protection.
    #[track_caller]
    pub(crate) fn read_mem(&mut self, at: usize, len: usize) -> Vec<u8> {
        let answer = self.ask(&format!("readmem {at:x} {len}"));
        unhex(&answer)
    }

    /// Lets the target write into its own memory.
    #[track_caller]
    pub(crate) fn write(&mut self, at: usize, bytes: &[u8]) {
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        self.ask(&format!("write {at:x} {digits}"));
    }

    /// Lets the target make one more mapping, of the file at `path`.
    #[track_caller]
    pub(crate) fn map(&mut self, name: &str, path: &str, len: usize, kind: &str) -> Region {
        let answer = self.ask(&format!("map {name} {path} {len} {kind}"));
        let region = Region::parse(&answer).unwrap();
        self.regions.insert(name.to_string(), region.clone());
        region
    }

    /// Lets the target become a new program with the bytes of `generation`.
    #[track_caller]
    pub(crate) fn exec(&mut self, generation: u64) {
        self.send(&format!("exec {generation}"));
        self.take_ready();
    }

    /// Ends the target and waits until it is gone.
    pub(crate) fn end(&mut self) {
        self.send("exit");
        self.child.wait().unwrap();
    }

    /// Kills the target and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends the target a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid as i32), signal).unwrap();
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // Where it runs under another process id, the closed input ends it.
        drop(self.input.take());
        if self.child.id() == self.pid {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2)
        .map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
        .collect()
}
