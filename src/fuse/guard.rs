//! Requests that may wait for a process.

use std::sync::Arc;

use super::shared::Shared;
use super::slot::{Refuse, Slot};
use crate::common::contained::contained;
use crate::common::error::Error;
use crate::common::metrics::Operation;
use crate::fs::Involves;
use crate::server::admission::{Admitted, Kind, Target};
use crate::tree::Inode;

/// Whether an answer shows that the process answers, and not only that we know something of it.
fn kind(operation: Operation) -> Kind {
    match operation {
        Operation::Read
        | Operation::Write
        | Operation::Seek
        | Operation::OpenDirectory
        | Operation::ExtendedAttribute => Kind::Probe,
        Operation::Lookup
        | Operation::GetAttributes
        | Operation::SetAttributes
        | Operation::ReadLink
        | Operation::Open
        | Operation::ReadDirectory
        | Operation::Access
        | Operation::Refused => Kind::Other,
    }
}

/// Does `work`, which answers by `slot`; where it panics that is answered, too: at once, and not when
/// the last one lets go of the reply.
pub(super) fn answered<R: Refuse>(slot: &Slot<R>, work: impl FnOnce()) {
    if !contained(work) {
        slot.answer(|reply| reply.refuse(fuser::Errno::EIO));
    }
}

impl Shared {
    /// Does `work`, which may wait for the process that `inode` belongs to, and answers without it
    /// where that takes too long.
    pub(super) fn guarded<R: Refuse>(
        self: &Arc<Self>,
        operation: Operation,
        inode: Inode,
        reply: R,
        work: impl FnOnce(&Self, &Slot<R>) + Send + 'static,
    ) {
        let involves = self.fs.involves(inode);
        self.guarded_with(operation, inode, involves, reply, &[], |shared, slot, _| {
            work(shared, slot);
        });
    }

    /// As [`guarded`](Self::guarded), for work that may wait for whom it `involves`, and that needs
    /// borrowed data, which is copied only if the work must wait.
    pub(super) fn guarded_with<R: Refuse>(
        self: &Arc<Self>,
        operation: Operation,
        inode: Inode,
        involves: Involves,
        reply: R,
        data: &[u8],
        work: impl FnOnce(&Self, &Slot<R>, &[u8]) + Send + 'static,
    ) {
        let slot = Slot::new(reply);
        let Involves::Process(pid, instance) = involves else {
            return answered(&slot, || work(self, &slot, data));
        };
        let target = Target { pid, instance };
        let expire = {
            let (shared, slot) = (Arc::clone(self), slot.clone());
            move || {
                let error = Error::TimedOut(pid);
                slot.answer(|reply| reply.refuse(shared.fail(operation, inode, &error)));
            }
        };
        let kind = kind(operation);
        match self.admission.enter(target, kind, expire.clone()) {
            Admitted::Now(permit) => {
                answered(&slot, || work(self, &slot, data));
                self.admission.leave(permit, !slot.is_missed());
            }
            Admitted::Later => {
                let (shared, data) = (Arc::clone(self), data.to_vec());
                let bytes = data.len();
                self.admission.queue(target, kind, bytes, expire, move || {
                    answered(&slot, || work(&shared, &slot, &data));
                    !slot.is_missed()
                });
            }
            Admitted::Refused => expire(),
        }
    }

    /// Closes a handle that nobody can use any more. Nobody waits for that, so it has the time that it
    /// takes: closing a file can wait for its file system.
    pub(super) fn released(self: &Arc<Self>, handle: u64) {
        let Involves::Process(pid, instance) = self.fs.handle_involves(handle) else {
            contained(|| self.fs.release(handle));
            return;
        };
        let shared = Arc::clone(self);
        self.admission.close(Target { pid, instance }, move || {
            contained(|| shared.fs.release(handle));
        });
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use parking_lot::Mutex;

    use super::*;
    use crate::fs::tests::bench;
    use crate::fuse::outdate::Outdated;
    use crate::server::admission::tests::FakeTasks;
    use crate::server::admission::{Admission, Limits};
    use crate::tree::ROOT;

    /// A reply that counts its refusals.
    #[derive(Clone, Default)]
    struct Refusals(Arc<Mutex<Vec<fuser::Errno>>>);

    impl Refuse for Refusals {
        fn refuse(self, errno: fuser::Errno) {
            self.0.lock().push(errno);
        }
    }

    /// With one permit.
    fn shared() -> Arc<Shared> {
        let bench = bench();
        let tasks = Arc::new(FakeTasks::default());
        let admission = Admission::new(bench.clock, tasks, Limits::for_threads(2));
        let (fs, admission) = (Arc::new(bench.fs), Arc::new(admission));
        Arc::new(Shared::new(fs, Outdated::new().0, admission))
    }

    #[test]
    fn a_request_that_panics_is_refused_and_costs_no_permit() {
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
        assert!(*done.lock(), "the permit was free");
    }
}
