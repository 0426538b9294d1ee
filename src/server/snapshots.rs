//! `mkdir` in `snap`: it takes as long as copying takes, and is given up where nobody waits for it any more.

use std::ffi::OsStr;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::reply::OneShot;
use super::{Entry, Operation, Reply, Request, Respond, Server};
use crate::common::contained::contained;
use crate::common::error::{Error, Result};
use crate::files::{CountedUsage, Taking};
use crate::target::snapshot::{FrozenProcess, Watch};

/// How often it is looked whether whoever waits still does, and whether something was done.
const LOOK: Duration = Duration::from_millis(20);

/// How long nothing may be done: then a process does not answer, and others stand still for it.
const STALLED: Duration = Duration::from_secs(3);

impl Server {
    /// Takes a snapshot, on a thread of its own: the thread that serves goes on.
    pub(super) fn make_directory<R: Respond>(
        self: &Arc<Self>,
        request: Request,
        one_shot: &OneShot<R>,
    ) {
        if let Err(error) = self.fs.check_snapshots(request.operation.inode()) {
            self.give(&request, one_shot, Err(&error));
            return;
        }
        let request = Arc::new(request);
        let thread = {
            let (server, request) = (Arc::clone(self), Arc::clone(&request));
            let one_shot = one_shot.clone();
            move || {
                let is_done = contained(|| server.answer_with_snapshot(&request, &one_shot));
                if !is_done && let Some(reply) = server.take_reply(&request, &one_shot) {
                    reply.respond(Err(Errno::EIO));
                }
            }
        };
        if let Err(error) = self.admission.start("snapshot", Box::new(thread)) {
            let errno = Errno::from_raw(error.raw_os_error().unwrap_or(Errno::EAGAIN as i32));
            let error = Error::system("a thread for a snapshot", errno);
            self.give(&request, one_shot, Err(&error));
        }
    }

    fn answer_with_snapshot<R: Respond>(
        self: &Arc<Self>,
        request: &Request,
        one_shot: &OneShot<R>,
    ) {
        let Operation::MakeDirectory { name, .. } = &request.operation else {
            return;
        };
        let made = self.take_snapshot(request, name);
        let reply = made
            .as_ref()
            .map(|(entry, valid)| Reply::Entry(entry, *valid));
        let is_given = self.give(request, one_shot, reply);
        if let (false, Ok((entry, _))) = (is_given, made) {
            self.fs.forget(entry.inode, 1);
        }
    }

    /// Takes the snapshot; returns its directory, and for how long the kernel may know that by this name.
    fn take_snapshot(
        self: &Arc<Self>,
        request: &Request,
        name: &OsStr,
    ) -> Result<(Entry, Duration)> {
        let context = self.fs.context();
        let name = name.to_str().ok_or(Error::SnapshotName)?;
        let subject = context.subject(&request.caller)?;
        let taking = Arc::new(context.begin_snapshot(name, &subject)?);
        let processes = self.copy(&taking, request.caller.pid)?;
        let node = context.end_snapshot(&taking, processes)?;
        let entry = self.fs.remember(&node, &CountedUsage::default());
        let valid = match taking.is_named() {
            true => context.name_valid(&entry.attributes),
            // It has another name. This one stays free, for the next snapshot of the same process.
            false => Duration::ZERO,
        };
        Ok((entry, valid))
    }

    /// Copies the processes, unless the thread that waits for it is interrupted, or one of them does not answer: nobody
    /// stands still then.
    fn copy(self: &Arc<Self>, taking: &Arc<Taking>, waiting: u32) -> Result<Vec<FrozenProcess>> {
        let watch = Arc::new(Watch::default());
        let (sender, receiver) = channel();
        let copying = {
            let (taking, watch) = (Arc::clone(taking), Arc::clone(&watch));
            move || {
                contained(|| {
                    // Nobody waits for it any more where that fails.
                    let _ = sender.send(taking.capture().take(&watch));
                });
            }
        };
        self.admission
            .start("copy", Box::new(copying))
            .map_err(|_| Error::system("a thread that copies", Errno::EAGAIN))?;
        let (mut progress, mut moved) = (watch.progress(), Instant::now());
        let given_up = loop {
            match receiver.recv_timeout(LOOK) {
                Ok(answer) => return answer,
                Err(RecvTimeoutError::Disconnected) => {
                    break Error::system("copying a process", Errno::EIO);
                }
                Err(RecvTimeoutError::Timeout) => (),
            }
            if self.fs.context().is_interrupted(waiting) {
                break Error::Interrupted;
            }
            let now = watch.progress();
            if now != progress {
                (progress, moved) = (now, Instant::now());
            } else if moved.elapsed() >= STALLED {
                break Error::TimedOut(taking.first());
            }
        };
        watch.give_up();
        Err(given_up)
    }
}
