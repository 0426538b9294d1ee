//! Requests that may wait in a target's memory.

use std::sync::Arc;

use super::shared::Shared;
use super::slot::{Refuse, Slot};
use crate::contained::contained;
use crate::error::Error;
use crate::metrics::Operation;
use crate::patience::Entry;
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
        let work = move |shared: &Self, slot: &Slot<R>, data: &[u8]| {
            if !contained(|| work(shared, slot, data)) {
                // At once, and not when the last one lets go of the reply.
                slot.answer(|reply| reply.refuse(fuser::Errno::EIO));
            }
        };
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

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use parking_lot::Mutex;

    use super::*;
    use crate::fs::tests::bench;
    use crate::fuse::outdate::Outdated;
    use crate::patience::tests::FakeThreads;
    use crate::patience::{Limits, Patience};
    use crate::tree::ROOT;

    /// A reply that counts its refusals.
    #[derive(Clone, Default)]
    struct Refusals(Arc<Mutex<Vec<fuser::Errno>>>);

    impl Refuse for Refusals {
        fn refuse(self, errno: fuser::Errno) {
            self.0.lock().push(errno);
        }
    }

    /// With one seat.
    fn shared() -> Arc<Shared> {
        let bench = bench();
        let threads = Arc::new(FakeThreads::default());
        let patience = Patience::new(bench.clock, threads, Limits::for_threads(2));
        Arc::new(Shared::new(bench.fs, Outdated::new().0, Arc::new(patience)))
    }

    #[test]
    fn a_request_that_panics_is_refused_and_costs_no_seat() {
        let shared = shared();
        let process = shared.fs.lookup(ROOT, OsStr::new("7")).unwrap().inode;
        let refusals = Refusals::default();
        for inode in [ROOT, process, process] {
            shared.guarded(Operation::Read, inode, refusals.clone(), |_, _| {
                panic!("a defect");
            });
        }
        assert_eq!(*refusals.0.lock(), [fuser::Errno::EIO; 3]);
        let done = Arc::new(Mutex::new(false));
        let set = Arc::clone(&done);
        shared.guarded(Operation::Read, process, refusals, move |_, _| {
            *set.lock() = true;
        });
        assert!(*done.lock(), "the seat was free");
    }
}
