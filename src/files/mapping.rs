//! `PID/START-END.PERMS.LABEL`: a mapping, and the links to those that have a name of their own.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::attributes::BLOCK;
use super::mapping_table::{MappingTable, start_in_name};
use super::memory::OpenMemory;
use super::xattr::{UNREADABLE_BYTES, counted_unreadable};
use super::{
    Access, Attributes, Caller, Context, CountedUsage, File, Kind, Open, OpenFile, OpenProcess,
    Process, Subject,
};
use crate::common::address::AddressRange;
use crate::common::error::{Error, Result};
use crate::files::view::{MappingFile, Seek};
use crate::target::mapping::{AccessibleLength, Device, Mapping as Memory, Protection};
use crate::target::page_state::MemoryUsage;
use crate::target::{ProcessIdentity, ProcessInfo, WriteMode};

/// A mapping of a process.
#[derive(Clone, Debug)]
pub(crate) struct Mapping {
    info: Arc<ProcessInfo>,
    mapping: Arc<Memory>,
}

/// What makes two of them the same file: not the end of the file, which moves while the mapping stays.
type Key = (ProcessIdentity, AddressRange, Protection, u64, Device, u64);

impl PartialEq for Mapping {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Mapping {}

impl Hash for Mapping {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

/// Names of the attributes of a mapping, in the order of their listing.
const XATTRS: &[&str] = &[
    "start",
    "end",
    "perms",
    "offset",
    "dev",
    "inode",
    "path",
    "rss",
    "swap",
    UNREADABLE_BYTES,
];

/// The attribute of a mapping that nobody can read: why.
const UNREADABLE: &str = "unreadable";

impl Mapping {
    pub(super) fn new(info: &Arc<ProcessInfo>, mapping: &Arc<Memory>) -> Self {
        Self {
            info: Arc::clone(info),
            mapping: Arc::clone(mapping),
        }
    }

    /// Whether a name can be that of a mapping at all.
    pub(super) fn may_be_named(name: &str) -> bool {
        start_in_name(name).is_some()
    }

    fn key(&self) -> Key {
        let mapping = &self.mapping;
        (
            self.info.identity,
            mapping.range(),
            mapping.protection(),
            mapping.offset(),
            mapping.device(),
            mapping.inode(),
        )
    }

    /// The part of the mapping that its file shows.
    fn shown(&self) -> AddressRange {
        let mapping = &self.mapping;
        mapping.range().truncated(mapping.size())
    }

    fn write_mode(&self, context: &Context) -> Result<WriteMode> {
        context.options.check_writable()?;
        if self.mapping.protection().write {
            Ok(WriteMode::Obey)
        } else if context.options.force {
            Ok(WriteMode::Force)
        } else {
            Err(Error::Protected)
        }
    }

    fn usage(&self, context: &Context) -> Result<MemoryUsage> {
        let process = context.opened.open(&self.info.identity)?;
        context
            .usages
            .usage_of(&**process.memory()?, self.mapping.range())
    }

    /// Its memory usage, in blocks; `None` where that cannot be known.
    ///
    /// A file of no block at all is archived as one large hole by `tar -S`, which does not open it. So one that may
    /// have bytes elsewhere shows at least one block.
    fn blocks(&self, context: &Context, counted: &CountedUsage) -> Option<u64> {
        let shown = self.shown();
        let hidden = self.mapping.has_file() || self.mapping.is_special();
        if shown.is_empty() {
            return Some(0);
        }
        let usage = match counted.of(shown) {
            Some(usage) => usage,
            None => {
                let process = context.open_process(&self.info)?;
                context
                    .usages
                    .usage_of(&**process.memory().ok()?, shown)
                    .ok()?
            }
        };
        // Tools ask for holes only where blocks are missing, so what is there and cannot be read shows none.
        let is_own = || self.info.identity.pid.get() == std::process::id();
        let is_hidden = || usage.is_hidden || self.mapping.is_of_own_mount() || is_own();
        if usage.total() >= shown.len() && is_hidden() {
            return Some(0);
        }
        Some((usage.total() / BLOCK).max(u64::from(hidden)))
    }
}

impl File for Mapping {
    fn kind(&self) -> Kind {
        Kind::File
    }

    fn path(&self) -> String {
        format!("{}/{}", self.info.identity.pid, self.mapping.file_name())
    }

    fn process(&self) -> Option<&Arc<ProcessInfo>> {
        Some(&self.info)
    }

    fn memory(&self) -> Option<AddressRange> {
        Some(self.shown())
    }

    fn attributes(
        &self,
        context: &Context,
        plain: Attributes,
        counted: &CountedUsage,
    ) -> Attributes {
        let size = self.mapping.size();
        let blocks = self.blocks(context, counted);
        // Last: counting blocks can take long, and time runs.
        let (modified, valid) = match counted.modified_of(&self.info.identity) {
            Some(modified) => modified,
            None => context.modified(&self.info),
        };
        let is_writable = self.write_mode(context).is_ok();
        Attributes {
            mode: if is_writable { 0o600 } else { 0o400 },
            size,
            blocks: blocks.unwrap_or(size.div_ceil(BLOCK)),
            modified: if size == 0 { plain.modified } else { modified },
            valid,
            ..plain
        }
    }

