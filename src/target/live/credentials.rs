//! Acting with the credentials of somebody else: the kernel judges what a thread does by those that it has then.
//!
//! Credentials belong to a thread (credentials(7)); the C library's functions change those of all threads, the system
//! calls that are used here those of the caller alone. The real user stays ours: whoever's it were could send us signals
//! (kill(2)). The effective user is taken, too, and not the one for files alone: who made a user namespace has all
//! capabilities in it, and that is judged by the effective user (`cap_capable` in `security/commoncap.c`).

use std::ffi::{CStr, CString};
use std::fs::{self, File, Metadata};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sched::{CloneFlags, clone, setns};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{setfsgid, setfsuid};
use procfs::process::Process;
use rustix::fs::{Mode, OFlags, openat};
use rustix::process::{Gid, Uid, getegid, geteuid, getgroups};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

use super::interrupted::retry;
use super::text::{field, read_whole};
use crate::common::error::{Error, Result};
use crate::target::{Credentials, UserNamespace};

/// What lets a thread take the credentials of anybody else.
const SWITCHING: CapabilitySet = CapabilitySet::SETUID.union(CapabilitySet::SETGID);

/// No user: setfsuid(2) refuses it, and says which one there is.
const NOBODY: u32 = u32::MAX;

/// The user namespace of a thread, below its directory in `/proc` (proc_pid_ns(5)).
const USER_NAMESPACE: &str = "ns/user";

/// Bytes of stack for a process that makes some system calls.
const STACK: usize = 64 << 10;

/// The credentials of this program.
#[derive(Clone, Debug)]
pub(super) struct OwnCredentials {
    credentials: Credentials,
    permitted: CapabilitySet,
    /// Device and inode of the user namespace; `None` where `/proc` does not say.
    user_namespace: Option<(u64, u64)>,
}

