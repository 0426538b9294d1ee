//! Mappings of an address space, as `/proc/PID/maps` describes them.
//!
//! Nothing here reads anything: text comes in as bytes, and what only the
//! backend can find out (where a file ends, what is a device) is set by it
//! through [`Mapping::set_accessible_length`].

mod label;
mod parse;

use std::fmt;
use std::sync::Arc;

pub use label::{MAX_NAME, sanitized};
pub use parse::MapsError;

use crate::common::address::{Address, AddressRange};
use crate::common::room::make_room;

/// What a mapping lets its own process do (`rwx`), and whether it is shared (`s`) or private (`p`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Protection {
    /// `r`: `PROT_READ`.
    pub read: bool,
    /// `w`: `PROT_WRITE`.
    pub write: bool,
    /// `x`: `PROT_EXEC`.
    pub execute: bool,
    /// `s`: `MAP_SHARED`.
    pub shared: bool,
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [read, write, execute, sharing] = self.letters();
        write!(f, "{read}{write}{execute}{sharing}")
    }
}

impl Protection {
    /// As `maps` shows it.
    fn letters(self) -> [char; 4] {
        let letter = |set, letter| if set { letter } else { '-' };
        [
            letter(self.read, 'r'),
            letter(self.write, 'w'),
            letter(self.execute, 'x'),
            if self.shared { 's' } else { 'p' },
        ]
    }
}

/// A device number, as `maps` prints it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Device {
    /// The driver.
    pub major: u32,
    /// The device of that driver.
    pub minor: u32,
}

/// How much of a mapping can be accessed at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AccessibleLength {
    /// All of it.
    Whole,
    /// The first so many bytes; past them its file has ended and there is only SIGBUS.
    UpTo(u64),
    /// Nothing, and it must not be touched.
    Nothing(Barrier),
    /// All of it, but nothing through this mount: it is of a file of this mount, and reading it would wait for itself.
    OwnMount,
}

/// Why nobody reads a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Barrier {
    /// Pages of the kernel's own that it shows to the process alone (`[vvar]`, `[vsyscall]`).
    Kernel,
    /// Memory of a device: reading it can have effects.
    Device,
    /// Memory that its process alone can read (memfd_secret(2)).
    Secret,
}

/// What `maps` says of the file or the kernel's object of a mapping.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Object {
    device: Device,
    inode: u64,
    path: Box<[u8]>,
    deleted: bool,
}

/// Objects of the mappings that were read last: a file mostly has several.
#[derive(Debug, Default)]
struct Recent([Option<Arc<Object>>; 4]);

impl Recent {
    /// The object that is described so; `None` for plain anonymous memory, which has neither a device nor a name.
    fn object(
        &mut self,
        device: Device,
        inode: u64,
        path: &[u8],
        deleted: bool,
    ) -> Option<Arc<Object>> {
        if device == Device::default() && inode == 0 && path.is_empty() {
            return None;
        }
        let known = self.0.iter().flatten().find(|known| {
            known.inode == inode
                && known.device == device
                && known.deleted == deleted
                && *known.path == *path
        });
        if let Some(known) = known {
            return Some(Arc::clone(known));
        }
        let object = Arc::new(Object {
            device,
            inode,
            path: path.into(),
            deleted,
        });
        self.0.rotate_right(1);
        self.0[0] = Some(Arc::clone(&object));
        Some(object)
    }
}

impl Barrier {
    /// Why, in words.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Kernel => "pages of the kernel that it shows to the process alone",
            Self::Device => "memory of a device: reading it can have effects",
            Self::Secret => "secret memory (memfd_secret) that its process alone can read",
        }
    }
}

/// One mapping of an address space.
///
/// A process can have a million of them, and they are kept: it takes no more room than it must.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mapping {
    range: AddressRange,
    offset: u64,
    accessible: AccessibleLength,
    /// `None` for plain anonymous memory.
    object: Option<Arc<Object>>,
    protection: Protection,
}

