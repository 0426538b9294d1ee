//! Requests that look at all processes.

use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;

use super::guard::answered;
use super::shared::Shared;
use super::slot::{Refuse, Slot};
use crate::admission::{Admitted, Permit, Survey};
use crate::error::Error;
use crate::fs::Involves;
use crate::metrics::Operation;
use crate::tree::{Found, Inode, Pass};

type Work<R> = Box<dyn Fn(&Shared, &Slot<R>, &Pass<'_>) + Send + Sync>;

/// A request that looks at all processes, for one thread after another: each goes on where the one
/// before it waits.
struct Surveyed<R> {
    shared: Arc<Shared>,
    operation: Operation,
    inode: Inode,
    begun: Duration,
    found: Found,
    work: Work<R>,
}

impl Shared {
    /// As [`guarded`](Self::guarded), for work that may wait for whom it `involves`, and that looks
    /// at all processes in the pass that it is given, if at all.
    pub(super) fn surveyed<R: Refuse>(
        self: &Arc<Self>,
        operation: Operation,
        inode: Inode,
        involves: Involves,
        reply: R,
        work: impl Fn(&Self, &Slot<R>, &Pass<'_>) + Send + Sync + 'static,
    ) {
        if involves == Involves::Everybody {
            let survey = Surveyed {
                shared: Arc::clone(self),
                operation,
                inode,
                begun: self.admission.now(),
                found: Found::default(),
                work: Box::new(work),
            };
            return Arc::new(survey).begin(Slot::new(reply));
        }
        self.guarded_with(
            operation,
            inode,
            involves,
            reply,
            &[],
            move |shared, slot, _| {
                work(shared, slot, &Pass::everywhere(&Found::default()));
            },
        );
    }
}

impl<R: Refuse> Surveyed<R> {
    /// On this thread, if it may wait.
    fn begin(self: Arc<Self>, slot: Slot<R>) {
        let admission = Arc::clone(&self.shared.admission);
        let expire = Arc::clone(&self).expiry(slot.clone());
        match admission.enter_survey(Some(self.begun), expire) {
            Admitted::Now(permit) => {
                self.make(&slot, &permit);
                admission.leave(permit);
            }
            Admitted::Later | Admitted::Refused => self.queue(slot),
        }
    }

    fn queue(self: Arc<Self>, slot: Slot<R>) {
        let admission = Arc::clone(&self.shared.admission);
        let expire = Arc::clone(&self).expiry(slot.clone());
        let begun = Some(self.begun);
        admission.queue_survey(begun, expire, move |permit| self.make(&slot, permit));
    }

    fn make(&self, slot: &Slot<R>, permit: &Permit) {
        let survey = Survey::new(&self.shared.admission, permit);
        let pass = Pass::new(&survey, &self.found);
        answered(slot, || (self.work)(&self.shared, slot, &pass));
    }

    /// What is done where the thread that makes the survey waits: another one takes the reply, and
    /// goes on.
    fn expiry(self: Arc<Self>, slot: Slot<R>) -> impl FnOnce() + Send + 'static {
        move || {
            let Some(reply) = slot.take() else { return };
            let admission = &self.shared.admission;
            if admission.now() < self.begun + admission.deadline() {
                return self.queue(Slot::new(reply));
            }
            let error = Error::system("listing the processes", Errno::ETIMEDOUT);
            reply.refuse(self.shared.fail(self.operation, self.inode, &error));
        }
    }
}