/// A system call that failed, for the log.
type Refusal = (&'static str, Errno);

impl OwnCredentials {
    /// Those of the calling thread.
    pub(super) fn of_thread() -> Self {
        let none = CapabilitySet::empty();
        // Neither fails; who has no capabilities takes nobody's credentials.
        let (effective, permitted) =
            capabilities(None).map_or((none, none), |sets| (sets.effective, sets.permitted));
        let groups = getgroups().unwrap_or_default();
        let namespace = fs::metadata(format!("/proc/self/{USER_NAMESPACE}"));
        Self {
            credentials: Credentials {
                groups: groups.iter().map(|group| group.as_raw()).collect(),
                capabilities: effective.bits(),
                ..Credentials::plain(geteuid().as_raw(), getegid().as_raw())
            },
            permitted,
            user_namespace: namespace.ok().map(|status| id(&status)),
        }
    }

    /// Whether this program may take the credentials of anybody else: they must be permitted to it, and come
    /// back to after they were given up.
    pub(super) fn may_be_left(&self) -> bool {
        self.permitted.contains(SWITCHING)
    }

    /// The credentials of a thread that waits for our answer, and so cannot change them; `None` where they grant all
    /// that our own do. `uid` and `gid` are those that the kernel told with the request.
    ///
    /// Where the thread acts for somebody else (an overlay file system, a personality of io_uring, `access`), the user and
    /// the group of the request are all there is.
    ///
    /// # Errors
    /// `UnknownCaller` where it is not known which thread asks: it may be in any user namespace.
    pub(super) fn of_caller(&self, thread: u32, uid: u32, gid: u32) -> Result<Option<Credentials>> {
        let found = self.of_status(thread).ok_or(Error::UnknownCaller)?;
        let caller = match (found.uid, found.gid) == (uid, gid) {
            true => found,
            false => Credentials {
                user_namespace: found.user_namespace,
                ..Credentials::plain(uid, gid)
            },
        };
        Ok((!caller.include(&self.credentials)).then_some(caller))
    }

    fn of_status(&self, thread: u32) -> Option<Credentials> {
        let number = i32::try_from(thread).ok().filter(|number| *number > 0)?;
        let directory = Process::new(number).ok()?;
        let mut status = directory.open_relative("status").ok()?;
        let credentials = parse(&read_whole(&mut status).ok()?)?;
        let namespace = fs::metadata(format!("/proc/{number}/{USER_NAMESPACE}")).ok()?;
        let user_namespace = match self.user_namespace == Some(id(&namespace)) {
            true => None,
            false => {
                let file = directory.open_relative(USER_NAMESPACE).ok()?;
                let id = id(&file.metadata().ok()?);
                Some(Arc::new(UserNamespace { id, file }))
            }
        };
        Some(Credentials {
            user_namespace,
            ..credentials
        })
    }

    /// Opens a file with these credentials, as if who has them did it. Capabilities that this program does not have
    /// itself are left out.
    ///
    /// # Errors
    /// The kernel's refusal of the open, or of the credentials.
    pub(super) fn open_as(
        &self,
        who: &Credentials,
        directory: impl AsFd,
        path: &CStr,
        flags: OFlags,
    ) -> std::result::Result<File, Errno> {
        let switch = Switch::new(&self.credentials, who).map_err(|(_, errno)| errno)?;
        let open = || {
            let opened = openat(
                directory.as_fd(),
                path,
                flags | OFlags::CLOEXEC,
                Mode::empty(),
            );
            opened.map_err(|errno| refusal("openat", errno))
        };
        let opened = match &who.user_namespace {
            None => switch.take().and_then(|_acting| open()),
            Some(namespace) => in_namespace(&switch, namespace, open),
        };
        opened.map(File::from).map_err(|(what, errno)| {
            if what != "openat" {
                log::debug!("{what}: {errno}: not to be judged as user {}", who.uid);
            }
            errno
        })
    }
}

/// With whose rights files are opened.
#[derive(Clone, Debug)]
pub(super) enum Rights {
    /// This program's own.
    Own,
    /// Somebody else's.
    Of(Arc<OwnCredentials>, Arc<Credentials>),
}

impl Rights {
    pub(super) fn are_own(&self) -> bool {
        matches!(self, Self::Own)
    }

    /// Opens a file.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub(super) fn open(
        &self,
        directory: impl AsFd,
        path: &Path,
        flags: OFlags,
    ) -> std::result::Result<File, Errno> {
        match self {
            Self::Own => retry(|| openat(&directory, path, flags | OFlags::CLOEXEC, Mode::empty()))
                .map(File::from)
                .map_err(|errno| Errno::from_raw(errno.raw_os_error())),
            Self::Of(own, who) => {
                let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::ENOENT)?;
                own.open_as(who, directory, &path, flags)
            }
        }
    }
}

/// As `open`, done with credentials of another user namespace, by a process of one thread: no other may enter one (setns(2)).
///
/// It shares memory and descriptors, and this thread goes on when it has ended, as with `vfork`.
fn in_namespace(
    switch: &Switch<'_>,
    namespace: &UserNamespace,
    open: impl Fn() -> std::result::Result<OwnedFd, Refusal>,
) -> std::result::Result<OwnedFd, Refusal> {
    let mut opened = Err(("clone", Errno::EPERM));
    let work = || {
        opened = switch.enter(namespace).and_then(|()| open());
        0
    };
    let mut stack = vec![0; STACK];
    let flags = CloneFlags::CLONE_VM | CloneFlags::CLONE_VFORK | CloneFlags::CLONE_FILES;
    // SAFETY: this thread does not run before the new process has ended, so that nobody else uses what `work` borrows, nor
    // its stack, which is deep enough: it makes some system calls, takes no lock and allocates nothing.
    let child = unsafe { clone(Box::new(work), &mut stack, flags, None) };
    let child = child.map_err(|errno| ("clone", errno))?;
    while waitpid(child, Some(WaitPidFlag::__WALL)) == Err(Errno::EINTR) {}
    opened
}

/// From the credentials of this program to those of somebody else, and back.
struct Switch<'a> {
    own: &'a Credentials,
    own_groups: Vec<Gid>,
    /// What this thread has of them now: some may have been given up since the start.
    capabilities: CapabilitySets,
    who: &'a Credentials,
    groups: Vec<Gid>,
}

