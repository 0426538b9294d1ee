//! The process that most recipes are about: `subject.c`, built for each of them.

use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Receiver;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::support::{SOON, end_with_us, eventually, lines_of, run};

/// A running subject. Killed when dropped.
#[derive(Debug)]
pub(super) struct Subject {
    child: Child,
    lines: Receiver<String>,
    addresses: BTreeMap<String, usize>,
    dir: TempDir,
}

impl Subject {
    /// Starts one.
    #[track_caller]
    pub(super) fn new() -> Self {
        Self::start(&[], &[])
    }

    /// Starts one that answers what is written into its mailbox.
    #[track_caller]
    pub(super) fn serving() -> Self {
        Self::start(&[], &["serve"])
    }

    /// Starts one as another user. Root alone can do that.
    #[track_caller]
    pub(super) fn of_user(uid: u32) -> Self {
        let (user, group) = (format!("--reuid={uid}"), format!("--regid={uid}"));
        Self::start(&["setpriv", &user, &group, "--clear-groups"], &[])
    }

    /// Starts one by way of a program that becomes it.
    #[track_caller]
    fn start(by: &[&str], words: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let (source, program) = (dir.path().join("subject.c"), dir.path().join("subject"));
        std::fs::write(&source, include_str!("subject.c")).unwrap();
        let mut cc = Command::new("cc");
        cc.args(["-g", "-Wall", "-Werror", "-pthread", "-o"]);
        run(cc.arg(&program).arg(source)).success().quiet();

        let program = program.to_str().expect("made by the test");
        let line: Vec<&str> = [by, &[program], words].concat();
        let mut command = Command::new(line[0]);
        command
            .args(&line[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = end_with_us(&mut command, Signal::SIGKILL).spawn().unwrap();
        let lines = lines_of(child.stdout.take().expect("piped"));
        let mut subject = Self {
            child,
            lines,
            addresses: BTreeMap::new(),
            dir,
        };
        for word in subject.line().split(' ') {
            let (name, address) = word.split_once("=0x").expect("NAME=ADDRESS");
            let address = usize::from_str_radix(address, 16).unwrap();
            subject.addresses.insert(name.to_owned(), address);
        }
        // What it maps and writes for its first look at its input is there by then.
        eventually("it waits for a word", || {
            let call = std::fs::read_to_string(format!("/proc/{}/syscall", subject.pid())).ok()?;
            call.starts_with(&format!("{} ", libc::SYS_read))
                .then_some(())
        });
        subject
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its program.
    pub(super) fn program(&self) -> PathBuf {
        self.dir.path().join("subject")
    }

    #[track_caller]
    fn line(&self) -> String {
        let line = self.lines.recv_timeout(SOON);
        line.unwrap_or_else(|error| panic!("no answer from the subject: {error}"))
    }

    /// Says a word to it, and gives its answer.
    #[track_caller]
    pub(super) fn ask(&mut self, word: &str) -> String {
        let input = self.child.stdin.as_mut().expect("piped");
        writeln!(input, "{word}").unwrap();
        self.line()
    }

    /// At which address something of it is.
    #[track_caller]
    pub(super) fn address(&self, name: &str) -> usize {
        let known = self.addresses.get(name);
        *known.unwrap_or_else(|| panic!("no {name} in {:?}", self.addresses))
    }

    /// Where something is in its heap, as the recipes write offsets.
    #[track_caller]
    pub(super) fn offset(&self, name: &str) -> String {
        let (start, _) = self.mapping("[heap]");
        format!("{:#x}", self.address(name) - start)
    }

    /// Start and end of the first mapping whose line in `/proc/PID/maps` has all of these words.
    #[track_caller]
    pub(super) fn mapping(&self, words: &str) -> (usize, usize) {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", self.pid())).unwrap();
        let has_all = |line: &&str| words.split(' ').all(|word| line.contains(word));
        let line = maps.lines().find(has_all);
        let range = line.and_then(|line| line.split(' ').next()?.split_once('-'));
        let (start, end) = range.unwrap_or_else(|| panic!("no {words} in {maps}"));
        let number = |text| usize::from_str_radix(text, 16).unwrap();
        (number(start), number(end))
    }

    /// What it holds, by the kernel's own file.
    #[track_caller]
    pub(super) fn memory(&self, start: usize, length: usize) -> Vec<u8> {
        let memory = File::open(format!("/proc/{}/mem", self.pid())).unwrap();
        let mut bytes = vec![0; length];
        memory.read_exact_at(&mut bytes, start as u64).unwrap();
        bytes
    }

    /// Ends it and waits until it is gone.
    pub(super) fn end(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
