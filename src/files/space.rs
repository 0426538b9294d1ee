//! `mem`: whole address spaces.

use std::sync::Arc;

use super::attributes::BLOCK;
use super::memory::OpenMemory;
use super::xattr::{UNREADABLE_BYTES, counted_unreadable};
use super::{
    Access, Attributes, Context, CountedUsage, File, Kind, Listing, Node, Open, OpenFile,
    OpenProcess, Pass, Process, Subject, WaitsFor, process_named_waits_for,
};
use crate::common::error::{Error, Result};
use crate::files::view::{SPACE_SIZE, Seek, SpaceFile};
use crate::target::{ProcessInfo, ProcessMemory, WriteMode};

/// A file for each process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Spaces;

impl File for Spaces {
    fn kind(&self) -> Kind {
        Kind::Directory
    }

    fn path(&self) -> String {
        "mem".to_owned()
    }

    fn lookup(&self, context: &Context, name: &str, pass: &Pass<'_>) -> Result<Node> {
        Ok(Space(Process(context.process_named(name, pass)?)).into())
    }

    fn entries(&self, context: &Context, pass: &Pass<'_>) -> Result<Listing> {
        context.list_each(pass, Space)
    }

    fn entries_wait_for(&self) -> WaitsFor {
        WaitsFor::Everybody
    }

    fn lookup_waits_for(&self, name: &str) -> WaitsFor {
        process_named_waits_for(name)
    }
}

/// The whole address space of a process as one sparse file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Space(Process);

impl Space {
    fn info(&self) -> &Arc<ProcessInfo> {
        &self.0.0
    }

    /// How it is written: each write is then judged by the mapping that it meets.
    fn write_mode(context: &Context) -> Result<WriteMode> {
        context.options.check_writable()?;
        Ok(match context.options.force {
            false => WriteMode::Obey,
            true => WriteMode::Force,
        })
    }
}

impl File for Space {
    fn kind(&self) -> Kind {
        Kind::File
    }

    fn path(&self) -> String {
        format!("mem/{}", self.0.path())
    }

    fn process(&self) -> Option<&Arc<ProcessInfo>> {
        self.0.process()
    }

    /// Waits for no process: a listing of `mem` shows them all, and one may not answer.
    fn attributes(
        &self,
        context: &Context,
        plain: Attributes,
        _counted: &CountedUsage,
    ) -> Attributes {
        let info = self.info();
        let resident = context.services.source.resident(info.identity.pid);
        let (modified, valid) = context.modified(info);
        Attributes {
            mode: if context.options.writable {
                0o600
            } else {
                0o400
            },
            size: SPACE_SIZE,
            // Never none, or `tar -S` would take it for one large hole.
            blocks: (resident.unwrap_or(0) / BLOCK).max(1),
            modified,
            valid,
            ..plain
        }
    }

    fn check_writable(&self, context: &Context) -> Result<()> {
        context.options.check_writable()
    }

    fn check_truncatable(&self, context: &Context) -> Result<()> {
        context.options.check_writable()
    }

    fn open(&self, context: &Context, subject: &Subject, access: Access) -> Result<Open> {
        let write = access
            .write
            .then(|| Self::write_mode(context))
            .transpose()?;
        let memory = OpenMemory::new(context, self.info(), subject, write)?.with_size(
            context,
            SPACE_SIZE,
            &subject.caller,
            access,
        );
        Ok(Open {
            direct: memory.is_direct(),
            reads_ahead: memory.reads_ahead,
            is_constant: false,
            is_resized: false,
            file: Arc::new(OpenSpace {
                info: Arc::clone(self.info()),
                memory,
            }),
        })
    }

    fn xattr_names(&self) -> Vec<&'static str> {
        vec![UNREADABLE_BYTES]
    }

    fn xattr(&self, context: &Context, name: &str) -> Result<Vec<u8>> {
        if name != UNREADABLE_BYTES {
            return Err(Error::NoAttribute);
        }
        let process = context.opened.open(&self.info().identity)?;
        let file = context.space(Arc::clone(process.memory()?), self.info())?;
        counted_unreadable(|at_most| file.unreadable(at_most))
    }
}

/// An address space that is open, with the mappings that it has at the moment.
#[derive(Debug)]
struct OpenSpace {
    info: Arc<ProcessInfo>,
    memory: OpenMemory,
}

impl OpenSpace {
    fn file(&self, context: &Context) -> Result<SpaceFile> {
        context.space(Arc::clone(&self.memory.memory), &self.info)
    }
}

impl OpenFile for OpenSpace {
    fn read_at(&self, context: &Context, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let file = self.file(context)?;
        file.read_at(offset, buffer, self.memory.short)
    }

    fn write_at(&self, context: &Context, offset: u64, data: &[u8]) -> Result<usize> {
        let mode = self.memory.write_mode()?;
        self.file(context)?.write_at(offset, data, mode)
    }

    fn seek(&self, context: &Context, offset: u64, whence: Seek) -> Result<u64> {
        self.file(context)?.seek(offset, whence)
    }

    fn was_read(&self, context: &Context, bytes: usize) {
        self.memory.was_read(context, bytes);
    }

    fn process(&self) -> Option<&Arc<OpenProcess>> {
        Some(&self.memory.process)
    }
}

impl Context {
    /// The address space as it is now, or was a moment ago, read and written through `memory`.
    fn space(&self, memory: Arc<dyn ProcessMemory>, info: &Arc<ProcessInfo>) -> Result<SpaceFile> {
        let snapshot = self
            .processes
            .fresh_address_space(info)
            .map_err(|error| match error {
                Error::NoProcess(pid) => Error::Ended(pid),
                error => error,
            })?;
        Ok(SpaceFile::new(
            memory,
            Arc::clone(snapshot.mappings()),
            self.options.faults,
        ))
    }
}
