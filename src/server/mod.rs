//! Requests, whatever transport brings them: who may wait for a process, who answers, and what is logged of it.
//!
//! A transport hands a [`Request`] and whoever waits for its answer to [`Server::serve`], and knows no more.

pub(crate) mod admission;
mod ahead;
mod audit;
mod deadlines;
mod directory;
mod dispatcher;
mod failures;
mod file_system;
mod handles;
mod inodes;
mod invalidation;
#[cfg(all(test, shuttle))]
mod models;
mod reply;
mod request;
mod snapshots;
mod survey;

use std::sync::Arc;

use crate::common::contained::contained;
use crate::common::error::Error;
use crate::common::sync::atomic::AtomicUsize;

pub use audit::AUDIT;
pub(crate) use file_system::{Entry, FileSystem, Opened};
pub(crate) use inodes::{Generation, Inode};
pub(crate) use invalidation::{Invalidate, InvalidationQueue, Invalidations};
pub(crate) use reply::{Name, NamedEntry, Reply, Respond};
pub(crate) use request::{Buffers, Operation, Request};

use admission::Admission;
use ahead::ReadAhead;
use dispatcher::ENTRIES;
use failures::Failures;
use snapshots::Copies;

/// Serves the file system, whatever the transport.
#[derive(Debug)]
pub(crate) struct Server {
    fs: Arc<FileSystem>,
    invalidations: Invalidations,
    admission: Arc<Admission>,
    ahead: Arc<ReadAhead>,
    failures: Failures,
    copies: Copies,
    /// Entries to put together for the next answer to `readdirplus`: a few more than the last one took.
    entries: AtomicUsize,
}

impl Server {
    /// A server of `fs`. `invalidations` takes what the kernel must not believe any more, and
    /// `admission` says what may wait for a target.
    pub(crate) fn new(
        fs: Arc<FileSystem>,
        invalidations: Invalidations,
        admission: Arc<Admission>,
    ) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let ahead = ReadAhead::new(Arc::clone(&fs), Arc::clone(&admission), processors);
        Self {
            ahead: Arc::new(ahead),
            failures: Failures::new(Arc::clone(fs.context().clock())),
            fs,
            invalidations,
            admission,
            copies: Copies::default(),
            entries: AtomicUsize::new(ENTRIES.0),
        }
    }

    /// Takes references to an inode back. Nobody waits for an answer.
    pub(crate) fn forget(&self, inode: Inode, lookups: u64) {
        contained(|| self.fs.forget(inode, lookups));
    }

    /// The end of the file system: ends the watchdog and the workers, and logs how many failures were not.
    pub(crate) fn end(&self) {
        self.ahead.end();
        self.admission.end();
        self.fs.end_audit();
        self.failures.log_rest();
    }

    /// The time, as requests begin at it.
    fn now(&self) -> std::time::Duration {
        self.fs.context().clock().now()
    }

    /// Counts and logs a failure, once and here.
    fn fail(&self, request: &Request, error: &Error) -> nix::errno::Errno {
        self.fs.audit_refusal(request, error);
        self.failures.log(&self.fs, request, error)
    }
}
