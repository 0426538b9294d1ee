//! `process_vm_readv` and `process_vm_writev`, in batches (process_vm_readv(2)).

use std::io::{IoSlice, IoSliceMut};

use linux_raw_sys::general::UIO_MAXIOV;
use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::unistd::Pid;

use crate::common::address::Address;
use crate::common::metrics::Metrics;
use crate::target::{ProcessId, ReadSegment};

/// Ranges that one call takes at most (`UIO_MAXIOV`); one more gives `EINVAL`.
pub(super) const MAX_IOVECS: usize = UIO_MAXIOV as usize;

/// Reads the segments in order; returns the bytes before the first unreadable page.
///
/// # Errors
/// The kernel's refusal where nothing was read: `EFAULT` for an unreadable
/// page, `ESRCH`, and `EPERM` or `ENOSYS` where the call itself is refused.
pub(super) fn read(
    pid: ProcessId,
    segments: &mut [ReadSegment<'_>],
    metrics: &Metrics,
) -> Result<usize, Errno> {
    let mut done = 0;
    for batch in segments.chunks_mut(MAX_IOVECS) {
        let remote: Vec<RemoteIoVec> = batch
            .iter()
            .map(|segment| RemoteIoVec {
                base: segment.address.get() as usize,
                len: segment.buffer.len(),
            })
            .collect();
        let mut local: Vec<IoSliceMut<'_>> = batch
            .iter_mut()
            .map(|segment| IoSliceMut::new(segment.buffer))
            .collect();
        let wanted: usize = remote.iter().map(|range| range.len).sum();
        metrics.vm_readv_calls.increment();
        metrics.vm_readv_iovecs.add(remote.len() as u64);
        match process_vm_readv(Pid::from_raw(pid.as_pid_t()), &mut local, &remote) {
            Ok(read) => {
                done += read;
                if read < wanted {
                    break;
                }
            }
            Err(errno) if done == 0 => return Err(errno),
            Err(_) => break,
        }
    }
    Ok(done)
}

/// Writes `data` at `address`; returns the bytes before the first page that cannot be written.
///
/// # Errors
/// As [`read`].
pub(super) fn write(
    pid: ProcessId,
    address: Address,
    data: &[u8],
    metrics: &Metrics,
) -> Result<usize, Errno> {
    let remote = RemoteIoVec {
        base: address.get() as usize,
        len: data.len(),
    };
    metrics.vm_writev_calls.increment();
    metrics.vm_writev_iovecs.increment();
    process_vm_writev(
        Pid::from_raw(pid.as_pid_t()),
        &[IoSlice::new(data)],
        &[remote],
    )
}
