//! What `/proc` says of any process, whoever asks: why the kernel judges as it does, once it has.

use std::fs;
use std::os::unix::fs::MetadataExt;

use rustix::thread::CapabilitySet;

use crate::target::ProcessId;
use crate::target::live::text::field;

/// What is to be known of a process without reading it. None of the files that this takes waits for the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct About {
    /// Its state, a letter as in `/proc/PID/stat`.
    pub(crate) state: char,
    /// The process that it is a thread of; itself, where it is a process.
    pub(crate) process: u32,
    pub(crate) parent: u32,
    /// Whether it has memory.
    pub(crate) has_memory: bool,
    /// Its effective user.
    pub(crate) user: u32,
    /// Its permitted capabilities.
    pub(crate) capabilities: CapabilitySet,
    /// Who traces it.
    pub(crate) tracer: Option<u32>,
    /// Whether a filter judges its system calls.
    pub(crate) is_filtered: bool,
    /// Whether its files below `/proc` are its own; root's they are where it is not dumpable (`task_dump_owner` in
    /// `fs/proc/base.c`). `None` where that cannot be told.
    pub(crate) is_dumpable: Option<bool>,
    /// Whether it is in our user namespace, as far as its numbers of users tell.
    pub(crate) is_in_our_namespace: Option<bool>,
}

impl About {
    /// What is known of the process; `None` where there is none, or it is hidden.
    pub(crate) fn process(pid: ProcessId) -> Option<Self> {
        let status = fs::read(format!("/proc/{pid}/status")).ok()?;
        let mut about = Self::parse(&status)?;
        let owner = fs::metadata(format!("/proc/{pid}/mem"));
        about.is_dumpable = owner
            .ok()
            .filter(|_| about.user != 0)
            .map(|owner| owner.uid() == about.user);
        let map = |of: &str| fs::read_to_string(format!("/proc/{of}/uid_map")).ok();
        let maps = map(&pid.to_string()).zip(map("self"));
        about.is_in_our_namespace = maps.map(|(theirs, ours)| theirs == ours);
        Some(about)
    }

    /// By `status` (proc_pid_status(5)).
    fn parse(status: &[u8]) -> Option<Self> {
        let number = |name: &[u8]| field(status, name)?.parse::<u32>().ok();
        let permitted = u64::from_str_radix(field(status, b"CapPrm:")?, 16).ok()?;
        let users = field(status, b"Uid:")?;
        Some(Self {
            state: field(status, b"State:")?.chars().next()?,
            process: number(b"Tgid:")?,
            parent: number(b"PPid:")?,
            has_memory: field(status, b"VmSize:").is_some(),
            user: users.split_ascii_whitespace().nth(1)?.parse().ok()?,
            capabilities: CapabilitySet::from_bits_retain(permitted),
            tracer: number(b"TracerPid:").filter(|tracer| *tracer != 0),
            is_filtered: number(b"Seccomp:").is_some_and(|mode| mode != 0),
            is_dumpable: None,
            is_in_our_namespace: None,
        })
    }

    /// Whether it has ended and nobody has taken note of that (a zombie).
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }

    /// Where it waits in the kernel, by the name of the function; `None` where it runs, or this user may not know.
    pub(crate) fn waits_in(pid: ProcessId) -> Option<String> {
        let function = fs::read_to_string(format!("/proc/{pid}/wchan")).ok()?;
        (!function.is_empty() && function != "0").then_some(function)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_is_read() {
        let status = b"Name:\ta\nState:\tS (sleeping)\nTgid:\t7\nPPid:\t3\nTracerPid:\t9\n\
            Uid:\t1\t2\t3\t4\nVmSize:\t  12 kB\nCapPrm:\t0000000000000005\nSeccomp:\t2\n";
        let about = About::parse(status).unwrap();
        let expected = About {
            state: 'S',
            process: 7,
            parent: 3,
            has_memory: true,
            user: 2,
            capabilities: CapabilitySet::from_bits_retain(5),
            tracer: Some(9),
            is_filtered: true,
            is_dumpable: None,
            is_in_our_namespace: None,
        };
        assert_eq!(about, expected);
        assert!(!about.has_ended());
        assert_eq!(About::parse(b"Name:\ta\n"), None);
    }

    #[test]
    fn a_process_that_is_there_is_known() {
        let own = ProcessId::new(std::process::id()).unwrap();
        let about = About::process(own).unwrap();
        assert_eq!(about.process, own.get());
        assert!(about.has_memory && about.is_in_our_namespace == Some(true));
        assert_eq!(
            About::process(ProcessId::new(i32::MAX as u32).unwrap()),
            None
        );
    }
}