impl Mapping {
    /// A mapping whose name is not known, with the numbers of its file; zeros for anonymous memory.
    pub fn without_name(
        range: AddressRange,
        protection: Protection,
        offset: u64,
        device: Device,
        inode: u64,
    ) -> Self {
        Self {
            range,
            offset,
            accessible: AccessibleLength::Whole,
            object: Recent::default().object(device, inode, b"", false),
            protection,
        }
    }

    /// Where it lies.
    pub fn range(&self) -> AddressRange {
        self.range
    }

    /// What its own process may do with it.
    pub fn protection(&self) -> Protection {
        self.protection
    }

    /// Where in its file it starts, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The device of its file; zero for anonymous memory.
    pub fn device(&self) -> Device {
        self.object
            .as_ref()
            .map_or(Device::default(), |object| object.device)
    }

    /// The inode of its file; zero for anonymous memory.
    pub fn inode(&self) -> u64 {
        self.object.as_ref().map_or(0, |object| object.inode)
    }

    /// Whether it is of a file or a shared memory object. The inode alone
    /// does not tell: the first segment of SysV shared memory has number 0.
    pub fn has_file(&self) -> bool {
        self.inode() != 0 || self.device() != Device::default()
    }

    /// The path of its file or the kernel's name for it, in its own bytes; empty for plain anonymous memory.
    pub fn path(&self) -> &[u8] {
        self.object.as_ref().map_or(&[], |object| &object.path)
    }

    /// The path as links in `/proc` show it: with ` (deleted)` where that was done.
    pub fn link_text(&self) -> Vec<u8> {
        let deleted = if self.is_deleted() {
            parse::DELETED
        } else {
            b""
        };
        [self.path(), deleted].concat()
    }

    /// Whether its file has no name any more.
    pub fn is_deleted(&self) -> bool {
        self.object.as_ref().is_some_and(|object| object.deleted)
    }

    /// Whether it is of a file of the file system on `device`.
    pub fn is_on(&self, device: Device) -> bool {
        self.has_file() && self.device() == device
    }

    /// How much of it can be accessed.
    pub fn accessible_length(&self) -> AccessibleLength {
        self.accessible
    }

    /// Whether it is of a file of this mount, so that reading it fails although its pages are there.
    pub fn is_of_own_mount(&self) -> bool {
        self.accessible == AccessibleLength::OwnMount
    }

    /// Length of its file in the tree, in bytes.
    pub fn size(&self) -> u64 {
        match self.accessible {
            AccessibleLength::Whole | AccessibleLength::OwnMount => self.range.len(),
            AccessibleLength::UpTo(bytes) => bytes.min(self.range.len()),
            AccessibleLength::Nothing(_) => 0,
        }
    }

    /// A part of it, as a mapping of its own.
    pub fn part(&self, range: AddressRange) -> Self {
        Self {
            range,
            offset: self
                .offset
                .wrapping_add(range.start().since(self.range.start())),
            accessible: AccessibleLength::Whole,
            ..self.clone()
        }
    }

    /// Sets how much of it can be accessed.
    pub fn set_accessible_length(&mut self, length: AccessibleLength) {
        self.accessible = length;
    }

    /// Says that a path that ends in ` (deleted)` is just named so.
    pub fn undelete(&mut self) {
        if let Some(object) = &mut self.object
            && object.deleted
        {
            let object = Arc::make_mut(object);
            object.deleted = false;
            object.path = [&object.path, parse::DELETED].concat().into();
        }
    }

    /// Whether it is memory of the process alone, and of no file, nor of huge pages.
    pub fn is_private_anonymous(&self) -> bool {
        !self.protection.shared && !self.has_file() && !self.is_special()
    }

    /// Whether it is the heap that `brk` moves.
    pub fn is_heap(&self) -> bool {
        self.path() == b"[heap]"
    }

    /// Whether it is code that the kernel shares with every process (vdso(7)).
    pub fn is_vdso(&self) -> bool {
        self.path() == b"[vdso]"
    }

