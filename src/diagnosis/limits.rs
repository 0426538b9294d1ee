//! Limits of the system that matter.

use super::finding::Finding;
use crate::target::live::{Host, MOST_MAPPINGS};

/// Descriptors below which they run short: each open process takes some.
const FEW_DESCRIPTORS: u64 = 1024;

/// Bytes below which a snapshot of an ordinary process finds no room.
const LITTLE_MEMORY: u64 = 64 << 20;

/// All of them.
pub(super) fn findings(host: &Host) -> Vec<Finding> {
    let mut findings = vec![memory(host)];
    findings.extend(mappings(host));
    findings.push(descriptors(host));
    findings
}

fn memory(host: &Host) -> Finding {
    let name = "memory";
    let Some((total, available)) = host.memory else {
        return Finding::warning(name, "how much there is cannot be told")
            .means("snapshots have no bound")
            .fix("give one: -o snap_size=BYTES");
    };
    let budget = (total / 2).min(available);
    let found = format!("{} MiB can be had for snapshots", budget >> 20);
    match budget < LITTLE_MEMORY {
        false => Finding::ok(name, found),
        true => Finding::warning(name, found)
            .means("snapshots may be refused (ENOSPC)")
            .fix("keep them on a disk: -o snap_dir=DIR; or raise the limit of the control group"),
    }
}

fn mappings(host: &Host) -> Option<Finding> {
    let name = "vm.max_map_count";
    let most = host.most_mappings?;
    let known = MOST_MAPPINGS as u64;
    Some(match most > known {
        false => Finding::ok(name, format!("is {most}")),
        true => Finding::warning(name, format!("is {most}"))
            .means(format!(
                "a process with more than {known} mappings cannot be listed (EFBIG)"
            ))
            .fix(format!("as root: sysctl vm.max_map_count={}", 1 << 20)),
    })
}

fn descriptors(host: &Host) -> Finding {
    let name = "open files";
    let most = host.descriptors;
    if most >= FEW_DESCRIPTORS {
        let most = match most {
            u64::MAX => "without a limit".to_owned(),
            most => format!("{most} at once"),
        };
        return Finding::ok(name, most);
    }
    Finding::warning(name, format!("no more than {most} at once"))
        .means("where many files are open at once, opening more fails (EMFILE)")
        .fix("raise the hard limit (ulimit -Hn, LimitNOFILE=)")
}
