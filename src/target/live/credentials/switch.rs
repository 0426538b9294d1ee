//! Changing the credentials of a thread, and changing them back.

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::unistd::{setfsgid, setfsuid};
use rustix::process::{DumpableBehavior, Gid, Uid, set_dumpable_behavior};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

use crate::target::{Credentials, UserNamespace};

/// A system call that failed, for the log.
pub(super) type Refusal = (&'static str, Errno);

/// No user: setfsuid(2) refuses it, and says which one there is.
const NOBODY: u32 = u32::MAX;

/// What lets a thread take the credentials of anybody else.
pub(super) const SWITCHING: CapabilitySet = CapabilitySet::SETUID.union(CapabilitySet::SETGID);

/// From the credentials of this program to those of somebody else, and back.
pub(super) struct Switch<'a> {
    own: &'a Credentials,
    own_groups: Vec<Gid>,
    /// What this thread has of them now: some may have been given up since the start.
    capabilities: CapabilitySets,
    pub(super) who: &'a Credentials,
    groups: Vec<Gid>,
}

impl<'a> Switch<'a> {
    pub(super) fn new(
        own: &'a Credentials,
        who: &'a Credentials,
    ) -> std::result::Result<Self, Refusal> {
        let groups = |of: &Credentials| -> Vec<Gid> {
            let groups = of.groups.iter();
            groups.map(|group| Gid::from_raw(*group)).collect()
        };
        Ok(Self {
            own,
            own_groups: groups(own),
            capabilities: capabilities(None).map_err(|errno| refusal("capget", errno))?,
            who,
            groups: groups(who),
        })
    }

    fn wanted(&self) -> CapabilitySet {
        CapabilitySet::from_bits_retain(self.who.capabilities)
    }

    /// Takes the credentials of somebody in the same user namespace, until what is returned is dropped.
    pub(super) fn take(&self) -> std::result::Result<Acting<'_>, Refusal> {
        let acting = Acting(self);
        self.change(self.wanted())?;
        Ok(acting)
    }

    /// Enters another user namespace, for good.
    pub(super) fn enter(&self, namespace: &UserNamespace) -> std::result::Result<(), Refusal> {
        self.change(CapabilitySet::SYS_ADMIN)?;
        // It is not where the user has changed, and this is all that keeps others out of our memory.
        set_dumpable_behavior(DumpableBehavior::NotDumpable)
            .map_err(|errno| refusal("prctl", errno))?;
        let entered = setns(&namespace.file, CloneFlags::CLONE_NEWUSER);
        entered.map_err(|errno| ("setns", errno))?;
        // All that there are came with it.
        let sets = CapabilitySets {
            effective: self.wanted(),
            ..capabilities(None).map_err(|errno| refusal("capget", errno))?
        };
        set_capabilities(None, sets).map_err(|errno| refusal("capset", errno))
    }

    fn change(&self, effective: CapabilitySet) -> std::result::Result<(), Refusal> {
        let who = self.who;
        self.set_effective(self.capabilities.effective | SWITCHING)?;
        set_groups(&self.groups)?;
        set_group(who.effective_gid)?;
        if who.gid != who.effective_gid {
            setfsgid(who.gid.into());
            let now = setfsgid(NOBODY.into());
            check("setfsgid", now.as_raw() == who.gid)?;
        }
        set_user(who.effective_uid)?;
        if who.uid != who.effective_uid {
            // They went with the effective user.
            self.set_effective(SWITCHING)?;
            setfsuid(who.uid.into());
            let now = setfsuid(NOBODY.into());
            check("setfsuid", now.as_raw() == who.uid)?;
        }
        // Last: an effective user that is root brings them back, one that is not takes them away.
        self.set_effective(effective)
    }

    fn come_back(&self) -> std::result::Result<(), Refusal> {
        self.set_effective(self.capabilities.effective | SWITCHING)?;
        // The user and the group for files follow these.
        set_user(self.own.effective_uid)?;
        set_group(self.own.effective_gid)?;
        set_groups(&self.own_groups)?;
        self.set_effective(self.capabilities.effective)
    }

    fn set_effective(&self, effective: CapabilitySet) -> std::result::Result<(), Refusal> {
        let sets = CapabilitySets {
            effective: effective & self.capabilities.permitted,
            ..self.capabilities
        };
        set_capabilities(None, sets).map_err(|errno| refusal("capset", errno))
    }
}

/// A thread that acts with the credentials of somebody else. Dropping it comes back to its own.
pub(super) struct Acting<'a>(&'a Switch<'a>);

impl Drop for Acting<'_> {
    fn drop(&mut self) {
        if let Err((what, errno)) = self.0.come_back() {
            // Whatever this thread did from now on would be done, and judged, as somebody else.
            log::error!("{what}: {errno}: a thread cannot come back to its own credentials");
            std::process::abort();
        }
    }
}

pub(super) fn refusal(what: &'static str, errno: rustix::io::Errno) -> Refusal {
    (what, Errno::from_raw(errno.raw_os_error()))
}

fn check(what: &'static str, is_done: bool) -> std::result::Result<(), Refusal> {
    match is_done {
        true => Ok(()),
        false => Err((what, Errno::EPERM)),
    }
}

fn set_groups(groups: &[Gid]) -> std::result::Result<(), Refusal> {
    set_thread_groups(groups).map_err(|errno| refusal("setgroups", errno))
}

/// The effective group, and that for files with it.
fn set_group(group: u32) -> std::result::Result<(), Refusal> {
    set_thread_res_gid(None, Gid::from_raw(group), None)
        .map_err(|errno| refusal("setresgid", errno))
}

/// The effective user, and that for files with it.
fn set_user(user: u32) -> std::result::Result<(), Refusal> {
    set_thread_res_uid(None, Uid::from_raw(user), None).map_err(|errno| refusal("setresuid", errno))
}
