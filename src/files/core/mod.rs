//! `core`: an ELF core file for each process, built while it is read.

mod build;
mod table;

use std::sync::Arc;
use std::time::Duration;

use super::attributes::BLOCK;
use super::memory::OpenMemory;
use super::xattr::{UNREADABLE_BYTES, counted_unreadable};
use super::{
    Access, Attributes, Context, CountedUsage, File, Kind, Listing, Node, Open, OpenFile,
    OpenProcess, Pass, Process, Subject, WaitsFor, process_named_waits_for,
};
use crate::common::error::{Error, Result};
use crate::files::view::{CoreFile, Seek};
use crate::target::ProcessInfo;

pub(super) use table::CoreTable;

use table::Shape;

/// A file for each process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Cores;

impl File for Cores {
    fn kind(&self) -> Kind {
        Kind::Directory
    }

    fn path(&self) -> String {
        "core".to_owned()
    }

    fn lookup(&self, context: &Context, name: &str, pass: &Pass<'_>) -> Result<Node> {
        Ok(Core(Process(context.process_named(name, pass)?)).into())
    }

    fn entries(&self, context: &Context, pass: &Pass<'_>) -> Result<Listing> {
        context.list_each(pass, Core)
    }

    fn entries_wait_for(&self) -> WaitsFor {
        WaitsFor::Everybody
    }

    fn lookup_waits_for(&self, name: &str) -> WaitsFor {
        process_named_waits_for(name)
    }
}

/// The core file of a process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Core(Process);

impl Core {
    fn info(&self) -> &Arc<ProcessInfo> {
        &self.0.0
    }
}

impl File for Core {
    fn kind(&self) -> Kind {
        Kind::File
    }

    fn path(&self) -> String {
        format!("core/{}", self.0.path())
    }

    fn process(&self) -> Option<&Arc<ProcessInfo>> {
        self.0.process()
    }

    fn attributes(
        &self,
        context: &Context,
        plain: Attributes,
        counted: &CountedUsage,
    ) -> Attributes {
        let info = self.info();
        let (modified, valid) = context.modified(info);
        let (shape, valid) = match context.core_shape(info, !counted.is_listing()) {
            Some(shape) => (shape, valid),
            // Not known, and not to be found out now: whoever wants to know asks for this file alone.
            None => {
                let resident = context.services.source.resident(info.identity.pid);
                (Shape::of_resident(resident.unwrap_or(0)), Duration::ZERO)
            }
        };
        Attributes {
            mode: 0o400,
            size: shape.size,
            // Never none, or `tar -S` would take it for one large hole.
            blocks: (shape.held / BLOCK).max(1),
            modified,
            valid,
            ..plain
        }
    }

    fn open(&self, context: &Context, subject: &Subject, access: Access) -> Result<Open> {
        if access.write {
            return Err(Error::NotPermitted);
        }
        let info = self.info();
        let memory = OpenMemory::new(context, info, subject, None)?;
        let file = context.core_file(info, &memory.process, Arc::clone(&memory.memory), true)?;
        let memory = memory.with_size(
            context,
            Shape::of(file.image()).size,
            &subject.caller,
            access,
        );
        let open = Arc::new(OpenCore { file, memory });
        let is_first = context.cores.add(&open);
        Ok(Open {
            // Another one that is open has other headers, and the kernel keeps one file's pages.
            direct: open.memory.is_direct() || !is_first,
            reads_ahead: open.memory.reads_ahead,
            is_constant: false,
            // It is built now, and what was shown before was of another moment.
            is_resized: true,
            file: open,
        })
    }

    fn xattr_names(&self) -> Vec<&'static str> {
        vec![UNREADABLE_BYTES]
    }

    fn xattr(&self, context: &Context, name: &str) -> Result<Vec<u8>> {
        if name != UNREADABLE_BYTES {
            return Err(Error::NoAttribute);
        }
        let info = self.info();
        let process = context.opened.open(&info.identity)?;
        let memory = Arc::clone(process.memory()?);
        let file = context.core_file(info, &process, memory, false)?;
        counted_unreadable(|at_most| file.unreadable(at_most))
    }
}

/// A core file that is open: its headers are those of the moment when it was opened.
#[derive(Debug)]
struct OpenCore {
    file: CoreFile,
    memory: OpenMemory,
}

impl OpenFile for OpenCore {
    fn read_at(&self, _context: &Context, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        self.file.read_at(offset, buffer)
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
