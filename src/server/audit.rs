//! The audit trail (`-o audit`): a line for each open, for each refusal, for what each handle has written, and for each process
//! of a snapshot that is taken or dropped.
//!
//! A line is a word and fields `name=value`, so that people and programs read it alike; what somebody else has named is quoted,
//! in printable ASCII. The fields go along as values of their own, for the journal. Bytes of memory are never in it.

use std::ffi::OsStr;
use std::fmt::Write;

use super::Request;
use crate::common::error::{Error, Result};
use crate::common::metrics;
use crate::common::sync::atomic::{AtomicU64, Ordering};
use crate::files::{Access, Caller, Context, File, Node, Snapshot, SnapshotName, Snapshots};
use crate::target::ProcessInfo;

/// The target of these lines in the log, by which they find their way.
pub const AUDIT: &str = "procmemfs::audit";

/// Who did something, to what: the fields that all lines about it begin with.
#[derive(Debug)]
pub(super) struct Trail {
    uid: u32,
    fields: String,
    writes: AtomicU64,
    bytes: AtomicU64,
    failures: AtomicU64,
}

impl Trail {
    /// Of what `caller` does with a file.
    pub(super) fn new(context: &Context, caller: &Caller, node: &Node) -> Self {
        let mut fields = who(context, caller);
        if let Some(info) = node.process() {
            let executable = context.executable(info).unwrap_or_default();
            fields.push_str(&target(info, &executable));
        }
        let _ = write!(fields, " file={}", quoted(node.path().as_bytes()));
        Self {
            uid: caller.uid,
            fields,
            writes: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        }
    }

    /// Says that the file was opened, or was not, and what for.
    pub(super) fn opened<T>(&self, access: Access, outcome: &Result<T>) {
        let wanted = match (access.read, access.write) {
            (true, true) => "read,write",
            (false, true) => "write",
            (_, false) => "read",
        };
        let verdict = verdict(outcome);
        let Self { fields, .. } = self;
        log::info!(
            target: AUDIT,
            audit_event = "open", audit_uid = self.uid, audit_verdict = verdict.as_str();
            "open {fields} access={wanted} verdict={verdict}"
        );
    }

