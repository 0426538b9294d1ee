//! What the kernel has.

use rustix::thread::CapabilitySet;

use super::finding::Finding;
use crate::common::address::PAGE_SIZE;
use crate::target::live::{Feature, Host};

/// The first Linux with FUSE passthrough.
const PASSTHROUGH: (u32, u32) = (6, 9);

/// All of them.
pub(super) fn findings(host: &Host) -> Vec<Finding> {
    let mut findings = Vec::new();
    if host.page_size != PAGE_SIZE {
        findings.push(
            Finding::problem("pages", format!("have {} bytes", host.page_size))
                .means(format!("procmemfs knows pages of {PAGE_SIZE} bytes only"))
                .fix("take a kernel with such pages"),
        );
    }
    findings.extend(
        host.features
            .iter()
            .map(|(of, has)| feature(host, *of, *has)),
    );
    findings.push(passthrough(host));
    findings.push(uring(host));
    findings
}

fn feature(host: &Host, feature: Feature, has: bool) -> Finding {
    let name = feature.name();
    if has {
        return Finding::ok(name, "is there");
    }
    if feature.is_of_root() && host.user != 0 {
        return Finding::ok(name, "is for root").means(feature.without());
    }
    let (major, minor) = feature.since();
    let fix = match feature {
        Feature::ForcedAccess => "start the kernel without proc_mem.force_override=".to_owned(),
        Feature::PageFrames => "have CAP_SYS_ADMIN in the first user namespace".to_owned(),
        Feature::PageFlags | Feature::UserfaultSlabs => {
            "mount as root of the first user namespace; the file may be hidden, or not be in this kernel".to_owned()
        }
        Feature::MinorFaults => {
            format!("Linux {major}.{minor} has it first, with CONFIG_USERFAULTFD and CONFIG_HUGETLBFS")
        }
        _ if !is_older(&host.release, feature.since()) => {
            format!("Linux {major}.{minor} has it first, and this is {}: a seccomp filter may refuse it", host.release)
        }
        _ => format!("Linux {major}.{minor} has it first"),
    };
    Finding::warning(name, "is not there")
        .means(feature.without())
        .fix(fix)
}

/// Whether a release is of an older Linux; no, where it is not understood.
fn is_older(release: &str, than: (u32, u32)) -> bool {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
    let mut number = || numbers.next()?.parse::<u32>().ok();
    match (number(), number()) {
        (Some(major), Some(minor)) => (major, minor) < than,
        _ => false,
    }
}

/// The kernel says whether it has this only once something is mounted.
fn passthrough(host: &Host) -> Finding {
    let name = "FUSE passthrough";
    if is_older(&host.release, PASSTHROUGH) {
        let (major, minor) = PASSTHROUGH;
        return Finding::ok(name, format!("Linux {major}.{minor} has it first"))
            .means("the daemon answers each read of a snapshot, which is slower");
    }
    let may_have = host.capabilities.contains(CapabilitySet::SYS_ADMIN);
    if !may_have || host.is_in_first_namespace == Some(false) {
        return Finding::ok(name, "is for root of the first user namespace")
            .means("the daemon answers each read of a snapshot, which is slower");
    }
    Finding::ok(
        name,
        "can be had, if the kernel was built with it (CONFIG_FUSE_PASSTHROUGH)",
    )
    .means("the kernel reads large mappings of snapshots by itself")
}

fn uring(host: &Host) -> Finding {
    let name = "FUSE over io_uring";
    match host.fuse_over_uring {
        None => Finding::ok(name, "is not there: Linux 6.14 has it first")
            .means("requests go through /dev/fuse"),
        Some(true) => Finding::ok(name, "is allowed for new mounts")
            .means("-o io_uring serves small requests in a fraction of the time"),
        Some(false) => Finding::ok(
            name,
            "is off (echo Y > /sys/module/fuse/parameters/enable_uring allows it)",
        )
        .means("requests go through /dev/fuse"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_two_numbers() {
        for (release, than, expected) in [
            ("6.18.44-fc-v669", (6, 9), false),
            ("6.1.0-44-amd64", (6, 7), true),
            ("5.19.0", (6, 0), true),
            ("7.0-rc1", (6, 9), false),
            ("next", (6, 9), false),
        ] {
            assert_eq!(is_older(release, than), expected, "{release}");
        }
    }
}
