//! `struct elf_prstatus` and `struct elf_prpsinfo` (`include/linux/elfcore.h`, `elfcore-compat.h`).

use std::time::Duration;

use super::abi::Abi;
use crate::target::{
    ProcessStatus, ThreadRegisters, ThreadStatus, ThreadTimes, register_kind as kind,
};

/// Bytes of the command and of the arguments.
const COMMAND: usize = 16;
const ARGUMENTS: usize = 80;

/// Letters of states, as `pr_state` numbers them.
const STATES: &[u8] = b"RSDTZW";

/// Puts numbers together as a C compiler lays them out.
#[derive(Debug)]
struct Layout {
    abi: Abi,
    bytes: Vec<u8>,
}

impl Layout {
    fn new(abi: Abi) -> Self {
        let bytes = Vec::new();
        Self { abi, bytes }
    }

    fn int(&mut self, number: i32) {
        self.bytes.extend(number.to_le_bytes());
    }

    /// A `long`; what of it does not fit into 32 bits is left out there.
    fn long(&mut self, number: u64) {
        self.align();
        self.bytes.extend(&number.to_le_bytes()[..self.abi.word()]);
    }

    fn align(&mut self) {
        let len = self.bytes.len().next_multiple_of(self.abi.word());
        self.bytes.resize(len, 0);
    }

    /// A `struct timeval`.
    fn time(&mut self, time: Duration) {
        self.long(time.as_secs());
        self.long(time.subsec_micros().into());
    }

    /// Text of so many bytes; the last is a NUL.
    fn text(&mut self, text: impl Iterator<Item = u8>, len: usize) {
        let end = self.bytes.len() + len;
        self.bytes.extend(text.take(len - 1));
        self.bytes.resize(end, 0);
    }
}

/// The state of a thread: its signals, its numbers, its times and its general registers.
pub(super) fn thread_status(
    abi: Abi,
    process: &ProcessStatus,
    thread: &ThreadStatus,
    registers: &ThreadRegisters,
) -> Vec<u8> {
    let set = |wanted| registers.sets.iter().find(|set| set.kind == wanted);
    let mut layout = Layout::new(abi);
    // `siginfo_t` has its second and third number the other way round.
    let [signal, error, code] = [0, 4, 8].map(|at| signal_number(registers, at));
    for number in [signal, code, error] {
        layout.int(number);
    }
    // A `short`, which is followed by words.
    layout.int(signal & 0xffff);
    layout.long(thread.pending);
    layout.long(thread.blocked);
    let ProcessStatus {
        parent,
        group,
        session,
        ..
    } = process;
    for number in [thread.tid, *parent, *group, *session] {
        layout.int(number);
    }
    let ThreadTimes {
        user,
        system,
        children_user,
        children_system,
    } = thread.times;
    for time in [user, system, children_user, children_system] {
        layout.time(time);
    }
    layout
        .bytes
        .extend(set(kind::PRSTATUS).map_or(&[][..], |set| &set.bytes));
    layout.int(set(kind::PRFPREG).is_some().into());
    layout.align();
    layout.bytes
}

/// An `int` of the signal that a thread was about to get.
fn signal_number(registers: &ThreadRegisters, at: usize) -> i32 {
    let info = registers.signal.as_deref().unwrap_or_default();
    let bytes = info.get(at..).and_then(|rest| rest.first_chunk());
    bytes.map_or(0, |bytes| i32::from_le_bytes(*bytes))
}

