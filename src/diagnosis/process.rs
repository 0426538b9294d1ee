//! Why a process can be read, or not.

use serde::Serialize;

use super::finding::{Finding, Verdict};
use super::mappings::{UnreadableBytes, look};
use crate::common::error::Error;
use crate::common::sync::atomic::AtomicU64;
use crate::target::live::{About, Feature, Host, Yama};
use crate::target::mapping::sanitized;
use crate::target::{ProcessId, ProcessInfo, ProcessSource};

use rustix::thread::CapabilitySet;

/// What there is to say of a process.
#[derive(Clone, Debug, Serialize)]
pub struct ProcessDiagnosis {
    /// Its number.
    pub pid: u32,
    /// Its command, in printable ASCII; `None` where it cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Whether a mount of this user would show it.
    pub readable: bool,
    /// What was found.
    pub findings: Vec<Finding>,
    /// Bytes that cannot be read, by mapping and reason.
    pub unreadable: Vec<UnreadableBytes>,
}

impl ProcessDiagnosis {
    /// One that is known by an error alone.
    pub(super) fn unknown(pid: ProcessId, finding: Finding) -> Self {
        Self {
            pid: pid.get(),
            command: None,
            readable: false,
            findings: vec![finding],
            unreadable: Vec::new(),
        }
    }
}

/// The name of the finding that says whether it can be read.
const CHECK: &str = "process";

/// Finds a process, opens it and looks at its pages, as a mount does.
pub(super) fn examine(
    source: &dyn ProcessSource,
    host: &Host,
    about: impl Fn(ProcessId) -> Option<About>,
    pid: ProcessId,
    steps: &AtomicU64,
) -> ProcessDiagnosis {
    match source.describe(pid) {
        Ok(info) => of_readable(source, host, about(pid).as_ref(), &info, steps),
        Err(error) => {
            let about = about(pid);
            let findings = match &error {
                Error::NoProcess(_) => vec![missing(host, about.as_ref(), pid)],
                Error::ProcessDenied(_) => denied(host, about.as_ref(), &error),
                _ => vec![other(&error)],
            };
            ProcessDiagnosis {
                findings,
                ..ProcessDiagnosis::unknown(pid, other(&error))
            }
        }
    }
}

fn other(error: &Error) -> Finding {
    Finding::refused(CHECK, error).means("it is not shown")
}

/// It was not done with in time.
pub(super) fn without_answer(
    pid: ProcessId,
    about: impl Fn(ProcessId) -> Option<About>,
    waits_in: Option<String>,
) -> ProcessDiagnosis {
    let state = about(pid).map_or_else(|| "?".to_owned(), |about| about.state.to_string());
    let place = waits_in.map_or_else(String::new, |function| format!(" in {function}"));
    let finding = Finding::problem(CHECK, format!("it does not answer (state {state}{place})"))
        .means("a mount answers with ETIMEDOUT after 2 s, and leaves it out of listings")
        .fix("find out what it waits for: a file system that does not answer, mostly (cat /proc/PID/stack as root)");
    ProcessDiagnosis::unknown(pid, finding)
}

/// Why there is no process with memory.
fn missing(host: &Host, about: Option<&About>, pid: ProcessId) -> Finding {
    let Some(about) = about else {
        let hides = host
            .proc_options
            .as_ref()
            .is_some_and(|options| options.hidepid.is_some());
        return match hides {
            true => Finding::problem(
                CHECK,
                "there is none of this number, or it is hidden (hidepid)",
            )
            .fix("ask as root"),
            false => Finding::problem(CHECK, "there is none of this number in this PID namespace")
                .fix("see 'ls /proc' for those that there are"),
        };
    };
    if about.process != pid.get() {
        let process = about.process;
        return Finding::problem(CHECK, format!("{pid} is a thread of process {process}"))
            .means("threads share the memory of their process")
            .fix(format!("procmemfs doctor {process}"));
    }
    if about.has_ended() {
        return Finding::problem(
            CHECK,
            "it has ended, and its parent has not taken note of that (a zombie)",
        )
        .means("its memory is gone")
        .fix(format!("its parent is process {}", about.parent));
    }
    match about.has_memory {
        false => Finding::problem(CHECK, "it is a thread of the kernel")
            .means("it has no memory of its own"),
        true => {
            Finding::problem(CHECK, "it came, or ended, while it was looked at").fix("ask again")
        }
    }
}

