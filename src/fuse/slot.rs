//! Answers that somebody else may have to give.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fuser::{
    ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEntry, ReplyLseek, ReplyOpen,
    ReplyWrite, ReplyXattr,
};
use nix::errno::Errno;
use parking_lot::Mutex;

use crate::common::error::Result;

/// A reply that can be an error.
pub(super) trait Refuse: Send + 'static {
    /// Answers with an error.
    fn refuse(self, errno: fuser::Errno);
}

macro_rules! refuse {
    ($($reply:ty),*) => {
        $(impl Refuse for $reply {
            fn refuse(self, errno: fuser::Errno) {
                self.error(errno);
            }
        })*
    };
}

refuse!(
    ReplyAttr,
    ReplyData,
    ReplyDirectory,
    ReplyDirectoryPlus,
    ReplyEntry,
    ReplyLseek,
    ReplyOpen,
    ReplyWrite,
    ReplyXattr
);

/// A reply that is given once, by whoever comes first.
#[derive(Debug)]
pub(super) struct Slot<R>(Arc<Inner<R>>);

#[derive(Debug)]
struct Inner<R> {
    reply: Mutex<Option<R>>,
    missed: AtomicBool,
}

impl<R> Clone for Slot<R> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<R> Slot<R> {
    pub(super) fn new(reply: R) -> Self {
        Self(Arc::new(Inner {
            reply: Mutex::new(Some(reply)),
            missed: AtomicBool::new(false),
        }))
    }

    /// Takes note of a result that says that something does not answer, whoever gives the reply.
    pub(super) fn note<T>(&self, result: &Result<T>) {
        if matches!(result, Err(error) if error.errno() == Errno::ETIMEDOUT) {
            self.0.missed.store(true, Ordering::Relaxed);
        }
    }

    /// Whether such a result was noted.
    pub(super) fn is_missed(&self) -> bool {
        self.0.missed.load(Ordering::Relaxed)
    }

    /// Answers, unless somebody else has; returns whether it did.
    pub(super) fn answer(&self, give: impl FnOnce(R)) -> bool {
        self.take().map(give).is_some()
    }

    /// Takes the reply to answer with, unless somebody else has.
    pub(super) fn take(&self) -> Option<R> {
        self.0.reply.lock().take()
    }
}
