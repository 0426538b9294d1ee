//! Requests that survey all processes.

use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;

use super::admission::{Admitted, Permit, Survey};
use super::reply::OneShot;
use super::{Buffers, Request, Respond, Server};
use crate::common::error::Error;
use crate::files::{Found, Pass};

/// A request that surveys all processes, for one thread after another: each goes on where the one
/// before it waits.
struct Surveying {
    server: Arc<Server>,
    request: Request,
    begun: Duration,
    /// The user who asks, where that is not the mounter.
    user: Option<u32>,
    found: Found,
}

impl Server {
    /// Answers a request that surveys all processes, without those that do not answer.
    pub(super) fn survey<R: Respond>(self: &Arc<Self>, request: Request, one_shot: &OneShot<R>) {
        let survey = Surveying {
            server: Arc::clone(self),
            user: self.fs.context().other_user(&request.caller),
            request,
            begun: one_shot.begun(),
            found: Found::default(),
        };
        Arc::new(survey).begin(one_shot);
    }
}

impl Surveying {
    /// On this thread, if it may wait.
    fn begin<R: Respond>(self: Arc<Self>, one_shot: &OneShot<R>) {
        let admission = Arc::clone(&self.server.admission);
        let expire = Arc::clone(&self).expiry(one_shot.clone());
        match admission.enter_survey(self.begun, self.user, expire) {
            Admitted::Now(permit) => {
                self.run(one_shot, &permit);
                admission.leave(permit, true);
            }
            Admitted::Later | Admitted::Refused => self.queue(one_shot),
        }
    }

    fn queue<R: Respond>(self: Arc<Self>, one_shot: &OneShot<R>) {
        let admission = Arc::clone(&self.server.admission);
        let expire = Arc::clone(&self).expiry(one_shot.clone());
        let (survey, queued) = (Arc::clone(&self), one_shot.clone());
        let job = move |permit: &Permit| survey.run(&queued, permit);
        // Not tried again: the queue would be as full.
        if !admission.queue_survey(self.begun, self.user, expire, job) {
            self.give_up(one_shot);
        }
    }

    fn give_up<R: Respond>(&self, one_shot: &OneShot<R>) {
        let Self {
            server, request, ..
        } = self;
        if let Some(reply) = server.take_reply(request, one_shot) {
            let error = Error::system("listing the processes", Errno::ETIMEDOUT);
            reply.respond(Err(server.fail(request, &error)));
        }
    }

    fn run<R: Respond>(&self, one_shot: &OneShot<R>, permit: &Permit) {
        let survey = Survey::new(&self.server.admission, permit);
        let pass = Pass::new(&survey, &self.found);
        self.server
            .answer_on(&self.request, Buffers::none(), one_shot, &pass);
    }

    /// What is done where the thread that runs the survey waits: another one takes the reply, and
    /// goes on.
    fn expiry<R: Respond>(self: Arc<Self>, one_shot: OneShot<R>) -> impl FnOnce() + Send + 'static {
        move || {
            let admission = &self.server.admission;
            if self.server.now() >= self.begun + admission.deadline() {
                return self.give_up(&one_shot);
            }
            // The thread that waits must not answer any more.
            if let Some(next) = one_shot.hand_over() {
                self.queue(&next);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, TryRecvError, channel};

    use super::*;
    use crate::common::sync::thread;
    use crate::server::admission::tests::FakeTasks;
    use crate::server::admission::{Admission, Limits};
    use crate::server::file_system::tests::bench;
    use crate::server::inodes::ROOT;
    use crate::server::{Invalidations, Operation, Reply};
    use crate::target::fake::FakeProcess;

    /// Somebody who sends the answer on: the handle, or the names, or the error.
    struct Sent(Sender<Vec<String>>);

    impl Respond for Sent {
        fn respond(self, reply: Result<Reply<'_>, Errno>) -> usize {
            let told = match reply {
                Ok(Reply::Opened(opened)) => vec![opened.handle.to_string()],
                Ok(Reply::Names(names)) => names.map(|name| name.name).collect(),
                Ok(_) => panic!("an answer of another operation"),
                Err(errno) => vec![format!("{errno:?}")],
            };
            self.0.send(told).unwrap();
            0
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
                // A worker is started at once: the clock moves only where somebody waits in the process.
                handover: Duration::ZERO,
                ..Limits::for_threads(2)
            };
            let clock = Arc::clone(&bench.clock);
            let tasks = Arc::new(FakeTasks::default());
            let admission = Arc::new(Admission::new(Arc::clone(&clock) as _, tasks, limits));
            let process = bench.process.clone();
            let fs = Arc::new(bench.fs);
            let server = Server::new(fs, Invalidations::new().0, Arc::clone(&admission));
            let server = Arc::new(server);
            let ask = |operation: Operation| {
                let (sender, told) = channel();
                let server = Arc::clone(&server);
                thread::spawn(move || {
                    server.serve(Request::of(operation), Buffers::none(), Sent(sender));
                });
                // However long the threads take: no time passes but for the one that waits in the process.
                loop {
                    match told.try_recv() {
                        Ok(told) => return told,
                        Err(TryRecvError::Disconnected) => panic!("no answer"),
                        Err(TryRecvError::Empty) => (),
                    }
                    if process.waiting() > admission.stuck() {
                        clock.advance(Duration::from_millis(10));
                    }
                    admission.check_deadlines();
                    thread::yield_now();
                }
            };
            let list = || {
                let opened = ask(Operation::OpenDirectory { inode: ROOT });
                let handle = opened[0].parse().expect("a handle");
                // Not from the start on, where it would be listed again if that took long.
                let names = ask(Operation::ReadDirectory {
                    inode: ROOT,
                    handle,
                    position: 1,
                });
                server.release(handle);
                names
            };
            process.set_stalled(true);
            for _ in 0..3 {
                let names = list();
                assert_eq!(names[names.len() - 2..], ["3", "9"], "{permits}");
            }
            assert_eq!(admission.stuck(), 1, "one thread waits for it");
            process.set_stalled(false);
            while admission.stuck() > 0 {
                thread::yield_now();
            }
            let names = list();
            assert_eq!(names[names.len() - 3..], ["3", "7", "9"]);
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
        let server = Server::new(Arc::new(bench.fs), Invalidations::new().0, admission);
        let (sender, refused) = channel();
        let operation = Operation::OpenDirectory { inode: ROOT };
        Arc::new(server).serve(Request::of(operation), Buffers::none(), Sent(sender));
        assert_eq!(refused.try_recv().unwrap(), ["ETIMEDOUT"]);
    }
}
