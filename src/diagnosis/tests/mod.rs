mod process;

use nix::errno::Errno;
use rustix::thread::CapabilitySet;

use super::*;
use crate::mount::Helper;
use crate::target::live::{Call, Confinement, Feature, ProcFault, ProcOptions, Yama};

/// A host on which all is well, for root.
fn host() -> Host {
    Host {
        release: "6.18.0".to_owned(),
        page_size: 4096,
        proc: Ok(()),
        proc_options: Some(ProcOptions::default()),
        features: Feature::ALL.map(|feature| (feature, true)).to_vec(),
        user: 0,
        capabilities: CapabilitySet::from_bits_retain((1 << 41) - 1),
        may_act_as_others: true,
        is_in_first_namespace: Some(true),
        no_new_privileges: false,
        is_filtered: false,
        refused: Vec::new(),
        yama: Yama::Off,
        confinement: None,
        opens_map_files: Some(true),
        memory: Some((8 << 30, 4 << 30)),
        most_mappings: Some(65_530),
        descriptors: 20_000,
        fuse_over_uring: Some(true),
    }
}

/// As [`host`], for a plain user.
fn plain() -> Host {
    let root_has = |(feature, has): (Feature, bool)| (feature, has && !feature.is_of_root());
    Host {
        user: 1000,
        capabilities: CapabilitySet::empty(),
        may_act_as_others: false,
        opens_map_files: Some(false),
        features: host().features.into_iter().map(root_has).collect(),
        ..host()
    }
}

fn means() -> Means {
    Means {
        device: Ok(()),
        refusal: None,
        helper: Helper::Missing,
        lets_others_in: false,
    }
}

/// The means of a plain user.
fn by_helper() -> Means {
    Means {
        refusal: Some(Errno::EPERM),
        helper: Helper::Ready("/usr/bin/fusermount3".into()),
        ..means()
    }
}

/// The one finding of a check that is not `ok`; fails where there are others, and where none says what would help.
#[track_caller]
fn only(host: &Host, means: &Means) -> Finding {
    let mut bad = of_system(host, means);
    bad.retain(|finding| finding.verdict != Verdict::Ok);
    assert_eq!(bad.len(), 1, "{bad:#?}");
    assert!(bad[0].means.is_some(), "{bad:#?}");
    bad.remove(0)
}

#[track_caller]
fn check(finding: &Finding, verdict: Verdict, check: &str, words: &[&str]) {
    let text = format!("{finding:?}");
    assert_eq!((finding.verdict, finding.check), (verdict, check), "{text}");
    for word in words {
        assert!(text.contains(word), "no '{word}': {text}");
    }
}

#[test]
fn where_all_is_well_nothing_is_said() {
    for (host, means) in [(host(), means()), (plain(), by_helper())] {
        let findings = of_system(&host, &means);
        let bad = findings
            .iter()
            .find(|finding| finding.verdict != Verdict::Ok);
        assert_eq!(bad, None);
        assert!(findings.len() > 20, "{}", findings.len());
    }
}

#[test]
fn what_keeps_from_mounting_is_named() {
    let no_device = || std::io::Error::from_raw_os_error(libc::ENOENT);
    let device = |error| Means {
        device: Err(error),
        ..means()
    };
    let found = only(&host(), &device(MountError::NoDevice(no_device())));
    check(
        &found,
        Verdict::Problem,
        "/dev/fuse",
        &["modprobe fuse", "--device"],
    );
    let found = only(&host(), &device(MountError::DeviceDenied(no_device())));
    check(
        &found,
        Verdict::Problem,
        "/dev/fuse",
        &["may not be opened", "--device /dev/fuse", "nodev"],
    );
    let closed = Means {
        device: Err(MountError::DeviceDenied(no_device())),
        ..by_helper()
    };
    check(
        &only(&plain(), &closed),
        Verdict::Problem,
        "/dev/fuse",
        &["chmod 0666 /dev/fuse"],
    );

    let with = |helper| Means {
        helper,
        ..by_helper()
    };
    for (helper, words) in [
        (
            Helper::Missing,
            ["there is no fusermount3", "package fuse3"],
        ),
        (
            Helper::NotExecutable("/x".into()),
            ["/x may not be run", "chmod 4755 /x"],
        ),
        (
            Helper::NotRoots("/x".into()),
            ["/x does not run as root", "chmod 4755 /x"],
        ),
        (
            Helper::OnNosuid("/x".into()),
            ["/x lies on a mount with nosuid", "without nosuid"],
        ),
    ] {
        let found = only(&plain(), &with(helper));
        check(&found, Verdict::Problem, "mount", &words);
        check(&found, Verdict::Problem, "mount", &["mount as root"]);
    }
    let confined = Host {
        no_new_privileges: true,
        ..plain()
    };
    let found = only(&confined, &by_helper());
    check(
        &found,
        Verdict::Problem,
        "mount",
        &["no_new_privs is set", "NoNewPrivileges="],
    );

    let no_fuse = Means {
        refusal: Some(Errno::ENODEV),
        ..means()
    };
    check(
        &only(&host(), &no_fuse),
        Verdict::Problem,
        "mount",
        &["no FUSE", "modprobe"],
    );
    // In spite of all capabilities.
    let refused = Means {
        refusal: Some(Errno::EPERM),
        lets_others_in: true,
        ..means()
    };
    let found = only(&host(), &refused);
    check(
        &found,
        Verdict::Problem,
        "mount",
        &["in spite of CAP_SYS_ADMIN", "seccomp", "unshare -Urm"],
    );
}

