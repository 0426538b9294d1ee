//! A process held by descriptors, never by its number alone.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

use nix::errno::Errno;
use procfs::process::Process;
use rustix::fs::OFlags;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::{from_io, from_proc};
use crate::address::Address;
use crate::error::{Error, Result};
use crate::process::{ProcessId, ProcessIdentity};

/// An offset of `/proc/PID/pagemap` between two entries: the kernel looks whether the address
/// space is there before it refuses that, and takes no lock for it (`pagemap_read` in
/// `fs/proc/task_mmu.c`). A read of `mem` takes the target's own, and at times to write.
const NOT_AN_ENTRY: u64 = 1;

/// Bytes that one read of a file of `/proc` may give.
const CHUNK: usize = 4096;

/// Descriptors of one program of one process.
///
/// `mem` follows the address space that the process had when it was opened:
/// once that is gone (exec, exit) it reads 0 bytes, never another program's. So does `pagemap`.
/// `stat` and `pidfd` follow the process: once it is reaped they say so, even
/// where its number has been used again.
///
/// One case needs more than `mem`: where somebody shares the address space
/// (`vfork`, `CLONE_VM`), it outlives the exec of the process. `stat` shows
/// that one, since each exec lays out code and stack anew.
#[derive(Debug)]
pub(super) struct Pinned {
    identity: ProcessIdentity,
    directory: Process,
    stat: File,
    mem: File,
    pagemap: Arc<File>,
    writable: bool,
    /// Held for its inode: as long as it is open, no other process's pidfd has the same one.
    _pidfd: File,
}

impl Pinned {
    /// Pins the process that has the number `pid` now; only if it is `wanted`, where there is one.
    ///
    /// # Errors
    /// `NoProcess` where there is none, it is a thread's number, or it has no memory; `ProcessDenied`;
    /// `Replaced` where it is another one, or is about to run a new program.
    pub(super) fn open(
        directory: Process,
        pid: ProcessId,
        writable: bool,
        wanted: Option<&ProcessIdentity>,
    ) -> Result<Self> {
        if is_in_exec(&directory) {
            return Err(Error::Replaced(pid));
        }
        let pidfd = pidfd(pid)?;
        let pidfd_inode = pidfd
            .metadata()
            .map_err(|error| from_io(pid, "fstat of a pidfd", &error))?
            .ino();
        // That of the first thread: unlike the process's own it does not visit every thread.
        let stat = directory
            .open_relative(format!("task/{pid}/stat"))
            .map_err(|error| from_proc(pid, "open of stat", &error))?;
        // Before `mem`, which is denied to a plain user where there is no memory.
        let state = State::read(&stat).ok_or(Error::NoProcess(pid))?;
        if state.is_denied() {
            return Err(Error::ProcessDenied(pid));
        }
        if state.layout[0] == 0 || wanted.is_some_and(|wanted| !state.is_of(wanted)) {
            return Err(Error::Replaced(pid));
        }
        let (mem, writable) = open_mem(&directory, pid, writable)?;
        let pagemap = directory
            .open_relative("pagemap")
            .map_err(|error| from_proc(pid, "open of pagemap", &error))?;
        let pinned = Self {
            identity: ProcessIdentity {
                pid,
                start_time: state.start_time,
                pidfd_inode,
                layout: state.layout,
            },
            directory,
            stat,
            mem,
            pagemap: Arc::new(pagemap),
            writable,
            _pidfd: pidfd,
        };
        // The descriptors were opened one after another: only if the first and the last still
        // agree do they belong together.
        pinned.confirm()?;
        Ok(pinned)
    }

    /// Whether the program that was seen as `identity` runs, as far as it can be told without
    /// pinning it: enough for a name, not for a byte.
    pub(super) fn is_running(identity: &ProcessIdentity) -> bool {
        let pid = identity.pid;
        let state = File::open(format!("/proc/{pid}/task/{pid}/stat"));
        let state = state.ok().and_then(|stat| State::read(&stat));
        state.is_some_and(|state| state.is_of(identity))
    }

    pub(super) fn identity(&self) -> &ProcessIdentity {
        &self.identity
    }

    /// Whether `mem` takes writes.
    pub(super) fn is_writable(&self) -> bool {
        self.writable
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
        let file = self.directory.open_relative(name);
        file.map_err(|error| from_proc(self.identity.pid, name, &error))
    }

    /// Opens a directory below `/proc/PID`, to find names in it.
    ///
    /// # Errors
    /// As [`open_file`](Self::open_file).
    pub(super) fn open_directory(&self, name: &'static str) -> Result<File> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = self.directory.open_relative_flags(name, flags);
        directory.map_err(|error| from_proc(self.identity.pid, name, &error))
    }

    /// The whole of a file below `/proc/PID`.
    ///
    /// # Errors
    /// As [`open_file`](Self::open_file).
    pub(super) fn contents(&self, name: &'static str) -> Result<Vec<u8>> {
        let mut file = self.open_file(name)?;
        read_whole(&mut file).map_err(|error| from_io(self.identity.pid, name, &error))
    }

