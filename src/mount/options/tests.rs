//! What is taken, and what is said of the rest.

use std::time::Duration;

use super::*;

fn parse(list: &str) -> Result<MountConfig, OptionError> {
    MountConfig::parse([list])
}

#[test]
fn nothing_given_is_the_documented_default() {
    let config = parse("").unwrap();
    assert_eq!(config.mode, Mode::NoWrite);
    assert_eq!(config.cache_ttl, Duration::from_millis(100));
    assert_eq!(config.cache_size, 64 << 20);
    assert_eq!(config.faults, FaultPolicy::Error);
    assert!(config.only.is_empty());
    assert!(config.threads >= 4);
}

#[test]
fn options_are_read() {
    let config = MountConfig::parse([
        "write,force,touch,cache_ttl=2s,cache_size=1G",
        "fault=zero,pid=12:345,threads=3,nosuid,fsname=x,x-systemd.automount,defaults",
    ])
    .unwrap();
    assert_eq!(config.mode, Mode::Write);
    assert!(config.force && config.touch);
    assert_eq!(config.cache_ttl, Duration::from_secs(2));
    assert_eq!(config.cache_size, 1 << 30);
    assert_eq!(config.faults, FaultPolicy::Zero);
    assert_eq!(
        config.only.iter().map(|pid| pid.get()).collect::<Vec<_>>(),
        [12, 345]
    );
    assert_eq!(config.threads, 3);
    assert_eq!(config.generic.source(), "x");
    assert_eq!(parse("cache_ttl=0").unwrap().cache_ttl, Duration::ZERO);
    assert_eq!(parse("cache_size=0").unwrap().cache_size, 0);
}

#[test]
fn rw_means_nothing_and_the_later_of_ro_and_rw_holds() {
    let table = [
        (vec!["rw"], Mode::NoWrite),
        (vec!["rw,write"], Mode::Write),
        (vec!["write", "rw"], Mode::Write),
        (vec!["write,write"], Mode::Write),
        (vec!["ro"], Mode::ReadOnly),
        (vec!["rw,ro"], Mode::ReadOnly),
        (vec!["ro", "rw"], Mode::NoWrite),
        (vec!["ro,rw,write"], Mode::Write),
        (vec!["defaults,nofail"], Mode::NoWrite),
    ];
    for (lists, mode) in table {
        let config = MountConfig::parse(lists.iter().copied()).unwrap();
        assert_eq!(config.mode, mode, "{lists:?}");
        let names_rw = lists.iter().any(|list| list.split(',').any(|o| o == "rw"));
        assert_eq!(config.rw, names_rw, "{lists:?}");
    }
}

/// What mount(8), mount.fuse3, systemd and desktops add of their own accord.
#[test]
fn options_that_come_along_are_taken() {
    for list in [
        "rw,dev,suid",
        "rw,nosuid,nodev,noexec,user=alice",
        "rw,user,noauto,nofail,_netdev,x-systemd.automount,x-systemd.idle-timeout=5m",
        "rw,relatime,x-gvfs-show,comment=mine,uhelper=udisks2,helper=x,X-mount.mkdir=0755",
        "rw,nosymfollow,silent,lazytime",
    ] {
        assert_eq!(parse(list).unwrap().mode, Mode::NoWrite, "{list}");
    }
}

#[test]
fn others_are_let_in_only_with_the_kernel_checking_owners_and_modes() {
    let told = |list: &str| {
        let config = parse(list).unwrap();
        let kernel: Vec<String> = config.kernel().collect();
        (config.for_helper(), kernel.join(","))
    };
    for list in ["allow_other", "default_permissions,allow_other"] {
        let (helper, kernel) = told(list);
        assert!(
            helper.ends_with(",allow_other,default_permissions"),
            "{helper}"
        );
        assert_eq!(kernel, "allow_other,default_permissions");
    }
    for list in ["", "default_permissions"] {
        let (helper, kernel) = told(list);
        assert!(!helper.contains("allow_other"), "{helper}");
        assert_eq!(kernel, "");
    }
}