/// The process as a whole.
pub(super) fn process_info(abi: Abi, process: &ProcessStatus) -> Vec<u8> {
    let mut layout = Layout::new(abi);
    let state = STATES.iter().position(|letter| *letter == process.state);
    let state = state.and_then(|state| u8::try_from(state).ok());
    let [nice] = process.nice.to_le_bytes();
    let letter = state.map_or(b'.', |_| process.state);
    let is_zombie = u8::from(letter == b'Z');
    // Idle threads and those that are stopped by a tracer have states past the last letter.
    let number = state.unwrap_or(STATES.len() as u8);
    layout.bytes.extend([number, letter, is_zombie, nice]);
    layout.long(process.flags);
    for id in [process.uid, process.gid] {
        match abi {
            // `__kernel_old_uid_t`: larger ones are the one of nobody (`high2lowuid`).
            Abi::X86 | Abi::Arm => {
                let id = u16::try_from(id).unwrap_or(65534);
                layout.bytes.extend(id.to_le_bytes());
            }
            Abi::X86_64 | Abi::Aarch64 => layout.bytes.extend(id.to_le_bytes()),
        }
    }
    let ProcessStatus {
        pid,
        parent,
        group,
        session,
        ..
    } = *process;
    for number in [pid, parent, group, session] {
        layout.int(number);
    }
    layout.text(process.command.iter().copied(), COMMAND);
    // As a line that a shell would show, and a blank: the last one's NUL, too.
    let blanks = process
        .arguments
        .iter()
        .map(|byte| if *byte == 0 { b' ' } else { *byte });
    layout.text(blanks, ARGUMENTS);
    layout.bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::RegisterSet;

    fn registers(len: usize) -> ThreadRegisters {
        let mut signal = vec![0; 128];
        signal[0] = 11;
        signal[4] = 5;
        signal[8] = 2;
        ThreadRegisters {
            tid: 8,
            sets: vec![
                RegisterSet {
                    kind: kind::PRSTATUS,
                    bytes: vec![0xab; len],
                },
                RegisterSet {
                    kind: kind::PRFPREG,
                    bytes: vec![0; 8],
                },
            ],
            signal: Some(signal),
        }
    }

    /// Sizes and places as `sizeof` and `offsetof` give them.
    #[test]
    fn the_state_of_a_thread_is_laid_out_as_in_c() {
        let process = ProcessStatus {
            parent: 1,
            group: 2,
            session: 3,
            ..ProcessStatus::default()
        };
        let thread = ThreadStatus {
            tid: 8,
            pending: 0x1_0000_0002,
            blocked: 4,
            times: ThreadTimes {
                user: Duration::from_micros(7_000_009),
                ..ThreadTimes::default()
            },
        };
        for (abi, registers_len, whole, at, pid_at, times_at) in [
            (Abi::X86_64, 216, 336, 112, 32, 48),
            (Abi::Aarch64, 272, 392, 112, 32, 48),
            (Abi::X86, 68, 144, 72, 24, 40),
            (Abi::Arm, 72, 148, 72, 24, 40),
        ] {
            let bytes = thread_status(abi, &process, &thread, &registers(registers_len));
            assert_eq!(bytes.len(), whole, "{abi:?}");
            assert_eq!(bytes[..14], [11, 0, 0, 0, 2, 0, 0, 0, 5, 0, 0, 0, 11, 0]);
            assert_eq!(bytes[16], 2, "pending");
            assert_eq!(bytes[pid_at], 8);
            assert_eq!(bytes[pid_at + 12], 3);
            assert_eq!(bytes[times_at], 7);
            assert_eq!(bytes[times_at + abi.word()], 9);
            assert_eq!(bytes[at..at + registers_len], vec![0xab; registers_len]);
            assert_eq!(bytes[at + registers_len], 1, "floating point is there");
        }
    }

    #[test]
    fn the_process_is_laid_out_as_in_c() {
        let process = ProcessStatus {
            pid: 7,
            parent: 1,
            group: 2,
            session: 3,
            uid: 100_000,
            gid: 5,
            state: b'S',
            nice: -3,
            flags: 0x40_0000,
            command: b"a command that is long".to_vec(),
            arguments: b"one\0two\0".to_vec(),
        };
        for (abi, whole, uid_at, uid, pid_at, command_at) in [
            (Abi::X86_64, 136, 16, &[0xa0, 0x86, 1, 0][..], 24, 40),
            (Abi::X86, 124, 8, &[0xfe, 0xff], 12, 28),
        ] {
            let bytes = process_info(abi, &process);
            assert_eq!(bytes.len(), whole, "{abi:?}");
            assert_eq!(bytes[..4], [1, b'S', 0, 0xfd]);
            assert_eq!(bytes[uid_at..uid_at + uid.len()], *uid);
            assert_eq!(bytes[pid_at], 7);
            assert_eq!(bytes[command_at..command_at + 16], *b"a command that \0");
            assert_eq!(bytes[command_at + 16..command_at + 24], *b"one two ");
        }
    }
}
