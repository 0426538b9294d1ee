//! The thread by which a process is asked for its memory: its first one, or another where that has ended.
//!
//! A first thread that ends before the others (`pthread_exit` in `main`) stays a zombie until they end, too.
//! Under its number `/proc` shows no memory then, under theirs it does: `/proc/TID` is there for every thread,
//! though no listing shows it (proc_tid(5)).

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::Duration;

use nix::libc::{PF_EXITING, PF_FORKNOEXEC, PF_RANDOMIZE};
use procfs::process::Process;

use super::interrupted::retry;
use super::text::{field, read_whole};
use super::{from_io, from_proc};
use crate::common::error::{Error, Result};
use crate::target::{Activity, ProcessId, ProcessIdentity};

/// Set before the address space is left.
const EXITING: u64 = PF_EXITING as u64;
/// The process still runs the program of the one that it was forked from.
const FORKED: u64 = PF_FORKNOEXEC as u64;

/// The program was laid out at random addresses.
const RANDOM: u64 = PF_RANDOMIZE as u64;

/// Where the stack of a program of 64 bits never starts. One of 32 bits has so few places that two may be the same.
const SMALL: u64 = 1 << 32;

/// Ancestors that are asked for the last exec.
const MOST_ANCESTORS: usize = 64;

/// A thread of a pinned process that has its memory.
#[derive(Debug)]
pub(super) struct Task {
    number: ProcessId,
    is_first: bool,
    directory: Process,
    stat: File,
}

impl Task {
    /// The first thread of a process, or another that lives, with what `stat` says of it.
    ///
    /// # Errors
    /// `NoProcess` where there is none, it is a thread's number, or it has no memory; `ProcessDenied`.
    pub(super) fn find(directory: Process, pid: ProcessId) -> Result<(Self, State)> {
        let first = Self::in_directory(directory, pid, true)?;
        let stat = Stat::read(&first.stat).ok_or(Error::NoProcess(pid))?;
        match stat.state() {
            Some(state) => Ok((first, state)),
            None if stat.has_other_threads() => {
                let (other, state) = Self::find_other(pid).ok_or(Error::NoProcess(pid))?;
                // The process began with its first thread.
                let start_time = stat.start_time;
                Ok((
                    other,
                    State {
                        start_time,
                        ..state
                    },
                ))
            }
            None => Err(Error::NoProcess(pid)),
        }
    }

    /// A thread of the process that has its memory, whichever that is.
    pub(super) fn find_other(pid: ProcessId) -> Option<(Self, State)> {
        let threads = retry(|| std::fs::read_dir(format!("/proc/{pid}/task"))).ok()?;
        let numbers = threads.map_while(std::result::Result::ok);
        numbers
            .filter_map(|entry| ProcessId::parse(entry.file_name().to_str()?))
            .find_map(|number| {
                let directory = retry(|| Process::new(number.as_pid_t())).ok()?;
                let task = Self::in_directory(directory, number, number == pid).ok()?;
                let state = Stat::read(&task.stat)?.state()?;
                Some((task, state))
            })
    }

    fn in_directory(directory: Process, number: ProcessId, is_first: bool) -> Result<Self> {
        // That of the thread: unlike the process's own it does not visit every thread.
        let stat = retry(|| directory.open_relative(format!("task/{number}/stat")))
            .map_err(|error| from_proc(number, "open of stat", &error))?;
        Ok(Self {
            number,
            is_first,
            directory,
            stat,
        })
    }

    /// Its number, which is that of the process for the first thread.
    pub(super) fn number(&self) -> ProcessId {
        self.number
    }

    /// Whether it is the first thread of the process.
    pub(super) fn is_first(&self) -> bool {
        self.is_first
    }

    /// `/proc/TID`.
    pub(super) fn directory(&self) -> &Process {
        &self.directory
    }

