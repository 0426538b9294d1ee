//! The memory of one live process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;

use super::pinned::Pinned;
use super::vm;
use crate::address::Address;
use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::process::{ProcessIdentity, ProcessMemory, ReadSegment, Reuse, Route, WriteMode};

/// Memory of a pinned process: `process_vm_readv` where that serves, the pinned `mem` where it does not.
#[derive(Debug)]
pub(super) struct LiveMemory {
    pinned: Pinned,
    metrics: Arc<Metrics>,
    /// Whether a seccomp filter or an old kernel bars the calls (`EPERM`, `ENOSYS`).
    calls_barred: AtomicBool,
}

impl LiveMemory {
    pub(super) fn new(pinned: Pinned, metrics: Arc<Metrics>) -> Self {
        Self {
            pinned,
            metrics,
            calls_barred: AtomicBool::new(false),
        }
    }

    fn are_calls_barred(&self) -> bool {
        self.calls_barred.load(Ordering::Relaxed)
    }

    fn bar_calls(&self, errno: Errno) {
        if !self.calls_barred.swap(true, Ordering::Relaxed) {
            log::info!(
                "process {}: process_vm_readv is refused ({errno}), reading through /proc/PID/mem instead",
                self.identity().pid
            );
        }
    }

    /// Reads segments of one route.
    fn read_run(
        &self,
        run: &mut [ReadSegment<'_>],
        route: Route,
    ) -> std::result::Result<usize, Errno> {
        if route == Route::Protected && !self.are_calls_barred() {
            match vm::read(self.identity().pid, run, &self.metrics) {
                Err(errno @ (Errno::EPERM | Errno::ENOSYS)) => self.bar_calls(errno),
                answer => return answer,
            }
        }
        let mut done = 0;
        for segment in run {
            self.metrics.mem_reads.increment();
            match self.pinned.read(segment.address, segment.buffer) {
                Ok(read) => {
                    done += read;
                    if read < segment.buffer.len() {
                        break;
                    }
                }
                Err(_) if done > 0 => break,
                Err(errno) => return Err(errno),
            }
        }
        Ok(done)
    }
}

impl ProcessMemory for LiveMemory {
    fn identity(&self) -> &ProcessIdentity {
        self.pinned.identity()
    }

    fn verify(&self) -> Result<()> {
        self.pinned.verify()
    }

    fn read(&self, segments: &mut [ReadSegment<'_>], _reuse: Reuse) -> Result<usize> {
        let mut done = 0;
        let mut failure = None;
        for run in segments.chunk_by_mut(|one, next| one.route == next.route) {
            let (route, address) = (run[0].route, run[0].address);
            let wanted: usize = run.iter().map(|segment| segment.buffer.len()).sum();
            match self.read_run(run, route) {
                Ok(read) => {
                    done += read;
                    if read < wanted {
                        failure = Some(Error::Unreachable(address));
                        break;
                    }
                }
                Err(errno) => {
                    failure = Some(refusal(address, "process_vm_readv", errno));
                    break;
                }
            }
        }
        // The bytes came by the process's number: only now is it known whose they are.
        self.verify()?;
        match failure {
            Some(error) if done == 0 => Err(error),
            _ => Ok(done),
        }
    }

    fn write(&self, address: Address, data: &[u8], mode: WriteMode) -> Result<usize> {
        if data.is_empty() {
            return Ok(0);
        }
        self.verify()?;
        let pid = self.identity().pid;
        let mut answer = Err(Errno::ENOSYS);
        if mode == WriteMode::Obey && !self.are_calls_barred() {
            answer = vm::write(pid, address, data, &self.metrics);
        }
        if let Err(errno @ (Errno::ENOSYS | Errno::EPERM)) = answer {
            if mode == WriteMode::Obey {
                self.bar_calls(errno);
            }
            if !self.pinned.is_writable() {
                return Err(Error::Protected);
            }
            self.metrics.mem_writes.increment();
            answer = self.pinned.write(address, data);
        }
        self.verify()?;
        match answer {
            Ok(0) => Err(Error::Unreachable(address)),
            Ok(written) => Ok(written),
            Err(errno) => Err(refusal(address, "process_vm_writev", errno)),
        }
    }
}

/// What a refusal of the kernel means for a range that starts at `address`.
fn refusal(address: Address, what: &'static str, errno: Errno) -> Error {
    match errno {
        Errno::EFAULT | Errno::EIO => Error::Unreachable(address),
        errno => Error::system(what, errno),
    }
}
