//! Acting with the credentials of somebody else: the kernel judges what a thread does by those that it has then.
//!
//! Credentials belong to a thread (credentials(7)); the C library's functions change those of all threads, the system
//! calls that are used here those of the caller alone. The real user stays ours: whoever's it were could send us signals
//! (kill(2)). The effective user is taken, too, and not the one for files alone: who made a user namespace has all
//! capabilities in it, and that is judged by the effective user (`cap_capable` in `security/commoncap.c`).

mod process;
mod status;
mod switch;

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::{self, File, Metadata};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;
use parking_lot::Mutex;
use procfs::process::Process;
use rustix::fs::{Mode, OFlags, openat};
use rustix::process::{getegid, geteuid, getgroups};
use rustix::thread::{CapabilitySet, capabilities};

use super::interrupted::retry;
use super::task::Stat;
use super::text::read_whole;
use crate::common::error::{Error, Result};
use crate::target::{Credentials, UserNamespace};

use self::process::{End, run_in_process};
use self::status::{Status, parse};
use self::switch::{Refusal, SWITCHING, Switch, refusal};

/// The user namespace of a thread, below its directory in `/proc` (proc_pid_ns(5)).
const USER_NAMESPACE: &str = "ns/user";

/// Whether a process whose credentials change becomes one that others may look into: `1` says so (proc_sys_fs(5)).
const SUID_DUMPABLE: &str = "/proc/sys/fs/suid_dumpable";

/// The credentials of this program.
#[derive(Clone, Debug)]
pub(super) struct OwnCredentials {
    credentials: Credentials,
    permitted: CapabilitySet,
    /// Device and inode of the user namespace; `None` where `/proc` does not say.
    user_namespace: Option<(u64, u64)>,
    /// Where code and stack start; `None` where `/proc` does not say.
    layout: Option<[u64; 2]>,
    /// Users for whom no process enters a user namespace any more. Nothing is locked inside it.
    refused: Arc<Mutex<BTreeSet<u32>>>,
}

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
            layout: fs::read("/proc/self/stat")
                .ok()
                .and_then(|stat| Some(Stat::parse(&stat)?.layout)),
            refused: Arc::default(),
        }
    }

    /// Whether a process with its code and stack there is this one, or has the same memory: a child of [`run_in_process`].
    ///
    /// The kernel lets a thread look into its own memory, whatever the credentials, and by whatever number
    /// (`may_access_mm` in `kernel/fork.c`).
    pub(super) fn is_memory_of(&self, layout: [u64; 2]) -> bool {
        self.layout.is_none_or(|own| own == layout)
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
    /// the group of the request are all there is. A worker of io_uring keeps what its process has given up since: its process is
    /// looked at in its place.
    ///
    /// # Errors
    /// `UnknownCaller` where it is not known which thread asks: it may be in any user namespace.
    pub(super) fn of_caller(&self, thread: u32, uid: u32, gid: u32) -> Result<Option<Credentials>> {
        let status_of = |number| self.of_status(number).ok_or(Error::UnknownCaller);
        let asks = status_of(thread)?;
        let Status {
            credentials: found,
            is_worker,
            ..
        } = match asks.is_worker {
            true => status_of(asks.process)?,
            false => asks,
        };
        let caller = match !is_worker && (found.uid, found.gid) == (uid, gid) {
            true => found,
            false => Credentials {
                user_namespace: found.user_namespace,
                ..Credentials::plain(uid, gid)
            },
        };
        Ok((!caller.include(&self.credentials)).then_some(caller))
    }

    fn of_status(&self, thread: u32) -> Option<Status> {
        let number = i32::try_from(thread).ok().filter(|number| *number > 0)?;
        let directory = Process::new(number).ok()?;
        let mut status = retry(|| directory.open_relative("status")).ok()?;
        let status = parse(&read_whole(&mut status).ok()?)?;
        let namespace = format!("/proc/{number}/{USER_NAMESPACE}");
        let namespace = retry(|| fs::metadata(&namespace)).ok()?;
        let user_namespace = match self.user_namespace == Some(id(&namespace)) {
            true => None,
            false => {
                let file = retry(|| directory.open_relative(USER_NAMESPACE)).ok()?;
                let id = id(&retry(|| file.metadata()).ok()?);
                Some(Arc::new(UserNamespace { id, file }))
            }
        };
        let credentials = Credentials {
            user_namespace,
            ..status.credentials
        };
        Some(Status {
            credentials,
            ..status
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
        path: &Path,
        flags: OFlags,
    ) -> std::result::Result<File, Errno> {
        // Before: whoever opens it may not allocate.
        let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::ENOENT)?;
        let switch = Switch::new(&self.credentials, who).map_err(|(_, errno)| errno)?;
        let open = || {
            let opened = openat(
                directory.as_fd(),
                path.as_c_str(),
                flags | OFlags::CLOEXEC,
                Mode::empty(),
            );
            opened.map_err(|errno| refusal("openat", errno))
        };
        let opened = match &who.user_namespace {
            None => switch.take().and_then(|_acting| open()),
            Some(namespace) => self.in_namespace(&switch, namespace, open),
        };
        opened.map(File::from).map_err(|(what, errno)| {
            if what != "openat" {
                log::debug!("{what}: {errno}: not to be judged as user {}", who.uid);
            }
            errno
        })
    }

    /// As `open`, done with credentials of another user namespace, by a process of one thread: no other may enter one (setns(2)).
    ///
    /// It shares memory and descriptors, and this thread does nothing else before it has ended. Inside the namespace whoever has
    /// all capabilities there could look into it, but for its memory, which is not dumpable and of our own namespace
    /// (`__ptrace_may_access` in `kernel/ptrace.c`); and could stop or kill it.
    fn in_namespace(
        &self,
        switch: &Switch<'_>,
        namespace: &UserNamespace,
        open: impl Fn() -> std::result::Result<OwnedFd, Refusal>,
    ) -> std::result::Result<OwnedFd, Refusal> {
        let who = switch.who.uid;
        // Entering a namespace would make our memory dumpable.
        if fs::read(SUID_DUMPABLE).map_or(true, |says| says.starts_with(b"1")) {
            return Err(("fs.suid_dumpable", Errno::EACCES));
        }
        if self.refused.lock().contains(&who) {
            return Err(("stopped or killed before", Errno::EACCES));
        }
        let mut opened = Err(("clone", Errno::EACCES));
        let mut work = || {
            opened = switch.enter(namespace).and_then(|()| open());
        };
        let ended = run_in_process(&mut work).map_err(|errno| ("clone", errno))?;
        if ended == End::ByOthers && self.refused.lock().insert(who) {
            // It may have left a descriptor open that nobody knows: never twice.
            log::warn!(
                "user {who}: somebody stopped or killed the process that judges this user in a user namespace: refused from now on"
            );
        }
        opened
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
            Self::Of(own, who) => own.open_as(who, directory, path, flags),
        }
    }
}