    /// The device of the `/proc` that it was found in.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub(super) fn proc_device(&self) -> Result<u64> {
        let status = retry(|| self.stat.metadata());
        let status = status.map_err(|error| from_io(self.number, "fstat of stat", &error))?;
        Ok(status.dev())
    }

    /// What `stat` says, if the thread lives and has memory.
    pub(super) fn state(&self) -> Option<State> {
        Stat::read(&self.stat)?.state()
    }

    /// The same, and the name of its command, which is that of `comm` (`proc_task_name` in `fs/proc/array.c` writes both).
    pub(super) fn named_state(&self) -> Option<(State, Vec<u8>)> {
        let mut text = [0; MOST_STAT];
        let text = read_stat(&self.stat, &mut text)?;
        let state = Stat::parse(text)?.state()?;
        Some((state, command(text)?.to_vec()))
    }

    /// Whether the state is that of a thread of the process seen as `identity`, and that runs the same program, as far
    /// as the layout tells.
    pub(super) fn is_of(&self, state: &State, identity: &ProcessIdentity) -> bool {
        let same_start = !self.is_first || state.start_time == identity.start_time;
        same_start && state.layout == identity.layout
    }
}

/// What tells programs apart that run under one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) start_time: u64,
    pub(super) layout: [u64; 2],
    /// Whether another program that it runs has another layout.
    pub(super) is_layout_random: bool,
}

impl State {
    /// Whether the kernel would not let us read its memory: then it does not say where that is
    /// (`do_task_stat` in `fs/proc/array.c`).
    pub(super) fn is_denied(&self) -> bool {
        self.layout == [1, 0]
    }

    /// Whether it is the same process, and it runs the same program, as far as the layout tells.
    pub(super) fn is_of(&self, identity: &ProcessIdentity) -> bool {
        self.start_time == identity.start_time && self.layout == identity.layout
    }
}

/// Whether a process is in the middle of an exec: its new address space is there, and the kernel has
/// yet to fill it (`begin_new_exec` to `load_elf_binary`), so that no code is in it.
///
/// `statm` does not wait for that. All that tells who a process is or what it holds does, `stat`
/// included (`exec_update_lock`): without an end, where the exec waits for a file system that does not answer.
pub(super) fn is_in_exec(directory: &Process) -> bool {
    statm(directory).is_some_and(|[size, code]| size > 0 && code == 0)
}

/// What the first thread of a process does.
pub(super) fn activity(directory: &Process) -> Option<Activity> {
    activity_in(directory, "status")
}

/// What a thread of this program does.
pub(crate) fn own_activity(thread: i32) -> Option<Activity> {
    activity_in(&Process::myself().ok()?, &format!("task/{thread}/status"))
}

/// As `status` says, which waits for no exec.
fn activity_in(directory: &Process, status: &str) -> Option<Activity> {
    let status = read_whole(&mut retry(|| directory.open_relative(status)).ok()?).ok()?;
    let number = |name: &[u8]| field(&status, name)?.parse::<u64>().ok();
    Some(Activity {
        is_running: field(&status, b"State:")?.starts_with('R'),
        scheduled: number(b"voluntary_ctxt_switches:")? + number(b"nonvoluntary_ctxt_switches:")?,
    })
}

/// Pages that a process has mapped, and pages of its code.
pub(super) fn statm(directory: &Process) -> Option<[u64; 2]> {
    let [size, _, _, code] = statm_fields(directory)?;
    Some([size, code])
}

/// Pages that a process has in memory; `stat` leaves out what each processor counts for itself.
pub(super) fn resident(directory: &Process) -> Option<u64> {
    statm_fields(directory).map(|[_, resident, ..]| resident)
}

/// The first fields of `/proc/PID/statm` (proc_pid_statm(5)).
fn statm_fields(directory: &Process) -> Option<[u64; 4]> {
    let mut text = [0; 256];
    let mut statm = retry(|| directory.open_relative("statm")).ok()?;
    let len = retry(|| statm.read(&mut text)).ok()?;
    let mut fields = text[..len].split(|byte| *byte == b' ');
    let mut field = || decimal(fields.next()?);
    Some([field()?, field()?, field()?, field()?])
}

/// Bytes that `stat` has at most: some fifty numbers.
const MOST_STAT: usize = 1024;

fn read_stat<'a>(file: &File, text: &'a mut [u8; MOST_STAT]) -> Option<&'a [u8]> {
    let len = retry(|| file.read_at(text, 0)).ok()?;
    Some(&text[..len])
}

/// The command that `stat` names, which may hold anything, parentheses included.
fn command(stat: &[u8]) -> Option<&[u8]> {
    let start = stat.iter().position(|byte| *byte == b'(')? + 1;
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    stat.get(start..end)
}

