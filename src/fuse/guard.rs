//! Requests that may wait in a target's memory.

use std::sync::Arc;

use super::shared::Shared;
use super::slot::{Refuse, Slot};
use crate::error::Error;
use crate::metrics::Operation;
use crate::patience::{Entry, contained};
use crate::tree::Inode;

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
            return contained(|| work(self, &slot, data));
        };
        let expire = {
            let (shared, slot) = (Arc::clone(self), slot.clone());
            move || {
                let error = Error::TimedOut(process);
                slot.answer(|reply| reply.refuse(shared.fail(operation, inode, &error)));
            }
        };
        match self.patience.enter(process, expire.clone()) {
            Entry::Seated(seat) => self.patience.work(seat, || work(self, &slot, data)),
            Entry::Full => {
                let (shared, data) = (Arc::clone(self), data.to_vec());
                self.patience
                    .queue(process, expire, move || work(&shared, &slot, &data));
            }
            Entry::Refused => expire(),
        }
    }
}