    /// Gives each line of a file below `/proc/PID` to `take`, without its end. `maps` and `smaps`
    /// can have many megabytes.
    ///
    /// # Errors
    /// As [`open_file`](Self::open_file), and what `take` says.
    pub(super) fn lines(
        &self,
        name: &'static str,
        mut take: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut file = BufReader::new(self.open_file(name)?);
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
        let len = self
            .open_file(name)?
            .read(&mut line)
            .map_err(|error| from_io(self.identity.pid, name, &error))?;
        let line = &line[..len];
        Ok(line.strip_suffix(b"\n").unwrap_or(line).to_vec())
    }

    /// Whether the process lives and its code and stack are where they were.
    ///
    /// Takes no lock of its address space, so that nobody waits here for a
    /// target that waits for something else.
    ///
    /// # Errors
    /// `Ended`, `Replaced`.
    pub(super) fn check_program(&self) -> Result<()> {
        let pid = self.identity.pid;
        let state = State::read(&self.stat).ok_or(Error::Ended(pid))?;
        match state.is_of(&self.identity) {
            true => Ok(()),
            false => Err(Error::Replaced(pid)),
        }
    }

    /// As [`check_program`](Self::check_program), for who has only just found the process: what has
    /// ended is not there.
    ///
    /// # Errors
    /// `NoProcess`, `Replaced`.
    pub(super) fn confirm(&self) -> Result<()> {
        self.check_program().map_err(|error| match error {
            Error::Ended(pid) => Error::NoProcess(pid),
            error => error,
        })
    }

    /// Whether the process lives and runs the program that was pinned.
    ///
    /// # Errors
    /// `Ended`, `Replaced`.
    pub(super) fn verify(&self) -> Result<()> {
        let pid = self.identity.pid;
        // First: where the process waits in an exec, `stat` would, too.
        match self.pagemap.read_at(&mut [0; 8], NOT_AN_ENTRY) {
            // The address space is gone. If the process has none any more, it is about to end.
            Ok(0) => Err(match statm(&self.directory) {
                Some([size, _]) if size > 0 => Error::Replaced(pid),
                _ => Error::Ended(pid),
            }),
            Ok(_) | Err(_) => self.check_program(),
        }
    }

    /// Reads through `mem`, whatever the protection; returns the bytes before the first unreadable page.
    ///
    /// # Errors
    /// `EIO` where that is the first.
    pub(super) fn read(
        &self,
        address: Address,
        buffer: &mut [u8],
    ) -> std::result::Result<usize, Errno> {
        let mut done = 0;
        while done < buffer.len() {
            let at = address.plus(done as u64).get();
            match self.mem.read_at(&mut buffer[done..], at) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(_) if done > 0 => break,
                Err(error) => return Err(errno_of(&error)),
            }
        }
        Ok(done)
    }

    /// Writes through `mem`, whatever the protection; returns the bytes before the first page that takes none.
    ///
    /// # Errors
    /// `EIO` where that is the first.
    pub(super) fn write(&self, address: Address, data: &[u8]) -> std::result::Result<usize, Errno> {
        let mut done = 0;
        while done < data.len() {
            match self
                .mem
                .write_at(&data[done..], address.plus(done as u64).get())
            {
                Ok(0) => break,
                Ok(written) => done += written,
                Err(_) if done > 0 => break,
                Err(error) => return Err(errno_of(&error)),
            }
        }
        Ok(done)
    }
}

/// What `stat` says of a process that lives.
#[derive(Debug, PartialEq, Eq)]
struct State {
    start_time: u64,
    layout: [u64; 2],
}

impl State {
    /// `None` where there is no such process any more, or none with memory: a kernel thread has none.
    fn read(file: &File) -> Option<Self> {
        let mut text = [0; 1024];
        let len = file.read_at(&mut text, 0).ok()?;
        Self::parse(&text[..len])
    }

    /// By hand, since each read of a target's memory ends with this: to parse all of the fields
    /// takes as long as the kernel takes to write them.
    fn parse(stat: &[u8]) -> Option<Self> {
        /// `PF_EXITING` of `include/linux/sched.h`, set before the address space is left.
        const EXITING: u64 = 0x4;

        // The command may hold anything, `)` and blanks included.
        let command_end = stat.iter().rposition(|byte| *byte == b')')?;
        // The third field is the first behind it; they are counted as in proc_pid_stat(5).
        let mut fields = stat.get(command_end + 2..)?.split(|byte| *byte == b' ');
        let mut at = 3;
        let mut field = |number: usize| {
            let skipped = number - at;
            at = number + 1;
            fields.nth(skipped)
        };
        let state = field(3)?;
        let flags = decimal(field(9)?)?;
        let start_time = decimal(field(22)?)?;
        let size = decimal(field(23)?)?;
        let layout = [decimal(field(26)?)?, decimal(field(28)?)?];
        // A zombie, or who is about to be one, shows an address space of zeros.
        let is_dead = flags & EXITING != 0 || matches!(state, b"Z" | b"X" | b"x");
        (!is_dead && size > 0).then_some(Self { start_time, layout })
    }