    fn check_writable(&self, context: &Context) -> Result<()> {
        self.write_mode(context).map(drop)
    }

    fn check_truncatable(&self, context: &Context) -> Result<()> {
        context.options.check_writable()
    }

    fn open(&self, context: &Context, subject: &Subject, access: Access) -> Result<Open> {
        let write = access.write.then(|| self.write_mode(context)).transpose()?;
        let memory = OpenMemory::new(context, &self.info, subject, write)?.with_size(
            context,
            self.mapping.size(),
            &subject.caller,
            access,
        );
        let file = MappingFile::new(
            Arc::clone(&memory.memory),
            Arc::clone(&self.mapping),
            context.options.faults,
        );
        Ok(Open {
            direct: memory.is_direct(),
            reads_ahead: memory.reads_ahead,
            is_constant: false,
            is_resized: false,
            file: Arc::new(OpenMapping { file, memory }),
        })
    }

    fn xattr_names(&self) -> Vec<&'static str> {
        attribute_names(&self.mapping)
    }

    fn xattr(&self, context: &Context, name: &str) -> Result<Vec<u8>> {
        let mapping = &self.mapping;
        let text = match name {
            "rss" => self.usage(context)?.resident.to_string(),
            "swap" => self.usage(context)?.swapped.to_string(),
            UNREADABLE_BYTES => {
                let process = context.opened.open(&self.info.identity)?;
                let file = MappingFile::new(
                    Arc::clone(process.memory()?),
                    Arc::clone(mapping),
                    context.options.faults,
                );
                return counted_unreadable(|at_most| file.unreadable(at_most));
            }
            name => return attribute(mapping, name),
        };
        Ok(text.into_bytes())
    }
}

/// Names of the attributes of a mapping.
pub(super) fn attribute_names(mapping: &Memory) -> Vec<&'static str> {
    let mut names = XATTRS.to_vec();
    names.extend(unreadable(mapping).map(|_| UNREADABLE));
    names
}

/// An attribute of a mapping that does not depend on its pages.
///
/// # Errors
/// `NoAttribute`.
pub(super) fn attribute(mapping: &Memory, name: &str) -> Result<Vec<u8>> {
    let device = mapping.device();
    let text = match name {
        "start" => mapping.range().start().to_string(),
        "end" => mapping.range().end().to_string(),
        "perms" => mapping.protection().to_string(),
        "offset" => format!("{:08x}", mapping.offset()),
        "dev" => format!("{:02x}:{:02x}", device.major, device.minor),
        "inode" => mapping.inode().to_string(),
        "path" => return Ok(mapping.path().to_vec()),
        UNREADABLE => unreadable(mapping).ok_or(Error::NoAttribute)?.to_owned(),
        _ => return Err(Error::NoAttribute),
    };
    Ok(text.into_bytes())
}

fn unreadable(mapping: &Memory) -> Option<&'static str> {
    match mapping.accessible_length() {
        AccessibleLength::Whole | AccessibleLength::UpTo(_) | AccessibleLength::OwnMount => None,
        AccessibleLength::Nothing(barrier) => Some(barrier.reason()),
    }
}

/// A mapping that is open, as it was when it was opened.
#[derive(Debug)]
struct OpenMapping {
    file: MappingFile,
    memory: OpenMemory,
}

impl OpenFile for OpenMapping {
    fn read_at(&self, _context: &Context, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        self.file.read_at(offset, buffer, self.memory.short)
    }

    fn write_at(&self, _context: &Context, offset: u64, data: &[u8]) -> Result<usize> {
        self.file.write_at(offset, data, self.memory.write_mode()?)
    }

    fn seek(&self, _context: &Context, offset: u64, whence: Seek) -> Result<u64> {
        self.file.seek(offset, whence)
    }

    fn was_read(&self, context: &Context, bytes: usize) {
        self.memory.was_read(context, bytes);
    }

    fn process(&self) -> Option<&Arc<OpenProcess>> {
        Some(&self.memory.process)
    }
}

/// A mapping that has a name of its own in its process's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum WellKnown {
    /// `heap`
    Heap,
    /// `stack`
    Stack,
}

impl WellKnown {
    pub(super) const ALL: [Self; 2] = [Self::Heap, Self::Stack];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Heap => "heap",
            Self::Stack => "stack",
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|which| which.name() == name)
    }

    pub(super) fn of(self, table: &MappingTable) -> Option<&Arc<Memory>> {
        match self {
            Self::Heap => table.heap(),
            Self::Stack => table.stack(),
        }
    }
}

/// A link to such a mapping.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct MappingLink {
    process: Process,
    which: WellKnown,
}

impl MappingLink {
    pub(super) fn new(process: Process, which: WellKnown) -> Self {
        Self { process, which }
    }
}

impl File for MappingLink {
    fn kind(&self) -> Kind {
        Kind::Link
    }

    fn path(&self) -> String {
        format!("{}/{}", self.process.path(), self.which.name())
    }

    fn process(&self) -> Option<&Arc<ProcessInfo>> {
        self.process.process()
    }

    fn target(&self, context: &Context, _caller: &Caller) -> Result<String> {
        let name = |table: &MappingTable| self.which.of(table).map(|found| found.file_name());
        let found = context.processes.find(&self.process.0, name)?;
        found.ok_or(Error::NoEntry)
    }
}
