//! Linux security modules that judge who may read whom, besides users and capabilities.

use std::sync::OnceLock;

/// A security module that confines this program, and under which label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Confinement {
    /// Its name.
    pub(crate) module: &'static str,
    /// The profile (AppArmor) or the context (SELinux) that this program has.
    pub(crate) label: String,
    /// Whether the label is one of those that confine nothing.
    pub(crate) is_lax: bool,
}

/// The module that is active and judges who reads whom; `None` where there is none, or it does not say.
pub(super) fn confinement() -> Option<Confinement> {
    let (list, label) = texts();
    confined_by(&list, &label)
}

/// The list of modules, and the label of this process; empty where they are not shown.
fn texts() -> (String, String) {
    let text = |path| std::fs::read_to_string(path).unwrap_or_default();
    (
        text("/sys/kernel/security/lsm"),
        text("/proc/self/attr/current"),
    )
}

fn confined_by(list: &str, label: &str) -> Option<Confinement> {
    let module = active(list, label)?;
    let label = label.trim_matches(['\n', '\0']).to_owned();
    let is_lax = match module {
        APPARMOR => label == "unconfined" || label.ends_with("(complain)"),
        _ => label.contains(":unconfined_t:"),
    };
    Some(Confinement {
        module,
        label,
        is_lax,
    })
}

const APPARMOR: &str = "AppArmor";
const SELINUX: &str = "SELinux";

/// What is said where a process may not be read, and a security module may be why; empty where there is none.
pub(crate) fn security_module_hint() -> &'static str {
    static HINT: OnceLock<&'static str> = OnceLock::new();
    HINT.get_or_init(|| {
        let (list, label) = texts();
        hint(&list, &label)
    })
}

/// By the list of modules that are active, and where that is not mounted by the label of a process: a profile and its mode
/// (AppArmor), or a context of three parts and more (SELinux).
fn active(list: &str, label: &str) -> Option<&'static str> {
    let is_active = |name| list.trim().split(',').any(|active| active == name);
    let label = label.trim_matches(['\n', '\0']);
    let has_profile = label == "unconfined" || label.ends_with(')');
    if is_active("apparmor") || (list.is_empty() && has_profile) {
        Some(APPARMOR)
    } else if is_active("selinux") || (list.is_empty() && label.matches(':').count() >= 2) {
        Some(SELINUX)
    } else {
        None
    }
}

fn hint(list: &str, label: &str) -> &'static str {
    match active(list, label) {
        Some(APPARMOR) => {
            "; or AppArmor refuses it: its profile needs a rule 'ptrace (read, trace),', see 'journalctl -k'"
        }
        Some(_) => "; or SELinux refuses it: see 'ausearch -m avc'",
        None => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_that_confine_nothing_are_known() {
        let is_lax = |list: &str, label: &str| Some(confined_by(list, label)?.is_lax);
        assert_eq!(is_lax("apparmor", "unconfined\n"), Some(true));
        assert_eq!(is_lax("", "docker-default (enforce)\n"), Some(false));
        assert_eq!(is_lax("", "x (complain)\n"), Some(true));
        let unconfined = "unconfined_u:unconfined_r:unconfined_t:s0\0";
        assert_eq!(is_lax("selinux", unconfined), Some(true));
        assert_eq!(is_lax("selinux", "a:b:container_t:s0\0"), Some(false));
        assert_eq!(is_lax("capability,yama", ""), None);
    }

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
