//! What keeps this program from working here, and why a process or a mapping cannot be read.
//!
//! The checks of the system are functions over what was found out about it, and change nothing. A process is
//! judged by reading it as a mount would, through the library: what is found out about it besides only explains the answer.

mod finding;
mod kernel;
mod limits;
mod mappings;
mod mounting;
mod process;
mod reading;

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

pub use finding::{Finding, Verdict};
pub use mappings::UnreadableBytes;
pub use process::ProcessDiagnosis;

use crate::common::attended::attended;
use crate::common::clock::SystemClock;
use crate::common::sync::atomic::AtomicU64;
use crate::mount::{Means, MountError};
use crate::target::ProcessId;
use crate::target::live::{About, Host, LiveSource, SourceOptions, is_filtered, release};

/// How long looking at a process may take without getting on: its mappings are looked at one by one.
const LONGEST: Duration = Duration::from_secs(10);

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Diagnosis {
    /// The version of this program.
    pub version: &'static str,
    /// The kernel's release.
    pub kernel: String,
    /// The effective user.
    pub user: u32,
    /// Whether nothing keeps it from working: neither here, nor with the process that was asked for.
    pub works: bool,
    /// What the checks of the system say.
    pub system: Vec<Finding>,
    /// What there is to say of the process that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessDiagnosis>,
}

/// Looks at the system, and at a process where one is given.
pub fn diagnose(pid: Option<ProcessId>) -> Diagnosis {
    let host = Host::now();
    let means = Means::now();
    let system = of_system(&host, &means);
    let (kernel, user) = (host.release.clone(), host.user);
    let is_proc_there = host.proc.is_ok();
    // Without `/proc` nothing can be said of it.
    let process = pid
        .filter(|_| is_proc_there)
        .map(|pid| of_process(host, pid));
    let findings = process.iter().flat_map(|process| &process.findings);
    let works = !system
        .iter()
        .chain(findings)
        .any(|finding| finding.verdict == Verdict::Problem);
    Diagnosis {
        version: env!("CARGO_PKG_VERSION"),
        kernel,
        user,
        works,
        system,
        process,
    }
}

/// Whether a filter may kill this program for what [`diagnose`] tries: another process had better do it then.
pub fn may_be_killed() -> bool {
    is_filtered()
}

/// What there is to say where a filter has killed who looked.
pub fn killed() -> Diagnosis {
    let found = "a seccomp filter kills this program for a system call that it needs";
    let finding = Finding::problem("system calls", found)
        .means("neither this nor a mount lives to give an answer")
        .fix(
            "see 'journalctl -k' for the number of the call (audit: type=1326 ... syscall=), and allow it; with \
             SystemCallErrorNumber=EPERM a service of systemd is refused it, and 'procmemfs doctor' can name all of them",
        );
    Diagnosis {
        version: env!("CARGO_PKG_VERSION"),
        kernel: release(),
        user: nix::unistd::geteuid().as_raw(),
        works: false,
        system: vec![finding],
        process: None,
    }
}

/// All checks of the system.
fn of_system(host: &Host, means: &Means) -> Vec<Finding> {
    let mut findings = mounting::findings(host, means);
    findings.extend(reading::findings(host));
    findings.extend(kernel::findings(host));
    findings.extend(limits::findings(host));
    findings
}

/// On a thread of its own: a process may hold up whoever looks at it, without an end.
fn of_process(host: Host, pid: ProcessId) -> ProcessDiagnosis {
    let look = move |steps: &AtomicU64| {
        let clock = Arc::new(SystemClock::new());
        match LiveSource::new(SourceOptions::default(), clock, Arc::default()) {
            Ok(source) => process::examine(&source, &host, About::process, pid, steps),
            Err(fault) => ProcessDiagnosis::unknown(pid, Finding::refused("process", &fault)),
        }
    };
    match attended(LONGEST, look) {
        Ok(Some(diagnosis)) => diagnosis,
        Ok(None) => process::without_answer(pid, About::process, About::waits_in(pid)),
        Err(error) => ProcessDiagnosis::unknown(pid, Finding::refused("process", &error)),
    }
}

/// What the checks say of a mount that failed, besides what the error says by itself: what is wrong, and what would help, on one line.
pub fn help(error: &MountError) -> Option<String> {
    let found = match error {
        MountError::NoHelper(_) | MountError::Denied(..) | MountError::Other(..) => {
            let means = Means::now();
            mounting::how(&Host::now(), &means)
        }
        MountError::DeviceDenied(_) => mounting::device(&Host::now(), &Means::now()),
        MountError::NoDevice(_)
        | MountError::Proc(_)
        | MountError::CannotJudge
        | MountError::YamaJudgesUs(_) => return Some(MORE.to_owned()),
        _ => return None,
    };
    mounting_help(error, &found)
}

const MORE: &str = "'procmemfs doctor' tells more";

fn mounting_help(error: &MountError, found: &Finding) -> Option<String> {
    if found.verdict != Verdict::Problem {
        // Something else than the rights of this user: the mount point, mostly.
        return None;
    }
    let said = error.to_string();
    let fix = found.fix.as_deref().filter(|fix| !said.contains(*fix));
    Some(match fix {
        Some(fix) if said.contains(&found.found) => format!("{fix}; {MORE}"),
        Some(fix) => format!("{}: {fix}; {MORE}", found.found),
        None => MORE.to_owned(),
    })
}

#[cfg(test)]
mod tests;
