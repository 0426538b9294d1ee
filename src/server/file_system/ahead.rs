//! What is read ahead of open files.

use std::sync::Arc;

use super::FileSystem;
use crate::files::OpenFile;
use crate::server::ahead::{Lent, ReadAhead};
use crate::server::handles::FileHandle;
use crate::target::cache::Epoch;

impl FileSystem {
    /// What this handle has open, where that is read ahead here.
    pub(in crate::server) fn read_ahead_file(&self, handle: u64) -> Option<FileHandle> {
        self.handles.read_ahead(handle)
    }

    /// The bytes to answer a read with, where all of them were read ahead in one window, and nobody is waited for.
    pub(in crate::server) fn lend_read_ahead(
        &self,
        open: &FileHandle,
        offset: u64,
        size: usize,
        ahead: &Arc<ReadAhead>,
    ) -> Option<Lent> {
        let lent = ahead.lend(open.stream.as_ref()?, &open.file, offset, size)?;
        self.note_read(open, size);
        Some(lent)
    }

    /// As [`read`](Self::read), where all of the bytes were read ahead, and nobody is waited for; returns whether they were.
    pub(in crate::server) fn take_read_ahead(
        &self,
        open: &FileHandle,
        offset: u64,
        buffer: &mut [u8],
        ahead: &Arc<ReadAhead>,
    ) -> bool {
        let is_taken = open
            .stream
            .as_ref()
            .is_some_and(|stream| ahead.take_all(stream, &open.file, offset, buffer));
        if is_taken {
            self.note_read(open, buffer.len());
        }
        is_taken
    }

    fn note_read(&self, open: &FileHandle, size: usize) {
        open.file.was_read(&self.context, size);
        self.context.metrics().read_bytes.add(size as u64);
    }

    /// The epoch that what is read of a file from now on belongs to; `None` for what is no memory of a process.
    pub(in crate::server) fn epoch(&self, file: &dyn OpenFile) -> Option<Epoch> {
        let process = file.process()?;
        Some(process.current_epoch(self.context.freshness()))
    }
}