/// What `stat` says of a thread, alive or dead (proc_pid_stat(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) is_dead: bool,
    pub(crate) parent: u64,
    pub(crate) flags: u64,
    pub(crate) threads: u64,
    pub(crate) start_time: u64,
    pub(crate) size: u64,
    pub(crate) layout: [u64; 2],
}

impl Stat {
    fn read(file: &File) -> Option<Self> {
        let mut text = [0; MOST_STAT];
        Self::parse(read_stat(file, &mut text)?)
    }

    /// By hand, since each read of a target's memory ends with this: to parse all of the fields
    /// takes as long as the kernel takes to write them.
    pub(crate) fn parse(stat: &[u8]) -> Option<Self> {
        // The command may hold anything, `)` and blanks included.
        let command_end = stat.iter().rposition(|byte| *byte == b')')?;
        // The third field is the first one after it; they are counted as in proc_pid_stat(5).
        let mut fields = stat.get(command_end + 2..)?.split(|byte| *byte == b' ');
        let mut at = 3;
        let mut field = |number: usize| {
            let skipped = number - at;
            at = number + 1;
            fields.nth(skipped)
        };
        let state = field(3)?;
        let parent = decimal(field(4)?)?;
        let flags = decimal(field(9)?)?;
        let threads = decimal(field(20)?)?;
        let start_time = decimal(field(22)?)?;
        let size = decimal(field(23)?)?;
        let layout = [decimal(field(26)?)?, decimal(field(28)?)?];
        Some(Self {
            // A zombie, or who is about to be one, shows an address space of zeros.
            is_dead: flags & EXITING != 0 || matches!(state, b"Z" | b"X" | b"x"),
            parent,
            flags,
            threads,
            start_time,
            size,
            layout,
        })
    }

    /// `None` where the thread is dead, or has no memory: a kernel thread has none.
    fn state(&self) -> Option<State> {
        (!self.is_dead && self.size > 0).then_some(State {
            start_time: self.start_time,
            layout: self.layout,
            is_layout_random: self.flags & RANDOM != 0 && self.layout[1] >= SMALL,
        })
    }

    fn has_other_threads(&self) -> bool {
        self.is_dead && self.threads > 1
    }
}

/// Processor time that `stat` says of a thread, in clock ticks (fields 14 to 17).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ThreadTicks {
    pub(super) user: u64,
    pub(super) system: u64,
    pub(super) children_user: u64,
    pub(super) children_system: u64,
}

impl ThreadTicks {
    pub(super) fn parse(stat: &[u8]) -> Option<Self> {
        let command_end = stat.iter().rposition(|byte| *byte == b')')?;
        // The third field is the first one after it.
        let mut fields = stat
            .get(command_end + 2..)?
            .split(|byte| *byte == b' ')
            .skip(14 - 3);
        let mut field = || decimal(fields.next()?);
        Some(Self {
            user: field()?,
            system: field()?,
            children_user: field()?,
            children_system: field()?,
        })
    }
}

fn decimal(field: &[u8]) -> Option<u64> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

/// No mapping of the process can have been made before this, in time since the system started.
///
/// A process that was forked and has run no program of its own since has the mappings of its parent, which may be
/// older than itself. Where the parent is gone, who adopted the process started earlier still.
pub(super) fn earliest_mapping(pid: ProcessId) -> Option<Duration> {
    let mut pid = u64::from(pid.get());
    for _ in 0..MOST_ANCESTORS {
        let file = File::open(format!("/proc/{pid}/stat")).ok()?;
        let stat = Stat::read(&file)?;
        if stat.flags & FORKED == 0 {
            let ticks = procfs::ticks_per_second().max(1);
            return Some(Duration::from_secs(1).mul_f64(stat.start_time as f64 / ticks as f64));
        }
        pid = stat.parent;
    }
    None
}

#[cfg(test)]
mod tests {
    use procfs::FromRead;

    use super::*;
    use crate::target::live::child::Child;

    /// `stat` of a process whose command is this, in this state and with these flags.
    fn stat(command: &str, state: char, flags: u64) -> String {
        format!(
            "7 ({command}) {state} 1 7 7 0 -1 {flags} 1 2 3 4 5 6 7 8 20 0 1 0 4711 8192 3 \
             18446744073709551615 4096 8192 140737488347136 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 \
             1 2 3 4 5 6 7 0\n"
        )
    }