    /// Takes note of a write through the handle.
    pub(super) fn wrote(&self, outcome: &Result<usize>) {
        match outcome {
            Ok(bytes) => {
                self.writes.fetch_add(1, Ordering::Relaxed);
                self.bytes.fetch_add(*bytes as u64, Ordering::Relaxed);
            }
            Err(_) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Says what was written through the handle, if anything, once.
    pub(super) fn end(&self) {
        let [writes, bytes, failures] = [&self.writes, &self.bytes, &self.failures]
            .map(|count| count.swap(0, Ordering::Relaxed));
        if writes + failures > 0 {
            let Self { fields, .. } = self;
            log::info!(
                target: AUDIT,
                audit_event = "written", audit_writes = writes, audit_bytes = bytes, audit_failures = failures;
                "written {fields} writes={writes} bytes={bytes} failures={failures}"
            );
        }
    }
}

/// Notes that a request other than an open was refused to its caller.
pub(super) fn refused(context: &Context, request: &Request, node: Option<&Node>, error: &Error) {
    let is_of_the_caller = matches!(error, Error::CallerDenied(_) | Error::UnknownCaller);
    let Some(node) = node.filter(|_| is_of_the_caller) else {
        return;
    };
    let trail = Trail::new(context, &request.caller, node);
    let mut fields = trail.fields;
    if let Some(name) = request.operation.name() {
        let _ = write!(fields, " name={}", quoted(name.as_encoded_bytes()));
    }
    let operation = request.operation.counted().name();
    let verdict = verdict(&Err::<(), _>(error.clone()));
    log::info!(
        target: AUDIT,
        audit_event = operation, audit_uid = request.caller.uid, audit_verdict = verdict.as_str();
        "{operation} {fields} verdict={verdict}"
    );
}

/// What is told of a snapshot that is taken or dropped: a line for each of its processes, so that all that is done to one is found
/// by the same field.
#[derive(Debug)]
pub(super) struct SnapshotTrail {
    file: String,
    /// The fields of each process; a single empty text where none is known.
    targets: Vec<String>,
}

impl SnapshotTrail {
    /// Of one that is there.
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let programs = snapshot.programs().into_iter();
        let targets = programs.map(|(info, executable)| target(&info, &executable));
        Self::new(OsStr::new(snapshot.name()), targets.collect())
    }

    /// Of one that is not there: the processes are not asked who they are, since they may not answer.
    pub(super) fn named(name: &OsStr) -> Self {
        let parsed = name.to_str().map(SnapshotName::parse);
        let processes = parsed.and_then(Result::ok).map(|name| name.processes);
        let processes = processes.unwrap_or_default().into_iter();
        Self::new(
            name,
            processes.map(|pid| format!(" target={pid}")).collect(),
        )
    }

    fn new(name: &OsStr, mut targets: Vec<String>) -> Self {
        if targets.is_empty() {
            targets.push(String::new());
        }
        let path = [Snapshots.path().as_bytes(), b"/", name.as_encoded_bytes()].concat();
        Self {
            file: quoted(&path),
            targets,
        }
    }

    /// The lines, without the word that they begin with.
    fn lines<T>(&self, who: &str, outcome: &Result<T>) -> impl Iterator<Item = String> {
        let verdict = verdict(outcome);
        let reason = match outcome {
            Ok(_) => String::new(),
            Err(error) => format!(" reason={}", quoted(error.to_string().as_bytes())),
        };
        let file = &self.file;
        self.targets
            .iter()
            .map(move |target| format!("{who}{target} file={file} verdict={verdict}{reason}"))
    }

    /// Says what `caller` has done to it, or why they were refused it.
    pub(super) fn tell<T>(
        &self,
        context: &Context,
        operation: metrics::Operation,
        caller: &Caller,
        outcome: &Result<T>,
    ) {
        let (operation, verdict) = (operation.name(), verdict(outcome));
        for line in self.lines(&who(context, caller), outcome) {
            log::info!(
                target: AUDIT,
                audit_event = operation, audit_uid = caller.uid, audit_verdict = verdict.as_str();
                "{operation} {line}"
            );
        }
    }
}

/// The fields of whoever asks.
fn who(context: &Context, caller: &Caller) -> String {
    let (uid, gid) = (caller.uid, caller.gid);
    match context.program_of(caller) {
        Some(program) => format!(
            "uid={uid} gid={gid} pid={} comm={} exe={}",
            program.pid,
            quoted(&program.command),
            quoted(&program.executable)
        ),
        None => format!("uid={uid} gid={gid} tid={}", caller.pid),
    }
}

/// The fields of a process that something is done to.
fn target(info: &ProcessInfo, executable: &[u8]) -> String {
    format!(
        " target={} target_uid={} target_comm={} target_exe={}",
        info.identity.pid,
        info.uid,
        quoted(&info.command),
        quoted(executable)
    )
}

/// What came of it: `granted`, or the error by its name.
fn verdict<T>(outcome: &Result<T>) -> String {
    match outcome {
        Ok(_) => "granted".to_owned(),
        Err(error) => format!("{:?}", error.errno()),
    }
}

/// Bytes that somebody else has chosen, as one word: quoted, and in printable ASCII.
fn quoted(bytes: &[u8]) -> String {
    format!("\"{}\"", bytes.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::Operation;
    use crate::server::file_system::tests::bench;
    use crate::target::fake::FakeProcess;

    #[test]
    fn what_others_have_named_is_one_word_on_one_line() {
        for (name, expected) in [
            (&b"nginx"[..], r#""nginx""#),
            (b"a \"b\" c=d", r#""a \"b\" c=d""#),
            (b"x\n\x1b[31m\xff\\", r#""x\n\x1b[31m\xff\\""#),
            (b"", r#""""#),
        ] {
            assert_eq!(quoted(name), expected);
        }
    }

    #[test]
    fn a_trail_names_who_and_what() {
        let bench = bench();
        let process = FakeProcess::new(8, b"x uid=0\ny");
        process.set_maps(b"10000-12000 rw-p 00000000 00:00 0 [heap]\n");
        bench.source.add(process);
        let entry = bench.find("mem/8").unwrap();
        let node = bench.fs.node(entry.inode).unwrap();
        let caller = Caller {
            pid: 7,
            uid: 1001,
            gid: 1002,
        };
        let context = bench.fs.context();
        let trail = Trail::new(context, &caller, &node);
        assert_eq!(
            trail.fields,
            r#"uid=1001 gid=1002 pid=7 comm="my prog" exe="/usr/bin/fake" target=8 target_uid=1000 target_comm="x uid=0\ny" target_exe="/usr/bin/fake" file="mem/8""#
        );
        let unknown = Caller { pid: 99, ..caller };
        let trail = Trail::new(context, &unknown, &Node::ROOT);
        assert_eq!(trail.fields, r#"uid=1001 gid=1002 tid=99 file=".""#);
    }

    #[test]
    fn a_snapshot_is_told_of_for_each_of_its_processes() {
        let who = "uid=1001 gid=1002 tid=99";
        let lines = |name: &str, outcome: &Result<()>| -> Vec<String> {
            let trail = SnapshotTrail::named(OsStr::new(name));
            trail.lines(who, outcome).collect()
        };
        assert_eq!(
            lines("8+7@a", &Err(Error::Exists)),
            [7, 8].map(|pid| format!(
                r#"{who} target={pid} file="snap/8+7@a" verdict=EEXIST reason="{}""#,
                Error::Exists
            ))
        );
        let refused = &lines("x uid=0\n", &Err(Error::SnapshotName))[..];
        assert_eq!(refused.len(), 1);
        let start = format!(r#"{who} file="snap/x uid=0\n" verdict=EINVAL reason=""#);
        assert!(refused[0].starts_with(&start), "{refused:?}");
        let bench = bench();
        let node = bench.snapshot("7@a");
        let trail = SnapshotTrail::of(node.snapshot().unwrap());
        let told: Vec<_> = trail.lines(who, &Ok(())).collect();
        assert_eq!(
            told,
            [format!(
                r#"{who} target=7 target_uid=1000 target_comm="my prog" target_exe="/usr/bin/fake" file="snap/7@a" verdict=granted"#
            )]
        );
    }

    #[test]
    fn writes_are_counted_and_told_once() {
        let bench = bench();
        let trail = Trail::new(bench.fs.context(), &Caller::default(), &Node::ROOT);
        trail.wrote(&Ok(5));
        trail.wrote(&Ok(7));
        trail.wrote(&Err(Error::PastEnd));
        let counts = |trail: &Trail| {
            [&trail.writes, &trail.bytes, &trail.failures]
                .map(|count| count.load(Ordering::Relaxed))
        };
        assert_eq!(counts(&trail), [2, 12, 1]);
        trail.end();
        assert_eq!(counts(&trail), [0; 3]);
        let operation = Operation::Change {
            inode: crate::server::inodes::ROOT,
        };
        // Not of the caller: no line, and no panic.
        refused(
            bench.fs.context(),
            &Request::of(operation),
            None,
            &Error::PastEnd,
        );
    }
}