/// Why the kernel refuses a process: what of all that it judges by speaks against this user. The refusal itself was the
/// kernel's.
fn denied(host: &Host, about: Option<&About>, error: &Error) -> Vec<Finding> {
    let Some(about) = about else {
        return vec![other(error)];
    };
    let mut reasons = Vec::new();
    let may_trace = host.capabilities.contains(CapabilitySet::SYS_PTRACE);
    if about.is_in_our_namespace == Some(false) && may_trace {
        reasons.push(
            Finding::problem("user namespace", "it is in another one than this program")
                .means("CAP_SYS_PTRACE counts for processes of one's own user namespace and those below it alone")
                .fix("run procmemfs outside of its own user namespace"),
        );
    }
    if !may_trace && about.user != host.user {
        let found = format!(
            "it belongs to user {}, and this is user {}",
            about.user, host.user
        );
        reasons.push(
            Finding::problem("owner", found)
                .means("without CAP_SYS_PTRACE a user reads their own processes alone")
                .fix("mount as its owner, or as root"),
        );
    }
    if !may_trace && about.is_dumpable == Some(false) {
        let found = "it is not dumpable: it was set-user-ID, its program may not be read, or it said so (PR_SET_DUMPABLE)";
        reasons.push(
            Finding::problem("dumpable", found)
                .means("root alone (CAP_SYS_PTRACE) reads it")
                .fix("mount as root"),
        );
    }
    if !may_trace && !host.capabilities.contains(about.capabilities) {
        reasons.push(
            Finding::problem(
                "capabilities",
                "it has capabilities that this program lacks",
            )
            .means("without CAP_SYS_PTRACE those alone are read that have no more of them")
            .fix("mount as root, or with CAP_SYS_PTRACE (--cap-add SYS_PTRACE)"),
        );
    }
    match host.yama {
        Yama::Off => (),
        Yama::Scope(1 | 2) if may_trace => (),
        Yama::Scope(scope) => reasons.push(
            Finding::problem("Yama", format!("kernel.yama.ptrace_scope is {scope}"))
                .means("without CAP_SYS_PTRACE nobody reads a process that is not a descendant")
                .fix("mount as root, or as root: sysctl kernel.yama.ptrace_scope=0"),
        ),
        Yama::Unknown => reasons.push(
            Finding::problem("Yama", "may be why: /proc does not show its scope")
                .fix("mount a whole /proc (mount -t proc proc /proc)"),
        ),
    }
    if let Some(confinement) = host.confinement.as_ref().filter(|it| !it.is_lax) {
        let found = format!(
            "{} confines this program as {}",
            confinement.module, confinement.label
        );
        reasons.push(
            Finding::problem("security modules", found)
                .fix("see journalctl -k, or ausearch -m avc"),
        );
    }
    let mut findings = vec![match reasons.is_empty() {
        true => {
            // What the error says could help does; and there is what has no file to tell of it.
            let known = other(error);
            let fix = known.fix.clone().unwrap_or_default();
            known.fix(format!(
                "{fix}; a sandbox that this program is in (Landlock), or another security module, may forbid it, too"
            ))
        }
        false => Finding::problem(CHECK, "the kernel does not let this user read it")
            .means("it is not listed, and looking it up is EACCES"),
    }];
    findings.append(&mut reasons);
    findings
}

fn of_readable(
    source: &dyn ProcessSource,
    host: &Host,
    about: Option<&About>,
    info: &ProcessInfo,
    steps: &AtomicU64,
) -> ProcessDiagnosis {
    let pid = info.identity.pid;
    let mut diagnosis = ProcessDiagnosis {
        command: Some(sanitized(&info.command)),
        ..ProcessDiagnosis::unknown(pid, Finding::ok(CHECK, "can be read"))
    };
    let looked = source.open(&info.identity).and_then(|process| {
        let space = process.address_space()?;
        let looked = look(
            &*process.memory()?,
            space.mappings(),
            host.has(Feature::ForcedAccess),
            steps,
        )?;
        Ok((space.mappings().len(), looked))
    });
    match looked {
        Err(error) => diagnosis.findings = vec![other(&error)],
        Ok((mappings, looked)) => {
            diagnosis.readable = true;
            diagnosis
                .findings
                .push(summary(mappings, &looked.unreadable, looked.bytes));
            if !looked.is_all {
                diagnosis.findings.push(
                    Finding::warning(
                        "mappings",
                        "not all of them were looked at: there are too many pieces",
                    )
                    .fix("see user.procmemfs.unreadable_bytes of each mapping"),
                );
            }
            diagnosis.unreadable = looked.unreadable;
        }
    }
    diagnosis
        .findings
        .extend(about.into_iter().flat_map(circumstances));
    diagnosis
}

fn summary(mappings: usize, unreadable: &[UnreadableBytes], bytes: u64) -> Finding {
    let bad: Vec<_> = unreadable
        .iter()
        .filter(|it| it.why.verdict != Verdict::Ok)
        .collect();
    let lost: u64 = bad.iter().map(|it| it.bytes).sum();
    match bad.is_empty() {
        true => Finding::ok(
            "mappings",
            format!("all bytes that there are can be read ({mappings} mappings)"),
        ),
        false => Finding::warning(
            "mappings",
            format!("{lost} of {bytes} bytes cannot be read ({mappings} mappings)"),
        )
        .means("they are holes to SEEK_DATA and EIO to a read"),
    }
}

/// What keeps from some things where reading works.
fn circumstances(about: &About) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(tracer) = about.tracer {
        findings.push(
            Finding::warning("traced", format!("process {tracer} traces it"))
                .means("it is read as ever; there are no snapshots (EBUSY), and its core has no registers")
                .fix(format!("end process {tracer}, or have it let go of it")),
        );
    }
    if about.is_filtered {
        findings.push(
            Finding::ok("seccomp", "a filter judges its system calls")
                .means("it is read as ever; with -o inject it stands still while it is copied, as without that option"),
        );
    }
    findings
}