    /// Whether the kernel made it for the process and fills it itself (`[vdso]`, `[uprobes]`, `[sigpage]`).
    pub fn is_special(&self) -> bool {
        let is_memory = [&b"[heap]"[..], b"[stack", b"[anon"]
            .iter()
            .any(|name| self.path().starts_with(name));
        !self.has_file() && self.path().starts_with(b"[") && !is_memory
    }

    /// Whether it is the stack of the first thread.
    pub fn is_stack(&self) -> bool {
        self.path() == b"[stack]"
    }
}

/// Reads the text of `/proc/PID/maps` line by line.
#[derive(Debug, Default)]
pub struct MapsReader {
    space: AddressSpace,
    lines: usize,
    recent: Recent,
}

impl MapsReader {
    /// Reads the next line, without its newline.
    ///
    /// # Errors
    /// As [`AddressSpace::parse`].
    pub fn line(&mut self, line: &[u8]) -> std::result::Result<(), MapsError> {
        self.lines += 1;
        if line.is_empty() {
            return Ok(());
        }
        let mapping = parse::line(line, &mut self.recent)
            .map_err(|fault| MapsError::new(self.lines, fault))?;
        if mapping.range.start() >= self.space.end() {
            make_room(&mut self.space.mappings);
            self.space.mappings.push(mapping);
        }
        Ok(())
    }

    /// All that was read.
    pub fn finish(self) -> AddressSpace {
        self.space.check();
        self.space
    }
}

/// The mappings of one process: sorted by address and disjoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressSpace {
    mappings: Vec<Mapping>,
}

impl AddressSpace {
    /// Reads the text of `/proc/PID/maps`.
    ///
    /// The kernel writes that text in pieces; where the address space changed
    /// between two of them and mappings overlap, the earlier line holds.
    ///
    /// # Errors
    /// A line that is not one of `maps`, with its number.
    pub fn parse(maps: &[u8]) -> std::result::Result<Self, MapsError> {
        let mut reader = MapsReader::default();
        for line in maps.split(|byte| *byte == b'\n') {
            reader.line(line)?;
        }
        Ok(reader.finish())
    }

    /// All mappings, lowest address first.
    pub fn mappings(&self) -> &[Mapping] {
        &self.mappings
    }

    /// All mappings, lowest address first, to be kept.
    pub fn into_mappings(self) -> Vec<Mapping> {
        self.mappings
    }

    /// All mappings, to be completed by the backend, which must leave their ranges alone.
    pub(crate) fn mappings_mut(&mut self) -> &mut [Mapping] {
        &mut self.mappings
    }

    /// The mapping that starts at `start`.
    pub fn starting_at(&self, start: Address) -> Option<&Mapping> {
        self.mappings
            .binary_search_by_key(&start, |mapping| mapping.range.start())
            .ok()
            .map(|index| &self.mappings[index])
    }

    /// The heap, where there is one; its first part where `mprotect` has split it.
    pub fn heap(&self) -> Option<&Mapping> {
        self.mappings.iter().find(|mapping| mapping.is_heap())
    }

    /// The first thread's stack; its last part (where it starts) where it is split.
    pub fn stack(&self) -> Option<&Mapping> {
        self.mappings.iter().rfind(|mapping| mapping.is_stack())
    }

    fn end(&self) -> Address {
        self.mappings
            .last()
            .map_or(Address::new(0), |mapping| mapping.range.end())
    }

