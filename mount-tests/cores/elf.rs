//! A reader of core files that knows nothing of the one who writes them (elf(5), core(5)).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::support::open;

/// Kinds of notes.
pub(super) const PRSTATUS: u32 = 1;
pub(super) const PRPSINFO: u32 = 3;
pub(super) const XSAVE_LAYOUT: u32 = 0x205;

const PT_LOAD: u64 = 1;
const PT_NOTE: u64 = 4;
const PN_XNUM: u64 = 0xffff;

/// A part of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) start: usize,
    pub(super) flags: u64,
    /// Its bytes in memory, and in the file.
    pub(super) in_memory: usize,
    pub(super) in_file: usize,
    offset: u64,
}

/// A note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) owner: String,
    pub(super) kind: u32,
    pub(super) bytes: Vec<u8>,
}

/// A core file of 64 bits.
#[derive(Debug)]
pub(super) struct Core {
    file: File,
    pub(super) loads: Vec<Load>,
    pub(super) notes: Vec<Note>,
}

/// A little-endian number.
fn number(bytes: &[u8]) -> u64 {
    let digits = bytes.iter().rev();
    digits.fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[track_caller]
fn part(file: &File, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xa5; len];
    let read = file.read_exact_at(&mut bytes, offset);
    read.unwrap_or_else(|error| panic!("{len} bytes at {offset:#x}: {error}"));
    bytes
}

impl Core {
    /// Reads the headers.
    #[track_caller]
    pub(super) fn open(path: &Path) -> Self {
        let file = open(path);
        let header = part(&file, 0, 64);
        assert_eq!(header[..6], *b"\x7fELF\x02\x01", "{path:?}");
        assert_eq!(number(&header[16..18]), 4, "ET_CORE");
        let (at, mut count) = (number(&header[32..40]), number(&header[56..58]));
        if count == PN_XNUM {
            let section = part(&file, number(&header[40..48]), 64);
            count = number(&section[44..48]);
        }
        let headers = part(&file, at, 56 * count as usize);
        let (mut loads, mut notes) = (Vec::new(), Vec::new());
        for segment in headers.chunks_exact(56) {
            let word = |at: usize| number(&segment[at..at + 8]);
            let (offset, in_file) = (word(8), word(32) as usize);
            match number(&segment[..4]) {
                PT_LOAD => loads.push(Load {
                    start: word(16) as usize,
                    flags: number(&segment[4..8]),
                    in_memory: word(40) as usize,
                    in_file,
                    offset,
                }),
                PT_NOTE => notes.extend(notes_of(&part(&file, offset, in_file))),
                other => panic!("a segment of kind {other}"),
            }
        }
        Self { file, loads, notes }
    }

    /// The part that holds an address.
    pub(super) fn load(&self, address: usize) -> Option<&Load> {
        let holds = |load: &&Load| (load.start..load.start + load.in_memory).contains(&address);
        self.loads.iter().find(holds)
    }

    /// Bytes that are in the file, all of them in one part.
    #[track_caller]
    pub(super) fn bytes(&self, address: usize, len: usize) -> Vec<u8> {
        let load = self.load(address).copied();
        let load = load.unwrap_or_else(|| panic!("nothing is mapped at {address:#x}"));
        let from = address - load.start;
        assert!(
            from + len <= load.in_file,
            "{len} at {address:#x}: {load:x?}"
        );
        part(&self.file, load.offset + from as u64, len)
    }

    /// All that the file has of a part.
    #[track_caller]
    pub(super) fn all(&self, load: &Load) -> Vec<u8> {
        part(&self.file, load.offset, load.in_file)
    }

    /// What `fstat` says of its length, and where its last part ends.
    pub(super) fn ends(&self) -> [u64; 2] {
        let ends = self
            .loads
            .iter()
            .map(|load| load.offset + load.in_file as u64);
        [self.file.metadata().unwrap().len(), ends.max().unwrap()]
    }

    /// The numbers of the threads whose registers are there, in their order.
    pub(super) fn threads(&self) -> Vec<u32> {
        let states = self.notes.iter().filter(|note| note.kind == PRSTATUS);
        states
            .map(|note| number(&note.bytes[32..36]) as u32)
            .collect()
    }
}

fn notes_of(bytes: &[u8]) -> Vec<Note> {
    let mut notes = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let word = |at: usize| number(&rest[at..at + 4]) as usize;
        let (owner, len, kind) = (word(0), word(4), word(8) as u32);
        let begin = 12 + owner.next_multiple_of(4);
        notes.push(Note {
            owner: String::from_utf8_lossy(&rest[12..12 + owner - 1]).into_owned(),
            kind,
            bytes: rest[begin..begin + len].to_vec(),
        });
        rest = &rest[begin + len.next_multiple_of(4)..];
    }
    notes
}
