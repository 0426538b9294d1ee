//! What can go wrong, and the one table that turns it into an errno.

use nix::errno::Errno;
use thiserror::Error;

use crate::common::address::Address;
use crate::common::pid::ProcessId;

/// The result of an operation of the file system.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an operation failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such name in the directory.
    #[error("no such entry")]
    NoEntry,
    /// No such process, or one without memory (a kernel thread, a zombie).
    #[error("no process {0} with memory")]
    NoProcess(ProcessId),
    /// The kernel does not let the mounter read this process.
    #[error(
        "process {0} may not be read: mount as its owner, or with CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH, \
         and see ptrace(2) for Yama and PR_SET_DUMPABLE"
    )]
    ProcessDenied(ProcessId),
    /// The kernel does not let whoever asks read or write this process.
    #[error("process {0} may not be read or written by who asks, as /proc/{0}/mem would say")]
    CallerDenied(ProcessId),
    /// Whoever asks is in another PID namespace: nobody knows with what credentials.
    #[error("who asks is not seen in /proc, and so has no rights here")]
    UnknownCaller,
    /// What `/proc` shows now are not the processes that can be read, but those of another PID namespace, or none.
    #[error(
        "/proc is gone, or of another PID namespace now: mount this one's own over it (mount -t proc proc /proc)"
    )]
    WrongProc,
    /// More mappings than are held of one process.
    #[error("process {0} has more than {1} mappings, more than are held of one process")]
    TooManyMappings(ProcessId, usize),
    /// A file was opened for writing whose mapping has no `w`.
    #[error(
        "the mapping is not writable: mount with -o write,force to write in spite of its protection"
    )]
    Protected,
    /// The kernel does not let the mounter open the `mem` of this process for writing.
    #[error(
        "the memory of process {0} may not be written: /proc must be mounted rw, \
         and the mounter its owner or have CAP_DAC_OVERRIDE"
    )]
    Unwritable(ProcessId),
    /// A file was opened for writing on a mount without `write`.
    #[error("memory cannot be written through this mount: mount with -o write to write")]
    WriteOff,
    /// A file was opened for writing on a mount with `ro`.
    #[error("the mount is read-only: mount without -o ro, and with -o write to write")]
    ReadOnlyMount,
    /// The process ended after the file was opened.
    #[error("process {0} has ended")]
    Ended(ProcessId),
    /// The process runs another program now, or its PID belongs to another process.
    #[error("process {0} is not the program that was opened")]
    Replaced(ProcessId),
    /// A read or a write starts on a byte that nobody can reach.
    #[error("nothing to reach at {0}: unmapped, past the end of its file, or a device")]
    Unreachable(Address),
    /// A page that is not in memory, and whose bytes cannot be known without harm.
    #[error("what is at {0} is not known: {1}")]
    Unknown(Address, Unknown),
    /// The daemon's own memory, or a mapping of this mount's own files: reading it could wait for itself.
    #[error("memory of this daemon or of its own mount is never read")]
    OwnMemory,
    /// A buffered read met an unreadable byte; answering the bytes before it would pass for the end of the file.
    #[error("unreadable from {0} on")]
    Incomplete(Address),
    /// No data or hole starts there any more (`SEEK_DATA`, `SEEK_HOLE`).
    #[error("past the last byte")]
    NoMoreData,
    /// No answer came from the target's memory in time.
    #[error("the memory of process {0} does not answer")]
    TimedOut(ProcessId),
    /// Somebody traces a process that is to be stopped, a debugger or `strace`.
    #[error("process {0} is traced already, and only its tracer can stop it")]
    Traced(ProcessId),
    /// A thread of a process that is to be stopped is in the kernel and does not come out (state D), or has made a `vfork`.
    #[error("a thread of process {0} does not stop: it waits in the kernel")]
    Unstoppable(ProcessId),
    /// What a process writes cannot be tracked without harm.
    #[error("what process {0} writes is not tracked: {1}")]
    Untracked(ProcessId, &'static str),
    /// A snapshot would take more memory than there is for snapshots.
    #[error(
        "a snapshot of it takes {needed} bytes and {left} are left for snapshots: remove some (rmdir), or mount \
         with a larger -o snap_size or with -o snap_dir"
    )]
    NoRoom {
        /// Bytes that it takes.
        needed: u64,
        /// Bytes that are left.
        left: u64,
    },
    /// The name of a directory in `snap` says which processes are to be copied.
    #[error(
        "a snapshot is named PID@NAME, or PID+PID@NAME for several processes at one moment; NAME is printable ASCII without \
         blanks, or left out"
    )]
    SnapshotName,
    /// There is one of this name.
    #[error("there is one of this name")]
    Exists,
    /// The mount stops no process.
    #[error("the mount stops no process: mount without -o nostop to take snapshots")]
    StopOff,
    /// A snapshot is open to whoever has taken it.
    #[error("the snapshot belongs to another user")]
    NotOwner,
    /// Whoever waited for something that takes long does not any more.
    #[error("interrupted")]
    Interrupted,
    /// An extended attribute of a kind that no file here has (`security.*`, `system.*`).
    #[error("only user.procmemfs.* is there")]
    NotSupported,
    /// There is no such extended attribute.
    #[error("no such attribute")]
    NoAttribute,
    /// A write starts at or past the end of the file.
    #[error("past the end of the mapping")]
    PastEnd,
    /// The name space belongs to the kernel: nothing is created, renamed, linked or removed.
    #[error("mappings come and go with the process only")]
    NotPermitted,
    /// A handle that this file system did not give out, or not for this.
    #[error("bad file handle")]
    BadHandle,
    /// One user, other than the mounter, has as much open as all may.
    #[error("user {0} has too many files of this mount open: close some")]
    TooManyOpen(u32),
    /// A directory was needed.
    #[error("not a directory")]
    NotADirectory,
    /// A file was needed.
    #[error("is a directory")]
    IsADirectory,
    /// An argument out of its range.
    #[error("invalid argument")]
    Invalid,
    /// A page of an mmap of one of our files came back whole; it would revert what the target wrote meanwhile.
    #[error("memory is written by write(2) only, not through mmap(2)")]
    MappedWrite,
    /// The kernel refused something that no other case describes.
    #[error("{what}: {errno}")]
    System {
        /// The call, for the log.
        what: &'static str,
        /// What it answered.
        errno: Errno,
    },
}

