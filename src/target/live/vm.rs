//! `process_vm_readv`, in batches (process_vm_readv(2)).

use std::fs::File;
use std::io::IoSliceMut;
use std::os::unix::fs::FileExt;

use linux_raw_sys::general::UIO_MAXIOV;
use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

use super::interrupted::retry;
use crate::common::address::Address;
use crate::common::metrics::Metrics;
use crate::target::ProcessId;

/// Ranges that one call takes at most (`UIO_MAXIOV`); one more gives `EINVAL`.
const MAX_IOVECS: usize = UIO_MAXIOV as usize;

/// Ranges of a process, and where their bytes go: as many as one call takes.
#[derive(Default)]
pub(super) struct Batch<'a> {
    /// As many as `local`, each of the same length, and none is empty.
    remote: Vec<RemoteIoVec>,
    local: Vec<IoSliceMut<'a>>,
    bytes: usize,
}

impl<'a> Batch<'a> {
    pub(super) fn is_full(&self) -> bool {
        self.local.len() == MAX_IOVECS
    }

    /// Length of all of it.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn push(&mut self, address: Address, buffer: &'a mut [u8]) {
        debug_assert!(!self.is_full() && !buffer.is_empty());
        let (base, len) = (address.get() as usize, buffer.len());
        self.bytes += len;
        self.remote.push(RemoteIoVec { base, len });
        self.local.push(IoSliceMut::new(buffer));
    }

    /// Where the first `done` bytes end; `None` where that is all of it.
    pub(super) fn address_after(&self, mut done: usize) -> Option<Address> {
        for remote in &self.remote {
            if done < remote.len {
                return Some(Address::new((remote.base + done) as u64));
            }
            done -= remote.len;
        }
        None
    }

    /// What follows the first `done` bytes.
    pub(super) fn rest(&mut self, mut done: usize) -> impl Iterator<Item = (Address, &mut [u8])> {
        let ranges = self.remote.iter().zip(&mut self.local);
        ranges.filter_map(move |(remote, local)| {
            let skipped = done.min(remote.len);
            done -= skipped;
            let address = Address::new((remote.base + skipped) as u64);
            (skipped < remote.len).then(|| (address, &mut local[skipped..]))
        })
    }

    /// Reads it in order; returns the bytes before the first unreadable page.
    ///
    /// # Errors
    /// The kernel's refusal where nothing was read: `EFAULT` for an unreadable
    /// page, `ESRCH`, and `EPERM` or `ENOSYS` where the call itself is refused.
    pub(super) fn read(&mut self, pid: ProcessId, metrics: &Metrics) -> Result<usize, Errno> {
        metrics.vm_readv_calls.increment();
        metrics.vm_readv_iovecs.add(self.remote.len() as u64);
        let pid = Pid::from_raw(pid.as_pid_t());
        retry(|| process_vm_readv(pid, &mut self.local, &self.remote))
    }
}

/// Reads memory of this process without touching it, so that a page that cannot be had is an error, and no signal.
///
/// The files of a process that is not dumpable are root's: a plain user cannot open the own `/proc/self/mem`.
///
/// # Errors
/// The kernel's refusal, and `UnexpectedEof` where only a part can be read.
pub(super) fn read_own(address: Address, buffer: &mut [u8]) -> std::io::Result<()> {
    let remote = RemoteIoVec {
        base: address.get() as usize,
        len: buffer.len(),
    };
    match process_vm_readv(Pid::this(), &mut [IoSliceMut::new(buffer)], &[remote]) {
        Ok(read) if read == remote.len => Ok(()),
        Ok(_) => Err(std::io::ErrorKind::UnexpectedEof.into()),
        // Where a seccomp filter refuses it for all.
        Err(Errno::EPERM | Errno::ENOSYS) => {
            File::open("/proc/self/mem")?.read_exact_at(buffer, address.get())
        }
        Err(errno) => Err(errno.into()),
    }
}