    /// Whether the kernel would not let us read its memory: then it does not say where that is
    /// (`do_task_stat` in `fs/proc/array.c`).
    fn is_denied(&self) -> bool {
        self.layout == [1, 0]
    }

    /// Whether it is the same process, and it runs the same program.
    fn is_of(&self, identity: &ProcessIdentity) -> bool {
        self.start_time == identity.start_time && self.layout == identity.layout
    }
}

/// Whether a process is in the middle of an exec: its new address space is there, and the kernel has
/// yet to fill it (`begin_new_exec` to `load_elf_binary`), so that no code is in it.
///
/// `statm` does not wait for that. All that tells who a process is or what it holds does, `stat`
/// included (`exec_update_lock`): without an end, where the exec waits for a file system that does not answer.
fn is_in_exec(directory: &Process) -> bool {
    statm(directory).is_some_and(|[size, code]| size > 0 && code == 0)
}

/// Pages that a process has mapped, and pages of its code (`/proc/PID/statm`).
fn statm(directory: &Process) -> Option<[u64; 2]> {
    let mut text = [0; 256];
    let len = directory
        .open_relative("statm")
        .ok()?
        .read(&mut text)
        .ok()?;
    let mut fields = text[..len].split(|byte| *byte == b' ');
    Some([decimal(fields.next()?)?, decimal(fields.nth(2)?)?])
}

fn decimal(field: &[u8]) -> Option<u64> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

/// Opens `mem`, for writing too where that is wanted and the kernel agrees.
fn open_mem(directory: &Process, pid: ProcessId, writable: bool) -> Result<(File, bool)> {
    if writable {
        match directory.open_relative_flags("mem", OFlags::RDWR | OFlags::CLOEXEC) {
            Ok(mem) => return Ok((mem, true)),
            Err(error) => log::debug!("mem of process {pid} is not open for writing: {error}"),
        }
    }
    let mem = directory
        .open_relative("mem")
        .map_err(|error| from_proc(pid, "open of mem", &error))?;
    Ok((mem, false))
}

/// A pidfd; refused (`EINVAL`, `ENOENT`) for a thread that leads no process.
pub(super) fn pidfd(pid: ProcessId) -> Result<File> {
    let raw = Pid::from_raw(pid.as_pid_t()).ok_or(Error::NoProcess(pid))?;
    match pidfd_open(raw, PidfdFlags::empty()) {
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

fn errno_of(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// All of a file of `/proc`.
///
/// The kernel gives a page at a time (`seq_file`), and none of these files says how long it is:
/// `read_to_end` would ask for that, and begin with 32 bytes.
///
/// # Errors
/// The kernel's refusal.
pub(super) fn read_whole(file: &mut File) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut len = 0;
    loop {
        if bytes.len() - len < CHUNK {
            bytes.resize(len + 2 * CHUNK, 0);
        }
        match file.read(&mut bytes[len..]) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => (),
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(len);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use procfs::FromRead;
    use procfs::process::Stat;

    use super::*;

    /// `stat` of a process whose command is this, in this state and with these flags.
    fn stat(command: &str, state: char, flags: u32) -> String {
        format!(
            "7 ({command}) {state} 1 7 7 0 -1 {flags} 1 2 3 4 5 6 7 8 20 0 1 0 4711 8192 3 \
             18446744073709551615 4096 8192 140737488347136 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 \
             1 2 3 4 5 6 7 0\n"
        )
    }

    #[test]
    fn the_state_is_what_a_parser_of_all_fields_finds() {
        for command in ["sleep", "a b", "x) R 1 (y", ") Z 0 0 0"] {
            let text = stat(command, 'S', 0x40_0000);
            let whole = Stat::from_read(text.as_bytes()).unwrap();
            let expected = State {
                start_time: whole.starttime,
                layout: [whole.startcode, whole.startstack],
            };
            assert_eq!(expected.start_time, 4711);
            assert_eq!(State::parse(text.as_bytes()), Some(expected), "{command}");
        }
    }

    #[test]
    fn who_is_dead_or_has_no_memory_has_no_state() {
        let dead = [('Z', 0), ('X', 0), ('R', 0x4)];
        for (state, flags) in dead {
            assert_eq!(State::parse(stat("x", state, flags).as_bytes()), None);
        }
        let kernel_thread = stat("kworker", 'I', 0).replace(" 8192 3 ", " 0 3 ");
        assert_eq!(State::parse(kernel_thread.as_bytes()), None);
        for cut in ["", "7 (x", "7 (x)", "7 (x) S 1 7 7 0 -1 0 1"] {
            assert_eq!(State::parse(cut.as_bytes()), None, "{cut}");
        }
    }

    #[test]
    fn files_of_any_length_are_read_whole() {
        for len in [0, 1, CHUNK, 2 * CHUNK, 20 * CHUNK + 7] {
            let bytes: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&bytes).unwrap();
            file.rewind().unwrap();
            assert!(read_whole(&mut file).unwrap() == bytes, "{len} bytes");
        }
    }
}
