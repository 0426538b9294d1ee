//! `/proc/PID/mem`: the memory of one address space, whatever its process runs by then (proc_pid_mem(5)).

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};

use nix::errno::Errno;
use procfs::process::Process;
use rustix::fs::OFlags;

use super::interrupted::retry;
use super::{errno_of, from_proc};
use crate::common::address::Address;
use crate::common::error::{Error, Result};
use crate::target::ProcessId;

/// An open `mem`. It follows the address space that the process had when it was opened: once that is gone it reads
/// and writes 0 bytes, and never has those of another program.
///
/// It passes over the protection of mappings, as far as the kernel lets it (`FOLL_FORCE`): whoever is to obey that
/// asks before.
#[derive(Debug)]
pub(super) struct Mem {
    file: File,
    is_writable: bool,
}

impl Mem {
    /// Opens it for reading.
    ///
    /// # Errors
    /// `NoProcess`, `ProcessDenied`, `System`.
    pub(super) fn open(directory: &Process, pid: ProcessId) -> Result<Self> {
        let file = retry(|| directory.open_relative("mem"));
        let file = file.map_err(|error| from_proc(pid, "open of mem", &error))?;
        Ok(Self::opened(file, false))
    }

    /// Opens it for writing too.
    ///
    /// # Errors
    /// `Unwritable` where the kernel refuses it to this user, or `/proc` is mounted `ro`; `NoProcess`, `System`.
    pub(super) fn open_for_writing(directory: &Process, pid: ProcessId) -> Result<Self> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let file = retry(|| directory.open_relative_flags("mem", flags));
        let file = file.map_err(|error| match from_proc(pid, "open of mem", &error) {
            Error::ProcessDenied(_)
            | Error::System {
                errno: Errno::EROFS,
                ..
            } => Error::Unwritable(pid),
            error => error,
        })?;
        Ok(Self::opened(file, true))
    }

    /// What somebody else has opened, for writing too or for reading alone: whoever has it may use it, whatever the
    /// credentials, since the kernel has judged the open.
    pub(super) fn opened(file: File, is_writable: bool) -> Self {
        Self { file, is_writable }
    }

    /// Its owner and its group.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub(super) fn owner(&self) -> std::io::Result<(u32, u32)> {
        let status = retry(|| self.file.metadata())?;
        Ok((status.uid(), status.gid()))
    }

    /// Whether it takes writes.
    pub(super) fn is_writable(&self) -> bool {
        self.is_writable
    }

    /// Reads, whatever the protection; returns the bytes before the first unreadable page.
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
            match retry(|| self.file.read_at(&mut buffer[done..], at)) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(_) if done > 0 => break,
                Err(error) => return Err(errno_of(&error)),
            }
        }
        Ok(done)
    }

    /// Writes, whatever the protection; returns the bytes before the first page that takes none.
    ///
    /// # Errors
    /// `EIO` where that is the first.
    pub(super) fn write(&self, address: Address, data: &[u8]) -> std::result::Result<usize, Errno> {
        let mut done = 0;
        while done < data.len() {
            let at = address.plus(done as u64).get();
            match retry(|| self.file.write_at(&data[done..], at)) {
                Ok(0) => break,
                Ok(written) => done += written,
                Err(_) if done > 0 => break,
                Err(error) => return Err(errno_of(&error)),
            }
        }
        Ok(done)
    }
}
