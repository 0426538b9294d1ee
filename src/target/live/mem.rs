//! `/proc/PID/mem`: an address space as a file (proc_pid_mem(5)).

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};

use nix::errno::Errno;

use super::errno_of;
use crate::common::address::Address;

/// An open `mem`. It follows the address space that the process had when it was opened, and whoever has it may use it, whatever
/// the credentials: the kernel has judged the open.
#[derive(Debug)]
pub(super) struct Mem {
    file: File,
    writable: bool,
}

impl Mem {
    /// What was opened for writing too, or for reading alone.
    pub(super) fn new(file: File, writable: bool) -> Self {
        Self { file, writable }
    }

    /// Its owner and its group.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub(super) fn owner(&self) -> std::io::Result<(u32, u32)> {
        let status = self.file.metadata()?;
        Ok((status.uid(), status.gid()))
    }

    /// Whether it takes writes.
    pub(super) fn is_writable(&self) -> bool {
        self.writable
    }

    /// Reads through `mem`, whatever the protection; returns the bytes before the first unreadable page.
    ///
    /// # Errors
    /// `EIO` where that is the first.
    pub(super) fn read(
        &self,
        address: Address,
        buffer: &mut [u8],
    ) -> std::result::Result<usize, Errno> {
        let mut done = 0;
        while done < buffer.len() {
            let at = address.plus(done as u64).get();
            match self.file.read_at(&mut buffer[done..], at) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(_) if done > 0 => break,
                Err(error) => return Err(errno_of(&error)),
            }
        }
        Ok(done)
    }

    /// Writes through `mem`, whatever the protection; returns the bytes before the first page that takes none.
    ///
    /// # Errors
    /// `EIO` where that is the first.
    pub(super) fn write(&self, address: Address, data: &[u8]) -> std::result::Result<usize, Errno> {
        let mut done = 0;
        while done < data.len() {
            match self
                .file
                .write_at(&data[done..], address.plus(done as u64).get())
            {
                Ok(0) => break,
                Ok(written) => done += written,
                Err(_) if done > 0 => break,
                Err(error) => return Err(errno_of(&error)),
            }
        }
        Ok(done)
    }
}
