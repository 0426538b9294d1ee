//! The capabilities that the daemon needs (capabilities(7)), and those that it lacks.

use std::fmt;
use std::io;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
};

use super::Needs;

/// What ends a mount: umount2(2), on a path that leads through directories of others.
const UNMOUNTING: CapabilitySet = CapabilitySet::SYS_ADMIN.union(CapabilitySet::DAC_READ_SEARCH);

/// What reading takes, besides: memory of others, files of mappings (`map_files`, and without a trace in their access
/// times). `SYS_ADMIN` also shows page frames.
const READING: CapabilitySet = CapabilitySet::SYS_PTRACE
    .union(CapabilitySet::CHECKPOINT_RESTORE)
    .union(CapabilitySet::FOWNER);

/// To open `/proc/PID/mem` of another user for writing.
const WRITING: CapabilitySet = CapabilitySet::DAC_OVERRIDE;

/// To become a caller and to come back.
const JUDGING: CapabilitySet = CapabilitySet::SETUID.union(CapabilitySet::SETGID);

/// The capabilities that `needs` take, whether they are there or not.
fn needed(needs: &Needs) -> CapabilitySet {
    let mut needed = UNMOUNTING;
    if needs.serves {
        needed |= READING;
        needed.set(WRITING, needs.writes);
        needed.set(JUDGING, needs.judges_callers);
    }
    needed
}

/// The sets as they are to be, of those that there are.
///
/// Without `SYS_PTRACE` a process may read those alone whose permitted capabilities are among its own, effective ones
/// for what it opens and permitted ones for what it copies (`cap_ptrace_access_check` in `security/commoncap.c`): a daemon
/// that reads memory then keeps what it has.
fn reduced(sets: CapabilitySets, needs: &Needs) -> CapabilitySets {
    let needed = needed(needs);
    let compares = needs.serves && !sets.effective.contains(CapabilitySet::SYS_PTRACE);
    let (effective, permitted) = match compares {
        true => (sets.effective, sets.permitted),
        false if needs.judges_callers => (sets.effective & needed, sets.permitted),
        false => (sets.effective & needed, sets.permitted & needed),
    };
    CapabilitySets {
        effective,
        permitted,
        inheritable: CapabilitySet::empty(),
    }
}

/// Keeps the capabilities that are needed, and passes none on to other programs.
///
/// # Errors
/// The kernel's refusal.
pub(super) fn reduce(needs: &Needs) -> io::Result<()> {
    let sets = capabilities(None)?;
    let reduced = reduced(sets, needs);
    clear_ambient_capability_set()?;
    // What `fusermount3` gets from its file is cut by this, too; and it takes a capability that goes with the others.
    if !needs.unmounts_by_helper && sets.effective.contains(CapabilitySet::SETPCAP) {
        bound(reduced.permitted)?;
    }
    set_capabilities(None, reduced)?;
    Ok(())
}

/// Takes all others from what a program can ever get.
fn bound(kept: CapabilitySet) -> io::Result<()> {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        // Past the last that this kernel knows there is none.
        let is_there = capability_is_in_bounding_set(capability).unwrap_or(false);
        if is_there && !kept.contains(capability) {
            remove_capability_from_bounding_set(capability)?;
        }
    }
    Ok(())
}

/// Whether this process may call umount2(2); else only `fusermount3` can unmount.
pub(in crate::mount) fn may_unmount() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN))
}

/// What root, or a program with some capabilities, cannot do since it lacks others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingCapabilities {
    /// Which they are, and what each is for.
    pub list: String,
    /// What would help.
    pub help: String,
}

impl fmt::Display for MissingCapabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { list, help } = self;
        write!(f, "capabilities are missing: {list}: {help}")
    }
}

/// Those that this program lacks. `None` where nothing is missing, and for a plain user, who reads what is theirs.
pub fn missing_capabilities(writes: bool) -> Option<MissingCapabilities> {
    let sets = capabilities(None).ok()?;
    missing(sets.effective, nix::unistd::geteuid().is_root(), writes)
}

