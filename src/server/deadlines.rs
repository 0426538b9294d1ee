//! Requests that may wait for a process, and are answered in time whether or not it answers.

use std::sync::Arc;

use nix::errno::Errno;

use super::admission::{Admitted, Target};
use super::reply::OneShot;
use super::{Buffers, Operation, Request, Respond, Server};
use crate::common::contained::contained;
use crate::common::error::Error;
use crate::files::{Found, Pass, WaitsFor};
use crate::target::ProcessId;

impl Server {
    /// Has a request answered, by this thread or by another. `buffers` are copied only if it must wait.
    pub(crate) fn serve<R: Respond>(
        self: &Arc<Self>,
        request: Request,
        buffers: Buffers<'_>,
        reply: R,
    ) {
        let operation = request.operation.counted();
        self.fs.context().metrics().count_request(operation);
        let one_shot = OneShot::new(reply, self.now());
        if let Operation::MakeDirectory { .. } = request.operation {
            return self.make_directory(request, &one_shot);
        }
        let mut buffers = buffers;
        if self.give_read_ahead(&request, &mut buffers, &one_shot) {
            return;
        }
        match request.operation.waits_for(&self.fs) {
            WaitsFor::Nobody => self.answer(&request, buffers, &one_shot),
            WaitsFor::Everybody => self.survey(request, &one_shot),
            WaitsFor::Process(pid, instance) => {
                let user = self.fs.context().other_user(&request.caller);
                let target = Target {
                    pid,
                    instance,
                    user,
                };
                self.guarded(request, target, buffers, one_shot);
            }
        }
    }

    /// Answers a request that may wait for a process, without it where that takes too long.
    fn guarded<R: Respond>(
        self: &Arc<Self>,
        request: Request,
        target: Target,
        buffers: Buffers<'_>,
        one_shot: OneShot<R>,
    ) {
        let kind = request.operation.kind();
        let request = Arc::new(request);
        let expire = {
            let (server, request) = (Arc::clone(self), Arc::clone(&request));
            let one_shot = one_shot.clone();
            move || server.time_out(&request, target.pid, &one_shot)
        };
        match self.admission.enter(target, kind, expire.clone()) {
            Admitted::Now(permit) => {
                self.answer(&request, buffers, &one_shot);
                self.admission.leave(permit, !one_shot.is_missed());
            }
            Admitted::Later => {
                let (server, data) = (Arc::clone(self), buffers.data.to_vec());
                let bytes = data.len();
                self.admission.queue(target, kind, bytes, expire, move || {
                    server.answer(&request, Buffers::of(&data), &one_shot);
                    !one_shot.is_missed()
                });
            }
            Admitted::Refused => expire(),
        }
    }

    fn time_out<R: Respond>(&self, request: &Request, pid: ProcessId, one_shot: &OneShot<R>) {
        if let Some(reply) = self.take_reply(request, one_shot) {
            reply.respond(Err(self.fail(request, &Error::TimedOut(pid))));
        }
    }

    /// Answers a request that waits for one process at most.
    fn answer<R: Respond>(&self, request: &Request, buffers: Buffers<'_>, one_shot: &OneShot<R>) {
        let found = Found::default();
        self.answer_on(request, buffers, one_shot, &Pass::everywhere(&found));
    }

    /// Answers a request, which visits all processes in `pass` if at all. Where that panics it is answered, too: at
    /// once, and not when the last one drops the reply.
    pub(super) fn answer_on<R: Respond>(
        &self,
        request: &Request,
        buffers: Buffers<'_>,
        one_shot: &OneShot<R>,
        pass: &Pass<'_>,
    ) {
        let is_done = contained(|| self.dispatch(request, buffers, one_shot, pass));
        if !is_done && let Some(reply) = self.take_reply(request, one_shot) {
            reply.respond(Err(Errno::EIO));
        }
    }

    /// Takes the reply to a request, unless somebody else has, and counts the time that it took.
    pub(super) fn take_reply<R>(&self, request: &Request, one_shot: &OneShot<R>) -> Option<R> {
        let reply = one_shot.take()?;
        let time = self.now().saturating_sub(one_shot.begun());
        let operation = request.operation.counted();
        self.fs.context().metrics().observe(operation, time);
        Some(reply)
    }

    /// Closes a handle that nobody can use any more. Nobody waits for that, so it has the time that it
    /// takes: closing a file can wait for its file system.
    pub(crate) fn release(self: &Arc<Self>, handle: u64) {
        let WaitsFor::Process(pid, instance) = self.fs.release_waits_for(handle) else {
            contained(|| self.fs.release(handle));
            return;
        };
        let server = Arc::clone(self);
        let target = Target {
            pid,
            instance,
            user: None,
        };
        self.admission.close(target, move || {
            contained(|| server.fs.release(handle));
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::common::sync::Mutex;

    use super::*;
    use crate::server::admission::tests::FakeTasks;
    use crate::server::admission::{Admission, Limits};
    use crate::server::file_system::tests::bench;
    use crate::server::inodes::ROOT;
    use crate::server::{Inode, Invalidations, Reply};

    /// Somebody who panics on an answer, and counts errors.
    #[derive(Clone, Default)]
    struct Waiting {
        errors: Arc<Mutex<Vec<Errno>>>,
        panics: bool,
    }

    impl Respond for Waiting {
        fn respond(self, reply: Result<Reply<'_>, Errno>) -> usize {
            assert!(!self.panics, "a defect");
            self.errors.lock().extend(reply.err());
            0
        }
    }

    /// With one permit.
    fn server() -> (Arc<Server>, Inode) {
        let bench = bench();
        let process = bench.find("7").unwrap().inode;
        let tasks = Arc::new(FakeTasks::default());
        let admission = Admission::new(bench.clock, tasks, Limits::for_threads(2));
        let (fs, admission) = (Arc::new(bench.fs), Arc::new(admission));
        let server = Server::new(fs, Invalidations::new().0, admission);
        (Arc::new(server), process)
    }

    /// Somebody whose request does not come to an end: the answer is taken by a defect.
    #[test]
    fn a_request_that_panics_is_answered_and_costs_no_permit() {
        let (server, process) = server();
        let fails = |inode| {
            let waiting = Waiting {
                panics: true,
                ..Waiting::default()
            };
            let operation = Operation::ReadLink { inode };
            server.serve(Request::of(operation), Buffers::none(), waiting);
        };
        for inode in [ROOT, process, process] {
            fails(inode);
        }
        let waiting = Waiting::default();
        let inode = process;
        server.serve(
            Request::of(Operation::ReadLink { inode }),
            Buffers::none(),
            waiting.clone(),
        );
        assert_eq!(
            *waiting.errors.lock(),
            [Errno::EINVAL],
            "the permit was free"
        );
    }
}
