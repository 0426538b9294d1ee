//! A process held by descriptors, never by its number alone.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::{Arc, OnceLock};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use parking_lot::RwLock;
use procfs::process::Process;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::interrupted::retry;
use super::kernel::check_pidfd;
use super::mem::Mem;
use super::random;
use super::shortage::found;
use super::task::{State, Task, is_in_exec, statm};
use super::text::read_whole;
use super::{from_io, from_proc};
use crate::common::address::Address;
use crate::common::error::{Error, Result};
use crate::target::{ProcessId, ProcessIdentity};

/// An offset of `/proc/PID/pagemap` between two entries: the kernel checks whether the address
/// space is there before it refuses that, and takes no lock for it (`pagemap_read` in
/// `fs/proc/task_mmu.c`). A read of `mem` takes the target's own, and at times to write.
const NOT_AN_ENTRY: u64 = 1;

/// Descriptors of one program of one process.
///
/// `mem` follows the address space that the process had when it was opened:
/// once that is gone (exec, exit) it reads 0 bytes, never another program's. So does `pagemap`.
/// `maps` does, too, but may be opened later.
/// `stat` and `pidfd` follow the process: once it is reaped they say so, even
/// where its number has been used again.
///
/// One case needs more than `mem`: where somebody shares the address space
/// (`vfork`, `CLONE_VM`), or is just reading it, it outlives the exec of the process. `stat` shows
/// that one, since each exec lays out code and stack anew; where it lays them out at the same place, the
/// random bytes of the program do.
#[derive(Debug)]
pub(super) struct Pinned {
    identity: ProcessIdentity,
    /// The thread that is asked; another one once that has ended. The lock guards which one it is: it is
    /// held to copy or to replace that, and nothing is locked or read inside it.
    task: RwLock<Arc<Task>>,
    mem: Mem,
    /// The same, open for writing, once somebody has written.
    writable_mem: OnceLock<Mem>,
    pagemap: Arc<File>,
    maps: OnceLock<Arc<File>>,
    /// Where the program's random bytes lie, if its layout does not tell it from others.
    random_at: Option<Address>,
    /// As long as it is open, no other process's pidfd has the same inode.
    pidfd: File,
}

impl Pinned {
    /// How many descriptors one of them has.
    pub(super) const DESCRIPTORS: u64 = 7;

    /// Pins the process that has the number `pid` now; only if it is `wanted`, where there is one.
    ///
    /// # Errors
    /// `NoProcess` where there is none, it is a thread's number, or it has no memory; `ProcessDenied`;
    /// `Replaced` where it is another one, or is about to run a new program; `WrongProc`.
    pub(super) fn open(
        directory: Process,
        pid: ProcessId,
        wanted: Option<&ProcessIdentity>,
    ) -> Result<Self> {
        let pinned = Self::gather(directory, pid, wanted)?;
        // The descriptors were opened one after another: only if the first and the last still
        // agree do they belong together.
        pinned.confirm()?;
        Ok(pinned)
    }

    /// The same, of whichever process it is, and what `ask` finds out of it and what is shown of it belong to the same program.
    ///
    /// # Errors
    /// As [`open`](Self::open), and what `ask` says.
    pub(super) fn open_described(
        directory: Process,
        pid: ProcessId,
        ask: impl FnOnce(&Self) -> Result<()>,
    ) -> Result<(Self, Description)> {
        let pinned = Self::gather(directory, pid, None)?;
        ask(&pinned)?;
        // It ends with what confirms all of it.
        let description = pinned.describe_by(&pinned.mem).map_err(not_there)?;
        Ok((pinned, description))
    }

    /// Opens all descriptors, which belong together only if they are confirmed.
    fn gather(
        directory: Process,
        pid: ProcessId,
        wanted: Option<&ProcessIdentity>,
    ) -> Result<Self> {
        if is_in_exec(&directory) {
            return Err(Error::Replaced(pid));
        }
        let pidfd = pidfd(pid)?;
        let pidfd_inode = retry(|| pidfd.metadata())
            .map_err(|error| from_io(pid, "fstat of a pidfd", &error))?
            .ino();
        // Before `mem`, which is denied to a plain user where there is no memory.
        let (task, state) = Task::find(directory, pid)?;
        // What is copied goes by the pidfd's number, what is looked up by that of `/proc`.
        check_pidfd(pidfd.as_fd(), pid, task.proc_device()?)?;
        if state.is_denied() {
            return Err(Error::ProcessDenied(pid));
        }
        if state.layout[0] == 0 || wanted.is_some_and(|wanted| !state.is_of(wanted)) {
            return Err(Error::Replaced(pid));
        }
        let mem = Mem::open(task.directory(), pid)?;
        let pagemap = retry(|| task.directory().open_relative("pagemap"))
            .map_err(|error| from_proc(pid, "open of pagemap", &error))?;
        let random_at = match state.is_layout_random {
            true => None,
            false => random::address(task.directory()),
        };
        let random = random_at.and_then(|at| random::value(&mem, at));
        Ok(Self {
            identity: ProcessIdentity {
                pid,
                start_time: state.start_time,
                pidfd_inode,
                layout: state.layout,
                random: random.unwrap_or(0),
            },
            task: RwLock::new(Arc::new(task)),
            mem,
            writable_mem: OnceLock::new(),
            pagemap: Arc::new(pagemap),
            maps: OnceLock::new(),
            random_at: random_at.filter(|_| random.is_some()),
            pidfd,
        })
    }