/// As [`missing_capabilities`], of who has these.
pub(crate) fn missing(
    effective: CapabilitySet,
    is_root: bool,
    writes: bool,
) -> Option<MissingCapabilities> {
    let of_use = READING | UNMOUNTING | WRITING;
    if !is_root && !effective.intersects(of_use) {
        return None;
    }
    let lacks = |one_of: CapabilitySet| !effective.intersects(one_of);
    let mut missing: Vec<(&str, &str)> = Vec::new();
    if lacks(CapabilitySet::SYS_PTRACE) {
        let what = "read processes of other users, and those with more capabilities";
        missing.push(("cap_sys_ptrace", what));
    }
    // Root owns what is not dumpable, and its own.
    if lacks(CapabilitySet::DAC_READ_SEARCH | CapabilitySet::DAC_OVERRIDE) {
        let what = "open /proc/PID/mem of other users";
        missing.push(("cap_dac_read_search", what));
    }
    if writes && lacks(CapabilitySet::DAC_OVERRIDE) {
        missing.push(("cap_dac_override", "open it for writing"));
    }
    if lacks(CapabilitySet::CHECKPOINT_RESTORE | CapabilitySet::SYS_ADMIN) {
        let what = "read pages of mapped files that a process has not touched";
        missing.push(("cap_checkpoint_restore", what));
    }
    if missing.is_empty() {
        return None;
    }
    let each = missing
        .iter()
        .map(|(name, what)| format!("{name} (to {what})"));
    let list = each.collect::<Vec<_>>().join(", ");
    let help = match is_root {
        true => {
            "let the container or service have them (--cap-add, CapabilityBoundingSet=)".to_owned()
        }
        false => {
            let names: Vec<_> = missing.iter().map(|(name, _)| *name).collect();
            format!(
                "add them to the program's file (setcap {}+ep, besides those that it has)",
                names.join(",")
            )
        }
    };
    Some(MissingCapabilities { list, help })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: CapabilitySet = CapabilitySet::from_bits_retain((1 << 41) - 1);

    fn sets(of: CapabilitySet) -> CapabilitySets {
        CapabilitySets {
            effective: of,
            permitted: of,
            inheritable: of,
        }
    }

    fn serving() -> Needs {
        Needs {
            serves: true,
            ..Needs::default()
        }
    }

    #[test]
    fn what_is_kept_is_what_is_needed() {
        let kept = reduced(sets(ALL), &serving());
        let reading = READING | UNMOUNTING;
        assert_eq!(kept.effective, reading);
        assert_eq!(kept.permitted, reading);
        assert!(kept.inheritable.is_empty());
        let writes = Needs {
            writes: true,
            ..serving()
        };
        assert_eq!(reduced(sets(ALL), &writes).permitted, reading | WRITING);
        let supervisor = reduced(sets(ALL), &Needs::default());
        assert_eq!(supervisor.permitted, UNMOUNTING);
    }

    #[test]
    fn nothing_is_added() {
        let few = sets(CapabilitySet::SYS_PTRACE | CapabilitySet::NET_RAW);
        let kept = reduced(few, &serving());
        assert_eq!(kept.permitted, CapabilitySet::SYS_PTRACE);
        let none = reduced(sets(CapabilitySet::empty()), &serving());
        assert!(none.permitted.is_empty() && none.effective.is_empty());
    }

    #[test]
    fn who_judges_callers_keeps_what_they_may_have() {
        let judging = Needs {
            judges_callers: true,
            ..serving()
        };
        let kept = reduced(sets(ALL), &judging);
        assert_eq!(kept.permitted, ALL);
        assert_eq!(kept.effective, READING | UNMOUNTING | JUDGING);
    }

    #[test]
    fn without_ptrace_what_others_have_is_kept() {
        let container = ALL - CapabilitySet::SYS_PTRACE;
        let kept = reduced(sets(container), &serving());
        assert_eq!((kept.effective, kept.permitted), (container, container));
        assert!(kept.inheritable.is_empty());
        let supervisor = reduced(sets(container), &Needs::default());
        assert_eq!(supervisor.permitted, UNMOUNTING);
    }

    #[test]
    fn what_is_missing_is_named_to_who_has_some() {
        let missing = |of, is_root, writes| Some(missing(of, is_root, writes)?.to_string());
        let named = |of, is_root| missing(of, is_root, false);
        assert_eq!(named(ALL, true), None);
        assert_eq!(named(READING | UNMOUNTING, true), None);
        assert_eq!(named(CapabilitySet::empty(), false), None);
        assert_eq!(named(CapabilitySet::NET_RAW, false), None, "of no use here");
        let root = named(ALL - CapabilitySet::SYS_PTRACE, true).unwrap();
        assert!(root.contains("cap_sys_ptrace (to "), "{root}");
        assert!(root.contains("--cap-add"), "{root}");
        assert!(!root.contains("cap_dac"), "{root}");
        let alone = named(CapabilitySet::SYS_PTRACE, false).unwrap();
        for name in [
            "cap_dac_read_search (to ",
            "cap_checkpoint_restore (to ",
            "setcap cap_dac_read_search,cap_checkpoint_restore+ep",
        ] {
            assert!(alone.contains(name), "{alone}");
        }
        assert!(!alone.contains("cap_dac_override"), "{alone}");
        let writes = missing(CapabilitySet::SYS_PTRACE, false, true).unwrap();
        assert!(writes.contains("cap_dac_override"), "{writes}");
    }
}
