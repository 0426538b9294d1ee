//! A mapping of a process that was copied.

use std::sync::Arc;

use super::extents::FrozenExtents;
use super::file::{FrozenFile, View};
use super::table::Copied;
use super::{Frozen, Snapshot};
use crate::common::address::AddressRange;
use crate::common::error::{Error, Result};
use crate::files::attributes::BLOCK;
use crate::files::mapping::{WellKnown, attribute, attribute_names};
use crate::files::view::MappingFile;
use crate::files::xattr::{UNREADABLE_BYTES, counted_unreadable};
use crate::files::{
    Access, Attributes, Caller, Context, CountedUsage, File, Kind, Open, Subject, WaitsFor,
};
use crate::target::mapping::Mapping as Memory;
use crate::target::snapshot::FrozenMemory;

/// A mapping as it was.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FrozenMapping {
    snapshot: Arc<Snapshot>,
    /// Which of its processes.
    process: u16,
    /// Whether it is one of the extents.
    is_extent: bool,
    /// Which of the mappings, or extents, of that.
    index: u32,
}

/// A mapping and the memory that it is in.
struct Known {
    process: Arc<Copied>,
    mapping: Arc<Memory>,
}

impl Known {
    fn memory(&self) -> &Arc<FrozenMemory> {
        &self.process.frozen.memory
    }

    /// The part of the mapping that its file shows.
    fn shown(&self) -> AddressRange {
        self.mapping.range().truncated(self.mapping.size())
    }

    fn file(&self, context: &Context) -> MappingFile {
        let memory = Arc::clone(self.memory()) as _;
        MappingFile::new(memory, Arc::clone(&self.mapping), context.options.faults)
    }
}

impl FrozenMapping {
    pub(super) fn new(frozen: &Frozen, index: usize) -> Self {
        Self {
            snapshot: Arc::clone(&frozen.snapshot),
            process: frozen.index,
            is_extent: false,
            index: index as u32,
        }
    }

    /// One of the extents.
    pub(super) fn extent(frozen: &Frozen, index: usize) -> Self {
        Self {
            is_extent: true,
            ..Self::new(frozen, index)
        }
    }

    fn frozen(&self) -> Frozen {
        Frozen {
            snapshot: Arc::clone(&self.snapshot),
            index: self.process,
        }
    }

    /// # Errors
    /// `NoEntry` where the snapshot was removed.
    fn known(&self) -> Result<Known> {
        let process = self.frozen().process()?;
        let table = match self.is_extent {
            true => process.extents(),
            false => &process.mappings,
        };
        let mapping = table.mappings().get(self.index as usize);
        let mapping = Arc::clone(mapping.ok_or(Error::NoEntry)?);
        Ok(Known { process, mapping })
    }
}

impl File for FrozenMapping {
    fn kind(&self) -> Kind {
        Kind::File
    }

    fn path(&self) -> String {
        let name = self.known().map(|known| known.mapping.file_name());
        let directory = match self.is_extent {
            true => FrozenExtents(self.frozen()).path(),
            false => self.frozen().path(),
        };
        format!("{directory}/{}", name.as_deref().unwrap_or("*"))
    }

    fn snapshot(&self) -> Option<&Arc<Snapshot>> {
        Some(&self.snapshot)
    }

    fn attributes(
        &self,
        _context: &Context,
        plain: Attributes,
        _counted: &CountedUsage,
    ) -> Attributes {
        let shape = self.known().map(|known| {
            let (memory, shown) = (known.memory(), known.shown());
            // One that may have bytes elsewhere shows at least one block, as that of a live process.
            let least = u64::from(memory.has_files(shown));
            (shown.len(), (memory.stored(shown) / BLOCK).max(least))
        });
        let (size, blocks) = shape.unwrap_or_default();
        Attributes {
            mode: 0o400,
            size,
            blocks,
            ..self.snapshot.attributes(plain)
        }
    }

    fn open(&self, context: &Context, _subject: &Subject, access: Access) -> Result<Open> {
        if access.write {
            return Err(Error::NotPermitted);
        }
        let known = self.known()?;
        let backing = known.memory().sole_store(known.shown());
        let view = View::Mapping(known.file(context));
        Ok(FrozenFile::open(view, backing))
    }

    fn xattr_names(&self) -> Vec<&'static str> {
        self.known()
            .map_or(Vec::new(), |known| attribute_names(&known.mapping))
    }

    fn xattr(&self, context: &Context, name: &str) -> Result<Vec<u8>> {
        let known = self.known()?;
        let start = known.mapping.range().start();
        let mut vmas = known.process.frozen.facts.vmas.iter();
        let vma = vmas
            .find(|vma| vma.range.contains(start))
            .copied()
            .unwrap_or_default();
        match name {
            "rss" => Ok(vma.resident.to_string().into_bytes()),
            "swap" => Ok(vma.swapped.to_string().into_bytes()),
            UNREADABLE_BYTES => {
                let file = known.file(context);
                counted_unreadable(|at_most| file.unreadable(at_most))
            }
            name => attribute(&known.mapping, name),
        }
    }

    fn waits_for(&self) -> WaitsFor {
        let has_files = |known: Known| known.memory().has_files(known.shown());
        self.frozen().waits_for(self.known().is_ok_and(has_files))
    }
}

/// A link to a mapping that has a name of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FrozenLink {
    snapshot: Arc<Snapshot>,
    /// Which of its processes.
    process: u16,
    which: WellKnown,
}

impl FrozenLink {
    pub(super) fn new(frozen: &Frozen, which: WellKnown) -> Self {
        Self {
            snapshot: Arc::clone(&frozen.snapshot),
            process: frozen.index,
            which,
        }
    }

    fn frozen(&self) -> Frozen {
        Frozen {
            snapshot: Arc::clone(&self.snapshot),
            index: self.process,
        }
    }
}

impl File for FrozenLink {
    fn kind(&self) -> Kind {
        Kind::Link
    }

    fn path(&self) -> String {
        format!("{}/{}", self.frozen().path(), self.which.name())
    }

    fn snapshot(&self) -> Option<&Arc<Snapshot>> {
        Some(&self.snapshot)
    }

    fn attributes(
        &self,
        _context: &Context,
        plain: Attributes,
        _counted: &CountedUsage,
    ) -> Attributes {
        self.snapshot.attributes(plain)
    }

    fn target(&self, _context: &Context, _caller: &Caller) -> Result<String> {
        let process = self.frozen().process()?;
        let found = self.which.of(&process.mappings).ok_or(Error::NoEntry)?;
        Ok(found.file_name())
    }
}