/// Device and inode of a namespace.
fn id(status: &Metadata) -> (u64, u64) {
    (status.dev(), status.ino())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::live::child::Child;

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
        parse(&status.unwrap()).unwrap().credentials
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
            let opened = own.open_as(&who, rustix::fs::CWD, file.path(), OFlags::RDONLY);
            assert_eq!(opened.is_ok(), who.uid == 0, "{who:?}");
            assert_eq!(who_am_i(), before);
        }
        let panics = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            act_as(&own, &Credentials::plain(1, 1), || panic!("a defect"));
        }));
        assert!(panics.is_err());
        assert_eq!(who_am_i(), before, "also after a panic");
    }

    #[test]
    fn a_file_is_opened_as_from_another_user_namespace() {
        let Some(own) = root() else { return };
        let mut command = std::process::Command::new("unshare");
        let Some(inside) = Child::start(command.args(["--user", "sleep", "600"])) else {
            eprintln!("not tried: there is no unshare");
            return;
        };
        let pid = inside.id();
        let inside_now = || {
            let found = own.of_status(pid)?.credentials;
            found.user_namespace.is_some().then_some(found)
        };
        let who = loop {
            // It had all of them when it made the namespace.
            if let Some(who) = inside_now().filter(|who| who.capabilities == 0) {
                break who;
            }
            std::thread::yield_now();
        };
        let before = who_am_i();
        let open = |pid: u32| {
            let path = format!("/proc/{pid}/mem");
            let opened = own.open_as(&who, rustix::fs::CWD, Path::new(&path), OFlags::RDWR);
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