    fn check(&self) {
        debug_assert!(
            self.mappings
                .windows(2)
                .all(|pair| pair[0].range.end() <= pair[1].range.start()),
            "mappings are sorted and disjoint"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &[u8] = b"\
55d0c0a00000-55d0c0a21000 rw-p 00000000 00:00 0                          [heap]\n\
7f12a4000000-7f12a41d6000 r-xp 00026000 fe:00 131 /usr/lib/libc.so.6\n\
7f12a8000000-7f12b0000000 rw-p 00000000 00:00 0 \n\
7ffd1c3e9000-7ffd1c40a000 rw-p 00000000 00:00 0                          [stack]\n";

    #[test]
    fn finds_mappings() {
        let space = AddressSpace::parse(MAPS).unwrap();
        assert_eq!(space.mappings().len(), 4);
        let libc = space.starting_at(Address::new(0x7f12_a400_0000)).unwrap();
        assert_eq!(libc.path(), b"/usr/lib/libc.so.6");
        assert_eq!(libc.protection().to_string(), "r-xp");
        assert!(space.starting_at(Address::new(0x7f12_a400_1000)).is_none());
        assert!(space.heap().unwrap().is_heap());
        assert!(space.stack().unwrap().is_stack());
    }

    #[test]
    fn a_mapping_takes_little_room() {
        assert!(size_of::<Mapping>() <= 56, "{}", size_of::<Mapping>());
    }

    #[test]
    fn mappings_of_one_file_share_what_they_say_of_it() {
        let maps = b"\
1000-2000 r--p 00000000 fe:00 9 /usr/lib/a.so\n\
2000-3000 r-xp 00001000 fe:00 9 /usr/lib/a.so\n\
3000-4000 rw-p 00000000 00:00 0\n\
4000-5000 r--p 00000000 fe:00 10 /usr/lib/a.so\n\
5000-6000 rw-p 00002000 fe:00 9 /usr/lib/a.so\n";
        let space = AddressSpace::parse(maps).unwrap();
        let objects: Vec<_> = space.mappings().iter().map(|m| &m.object).collect();
        let [Some(first), Some(second), None, Some(other), Some(last)] = objects[..] else {
            panic!("{objects:?}");
        };
        assert!(Arc::ptr_eq(first, second) && Arc::ptr_eq(first, last));
        assert_ne!(first, other, "another file of the same name");
    }

    #[test]
    fn overlapping_lines_of_a_changing_process_keep_the_earlier() {
        let maps =
            b"1000-3000 rw-p 0 00:00 0\n2000-4000 rw-p 0 00:00 0\n3000-5000 r--p 0 00:00 0\n";
        let space = AddressSpace::parse(maps).unwrap();
        let starts: Vec<u64> = space
            .mappings()
            .iter()
            .map(|m| m.range().start().get())
            .collect();
        assert_eq!(starts, [0x1000, 0x3000]);
    }

    #[test]
    fn anonymous_private_memory_is_told_from_what_has_a_file() {
        let table = [
            ("rw-p 00000000 00:00 0", true),
            ("rw-p 00000000 00:00 0 [heap]", true),
            ("rw-p 00000000 00:00 0 [stack]", true),
            ("rw-p 00000000 00:00 0 [anon:arena]", true),
            ("---p 00000000 00:00 0", true),
            ("rw-s 00000000 00:01 5 /dev/zero (deleted)", false),
            ("rw-p 00000000 00:01 5 /memfd:x (deleted)", false),
            ("rw-p 00000000 00:0f 5 /anon_hugepage (deleted)", false),
            ("r-xp 00000000 00:00 0 [vdso]", false),
            ("rw-p 00000000 08:01 7 /lib/libc.so.6", false),
        ];
        for (rest, expected) in table {
            let line = format!("10000-12000 {rest}");
            let space = AddressSpace::parse(line.as_bytes()).unwrap();
            assert_eq!(
                space.mappings()[0].is_private_anonymous(),
                expected,
                "{rest}"
            );
        }
    }

    #[test]
    fn the_size_ends_where_the_file_does() {
        let mut space = AddressSpace::parse(b"1000-3000 r--p 0 fe:00 1 /f\n").unwrap();
        let mapping = &mut space.mappings_mut()[0];
        assert_eq!(mapping.size(), 0x2000);
        mapping.set_accessible_length(AccessibleLength::UpTo(0x1800));
        assert_eq!(mapping.size(), 0x1800);
        mapping.set_accessible_length(AccessibleLength::UpTo(0x9000));
        assert_eq!(mapping.size(), 0x2000);
        mapping.set_accessible_length(AccessibleLength::Nothing(Barrier::Device));
        assert_eq!(mapping.size(), 0);
        mapping.set_accessible_length(AccessibleLength::OwnMount);
        assert_eq!(mapping.size(), 0x2000);
    }
}