impl<'a> Switch<'a> {
    fn new(own: &'a Credentials, who: &'a Credentials) -> std::result::Result<Self, Refusal> {
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
    fn take(&self) -> std::result::Result<Acting<'_>, Refusal> {
        let acting = Acting(self);
        self.change(self.wanted())?;
        Ok(acting)
    }

    /// Enters another user namespace, for good.
    fn enter(&self, namespace: &UserNamespace) -> std::result::Result<(), Refusal> {
        self.change(CapabilitySet::SYS_ADMIN)?;
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
struct Acting<'a>(&'a Switch<'a>);

impl Drop for Acting<'_> {
    fn drop(&mut self) {
        if let Err((what, errno)) = self.0.come_back() {
            // Whatever this thread did from now on would be done, and judged, as somebody else.
            log::error!("{what}: {errno}: a thread cannot come back to its own credentials");
            std::process::abort();
        }
    }
}

fn refusal(what: &'static str, errno: rustix::io::Errno) -> Refusal {
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

/// Device and inode of a namespace.
fn id(status: &Metadata) -> (u64, u64) {
    (status.dev(), status.ino())
}

/// The credentials that `status` shows (proc_pid_status(5)).
fn parse(status: &[u8]) -> Option<Credentials> {
    // Real, effective, saved, and that for files.
    let last_of = |name: &[u8]| -> Option<(u32, u32)> {
        let mut numbers = field(status, name)?.split_ascii_whitespace();
        let effective = numbers.nth(1)?.parse().ok()?;
        let for_files = numbers.nth(1)?.parse().ok()?;
        Some((effective, for_files))
    };
    let (effective_uid, uid) = last_of(b"Uid:")?;
    let (effective_gid, gid) = last_of(b"Gid:")?;
    let groups = field(status, b"Groups:")?.split_ascii_whitespace();
    let groups: std::result::Result<Arc<[u32]>, _> = groups.map(str::parse).collect();
    Some(Credentials {
        uid,
        gid,
        effective_uid,
        effective_gid,
        groups: groups.ok()?,
        capabilities: u64::from_str_radix(field(status, b"CapEff:")?, 16).ok()?,
        user_namespace: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &[u8] = b"\
Name:\tx\nTgid:\t7\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t9 10 \nCapPrm:\t0000000000000007\n\
CapEff:\t0000000000000003\n";

    #[test]
    fn credentials_are_what_status_shows() {
        let expected = Credentials {
            uid: 4,
            gid: 8,
            effective_uid: 2,
            effective_gid: 6,
            groups: Arc::new([9, 10]),
            capabilities: 3,
            user_namespace: None,
        };
        assert_eq!(parse(STATUS), Some(expected));
        for missing in [&b"Uid:"[..], b"Gid:", b"Groups:", b"CapEff:"] {
            let lines = STATUS.split_inclusive(|byte| *byte == b'\n');
            let left: Vec<u8> = lines
                .filter(|line| !line.starts_with(missing))
                .flatten()
                .copied()
                .collect();
            assert_eq!(parse(&left), None);
        }
    }

    #[test]
    fn a_thread_has_its_own_credentials_and_who_is_not_known_has_none() {
        let own = OwnCredentials::of_thread();
        let Credentials { uid, gid, .. } = own.credentials;
        let thread = nix::unistd::gettid().as_raw().cast_unsigned();
        assert_eq!(own.of_caller(thread, uid, gid), Ok(None));
        // The thread acts for somebody else.
        let other = own.of_caller(thread, uid + 1, gid);
        assert_eq!(other, Ok(Some(Credentials::plain(uid + 1, gid))));
        for thread in [0, u32::MAX] {
            let unknown = own.of_caller(thread, uid, gid);
            assert_eq!(unknown, Err(Error::UnknownCaller));
        }
    }

    fn who_am_i() -> Credentials {
        let status = fs::read(format!("/proc/self/task/{}/status", nix::unistd::gettid()));
        parse(&status.unwrap()).unwrap()
    }

    /// `None`, and a word of it, where this user may not take the credentials of others.
    fn root() -> Option<OwnCredentials> {
        let own = OwnCredentials::of_thread();
        if !own.may_be_left() {
            eprintln!("not tried: this user may not take the credentials of others");
            return None;
        }
        Some(own)
    }

    fn act_as<T>(own: &OwnCredentials, who: &Credentials, work: impl FnOnce() -> T) -> T {
        let switch = Switch::new(&own.credentials, who).unwrap();
        let _acting = switch.take().unwrap();
        work()
    }

    #[test]
    fn a_thread_acts_as_somebody_else_and_comes_back() {
        let Some(own) = root() else { return };
        let before = who_am_i();
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = std::ffi::CString::new(file.path().as_os_str().as_encoded_bytes()).unwrap();
        let others = [
            Credentials::plain(1234, 4321),
            Credentials {
                groups: Arc::new([7, 8, 9]),
                effective_uid: 0,
                ..Credentials::plain(1234, 4321)
            },
            Credentials {
                effective_uid: 99,
                effective_gid: 98,
                ..Credentials::plain(1234, 4321)
            },
            Credentials::plain(0, 0),
            Credentials {
                capabilities: CapabilitySet::SYS_PTRACE.bits(),
                ..Credentials::plain(1234, 0)
            },
        ];
        for who in others {
            assert_eq!(act_as(&own, &who, who_am_i), who);
            assert_eq!(who_am_i(), before);
            let opened = own.open_as(&who, rustix::fs::CWD, &path, OFlags::RDONLY);
            assert_eq!(opened.is_ok(), who.uid == 0, "{who:?}");
            assert_eq!(who_am_i(), before);
        }
        let panics = std::panic::catch_unwind(|| {
            act_as(&own, &Credentials::plain(1, 1), || panic!("a defect"));
        });
        assert!(panics.is_err());
        assert_eq!(who_am_i(), before, "also after a panic");
    }

    /// A process that ends with the test.
    struct Child(std::process::Child);

    impl Drop for Child {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn a_file_is_opened_as_from_another_user_namespace() {
        let Some(own) = root() else { return };
        let mut command = std::process::Command::new("unshare");
        let quiet = std::process::Stdio::null;
        command.args(["--user", "sleep", "600"]).stdin(quiet());
        let Ok(inside) = command.stdout(quiet()).stderr(quiet()).spawn() else {
            eprintln!("not tried: there is no unshare");
            return;
        };
        let inside = Child(inside);
        let pid = inside.0.id();
        let inside_now = || own.of_status(pid).filter(|of| of.user_namespace.is_some());
        let who = loop {
            // It had all of them when it made the namespace.
            if let Some(who) = inside_now().filter(|who| who.capabilities == 0) {
                break who;
            }
            std::thread::yield_now();
        };
        let before = who_am_i();
        let open = |pid: u32| {
            let path = std::ffi::CString::new(format!("/proc/{pid}/mem")).unwrap();
            let opened = own.open_as(&who, rustix::fs::CWD, &path, OFlags::RDWR);
            opened.map(drop)
        };
        assert_eq!(open(pid), Ok(()), "its own memory");
        // Of the same user, and root's capabilities there are none here.
        assert_eq!(open(1), Err(Errno::EACCES));
        let ours = own.of_caller(pid, who.uid, who.gid).unwrap();
        assert_eq!(ours, Some(who));
        assert_eq!(who_am_i(), before);
    }

    #[test]
    fn other_threads_stay_who_they_are() {
        let Some(own) = root() else { return };
        let before = who_am_i();
        let (ask, asked) = std::sync::mpsc::channel::<()>();
        let (answer, answered) = std::sync::mpsc::channel();
        let other = std::thread::spawn(move || {
            asked.recv().unwrap();
            answer.send(who_am_i()).unwrap();
        });
        let seen = act_as(&own, &Credentials::plain(1234, 4321), || {
            ask.send(()).unwrap();
            answered.recv().unwrap()
        });
        other.join().unwrap();
        assert_eq!(seen, before);
    }
}