    /// What is shown of it now, if it may still be read.
    ///
    /// # Errors
    /// `Ended`, `Replaced`; `NoProcess`, `ProcessDenied` where the kernel does not open its memory any more.
    pub(super) fn describe(&self) -> Result<Description> {
        let mem = Mem::open(self.task().directory(), self.identity.pid)?;
        self.describe_by(&mem)
    }

    /// The same, where its memory was opened just now.
    fn describe_by(&self, mem: &Mem) -> Result<Description> {
        let pid = self.identity.pid;
        let owner = retry(|| std::fs::metadata(format!("/proc/{pid}")))
            .map_err(|error| from_io(pid, "stat of /proc/PID", &error))?;
        let memory_owner = mem
            .owner()
            .map_err(|error| from_io(pid, "fstat of mem", &error))?;
        // The owner was asked for by number: it is the pinned process's only if that still lives.
        let command = self.check_named_program()?;
        Ok(Description {
            command,
            owner: (owner.uid(), owner.gid()),
            memory_owner,
        })
    }

    /// Whether the program that was seen as `identity` runs, as far as it can be told without
    /// pinning it: enough for a name, not for a byte.
    pub(super) fn is_running(identity: &ProcessIdentity) -> bool {
        let pid = identity.pid;
        let process = retry(|| Process::new(pid.as_pid_t())).ok();
        let found = process.and_then(|directory| Task::find(directory, pid).ok());
        found.is_some_and(|(_, state)| state.is_of(identity))
    }

    pub(super) fn identity(&self) -> &ProcessIdentity {
        &self.identity
    }

    /// The thread that is asked for what the process has.
    pub(super) fn task(&self) -> Arc<Task> {
        Arc::clone(&self.task.read())
    }

    pub(super) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// `/proc/PID/mem` of the pinned address space.
    pub(super) fn mem(&self) -> &Mem {
        &self.mem
    }

    /// The same, open for writing too: from the first write on, so that whoever is refused one is asked again at the next.
    ///
    /// # Errors
    /// As [`Mem::open_for_writing`], and as [`verify`](Self::verify).
    pub(super) fn writable_mem(&self) -> Result<&Mem> {
        if let Some(mem) = self.writable_mem.get() {
            return Ok(mem);
        }
        let mem = Mem::open_for_writing(self.task().directory(), self.identity.pid);
        // Were there an exec in between, it would belong to another program.
        self.verify()?;
        let mem = mem?;
        Ok(self.writable_mem.get_or_init(|| mem))
    }

    /// `/proc/PID/pagemap` of the pinned address space.
    pub(super) fn pagemap(&self) -> &Arc<File> {
        &self.pagemap
    }

    /// Opens a file below `/proc/PID`: the pinned process's, or none.
    ///
    /// # Errors
    /// `NoProcess`, `ProcessDenied`, `System`.
    pub(super) fn open_file(&self, name: &'static str) -> Result<File> {
        let file = retry(|| self.task().directory().open_relative(name));
        file.map_err(|error| from_proc(self.identity.pid, name, &error))
    }

    /// Opens a directory below `/proc/PID`, to find names in it.
    ///
    /// # Errors
    /// As [`open_file`](Self::open_file).
    pub(super) fn open_directory(&self, name: &'static str) -> Result<File> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = retry(|| self.task().directory().open_relative_flags(name, flags));
        directory.map_err(|error| from_proc(self.identity.pid, name, &error))
    }

    /// A directory of the process that has its number, to be verified afterwards; none where there is none or it is not for this
    /// user.
    ///
    /// # Errors
    /// As [`found`]. (By its path, since `procfs` makes no difference between `ESRCH` and `ENOENT`.)
    pub(super) fn directory_if_there(
        &self,
        name: &'static str,
    ) -> std::result::Result<Option<File>, Errno> {
        let path = format!("/proc/{}/{name}", self.task().number());
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = retry(|| rustix::fs::open(&*path, flags, Mode::empty()));
        Ok(found(directory)?.map(File::from))
    }

