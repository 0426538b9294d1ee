//! Answers that somebody else may have to give.

use std::sync::Arc;

use fuser::{
    ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEntry, ReplyLseek, ReplyOpen,
    ReplyWrite, ReplyXattr,
};
use parking_lot::Mutex;

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
pub(super) struct Slot<R>(Arc<Mutex<Option<R>>>);

impl<R> Clone for Slot<R> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<R> Slot<R> {
    pub(super) fn new(reply: R) -> Self {
        Self(Arc::new(Mutex::new(Some(reply))))
    }

    /// Answers, unless somebody else has; returns whether it did.
    pub(super) fn answer(&self, give: impl FnOnce(R)) -> bool {
        self.take().map(give).is_some()
    }

    /// Takes the reply to answer with, unless somebody else has.
    pub(super) fn take(&self) -> Option<R> {
        self.0.lock().take()
    }
}
