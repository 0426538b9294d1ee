//! Requests that look at all processes.

use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;

use super::guard::answered;
use super::shared::Shared;
use super::slot::{Refuse, Slot};
use crate::common::error::Error;
use crate::common::metrics::Operation;
use crate::fs::Involves;
use crate::server::admission::{Admitted, Permit, Survey};
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
            return Arc::new(survey).begin(&Slot::new(reply));
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
    fn begin(self: Arc<Self>, slot: &Slot<R>) {
        let admission = Arc::clone(&self.shared.admission);
        let expire = Arc::clone(&self).expiry(slot.clone());
        match admission.enter_survey(Some(self.begun), expire) {
            Admitted::Now(permit) => {
                self.make(slot, &permit);
                admission.leave(permit, true);
            }
            Admitted::Later | Admitted::Refused => self.queue(slot),
        }
    }

    fn queue(self: Arc<Self>, slot: &Slot<R>) {
        let admission = Arc::clone(&self.shared.admission);
        let expire = Arc::clone(&self).expiry(slot.clone());
        let begun = Some(self.begun);
        let (survey, queued) = (Arc::clone(&self), slot.clone());
        let job = move |permit: &Permit| survey.make(&queued, permit);
        // Not tried again: the queue would be as full.
        if !admission.queue_survey(begun, expire, job)
            && let Some(reply) = slot.take()
        {
            self.give_up(reply);
        }
    }

    fn give_up(&self, reply: R) {
        let error = Error::system("listing the processes", Errno::ETIMEDOUT);
        reply.refuse(self.shared.fail(self.operation, self.inode, &error));
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
                return self.queue(&Slot::new(reply));
            }
            self.give_up(reply);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::sync::mpsc::{Sender, channel};

    use super::*;
    use crate::fs::tests::bench;
    use crate::fuse::outdate::Outdated;
    use crate::server::admission::tests::FakeTasks;
    use crate::server::admission::{Admission, Limits};
    use crate::target::fake::FakeProcess;
    use crate::tree::ROOT;

    /// A reply that is sent on.
    struct Sent(Sender<Vec<String>>);

    impl Refuse for Sent {
        fn refuse(self, errno: fuser::Errno) {
            self.0.send(vec![format!("{errno:?}")]).unwrap();
        }
    }

    /// SEMANTICS: a listing waits for nobody, and neither does what comes after it.
    #[test]
    fn a_listing_is_answered_without_the_process_that_does_not_answer() {
        for permits in [0, 1] {
            let bench = bench();
            let others: Vec<_> = [3, 9].map(|pid| FakeProcess::new(pid, b"fake")).into();
            for other in &others {
                bench.source.add(other.clone());
            }
            let limits = Limits {
                permits,
                ..Limits::for_threads(2)
            };
            let clock = Arc::clone(&bench.clock);
            let tasks = Arc::new(FakeTasks::default());
            let admission = Arc::new(Admission::new(Arc::clone(&clock) as _, tasks, limits));
            let fs = Arc::new(bench.fs);
            let shared = Shared::new(Arc::clone(&fs), Outdated::new().0, Arc::clone(&admission));
            let shared = Arc::new(shared);
            let list = || {
                let (sender, listed) = channel();
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || {
                    let involves = shared.fs.listing_involves(ROOT);
                    let work = |shared: &Shared, slot: &Slot<Sent>, pass: &Pass<'_>| {
                        let Ok(handle) = shared.fs.open_directory_on(ROOT, pass) else {
                            return;
                        };
                        let listing = shared.fs.read_directory(handle, 0).unwrap();
                        let names = listing.iter().map(|entry| entry.name).collect();
                        slot.answer(|reply| reply.0.send(names).unwrap());
                        shared.fs.release(handle);
                    };
                    let reply = Sent(sender);
                    shared.surveyed(Operation::OpenDirectory, ROOT, involves, reply, work);
                });
                // Until it waits in the process, or has an answer.
                for _ in 0..20_000 {
                    if let Ok(names) = listed.try_recv() {
                        return names;
                    }
                    clock.advance(Duration::from_millis(10));
                    admission.look();
                    std::thread::sleep(Duration::from_micros(500));
                }
                panic!("no answer");
            };
            bench.process.set_stalled(true);
            for _ in 0..3 {
                let names = list();
                assert_eq!(names[names.len() - 2..], ["3", "9"], "{permits}");
            }
            assert_eq!(admission.stuck(), 1, "one thread waits for it");
            bench.process.set_stalled(false);
            for _ in 0..20_000 {
                if admission.stuck() == 0 {
                    break;
                }
                std::thread::sleep(Duration::from_micros(500));
            }
            let names = list();
            assert_eq!(names[names.len() - 3..], ["3", "7", "9"]);
            assert!(fs.lookup(ROOT, OsStr::new("7")).is_ok());
        }
    }

    /// SEMANTICS: where the queue is full one more is `ETIMEDOUT` at once.
    #[test]
    fn a_listing_without_a_place_in_the_queue_is_refused_at_once() {
        let bench = bench();
        let limits = Limits {
            permits: 0,
            queued: 0,
            ..Limits::for_threads(2)
        };
        let tasks = Arc::new(FakeTasks::default());
        let admission = Arc::new(Admission::new(bench.clock, tasks, limits));
        let shared = Arc::new(Shared::new(
            Arc::new(bench.fs),
            Outdated::new().0,
            admission,
        ));
        let (sender, refused) = channel();
        let involves = shared.fs.listing_involves(ROOT);
        let operation = Operation::OpenDirectory;
        shared.surveyed(operation, ROOT, involves, Sent(sender), |_, _, _| {
            panic!("there is no place for it");
        });
        assert_eq!(refused.try_recv().unwrap(), ["Errno(110)"], "ETIMEDOUT");
    }
}