#[test]
fn a_helper_has_no_more_rights_than_who_has_all() {
    let found = only(&host(), &by_helper());
    check(
        &found,
        Verdict::Problem,
        "mount",
        &["in spite of CAP_SYS_ADMIN"],
    );
}

#[test]
fn root_without_sys_admin_is_told_of_the_container() {
    let root = Host {
        capabilities: host().capabilities - CapabilitySet::SYS_ADMIN,
        ..host()
    };
    let refused = Means {
        refusal: Some(Errno::EPERM),
        lets_others_in: true,
        ..means()
    };
    let found = only(&root, &refused);
    check(
        &found,
        Verdict::Problem,
        "mount",
        &["lacks CAP_SYS_ADMIN", "--cap-add SYS_ADMIN"],
    );
}

#[test]
fn what_keeps_others_out_is_named() {
    let found = only(
        &Host {
            yama: Yama::Scope(1),
            ..host()
        },
        &means(),
    );
    check(
        &found,
        Verdict::Warning,
        "allow_other",
        &["Yama", "yama=ignore"],
    );
    let judging = Host {
        may_act_as_others: true,
        ..plain()
    };
    let found = only(&judging, &by_helper());
    check(
        &found,
        Verdict::Warning,
        "allow_other",
        &["user_allow_other", "/etc/fuse.conf"],
    );
}

#[test]
fn what_keeps_from_reading_is_named() {
    for (fault, words) in [
        (
            ProcFault::Missing,
            ["not mounted", "mount -t proc proc /proc"],
        ),
        (
            ProcFault::OtherNamespace,
            ["PID namespace", "unshare --mount-proc"],
        ),
    ] {
        let broken = Host {
            proc: Err(fault),
            features: Vec::new(),
            ..host()
        };
        check(&only(&broken, &means()), Verdict::Problem, "/proc", &words);
    }
    let options = |options| Host {
        proc_options: Some(options),
        ..host()
    };
    let read_only = ProcOptions {
        is_read_only: true,
        ..ProcOptions::default()
    };
    let found = only(&options(read_only), &means());
    check(
        &found,
        Verdict::Warning,
        "/proc options",
        &["ro", "remount,rw"],
    );
    let subset = ProcOptions {
        shows_processes_alone: true,
        ..ProcOptions::default()
    };
    let found = only(&options(subset), &means());
    check(
        &found,
        Verdict::Warning,
        "/proc options",
        &["subset=pid", "snap_size"],
    );
    let inner = Host {
        is_in_first_namespace: Some(false),
        ..host()
    };
    let found = only(&inner, &means());
    check(
        &found,
        Verdict::Warning,
        "user namespace",
        &["processes outside of it"],
    );
    let few = Host {
        capabilities: host().capabilities - CapabilitySet::SYS_PTRACE,
        ..host()
    };
    let found = only(&few, &means());
    check(
        &found,
        Verdict::Warning,
        "capabilities",
        &["cap_sys_ptrace", "--cap-add"],
    );
    let hidden = Host {
        opens_map_files: Some(false),
        ..host()
    };
    let found = only(&hidden, &means());
    check(
        &found,
        Verdict::Warning,
        "/proc/PID/map_files",
        &["CAP_CHECKPOINT_RESTORE"],
    );
}

#[test]
fn yama_is_a_problem_to_whom_it_refuses() {
    let of = |yama, host: Host| reading_of("Yama", &Host { yama, ..host });
    for (yama, of_root, of_user) in [
        (Yama::Off, Verdict::Ok, Verdict::Ok),
        (Yama::Scope(1), Verdict::Ok, Verdict::Problem),
        (Yama::Scope(2), Verdict::Ok, Verdict::Problem),
        (Yama::Scope(3), Verdict::Problem, Verdict::Problem),
        (Yama::Unknown, Verdict::Warning, Verdict::Warning),
    ] {
        assert_eq!(of(yama, host()).verdict, of_root, "{yama:?}");
        assert_eq!(of(yama, plain()).verdict, of_user, "{yama:?}");
    }
    check(
        &of(Yama::Scope(1), plain()),
        Verdict::Problem,
        "Yama",
        &["ptrace_scope is 1", "sysctl kernel.yama.ptrace_scope=0"],
    );
}

