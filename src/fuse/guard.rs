//! Answers that somebody else may have to give.

use std::sync::Arc;

use fuser::{
    ReplyAttr, ReplyData, ReplyDirectoryPlus, ReplyEntry, ReplyLseek, ReplyOpen, ReplyWrite,
    ReplyXattr,
};
use parking_lot::Mutex;

use super::shared::Shared;
use crate::error::Error;
use crate::metrics::Operation;
use crate::patience::Entry;
use crate::tree::Inode;

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
    fn new(reply: R) -> Self {
        Self(Arc::new(Mutex::new(Some(reply))))
    }

    /// Answers, unless somebody else has; returns whether it did.
    pub(super) fn answer(&self, give: impl FnOnce(R)) -> bool {
        let reply = self.0.lock().take();
        reply.map(give).is_some()
    }
}

impl Shared {
    /// Does `work`, which may wait in the memory of the process that `inode`
    /// belongs to, and answers without it where that takes too long.
    pub(super) fn guarded<R: Refuse>(
        self: &Arc<Self>,
        operation: Operation,
        inode: Inode,
        reply: R,
        work: impl FnOnce(&Self, &Slot<R>) + Send + 'static,
    ) {
        self.guarded_with(operation, inode, reply, &[], |shared, slot, _| {
            work(shared, slot);
        });
    }

    /// As [`guarded`](Self::guarded), for work on borrowed data, which is copied only if the work must wait.
    pub(super) fn guarded_with<R: Refuse>(
        self: &Arc<Self>,
        operation: Operation,
        inode: Inode,
        reply: R,
        data: &[u8],
        work: impl FnOnce(&Self, &Slot<R>, &[u8]) + Send + 'static,
    ) {
        let slot = Slot::new(reply);
        let Some(process) = self.fs.process_of(inode) else {
            return work(self, &slot, data);
        };
        let expire = {
            let (shared, slot) = (Arc::clone(self), slot.clone());
            move || {
                let error = Error::TimedOut(process);
                slot.answer(|reply| reply.refuse(shared.fail(operation, inode, &error)));
            }
        };
        match self.patience.enter(process, expire.clone()) {
            Entry::Seated(seat) => {
                work(self, &slot, data);
                self.patience.leave(seat);
            }
            Entry::Full => {
                let (shared, data) = (Arc::clone(self), data.to_vec());
                self.patience
                    .queue(process, expire, move || work(&shared, &slot, &data));
            }
            Entry::Refused => expire(),
        }
    }
}
