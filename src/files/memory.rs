//! Memory of a process that is open, whatever part of it a file shows.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::block_sizes::Reader;
use super::{Access, Caller, Context, OpenProcess, Subject};
use crate::common::error::{Error, Result};
use crate::files::view::Short;
use crate::target::{ProcessInfo, ProcessMemory, WriteMode};

/// What every open file of memory has.
#[derive(Debug)]
pub(super) struct OpenMemory {
    /// The process, held so that all who open it meanwhile share its epoch.
    pub(super) process: Arc<OpenProcess>,
    /// Its memory, as far as it is open to who has opened it.
    pub(super) memory: Arc<dyn ProcessMemory>,
    /// Whether a read may be answered in part.
    pub(super) short: Short,
    /// How a write treats the protection; `None` where it is open for reading only.
    write: Option<WriteMode>,
    /// Whether it is to be read ahead here, in the kernel's place.
    pub(super) reads_ahead: bool,
    /// Who has opened it, where that decides how the next file is opened.
    reader: Option<Reader>,
}

impl OpenMemory {
    /// Opens the memory of a process for `subject`, as the kernel judges it now; what is read through it is no older than now.
    ///
    /// # Errors
    /// `Ended`, `Replaced`, `ProcessDenied`, `CallerDenied`.
    pub(super) fn new(
        context: &Context,
        info: &ProcessInfo,
        subject: &Subject,
        write: Option<WriteMode>,
    ) -> Result<Self> {
        let process = context.opened.open(&info.identity)?;
        let memory = context.opened.retry(|| match &subject.credentials {
            None => process.memory().cloned(),
            Some(who) => process.memory_for(who, write.is_some()),
        })?;
        let freshness = &context.services.freshness;
        freshness.renew(&process.epoch);
        // Whole pages that come back from the kernel's cache would revert what the
        // target wrote meanwhile: a file that can be written is never cached there.
        let short = if write.is_some() || freshness.bound().is_zero() {
            Short::Allowed
        } else {
            Short::Refused
        };
        Ok(Self {
            process,
            memory,
            short,
            write,
            reads_ahead: false,
            reader: None,
        })
    }

    /// The same for a file of so many bytes, which this caller has opened: past the kernel's page cache, where that pays.
    pub(super) fn with_size(
        self,
        context: &Context,
        size: u64,
        caller: &Caller,
        access: Access,
    ) -> Self {
        if self.is_direct() || access.is_direct {
            return self;
        }
        let (is_direct, reader) = context.opens_directly(size, caller.pid);
        let short = match is_direct {
            true => Short::Allowed,
            false => self.short,
        };
        Self {
            short,
            reads_ahead: is_direct,
            reader,
            ..self
        }
    }

    /// Takes note of a request for so many bytes.
    pub(super) fn was_read(&self, context: &Context, bytes: usize) {
        if let Some(reader) = &self.reader {
            context.was_read_by(reader, bytes);
        }
    }

    /// Whether the kernel must keep none of its pages.
    pub(super) fn is_direct(&self) -> bool {
        self.short == Short::Allowed
    }

    /// # Errors
    /// `BadHandle` where it is open for reading only.
    pub(super) fn write_mode(&self) -> Result<WriteMode> {
        self.write.ok_or(Error::BadHandle)
    }
}

impl Context {
    /// The process, if it can be opened.
    pub(super) fn open_process(&self, info: &ProcessInfo) -> Option<Arc<OpenProcess>> {
        match self.opened.known(&info.identity) {
            Some(open) => Some(open),
            None => self.opened.open(&info.identity).ok(),
        }
    }

    /// The time of last modification of memory, and how long it may be kept: while the
    /// process is open they move with the epoch of what was read, and never without it.
    pub(super) fn modified(&self, info: &ProcessInfo) -> (SystemTime, Duration) {
        let freshness = &self.services.freshness;
        match self.opened.known(&info.identity) {
            Some(open) => {
                let (epoch, valid) = freshness.for_kernel(&open.epoch);
                (epoch.modified(), valid)
            }
            None => (freshness.clock().wall(), freshness.longest_for_kernel()),
        }
    }
}
