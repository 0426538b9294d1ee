//! Whether a mount can be made.

use nix::errno::Errno;
use rustix::thread::CapabilitySet;

use super::finding::Finding;
use crate::mount::{Helper, Means, MountError};
use crate::target::live::{Host, Yama};

/// What would let a container mount.
const CONTAINER: &str = "in a container: --cap-add SYS_ADMIN --device /dev/fuse, and a seccomp and an AppArmor profile that allow mount(2)";

/// All of them.
pub(super) fn findings(host: &Host, means: &Means) -> Vec<Finding> {
    vec![device(host, means), how(host, means), others(host, means)]
}

/// Whether `/dev/fuse` can be opened.
pub(super) fn device(host: &Host, means: &Means) -> Finding {
    match &means.device {
        Ok(()) => Finding::ok("/dev/fuse", "can be opened"),
        Err(error) => {
            let refused = Finding::refused("/dev/fuse", error).means("nothing can be mounted");
            match error {
                // The mode of the file is not what keeps root from it.
                MountError::DeviceDenied(_) if host.user == 0 => refused.fix(
                    "in a container: --device /dev/fuse; where /dev is mounted with nodev: mount -o remount,dev /dev",
                ),
                _ => refused,
            }
        }
    }
}

/// By mount(2), or by the helper.
pub(super) fn how(host: &Host, means: &Means) -> Finding {
    let Some(errno) = means.refusal else {
        return Finding::ok("mount", "mount(2) is allowed, so fusermount3 is not needed");
    };
    if errno == Errno::ENODEV {
        return Finding::problem("mount", "the kernel has no FUSE")
            .means("nothing can be mounted")
            .fix("load the module (modprobe fuse), or take a kernel with CONFIG_FUSE_FS");
    }
    let Some(refused) = refused_to(host) else {
        // The helper would have no more rights than this program has, and is under the same filter.
        return Finding::problem(
            "mount",
            format!(
                "mount(2) is refused ({errno}) in spite of CAP_SYS_ADMIN, by a seccomp filter or a security module, or since \
                 the mounts belong to another user namespace"
            ),
        )
        .means("nothing can be mounted by this user")
        .fix(format!("make a mount namespace, too (unshare -Urm); {CONTAINER}"));
    };
    let Refused { why, rights } = refused;
    let problem = |helper: String, fix: String| {
        Finding::problem("mount", format!("{why}, and {helper}"))
            .means("nothing can be mounted by this user")
            .fix(format!("{fix}, or {rights}"))
    };
    match &means.helper {
        Helper::Missing => problem(
            "there is no fusermount3".to_owned(),
            "install the package fuse3".to_owned(),
        ),
        Helper::NotExecutable(path) => problem(
            format!("{} may not be run by this user", path.display()),
            format!("let this user run it (chmod 4755 {})", path.display()),
        ),
        Helper::NotRoots(path) => problem(
            format!("{} does not run as root", path.display()),
            format!("as root: chown root {0} && chmod 4755 {0}", path.display()),
        ),
        Helper::OnNosuid(path) => problem(
            format!("{} lies on a mount with nosuid", path.display()),
            "have it on a mount without nosuid".to_owned(),
        ),
        Helper::Ready(path) if host.no_new_privileges => problem(
            format!("{} gets no rights: no_new_privs is set", path.display()),
            "start it without no_new_privs (NoNewPrivileges=, --security-opt no-new-privileges)"
                .to_owned(),
        ),
        Helper::Ready(path) => Finding::ok("mount", format!("{why}; {} mounts", path.display())),
    }
}

/// Why mount(2) is refused to who has no right to it, and what would give that.
struct Refused {
    why: &'static str,
    rights: &'static str,
}

/// `None` where this program has the right, and is refused all the same.
fn refused_to(host: &Host) -> Option<Refused> {
    match (may_mount(host), host.user) {
        (true, _) => None,
        (false, 0) => Some(Refused {
            why: "mount(2) is refused, since root here lacks CAP_SYS_ADMIN",
            rights: CONTAINER,
        }),
        (false, _) => Some(Refused {
            why: "mount(2) is for root",
            rights: "mount as root",
        }),
    }
}

fn may_mount(host: &Host) -> bool {
    host.capabilities.contains(CapabilitySet::SYS_ADMIN)
}

/// Whether others can be let in.
fn others(host: &Host, means: &Means) -> Finding {
    let name = "allow_other";
    if !host.may_act_as_others {
        return Finding::ok(name, "needs root (CAP_SETUID and CAP_SETGID)")
            .means("the mounter alone enters what is mounted");
    }
    if host.yama != Yama::Off {
        return Finding::warning(
            name,
            "is refused: Yama judges the daemon in place of the caller",
        )
        .means("the mounter alone enters what is mounted")
        .fix("sysctl kernel.yama.ptrace_scope=0; or accept that by -o allow_other,yama=ignore");
    }
    if means.refusal.is_some() && !may_mount(host) && !means.lets_others_in {
        return Finding::warning(
            name,
            "is refused by fusermount3: /etc/fuse.conf has no user_allow_other",
        )
        .means("the mounter alone enters what is mounted")
        .fix("as root: echo user_allow_other >> /etc/fuse.conf");
    }
    Finding::ok(name, "can let others in, each judged as themselves")
}
