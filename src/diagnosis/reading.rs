//! Whether processes can be read.

use rustix::thread::CapabilitySet;

use super::finding::Finding;
use crate::mount::missing;
use crate::target::live::{Call, Feature, Host, Yama};

/// What lets a container do what a filter forbids it.
const PROFILE: &str =
    "allow it in the seccomp profile (--security-opt seccomp=PROFILE, SystemCallFilter=)";

/// Which capability lets who has it read whom it likes.
const TRACING: CapabilitySet = CapabilitySet::SYS_PTRACE;

/// All of them.
pub(super) fn findings(host: &Host) -> Vec<Finding> {
    let mut findings = vec![proc(host)];
    if host.proc.is_ok() {
        findings.push(proc_options(host));
    }
    findings.push(user_namespace(host));
    findings.push(capabilities(host));
    findings.extend(map_files(host));
    findings.push(yama(host));
    findings.push(security_modules(host));
    findings.extend(filter(host));
    findings
}

fn is_plain(host: &Host) -> bool {
    host.user != 0 && host.capabilities.is_empty()
}

fn proc(host: &Host) -> Finding {
    match &host.proc {
        Ok(()) => Finding::ok("/proc", "shows the processes of this PID namespace"),
        Err(fault) => Finding::refused("/proc", fault).means("no process can be found"),
    }
}

fn proc_options(host: &Host) -> Finding {
    let name = "/proc options";
    let Some(options) = &host.proc_options else {
        return Finding::ok(name, "are not shown in /proc/self/mountinfo");
    };
    if options.is_read_only {
        return Finding::warning(name, "/proc is mounted ro")
            .means("with -o write no memory can be written")
            .fix("mount -o remount,rw /proc");
    }
    if options.shows_processes_alone {
        return Finding::warning(name, "/proc is mounted with subset=pid")
            .means("neither Yama's scope nor the memory there is for snapshots is known: give -o snap_size")
            .fix("mount -o remount,subset= /proc, or mount another one over it (mount -t proc proc /proc)");
    }
    match &options.hidepid {
        None => Finding::ok(name, "hide nothing"),
        Some(value) => Finding::ok(name, format!("hidepid={value}")).means(
            "processes that may not be read anyway are not there at all, in place of a refusal",
        ),
    }
}

fn user_namespace(host: &Host) -> Finding {
    let name = "user namespace";
    match host.is_in_first_namespace {
        Some(true) => Finding::ok(name, "is the first one"),
        None => Finding::ok(name, "is not known without /proc"),
        Some(false) => Finding::warning(name, "is not the first one")
            .means(
                "capabilities count for processes and files of this namespace alone: processes outside of it \
                 cannot be read, whoever is root here",
            )
            .fix("to read others, run it outside of the namespace or the container"),
    }
}

fn capabilities(host: &Host) -> Finding {
    let name = "capabilities";
    if is_plain(host) {
        return Finding::ok(name, "none, as for any plain user")
            .means(format!(
                "processes of user {} are shown, and no others",
                host.user
            ))
            .fix("to see all processes mount as root");
    }
    match missing(host.capabilities, host.user == 0, true) {
        None if host.is_in_first_namespace == Some(false) => Finding::ok(
            name,
            "all that reading and writing take, in this user namespace alone",
        ),
        None => Finding::ok(name, "all that reading and writing take"),
        Some(missing) => Finding::warning(name, format!("are missing: {}", missing.list))
            .means("what they are for is refused, or an error")
            .fix(missing.help),
    }
}

fn map_files(host: &Host) -> Option<Finding> {
    let name = "/proc/PID/map_files";
    Some(match host.opens_map_files? {
        true => Finding::ok(name, "can be opened"),
        false => {
            let means = "pages of mapped files that a process has not touched are read where a file can be opened by its \
                         name or a descriptor of the process; else they are errors (EIO)";
            match is_plain(host) {
                true => Finding::ok(name, "is for root").means(means),
                false => Finding::warning(name, "cannot be opened").means(means).fix(
                    "have CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN in the first user namespace",
                ),
            }
        }
    })
}

