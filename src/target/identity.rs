//! What tells one program of one process from all others, and what is shown of it.

pub use crate::common::pid::ProcessId;

/// One program run by one process: two of them are equal only if neither a
/// reuse of the PID nor an exec lies between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessIdentity {
    /// The process's number.
    pub pid: ProcessId,
    /// When it started, in clock ticks since boot (`/proc/PID/stat`, field 22).
    pub start_time: u64,
    /// The inode of its pidfd: unlike the start time it tells two processes of one tick apart (Linux 6.9 and later).
    pub pidfd_inode: u64,
    /// Where its code and its stack start (fields 26 and 28): each exec lays them out anew.
    pub layout: [u64; 2],
    /// Random bytes that the kernel gave the program (`AT_RANDOM`), where addresses are not random and every exec
    /// lays them out alike; else 0.
    pub random: u64,
}

/// A program that asks for something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its process.
    pub pid: ProcessId,
    /// The name of the thread that asks (`/proc/PID/comm`), in its own bytes.
    pub command: Vec<u8>,
    /// The path of the program, in its own bytes; empty where the kernel does not say.
    pub executable: Vec<u8>,
}

/// What a process has read so far, of whatever files (`rchar` and `syscr` of `/proc/PID/io`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadCounts {
    /// read(2) and its like.
    pub calls: u64,
    /// Bytes that they gave.
    pub bytes: u64,
}

/// What the tree shows of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessInfo {
    /// Which program of which process this is about.
    pub identity: ProcessIdentity,
    /// The command name (`/proc/PID/comm`), in its own bytes.
    pub command: Vec<u8>,
    /// Owner of `/proc/PID`.
    pub uid: u32,
    /// Group of `/proc/PID`.
    pub gid: u32,
    /// Owner and group of `/proc/PID/mem`: root, where the process is not dumpable (`task_dump_owner` in `fs/proc/base.c`).
    pub memory_owner: (u32, u32),
    /// When the process started, as a file time, in seconds since the epoch.
    pub started: u64,
}