#[test]
fn a_bad_option_is_named_with_what_would_be_taken() {
    let table = [
        (
            "cache_tll=1s",
            "unknown option 'cache_tll', did you mean 'cache_ttl'?: see procmemfs --help",
        ),
        (
            "nonsense",
            "unknown option 'nonsense': see procmemfs --help",
        ),
        (
            "cache_ttl",
            "option cache_ttl=: needs a time such as 100ms, 2s or 0",
        ),
        (
            "cache_ttl=5",
            "option cache_ttl=5: needs a time such as 100ms, 2s or 0",
        ),
        (
            "cache_size=lots",
            "option cache_size=lots: needs a size in bytes such as 64M or 1G",
        ),
        (
            "fault=ignore",
            "option fault=ignore: needs 'error' or 'zero'",
        ),
        (
            "pid=1:x",
            "option pid=1:x: needs process numbers such as 12 or 12:345",
        ),
        (
            "pid=",
            "option pid=: needs process numbers such as 12 or 12:345",
        ),
        (
            "threads=0",
            "option threads=0: needs a number from 1 to 256",
        ),
        ("rw=1", "option rw takes no value"),
        ("noexec=1", "option noexec takes no value"),
        ("nosymfollow=1", "option nosymfollow takes no value"),
        ("nofail=1", "option nofail takes no value"),
        (
            "max_read=much",
            "option max_read=much: needs a number of bytes such as 131072",
        ),
        ("fsname", "option fsname=: needs a name"),
        ("context", "option context=: needs a security context"),
        (
            "ro,context=\"u:o:t:s0:c1,c2",
            "option context=\"u:o:t:s0:c1,c2: its double quote is not closed: add one where the value ends",
        ),
        ("write=1", "option write takes no value"),
        (
            "audit=paper",
            "option audit=paper: needs 'stderr', 'syslog', 'journald' or no value",
        ),
        ("allow_other,yama=off", "option yama=off: needs 'ignore'"),
        (
            "yama=ignore",
            "option yama=ignore needs allow_other: without that only the mounter may enter",
        ),
        (
            "allow_root",
            "option allow_root: choose allow_other: each user is judged as themselves then, root among them",
        ),
        (
            "no\nline",
            "unknown option 'no\\nline': see procmemfs --help",
        ),
        (
            "cache_ttl=1\n\x1b[s",
            "option cache_ttl=1\\n\\u{1b}[s: needs a time such as 100ms, 2s or 0",
        ),
        (
            "fsname=\"a\tb",
            "option fsname=\"a\\tb: its double quote is not closed: add one where the value ends",
        ),
        (
            "wirte",
            "unknown option 'wirte', did you mean 'write'?: see procmemfs --help",
        ),
        (
            "force",
            "option force needs write: it lets writes pass over a mapping's protection",
        ),
        (
            "rw,force",
            "option force needs write: it lets writes pass over a mapping's protection",
        ),
        (
            "ro,write",
            "options write and ro exclude each other: write lets memory be written, ro lets nothing be written",
        ),
        (
            "remount,rw",
            "option remount: a mount cannot be changed: unmount it, and mount it again with other options",
        ),
    ];
    for (list, message) in table {
        assert_eq!(parse(list).unwrap_err().to_string(), message, "{list}");
    }
}

#[test]
fn ro_is_a_flag_of_the_mount_and_told_to_the_helper() {
    for (list, expected) in [("ro", true), ("ro,rw", false), ("write", false)] {
        let config = parse(list).unwrap();
        let is_set = config.flags().contains(MsFlags::MS_RDONLY);
        let told = config.for_helper().split(',').any(|option| option == "ro");
        assert_eq!((is_set, told), (expected, expected), "{list}");
        assert!(config.flags().contains(MsFlags::MS_NOSUID), "{list}");
    }
}