    fn state(text: &str) -> Option<State> {
        Stat::parse(text.as_bytes())?.state()
    }

    #[test]
    fn the_state_is_what_a_parser_of_all_fields_finds() {
        for command in ["sleep", "a b", "x) R 1 (y", ") Z 0 0 0"] {
            let text = stat(command, 'S', 0x40_0000);
            let whole = procfs::process::Stat::from_read(text.as_bytes()).unwrap();
            let expected = State {
                start_time: whole.starttime,
                layout: [whole.startcode, whole.startstack],
                is_layout_random: true,
            };
            assert_eq!(expected.start_time, 4711);
            assert_eq!(state(&text), Some(expected), "{command}");
            let named = super::command(text.as_bytes());
            assert_eq!(named, Some(command.as_bytes()));
        }
    }

    #[test]
    fn a_layout_tells_programs_apart_only_where_it_is_random() {
        let is_random = |flags| state(&stat("x", 'S', flags)).unwrap().is_layout_random;
        assert!(is_random(0x40_0000));
        assert!(!is_random(0));
        // The third of the addresses is where the stack starts.
        let narrow = stat("x", 'S', 0x40_0000).replace(" 140737488347136 ", " 4294959104 ");
        assert!(!state(&narrow).unwrap().is_layout_random);
    }

    #[test]
    fn times_are_those_that_a_parser_of_all_fields_finds() {
        let text = stat("x) R 1 (y", 'S', 0);
        let ticks = ThreadTicks::parse(text.as_bytes()).unwrap();
        let found = [
            ticks.user,
            ticks.system,
            ticks.children_user,
            ticks.children_system,
        ];
        let whole = procfs::process::Stat::from_read(text.as_bytes()).unwrap();
        assert_eq!(found[..2], [whole.utime, whole.stime]);
        let children = [whole.cutime, whole.cstime].map(i64::cast_unsigned);
        assert_eq!(found[2..], children);
        assert_eq!(ThreadTicks::parse(b"7 (x) S 1"), None);
    }

    #[test]
    fn a_thread_that_waits_is_told_from_one_that_runs() {
        let mut command = std::process::Command::new("sleep");
        let asleep = Child::start(command.arg("600")).unwrap();
        let directory = Process::new(asleep.id().cast_signed()).unwrap();
        let mut seen = activity(&directory);
        // Until it sleeps: from then on nothing of it changes.
        while seen.is_none_or(|seen| seen.is_running) || activity(&directory) != seen {
            seen = activity(&directory);
        }
        drop(asleep);
        assert_eq!(activity(&directory), None, "it is gone");
        // The first thread may sleep while this one works.
        let own = Process::new(nix::unistd::gettid().as_raw()).unwrap();
        assert!(activity(&own).unwrap().is_running);
    }

    #[test]
    fn who_is_dead_or_has_no_memory_has_no_state() {
        for (letter, flags) in [('Z', 0), ('X', 0), ('R', EXITING)] {
            assert_eq!(state(&stat("x", letter, flags)), None);
        }
        let kernel_thread = stat("kworker", 'I', 0).replace(" 8192 3 ", " 0 3 ");
        assert_eq!(state(&kernel_thread), None);
        for cut in ["", "7 (x", "7 (x)", "7 (x) S 1 7 7 0 -1 0 1"] {
            assert_eq!(state(cut), None, "{cut}");
        }
        for cut in ["", "7 x", "7 (x", "7 )x("] {
            assert_eq!(command(cut.as_bytes()), None, "{cut}");
        }
    }

    #[test]
    fn a_dead_first_thread_may_have_left_others() {
        let alone = Stat::parse(stat("x", 'Z', EXITING).as_bytes()).unwrap();
        assert!(!alone.has_other_threads());
        let others = stat("x", 'Z', EXITING).replace(" 20 0 1 0 4711 ", " 20 0 2 0 4711 ");
        assert!(Stat::parse(others.as_bytes()).unwrap().has_other_threads());
    }

    #[test]
    fn mappings_are_no_older_than_the_program() {
        let own = ProcessId::new(std::process::id()).unwrap();
        let uptime = procfs::Current::current().map(|uptime: procfs::Uptime| uptime.uptime);
        let earliest = earliest_mapping(own).unwrap().as_secs_f64();
        assert!(earliest > 0.0 && earliest <= uptime.unwrap() + 0.02);
    }
}
