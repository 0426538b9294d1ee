//! Open files of a snapshot, and its `mem` and `core`.

use std::sync::Arc;

use super::{Frozen, Snapshot};
use crate::common::address::AddressRange;
use crate::common::error::{Error, Result};
use crate::coredump::{CoreImage, CoreSource, begins_as_elf};
use crate::files::attributes::BLOCK;
use crate::files::view::{CoreFile, MappingFile, SPACE_SIZE, Seek, Short, SpaceFile};
use crate::files::xattr::{UNREADABLE_BYTES, counted_unreadable};
use crate::files::{
    Access, Attributes, Context, CountedUsage, File, Kind, Open, OpenFile, Subject, WaitsFor,
};
use crate::target::snapshot::KeptStore;

/// What a file shows of a process that was copied.
#[derive(Debug)]
pub(super) enum View {
    Mapping(MappingFile),
    Space(SpaceFile),
    Core(CoreFile),
}

/// A file that is open. Nothing of it changes, so the kernel may keep its pages, or read them from the store itself.
#[derive(Debug)]
pub(super) struct FrozenFile {
    view: View,
    backing: Option<Arc<KeptStore>>,
}

impl FrozenFile {
    pub(super) fn open(view: View, backing: Option<Arc<KeptStore>>) -> Open {
        Open {
            file: Arc::new(Self { view, backing }),
            direct: false,
            reads_ahead: false,
            is_constant: true,
            is_resized: false,
        }
    }
}

impl OpenFile for FrozenFile {
    fn read_at(&self, _context: &Context, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        match &self.view {
            View::Mapping(file) => file.read_at(offset, buffer, Short::Refused),
            View::Space(file) => file.read_at(offset, buffer, Short::Refused),
            View::Core(file) => file.read_at(offset, buffer),
        }
    }

    fn seek(&self, _context: &Context, offset: u64, whence: Seek) -> Result<u64> {
        match &self.view {
            View::Mapping(file) => file.seek(offset, whence),
            View::Space(file) => file.seek(offset, whence),
            View::Core(file) => file.seek(offset, whence),
        }
    }

    fn backing(&self) -> Option<&Arc<KeptStore>> {
        self.backing.as_ref()
    }
}

impl Frozen {
    /// Whom a read waits for: a file may be on a file system that does not answer.
    pub(super) fn waits_for(&self, has_files: bool) -> WaitsFor {
        match self.process() {
            Ok(process) if has_files => WaitsFor::program(&process.frozen.info.identity),
            _ => WaitsFor::Nobody,
        }
    }

    /// Bytes that are stored of it.
    fn stored(&self) -> u64 {
        self.process()
            .map_or(0, |process| process.frozen.memory.stored(AddressRange::ALL))
    }

    fn has_files(&self) -> bool {
        let has =
            |process: Arc<super::table::Copied>| process.frozen.memory.has_files(AddressRange::ALL);
        self.process().is_ok_and(has)
    }
}

/// The whole address space of a process that was copied.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FrozenSpace(pub(super) Frozen);

impl FrozenSpace {
    fn file(&self, context: &Context) -> Result<SpaceFile> {
        let process = self.0.process()?;
        let memory = Arc::clone(&process.frozen.memory);
        let mappings = Arc::clone(&process.frozen.mappings);
        Ok(SpaceFile::new(memory, mappings, context.options.faults))
    }
}

impl File for FrozenSpace {
    fn kind(&self) -> Kind {
        Kind::File
    }

    fn path(&self) -> String {
        format!("{}/mem", self.0.path())
    }

    fn snapshot(&self) -> Option<&Arc<Snapshot>> {
        Some(&self.0.snapshot)
    }

    fn attributes(
        &self,
        _context: &Context,
        plain: Attributes,
        _counted: &CountedUsage,
    ) -> Attributes {
        Attributes {
            mode: 0o400,
            size: SPACE_SIZE,
            blocks: (self.0.stored() / BLOCK).max(1),
            ..self.0.attributes(plain)
        }
    }

    fn open(&self, context: &Context, _subject: &Subject, access: Access) -> Result<Open> {
        match access.write {
            true => Err(Error::NotPermitted),
            false => Ok(FrozenFile::open(View::Space(self.file(context)?), None)),
        }
    }

    fn xattr_names(&self) -> Vec<&'static str> {
        vec![UNREADABLE_BYTES]
    }

    fn xattr(&self, context: &Context, name: &str) -> Result<Vec<u8>> {
        match name {
            UNREADABLE_BYTES => {
                let file = self.file(context)?;
                counted_unreadable(|at_most| file.unreadable(at_most))
            }
            _ => Err(Error::NoAttribute),
        }
    }

    fn waits_for(&self) -> WaitsFor {
        self.0.waits_for(self.0.has_files())
    }
}

/// An ELF core file of a process that was copied.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FrozenCore(pub(super) Frozen);

impl FrozenCore {
    fn file(&self, context: &Context) -> Result<CoreFile> {
        let process = self.0.process()?;
        let frozen = &process.frozen;
        let source = CoreSource {
            facts: &frozen.facts,
            threads: &frozen.threads,
            mappings: &frozen.mappings,
            is_full: context.options.full_core,
        };
        let image = CoreImage::new(source, |mapping| begins_as_elf(&*frozen.memory, mapping));
        let memory = Arc::clone(&frozen.memory);
        Ok(CoreFile::new(memory, Arc::clone(&frozen.mappings), image))
    }

    fn size(&self, context: &Context) -> Result<u64> {
        let process = self.0.process()?;
        if let Some(size) = process.core_size.get() {
            return Ok(*size);
        }
        let size = self.file(context)?.image().size();
        Ok(*process.core_size.get_or_init(|| size))
    }
}

impl File for FrozenCore {
    fn kind(&self) -> Kind {
        Kind::File
    }

    fn path(&self) -> String {
        format!("{}/core", self.0.path())
    }

    fn snapshot(&self) -> Option<&Arc<Snapshot>> {
        Some(&self.0.snapshot)
    }

    fn attributes(
        &self,
        context: &Context,
        plain: Attributes,
        _counted: &CountedUsage,
    ) -> Attributes {
        let size = self.size(context).unwrap_or(0);
        Attributes {
            mode: 0o400,
            size,
            blocks: (self.0.stored().min(size) / BLOCK).max(1),
            ..self.0.attributes(plain)
        }
    }

    fn open(&self, context: &Context, _subject: &Subject, access: Access) -> Result<Open> {
        match access.write {
            true => Err(Error::NotPermitted),
            false => Ok(FrozenFile::open(View::Core(self.file(context)?), None)),
        }
    }

    fn waits_for(&self) -> WaitsFor {
        self.0.waits_for(self.0.has_files())
    }
}