fn reading_of(check: &str, host: &Host) -> Finding {
    let mut findings = reading::findings(host);
    findings.retain(|finding| finding.check == check);
    assert_eq!(findings.len(), 1, "{findings:#?}");
    findings.remove(0)
}

#[test]
fn what_a_filter_refuses_is_named() {
    let filtered = |call| Host {
        is_filtered: true,
        refused: vec![(call, Errno::EPERM)],
        ..host()
    };
    let found = only(&filtered(Call::PidfdOpen), &means());
    check(
        &found,
        Verdict::Problem,
        "system calls",
        &["pidfd_open", "seccomp"],
    );
    let found = only(&filtered(Call::Ptrace), &means());
    check(
        &found,
        Verdict::Warning,
        "system calls",
        &["ptrace", "nostop"],
    );
    let harmless = Host {
        is_filtered: true,
        ..host()
    };
    assert_eq!(reading_of("system calls", &harmless).verdict, Verdict::Ok);
    let without = |feature| {
        let has = |(of, has)| (of, has && of != feature);
        Host {
            is_filtered: true,
            features: host().features.into_iter().map(has).collect(),
            ..host()
        }
    };
    let found = reading_of("system calls", &without(Feature::ProcessVm));
    check(
        &found,
        Verdict::Warning,
        "system calls",
        &["process_vm_readv", "/proc/PID/mem", "--cap-add SYS_PTRACE"],
    );
    let found = reading_of("system calls", &without(Feature::PidfdGetfd));
    check(&found, Verdict::Warning, "system calls", &["pidfd_getfd"]);
}

#[test]
fn a_module_that_confines_is_named() {
    let confined = |label: &str, is_lax| Host {
        confinement: Some(Confinement {
            module: "AppArmor",
            label: label.to_owned(),
            is_lax,
        }),
        ..host()
    };
    let found = only(&confined("docker-default (enforce)", false), &means());
    check(
        &found,
        Verdict::Warning,
        "security modules",
        &["docker-default", "ptrace (read, trace)"],
    );
    let free = reading_of("security modules", &confined("unconfined", true));
    assert_eq!(free.verdict, Verdict::Ok);
}

#[test]
fn features_that_are_missing_are_named_with_what_follows() {
    for feature in Feature::ALL {
        let has = |(of, has)| (of, has && of != feature);
        let old = Host {
            release: "2.4.0".to_owned(),
            features: host().features.into_iter().map(has).collect(),
            ..host()
        };
        let found = only(&old, &means());
        check(&found, Verdict::Warning, feature.name(), &[]);
        assert_eq!(found.means.as_deref(), Some(feature.without()));
        assert!(found.fix.is_some(), "{found:?}");
    }
}

#[test]
fn limits_that_are_low_are_named() {
    let low = Host {
        descriptors: 64,
        ..host()
    };
    check(
        &only(&low, &means()),
        Verdict::Warning,
        "open files",
        &["64", "EMFILE", "LimitNOFILE"],
    );
    let high = Host {
        most_mappings: Some(1 << 30),
        ..host()
    };
    check(
        &only(&high, &means()),
        Verdict::Warning,
        "vm.max_map_count",
        &["EFBIG", "sysctl"],
    );
    let little = Host {
        memory: Some((1 << 30, 1 << 20)),
        ..host()
    };
    check(
        &only(&little, &means()),
        Verdict::Warning,
        "memory",
        &["1 MiB", "snap_dir"],
    );
    let unknown = Host {
        memory: None,
        ..host()
    };
    check(
        &only(&unknown, &means()),
        Verdict::Warning,
        "memory",
        &["snap_size"],
    );
}

#[test]
fn a_mount_that_failed_is_explained_on_one_line() {
    let none = || std::io::Error::from_raw_os_error(libc::ENOENT);
    let refused = Means {
        refusal: Some(Errno::EPERM),
        ..means()
    };
    let error = MountError::NoHelper(none());
    let root = mounting_help(&error, &mounting::how(&host(), &refused)).unwrap();
    assert!(root.contains("in spite of CAP_SYS_ADMIN"), "{root}");
    assert!(
        root.contains("procmemfs doctor") && !root.contains('\n'),
        "{root}"
    );
    let closed = || MountError::DeviceDenied(none());
    let device = |host: &Host| {
        let closed_means = Means {
            device: Err(closed()),
            ..means()
        };
        mounting_help(&closed(), &mounting::device(host, &closed_means)).unwrap()
    };
    assert!(
        device(&host()).starts_with("in a container"),
        "{}",
        device(&host())
    );
    assert_eq!(device(&plain()), MORE, "the error says the same");
    // Where this user may mount it is something else.
    assert_eq!(
        mounting_help(&error, &mounting::how(&plain(), &by_helper())),
        None
    );
    assert_eq!(help(&MountError::Missing("/x".into())), None);
    assert_eq!(help(&MountError::NoDevice(none())).as_deref(), Some(MORE));
}