/// Why the bytes of a page that is not in memory cannot be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum Unknown {
    /// `userfaultfd(2)` with missing or minor faults.
    #[error("a userfaultfd handler of the process fills it in when it is touched")]
    Lazy,
    /// fcntl(2), `F_SETLEASE`.
    #[error("its file is not opened, since that would break a lease on it")]
    Leased,
    /// overlayfs after a copy-up, FUSE passthrough.
    #[error(
        "the file that opens under its name need not be the one that is mapped (overlayfs): \
         mount with -o touch to read it through the process"
    )]
    OtherFile,
    /// Without the rights to open it, and the process has no descriptor of it.
    #[error(
        "its file cannot be opened by this user: mount with CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN"
    )]
    Closed,
    /// A file that a process had mapped when it was copied.
    #[error("its file has changed since the snapshot was taken")]
    Changed,
    /// Not a file: a device, a socket, a ring.
    #[error("what is mapped is no regular file, and only the process itself can touch it")]
    NoFile,
}

impl Error {
    /// Whether it speaks of the bytes at one address, while others may be read.
    pub fn is_of_bytes(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Unknown(..))
    }

    /// Whether it is this daemon that lacks something, a descriptor or memory: it says nothing of a process.
    pub(crate) fn is_shortage(&self) -> bool {
        let is_of_a_caller = matches!(self, Self::TooManyOpen(_));
        !is_of_a_caller && matches!(self.errno(), Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM)
    }

    /// The errno that the caller sees, as `docs/SEMANTICS.md` lists them.
    pub fn errno(&self) -> Errno {
        match self {
            Self::NoEntry | Self::NoProcess(_) => Errno::ENOENT,
            Self::ProcessDenied(_) | Self::CallerDenied(_) | Self::UnknownCaller => Errno::EACCES,
            Self::Protected | Self::Unwritable(_) | Self::WriteOff => Errno::EACCES,
            Self::TooManyMappings(..) => Errno::EFBIG,
            Self::ReadOnlyMount => Errno::EROFS,
            Self::Ended(_) => Errno::ESRCH,
            Self::Replaced(_) => Errno::ESTALE,
            Self::Unreachable(_)
            | Self::Unknown(..)
            | Self::OwnMemory
            | Self::WrongProc
            | Self::Incomplete(_)
            | Self::MappedWrite => Errno::EIO,
            Self::NoMoreData => Errno::ENXIO,
            Self::TimedOut(_) | Self::Unstoppable(_) => Errno::ETIMEDOUT,
            Self::Traced(_) => Errno::EBUSY,
            Self::NoRoom { .. } => Errno::ENOSPC,
            Self::Interrupted => Errno::EINTR,
            Self::SnapshotName => Errno::EINVAL,
            Self::Exists => Errno::EEXIST,
            Self::StopOff => Errno::EPERM,
            Self::NotOwner => Errno::EACCES,
            Self::NotSupported | Self::Untracked(..) => Errno::EOPNOTSUPP,
            Self::NoAttribute => Errno::ENODATA,
            Self::PastEnd => Errno::ENOSPC,
            Self::NotPermitted => Errno::EPERM,
            Self::BadHandle => Errno::EBADF,
            Self::TooManyOpen(_) => Errno::EMFILE,
            Self::NotADirectory => Errno::ENOTDIR,
            Self::IsADirectory => Errno::EISDIR,
            Self::Invalid => Errno::EINVAL,
            Self::System { errno, .. } => *errno,
        }
    }

    /// A refusal of the kernel by `what`.
    pub fn system(what: &'static str, errno: Errno) -> Self {
        Self::System { what, errno }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SEMANTICS: the table of errors.
    #[test]
    fn errors_map_to_the_documented_errno() {
        let pid = ProcessId::new(7).unwrap();
        let table = [
            (Error::NoEntry, Errno::ENOENT),
            (Error::NoProcess(pid), Errno::ENOENT),
            (Error::ProcessDenied(pid), Errno::EACCES),
            (Error::CallerDenied(pid), Errno::EACCES),
            (Error::UnknownCaller, Errno::EACCES),
            (Error::Protected, Errno::EACCES),
            (Error::Unwritable(pid), Errno::EACCES),
            (Error::WriteOff, Errno::EACCES),
            (Error::ReadOnlyMount, Errno::EROFS),
            (Error::Ended(pid), Errno::ESRCH),
            (Error::Replaced(pid), Errno::ESTALE),
            (Error::Unreachable(Address::new(0)), Errno::EIO),
            (Error::Unknown(Address::new(0), Unknown::Lazy), Errno::EIO),
            (Error::Incomplete(Address::new(0)), Errno::EIO),
            (Error::OwnMemory, Errno::EIO),
            (Error::WrongProc, Errno::EIO),
            (Error::TooManyMappings(pid, 1), Errno::EFBIG),
            (Error::NoMoreData, Errno::ENXIO),
            (Error::TimedOut(pid), Errno::ETIMEDOUT),
            (Error::NotSupported, Errno::EOPNOTSUPP),
            (Error::NoAttribute, Errno::ENODATA),
            (Error::PastEnd, Errno::ENOSPC),
            (Error::NotPermitted, Errno::EPERM),
            (Error::TooManyOpen(5), Errno::EMFILE),
            (Error::system("open", Errno::EMFILE), Errno::EMFILE),
        ];
        for (error, errno) in table {
            assert_eq!(error.errno(), errno, "{error}");
        }
    }

    #[test]
    fn a_refusal_names_what_would_help() {
        let pid = ProcessId::new(7).unwrap();
        assert!(
            Error::ProcessDenied(pid)
                .to_string()
                .contains("CAP_SYS_PTRACE")
        );
        assert!(Error::WriteOff.to_string().contains("-o write"));
        assert!(Error::ReadOnlyMount.to_string().contains("-o ro"));
        assert!(Error::Protected.to_string().contains("force"));
        assert!(
            Error::Unwritable(pid)
                .to_string()
                .contains("CAP_DAC_OVERRIDE")
        );
    }
}
