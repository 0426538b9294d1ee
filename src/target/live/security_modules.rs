//! Linux security modules that judge who may read whom, besides users and capabilities.

use std::sync::OnceLock;

/// What is said where a process may not be read, and a security module may be why; empty where there is none.
pub(crate) fn security_module_hint() -> &'static str {
    static HINT: OnceLock<&'static str> = OnceLock::new();
    HINT.get_or_init(|| {
        let list = std::fs::read_to_string("/sys/kernel/security/lsm");
        let label = std::fs::read_to_string("/proc/self/attr/current");
        hint(
            list.as_deref().unwrap_or_default(),
            label.as_deref().unwrap_or_default(),
        )
    })
}

/// By the list of modules that are active, and where that is not mounted by the label of a process: a profile and its mode
/// (AppArmor), or a context of three parts and more (SELinux).
fn hint(list: &str, label: &str) -> &'static str {
    let is_active = |name| list.trim().split(',').any(|active| active == name);
    let label = label.trim_matches(['\n', '\0']);
    let has_profile = label == "unconfined" || label.ends_with(')');
    if is_active("apparmor") || (list.is_empty() && has_profile) {
        "; or AppArmor refuses it: its profile needs a rule 'ptrace (read, trace),', see 'journalctl -k'"
    } else if is_active("selinux") || (list.is_empty() && label.matches(':').count() >= 2) {
        "; or SELinux refuses it: see 'ausearch -m avc'"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_that_is_active_is_named() {
        let table = [
            (
                "lockdown,capability,yama,apparmor,bpf",
                "unconfined\n",
                "AppArmor",
            ),
            ("capability,selinux\n", "a:b:c:s0\0", "SELinux"),
            ("lockdown,capability,yama\n", "", ""),
            ("", "unconfined\n", "AppArmor"),
            ("", "/usr/bin/procmemfs (enforce)\n", "AppArmor"),
            (
                "",
                "unconfined_u:unconfined_r:unconfined_t:s0-s0:c0.c1023\0",
                "SELinux",
            ),
            // Smack's label is a word, and has no rule that we could name.
            ("", "_\n", ""),
            ("", "", ""),
        ];
        for (list, label, name) in table {
            let hint = hint(list, label);
            assert!(hint.contains(name), "{list:?} {label:?}: {hint}");
            assert_eq!(
                hint.is_empty(),
                name.is_empty(),
                "{list:?} {label:?}: {hint}"
            );
        }
    }
}
