//! The notes of a core file: each with an owner, a kind and its bytes (elf(5)).

use object::elf;

use super::abi::Abi;
use super::status::{process_info, thread_status};
use crate::common::address::PAGE_SIZE;
use crate::target::mapping::Mapping;
use crate::target::{DumpFacts, ThreadRegisters, ThreadStatus, register_kind as kind};

/// Bytes of a `siginfo_t`.
const SIGNAL_INFO: usize = 128;

/// Those of it that are laid out alike for programs of 32 and of 64 bits.
const SIGNAL_NUMBERS: usize = 12;

/// Notes that follow each other.
#[derive(Debug, Default)]
struct Notes(Vec<u8>);

impl Notes {
    fn add(&mut self, owner: &[u8], kind: u32, bytes: &[u8]) {
        let len = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        for number in [len(owner), len(bytes), kind] {
            self.0.extend(number.to_le_bytes());
        }
        for part in [owner, bytes] {
            self.0.extend(part);
            self.0.resize(self.0.len().next_multiple_of(4), 0);
        }
    }

    fn add_core(&mut self, kind: u32, bytes: &[u8]) {
        self.add(b"CORE\0", kind, bytes);
    }
}

/// All notes, in the kernel's order: what is the process's own comes after the state of its first thread. Without registers
/// there are no threads.
pub(super) fn notes<'a>(
    abi: Abi,
    facts: &DumpFacts,
    threads: &[ThreadRegisters],
    mappings: impl Iterator<Item = &'a Mapping> + Clone,
) -> Vec<u8> {
    let mut notes = Notes::default();
    let mut threads = threads.iter().filter(|thread| !thread.sets.is_empty());
    let first = threads.next();
    if let Some(first) = first {
        notes.add_core(kind::PRSTATUS, &status(abi, facts, first));
    }
    notes.add_core(elf::NT_PRPSINFO.0, &process_info(abi, &facts.process));
    if let Some(first) = first {
        notes.add_core(elf::NT_SIGINFO.0, &signal(abi, first));
    }
    notes.add_core(elf::NT_AUXV.0, &facts.auxiliary);
    notes.add_core(elf::NT_FILE.0, &files(abi, mappings));
    if let Some(first) = first {
        add_registers(&mut notes, first);
    }
    for thread in threads {
        notes.add_core(kind::PRSTATUS, &status(abi, facts, thread));
        add_registers(&mut notes, thread);
    }
    notes.0
}

fn status(abi: Abi, facts: &DumpFacts, registers: &ThreadRegisters) -> Vec<u8> {
    let known = facts.threads.iter().find(|it| it.tid == registers.tid);
    // One that was started since has had no time for more.
    let thread = known.copied().unwrap_or(ThreadStatus {
        tid: registers.tid,
        ..ThreadStatus::default()
    });
    thread_status(abi, &facts.process, &thread, registers)
}

/// The registers but for the general ones, which are in the state.
fn add_registers(notes: &mut Notes, thread: &ThreadRegisters) {
    for set in &thread.sets {
        match set.kind {
            kind::PRSTATUS => (),
            kind::PRFPREG => notes.add_core(set.kind, &set.bytes),
            other => notes.add(b"LINUX\0", other, &set.bytes),
        }
    }
}

/// The signal that the first thread was about to get; zeros where there was none.
fn signal(abi: Abi, thread: &ThreadRegisters) -> Vec<u8> {
    let mut info = thread.signal.clone().unwrap_or_default();
    if !abi.is_64_bit() {
        info.truncate(SIGNAL_NUMBERS);
    }
    info.resize(SIGNAL_INFO, 0);
    info
}

/// Which files are mapped where (`fill_files_note` in `fs/binfmt_elf.c`).
fn files<'a>(abi: Abi, mappings: impl Iterator<Item = &'a Mapping> + Clone) -> Vec<u8> {
    let mappings = mappings.filter(|mapping| mapping.has_file());
    let mut bytes = Vec::new();
    let mut number = |number: u64| bytes.extend(&number.to_le_bytes()[..abi.word()]);
    number(mappings.clone().count() as u64);
    number(PAGE_SIZE);
    for mapping in mappings.clone() {
        let range = mapping.range();
        number(range.start().get());
        number(range.end().get());
        number(mapping.offset() / PAGE_SIZE);
    }
    for mapping in mappings {
        bytes.extend(mapping.link_text());
        bytes.push(0);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::RegisterSet;
    use crate::target::mapping::AddressSpace;

    /// Owner, kind and length of each.
    fn parsed(mut bytes: &[u8]) -> Vec<(String, u32, usize)> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let number = |at: usize| {
                let number = bytes[at..].first_chunk().unwrap();
                u32::from_le_bytes(*number) as usize
            };
            let [owner, len, kind] = [0, 4, 8].map(number);
            let name = String::from_utf8(bytes[12..12 + owner - 1].to_vec()).unwrap();
            found.push((name, kind as u32, len));
            bytes = &bytes[12 + owner.next_multiple_of(4) + len.next_multiple_of(4)..];
        }
        found
    }

    fn thread(tid: i32) -> ThreadRegisters {
        let set = |kind, len| RegisterSet {
            kind,
            bytes: vec![1; len],
        };
        ThreadRegisters {
            tid,
            sets: vec![
                set(kind::PRSTATUS, 216),
                set(kind::PRFPREG, 512),
                set(kind::X86_XSTATE, 2696),
            ],
            signal: None,
        }
    }

    #[test]
    fn notes_are_those_of_the_kernel_in_its_order() {
        let facts = DumpFacts {
            auxiliary: vec![0; 320],
            ..DumpFacts::default()
        };
        let space = b"1000-3000 r--p 00002000 08:01 7 /lib/a\n3000-4000 rw-p 00000000 00:00 0\n";
        let space = AddressSpace::parse(space).unwrap();
        let without = ThreadRegisters {
            tid: 9,
            ..ThreadRegisters::default()
        };
        let threads = [thread(7), without, thread(8)];
        let files = || space.mappings().iter();
        let bytes = notes(Abi::X86_64, &facts, &threads, files());
        let core = |kind, len| ("CORE".to_owned(), kind, len);
        let xstate = ("LINUX".to_owned(), 0x202, 2696);
        let file_len = 5 * 8 + "/lib/a\0".len();
        assert_eq!(
            parsed(&bytes),
            [
                core(1, 336),
                core(3, 136),
                core(0x5349_4749, 128),
                core(6, 320),
                core(0x4649_4c45, file_len),
                core(2, 512),
                xstate.clone(),
                core(1, 336),
                core(2, 512),
                xstate,
            ]
        );
        let none = notes(Abi::X86_64, &facts, &[], files());
        let kinds: Vec<u32> = parsed(&none).iter().map(|(_, kind, _)| *kind).collect();
        assert_eq!(kinds, [3, 6, 0x4649_4c45]);
    }

    #[test]
    fn files_are_told_with_their_offset_in_pages() {
        let space = b"1000-3000 r--p 00002000 08:01 7 /lib/a\n5000-6000 rw-s 00000000 00:01 9 /memfd:x (deleted)\n";
        let space = AddressSpace::parse(space).unwrap();
        let bytes = files(Abi::X86, space.mappings().iter());
        let numbers: Vec<u32> = bytes[..8 * 4]
            .chunks(4)
            .map(|number| u32::from_le_bytes(*number.first_chunk().unwrap()))
            .collect();
        assert_eq!(numbers, [2, 4096, 0x1000, 0x3000, 2, 0x5000, 0x6000, 0]);
        assert_eq!(bytes[32..], *b"/lib/a\0/memfd:x (deleted)\0");
    }
}