    /// The path of its program, in its own bytes; empty where the kernel does not say. No path that it
    /// says is longer than a page.
    pub(super) fn executable(&self) -> Vec<u8> {
        let path = self.task().directory().exe().unwrap_or_default();
        path.into_os_string().into_vec()
    }

    /// The whole of a file below `/proc/PID` that has no more bytes than [`read_whole`] reads.
    ///
    /// # Errors
    /// As [`open_file`](Self::open_file).
    pub(super) fn contents(&self, name: &'static str) -> Result<Vec<u8>> {
        let mut file = self.open_file(name)?;
        read_whole(&mut file).map_err(|error| from_io(self.identity.pid, name, &error))
    }

    /// All of a file of one of its threads.
    ///
    /// # Errors
    /// As [`open_file`](Self::open_file).
    pub(super) fn thread_contents(&self, tid: i32, name: &'static str) -> Result<Vec<u8>> {
        let pid = self.identity.pid;
        let path = format!("task/{tid}/{name}");
        let mut file = retry(|| self.task().directory().open_relative(&path))
            .map_err(|error| from_proc(pid, name, &error))?;
        read_whole(&mut file).map_err(|error| from_io(pid, name, &error))
    }

    /// `/proc/PID/maps` of the pinned address space, to be asked for single mappings.
    ///
    /// # Errors
    /// As [`open_file`](Self::open_file), and as [`verify`](Self::verify).
    pub(super) fn maps(&self) -> Result<Arc<File>> {
        if let Some(maps) = self.maps.get() {
            return Ok(Arc::clone(maps));
        }
        let maps = self.open_file("maps")?;
        // Were there an exec in between, it would belong to another program.
        self.verify()?;
        Ok(self.keep_maps(maps))
    }

    /// Takes a `maps` that was found to be of the pinned address space, for whoever asks for it next.
    pub(super) fn keep_maps(&self, maps: File) -> Arc<File> {
        Arc::clone(self.maps.get_or_init(|| Arc::new(maps)))
    }

    /// Gives each line of a file below `/proc/PID` to `take`, without its end. `maps` and `smaps`
    /// can have many megabytes.
    ///
    /// # Errors
    /// As [`open_file`](Self::open_file), and what `take` says.
    pub(super) fn lines(
        &self,
        name: &'static str,
        take: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        self.lines_of(&self.open_file(name)?, name, take)
    }

    /// The same, of a file that is open and was not read.
    ///
    /// # Errors
    /// As [`lines`](Self::lines).
    pub(super) fn lines_of(
        &self,
        file: &File,
        name: &'static str,
        mut take: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut file = BufReader::new(file);
        let mut line = Vec::new();
        loop {
            line.clear();
            file.read_until(b'\n', &mut line)
                .map_err(|error| from_io(self.identity.pid, name, &error))?;
            if line.is_empty() {
                return Ok(());
            }
            take(line.strip_suffix(b"\n").unwrap_or(&line))?;
        }
    }

    /// A file below `/proc/PID` that is one short line, without its end.
    ///
    /// # Errors
    /// As [`open_file`](Self::open_file).
    pub(super) fn line(&self, name: &'static str) -> Result<Vec<u8>> {
        let mut line = [0; 256];
        let mut file = self.open_file(name)?;
        let len = retry(|| file.read(&mut line))
            .map_err(|error| from_io(self.identity.pid, name, &error))?;
        let line = &line[..len];
        Ok(line.strip_suffix(b"\n").unwrap_or(line).to_vec())
    }

    /// Whether the process lives and its code and stack are where they were.
    ///
    /// Takes no lock of its address space, so that nobody waits here for a
    /// target that waits for something else; but for programs that lie where any other would lie, too.
    ///
    /// # Errors
    /// `Ended`, `Replaced`.
    pub(super) fn check_program(&self) -> Result<()> {
        self.check_state(|task| task.state().map(|state| (state, ())))
    }

    /// The same, and the name of its command.
    ///
    /// # Errors
    /// As [`check_program`](Self::check_program).
    fn check_named_program(&self) -> Result<Vec<u8>> {
        self.check_state(Task::named_state)
    }

    fn check_state<T>(&self, state_of: impl Fn(&Task) -> Option<(State, T)>) -> Result<T> {
        let pid = self.identity.pid;
        let task = self.task();
        let (is_same, more) = match state_of(&task) {
            Some((state, more)) => (task.is_of(&state, &self.identity), more),
            None => {
                let is_same = self.follow_another_thread()?;
                let (_, more) = state_of(&self.task()).ok_or(Error::Ended(pid))?;
                (is_same, more)
            }
        };
        match is_same && self.has_same_random()? {
            true => Ok(more),
            false => Err(Error::Replaced(pid)),
        }
    }