fn yama(host: &Host) -> Finding {
    let name = "Yama";
    let may_trace = host.capabilities.contains(TRACING);
    let lower = "sysctl kernel.yama.ptrace_scope=0";
    match host.yama {
        Yama::Off => Finding::ok(name, "restricts nothing"),
        Yama::Unknown => Finding::warning(name, "is there, and /proc does not show its scope")
            .means("processes may be refused, and allow_other is refused")
            .fix("mount a whole /proc (mount -t proc proc /proc)"),
        Yama::Scope(scope @ 3..) => {
            Finding::problem(name, format!("kernel.yama.ptrace_scope is {scope}"))
                .means("nobody reads the memory of another process, not even root")
                .fix("this cannot be taken back: set a lower scope in /etc/sysctl.d and start the system anew")
        }
        Yama::Scope(scope) if may_trace => {
            Finding::ok(name, format!("kernel.yama.ptrace_scope is {scope}"))
                .means("CAP_SYS_PTRACE passes over it")
        }
        Yama::Scope(1) => Finding::problem(name, "kernel.yama.ptrace_scope is 1")
            .means("without CAP_SYS_PTRACE the daemon reads its own descendants alone, and has none")
            .fix(format!("mount as root, or as root: {lower}")),
        Yama::Scope(scope) => {
            Finding::problem(name, format!("kernel.yama.ptrace_scope is {scope}"))
                .means("without CAP_SYS_PTRACE no other process can be read")
                .fix(format!("mount as root, or as root: {lower}"))
        }
    }
}

fn security_modules(host: &Host) -> Finding {
    let name = "security modules";
    let Some(confinement) = &host.confinement else {
        return Finding::ok(name, "none that judges who reads whom is active");
    };
    let (module, label) = (confinement.module, &confinement.label);
    if confinement.is_lax {
        return Finding::ok(
            name,
            format!("{module}: this program is not confined ({label})"),
        );
    }
    let fix = match module {
        "AppArmor" => {
            "give its profile rules 'ptrace (read, trace),' and 'mount,' (--security-opt apparmor=unconfined), see journalctl -k"
        }
        _ => "see 'ausearch -m avc' for what is refused (--security-opt label=disable)",
    };
    Finding::warning(name, format!("{module} confines this program as {label}"))
        .means("processes, or the mount, may be refused whatever the capabilities are")
        .fix(fix)
}

/// What a filter refuses; one for each call, or one for all of it.
fn filter(host: &Host) -> Vec<Finding> {
    let name = "system calls";
    let mut findings = Vec::new();
    let by_whom = match host.is_filtered {
        true => "by a seccomp filter",
        false => "by the kernel",
    };
    for (call, errno) in &host.refused {
        findings.push(match call {
            Call::PidfdOpen => {
                Finding::problem(name, format!("pidfd_open is refused {by_whom} ({errno})"))
                    .means("no process can be pinned, and so none is shown")
                    .fix(format!("{PROFILE}; Linux 5.3 has it first"))
            }
            Call::Ptrace => Finding::warning(
                name,
                format!("ptrace is refused {by_whom} ({errno})"),
            )
            .means("no process can be stopped: there are no snapshots, and cores have no registers")
            .fix(format!("{PROFILE}, or mount with -o nostop")),
        });
    }
    for feature in [Feature::ProcessVm, Feature::PidfdGetfd] {
        if host.is_filtered && !host.has(feature) {
            let call = feature.name();
            findings.push(
                Finding::warning(name, format!("{call} is refused {by_whom}"))
                    .means(feature.without())
                    .fix(match feature {
                        // With it those of Docker and Podman allow it.
                        Feature::ProcessVm => format!("--cap-add SYS_PTRACE, or {PROFILE}"),
                        _ => PROFILE.to_owned(),
                    }),
            );
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok(
            name,
            match host.is_filtered {
                true => "a seccomp filter is there, and refuses none of those that were tried",
                false => "there is no seccomp filter",
            },
        ));
    }
    findings
}
