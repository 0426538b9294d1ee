use rustix::thread::CapabilitySet;

use super::{check, host, plain};
use crate::common::error::Error;
use crate::common::sync::atomic::AtomicU64;
use crate::diagnosis::finding::Verdict;
use crate::diagnosis::process::{self, ProcessDiagnosis};
use crate::target::ProcessId;
use crate::target::fake::{FakeProcess, FakeSource};
use crate::target::live::{About, Feature, Host, ProcOptions, Yama};

const PID: u32 = 7;

fn about() -> About {
    About {
        state: 'S',
        process: PID,
        parent: 1,
        has_memory: true,
        user: 1000,
        capabilities: CapabilitySet::empty(),
        tracer: None,
        is_filtered: false,
        is_dumpable: Some(true),
        is_in_our_namespace: Some(true),
    }
}

/// What is said of the process 7 of this source.
fn examined(source: &FakeSource, host: &Host, about: Option<&About>) -> ProcessDiagnosis {
    let pid = ProcessId::new(PID).unwrap();
    process::examine(source, host, |_| about.cloned(), pid, &AtomicU64::new(0))
}

#[test]
fn why_there_is_no_process_is_told() {
    let none = FakeSource::default();
    let of = |about: Option<About>| examined(&none, &host(), about.as_ref());
    for (about, word) in [
        (None, "none of this number"),
        (
            Some(About {
                process: 5,
                ..about()
            }),
            "a thread of process 5",
        ),
        (
            Some(About {
                state: 'Z',
                has_memory: false,
                ..about()
            }),
            "a zombie",
        ),
        (
            Some(About {
                has_memory: false,
                ..about()
            }),
            "a thread of the kernel",
        ),
        (Some(about()), "while it was looked at"),
    ] {
        let diagnosis = of(about);
        assert!(!diagnosis.readable);
        let [finding] = &diagnosis.findings[..] else {
            panic!("{diagnosis:?}");
        };
        check(finding, Verdict::Problem, "process", &[word]);
    }
    let hiding = Host {
        proc_options: Some(ProcOptions {
            hidepid: Some("2".to_owned()),
            ..ProcOptions::default()
        }),
        ..plain()
    };
    let hidden = examined(&none, &hiding, None);
    check(
        &hidden.findings[0],
        Verdict::Problem,
        "process",
        &["hidepid", "as root"],
    );
}

#[test]
fn why_a_process_is_denied_is_told() {
    let source = FakeSource::default();
    let process = FakeProcess::new(PID, b"x");
    process.deny();
    source.add(process);
    let reasons = |host: &Host, about: Option<About>| -> Vec<&str> {
        let diagnosis = examined(&source, host, about.as_ref());
        assert!(!diagnosis.readable);
        let findings = &diagnosis.findings;
        assert!(
            findings.iter().all(|it| it.verdict == Verdict::Problem),
            "{findings:?}"
        );
        findings.iter().map(|finding| finding.check).collect()
    };
    let with_yama = Host {
        yama: Yama::Scope(1),
        ..plain()
    };
    let privileged = About {
        capabilities: CapabilitySet::SYS_ADMIN,
        ..about()
    };
    let undumpable = About {
        is_dumpable: Some(false),
        ..about()
    };
    let outside = About {
        is_in_our_namespace: Some(false),
        ..about()
    };
    for (host, about, expected) in [
        (
            plain(),
            Some(About { user: 0, ..about() }),
            vec!["process", "owner"],
        ),
        (plain(), Some(undumpable), vec!["process", "dumpable"]),
        (plain(), Some(privileged), vec!["process", "capabilities"]),
        (with_yama, Some(about()), vec!["process", "Yama"]),
        (host(), Some(outside), vec!["process", "user namespace"]),
        (plain(), Some(about()), vec!["process"]),
        (plain(), None, vec!["process"]),
    ] {
        assert_eq!(reasons(&host, about), expected);
    }
    // Nothing that is known speaks against it: then the error says what could.
    let unknown = examined(&source, &plain(), Some(&about()));
    check(
        &unknown.findings[0],
        Verdict::Problem,
        "process",
        &["may not be read", "CAP_SYS_PTRACE"],
    );
}

#[test]
fn what_cannot_be_read_of_a_process_is_told() {
    let source = FakeSource::default();
    let process = FakeProcess::new(PID, b"a b");
    process.set_maps(
        b"1000-4000 rw-p 00000000 00:00 0 \n\
          ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]\n",
    );
    process.map(0x1000, &[1; 3 * 4096]).unmap(0x2000);
    source.add(process);
    let traced = About {
        tracer: Some(9),
        is_filtered: true,
        ..about()
    };
    let diagnosis = examined(&source, &host(), Some(&traced));
    assert!(diagnosis.readable);
    assert_eq!(diagnosis.command.as_deref(), Some("a_b"));
    let checks: Vec<_> = diagnosis
        .findings
        .iter()
        .map(|finding| (finding.check, finding.verdict))
        .collect();
    assert_eq!(
        checks,
        [
            ("process", Verdict::Ok),
            ("mappings", Verdict::Ok),
            ("traced", Verdict::Warning),
            ("seccomp", Verdict::Ok),
        ]
    );
    let [hole, vsyscall] = &diagnosis.unreadable[..] else {
        panic!("{diagnosis:#?}");
    };
    assert_eq!((hole.bytes, &*hole.from), (4096, "000000002000"));
    assert!(vsyscall.why.found.contains("the kernel"), "{vsyscall:?}");
    // Where the kernel does not show what is protected that is the reason.
    let protected = FakeProcess::new(PID, b"x");
    protected.set_maps(b"1000-2000 ---p 00000000 00:00 0 \n");
    source.add(protected);
    let has = |(of, has)| (of, has && of != Feature::ForcedAccess);
    let strict = Host {
        features: host().features.into_iter().map(has).collect(),
        ..host()
    };
    let diagnosis = examined(&source, &strict, Some(&about()));
    let [part] = &diagnosis.unreadable[..] else {
        panic!("{diagnosis:#?}");
    };
    check(
        &part.why,
        Verdict::Warning,
        "mapping",
        &["proc_mem.force_override"],
    );
    let mappings = &diagnosis.findings[1];
    check(
        mappings,
        Verdict::Warning,
        "mappings",
        &["4096 of 4096 bytes"],
    );
}

#[test]
fn a_process_that_does_not_answer_is_told_so() {
    let source = FakeSource::default();
    let process = FakeProcess::new(PID, b"x");
    process.set_in_exec(true);
    source.add(process);
    let diagnosis = examined(&source, &host(), Some(&about()));
    check(
        &diagnosis.findings[0],
        Verdict::Problem,
        "process",
        &["does not answer"],
    );
    let pid = ProcessId::new(PID).unwrap();
    let late = process::without_answer(pid, |_| Some(about()), Some("fuse_wait".to_owned()));
    check(
        &late.findings[0],
        Verdict::Problem,
        "process",
        &["state S", "in fuse_wait"],
    );
    assert!(Error::TimedOut(pid).to_string().contains("answer"));
}