    /// Whether the program that runs has the random bytes of the pinned one; yes, where those are not needed.
    fn has_same_random(&self) -> Result<bool> {
        let Some(at) = self.random_at else {
            return Ok(true);
        };
        let pid = self.identity.pid;
        let current = match Mem::open(self.task().directory(), pid) {
            Ok(mem) => mem,
            Err(Error::NoProcess(_)) => return Err(Error::Ended(pid)),
            // It may have been read before: it is another program, or cannot be told from one.
            Err(Error::ProcessDenied(_)) => return Ok(false),
            Err(error) => return Err(error),
        };
        // As they are now in both: the program may have changed them.
        let is_same = || random::value(&current, at) == random::value(&self.mem, at);
        Ok(is_same() || is_same())
    }

    /// Asks another thread from now on, if one is left; returns whether it runs the same program.
    fn follow_another_thread(&self) -> Result<bool> {
        let pid = self.identity.pid;
        // A pidfd is readable once all threads have ended (pidfd_open(2)).
        let lives = || {
            let mut end = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
            poll(&mut end, PollTimeout::ZERO) == Ok(0)
        };
        let found = Task::find_other(pid);
        // While it lives its number is nobody else's.
        let (task, state) = found.filter(|_| lives()).ok_or(Error::Ended(pid))?;
        let is_same = task.is_of(&state, &self.identity);
        if is_same {
            let former = std::mem::replace(&mut *self.task.write(), Arc::new(task));
            // Outside the lock: this closes descriptors.
            drop(former);
        }
        Ok(is_same)
    }

    /// As [`check_program`](Self::check_program), for a process that was only just found: what has
    /// ended is not there.
    ///
    /// # Errors
    /// `NoProcess`, `Replaced`.
    pub(super) fn confirm(&self) -> Result<()> {
        self.check_program().map_err(not_there)
    }

    /// Whether the process lives and runs the program that was pinned.
    ///
    /// # Errors
    /// `Ended`, `Replaced`.
    pub(super) fn verify(&self) -> Result<()> {
        // First: where the process waits in an exec, `stat` would, too.
        self.check_space()?;
        self.check_program()
    }

    /// Whether the pinned address space is still there; waits for nobody.
    ///
    /// # Errors
    /// `Ended`, `Replaced`.
    pub(super) fn check_space(&self) -> Result<()> {
        let pid = self.identity.pid;
        match retry(|| self.pagemap.read_at(&mut [0; 8], NOT_AN_ENTRY)) {
            // If the process has none any more, it is about to end.
            Ok(0) => Err(match statm(self.task().directory()) {
                Some([size, _]) if size > 0 => Error::Replaced(pid),
                _ => Error::Ended(pid),
            }),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

/// What is shown of a pinned process, beside who it is.
#[derive(Debug)]
pub(super) struct Description {
    /// The name of its command, in its own bytes.
    pub(super) command: Vec<u8>,
    /// Owner and group of `/proc/PID`.
    pub(super) owner: (u32, u32),
    /// Owner and group of `/proc/PID/mem`.
    pub(super) memory_owner: (u32, u32),
}

/// For a process that was only just found: what has ended is not there.
fn not_there(error: Error) -> Error {
    match error {
        Error::Ended(pid) => Error::NoProcess(pid),
        error => error,
    }
}

/// What tells the process that has this number now from others that had it: the inode of its pidfd, which is its own
/// since Linux 6.9. Waits for nobody; `/proc/PID/stat` would wait for an exec.
pub(crate) fn instance(process: ProcessId) -> Option<u64> {
    let pidfd = pidfd(process).ok()?;
    Some(retry(|| pidfd.metadata()).ok()?.ino())
}

/// A pidfd; refused (`EINVAL`, `ENOENT`) for a thread that leads no process.
pub(super) fn pidfd(pid: ProcessId) -> Result<File> {
    let raw = Pid::from_raw(pid.as_pid_t()).ok_or(Error::NoProcess(pid))?;
    match retry(|| pidfd_open(raw, PidfdFlags::empty())) {
        Ok(pidfd) => Ok(File::from(pidfd)),
        Err(rustix::io::Errno::SRCH | rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {
            Err(Error::NoProcess(pid))
        }
        Err(errno) => Err(Error::system(
            "pidfd_open",
            Errno::from_raw(errno.raw_os_error()),
        )),
    }
}
