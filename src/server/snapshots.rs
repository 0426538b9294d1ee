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
use crate::common::sync::Mutex;
use crate::files::{Caller, Copied, CountedUsage, SnapshotName, Subject, Taking};
use crate::target::ProcessId;
use crate::target::snapshot::Watch;

/// How often it is looked whether whoever waits still does, and whether something was done.
const LOOK: Duration = Duration::from_millis(20);

/// How long nothing may be done: then a process does not answer, and others stand still for it.
const STALLED: Duration = Duration::from_secs(3);

/// Copies at a time. The kernel makes one directory after the other, so that all but one of them were given up, and wait for a
/// process that does not answer.
const MOST: usize = 16;

/// Those of one user.
const MOST_OF_USER: usize = 4;

/// The processes of a copy, lowest number first, and the user who asked for it.
type Copy = (Vec<ProcessId>, u32);

/// The copies that are not done yet.
#[derive(Debug, Default)]
pub(super) struct Copies(Arc<Mutex<Vec<Copy>>>);

impl Copies {
    /// Takes a place for a copy of these processes.
    ///
    /// # Errors
    /// `TimedOut` where a copy of the same ones was given up and waits still, or too many others.
    fn enter(&self, processes: Vec<ProcessId>, user: u32) -> Result<Place> {
        let mut all = self.0.lock();
        let is_known = all.iter().any(|(known, _)| *known == processes);
        let of_user = all.iter().filter(|(_, known)| *known == user).count();
        if is_known || of_user >= MOST_OF_USER || all.len() >= MOST {
            return Err(Error::TimedOut(processes[0]));
        }
        all.push((processes.clone(), user));
        Ok(Place {
            copies: Arc::clone(&self.0),
            processes,
        })
    }
}

/// The place of a copy, until it is done.
#[derive(Debug)]
struct Place {
    copies: Arc<Mutex<Vec<Copy>>>,
    processes: Vec<ProcessId>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.copies.lock();
        all.retain(|(known, _)| *known != self.processes);
    }
}

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
            if let Some(name) = request.operation.name() {
                let made = Err(error.clone());
                self.fs.audit_made(&request.caller, name, &made);
            }
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
        self.fs.audit_made(&request.caller, name, &made);
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
        let subject = context.subject(&request.caller)?;
        let name = SnapshotName::parse(name.to_str().ok_or(Error::SnapshotName)?)?;
        let (taking, processes) = self.copy(name, subject)?;
        let node = context.end_snapshot(&taking, processes)?;
        let entry = self.fs.remember(&node, &CountedUsage::default());
        let valid = match taking.is_named() {
            true => context.name_valid(&entry.attributes),
            // It has another name. This one stays free, for the next snapshot of the same process.
            false => Duration::ZERO,
        };
        Ok((entry, valid))
    }

    /// Takes a place for a copy, once that of one that was just given up is free.
    fn enter(&self, processes: &[ProcessId], caller: &Caller) -> Result<Place> {
        let begun = Instant::now();
        loop {
            match self.copies.enter(processes.to_vec(), caller.uid) {
                Err(_) if self.fs.context().is_interrupted(caller.pid) => {
                    return Err(Error::Interrupted);
                }
                Err(_) if begun.elapsed() < STALLED => std::thread::sleep(LOOK),
                answer => return answer,
            }
        }
    }

    /// Copies the processes, unless the thread that waits for it is interrupted, or one of them does not answer: nobody
    /// stands still then. All that may wait for a process is done by a thread of its own, which nobody waits for that long.
    fn copy(
        self: &Arc<Self>,
        name: SnapshotName,
        subject: Subject,
    ) -> Result<(Taking, Vec<Copied>)> {
        let (first, waiting) = (name.processes[0], subject.caller.pid);
        let place = self.enter(&name.processes, &subject.caller)?;
        let watch = Arc::new(Watch::default());
        let (sender, receiver) = channel();
        let copying = {
            let (server, watch) = (Arc::clone(self), Arc::clone(&watch));
            move || {
                contained(|| {
                    let begun = server.fs.context().begin_snapshot(name, &subject);
                    let copied = begun.and_then(|taking| {
                        let processes = taking.copy(&watch)?;
                        Ok((taking, processes))
                    });
                    // Nobody waits for it any more where that fails.
                    let _ = sender.send(copied);
                });
                drop(place);
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
                break Error::TimedOut(first);
            }
        };
        watch.give_up();
        Err(given_up)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn processes(numbers: &[u32]) -> Vec<ProcessId> {
        let numbers = numbers.iter().map(|number| ProcessId::new(*number));
        numbers.collect::<Option<_>>().unwrap()
    }

    #[test]
    fn copies_that_were_given_up_are_bounded() {
        let copies = Copies::default();
        let first = copies.enter(processes(&[7]), 1).unwrap();
        let again = copies.enter(processes(&[7]), 2).unwrap_err();
        assert_eq!(again, Error::TimedOut(processes(&[7])[0]));
        let mut held: Vec<Place> = Vec::new();
        for number in 8..11 {
            held.push(copies.enter(processes(&[7, number]), 1).unwrap());
        }
        assert!(copies.enter(processes(&[20]), 1).is_err(), "of one user");
        for number in 30..42 {
            held.push(copies.enter(processes(&[number]), number).unwrap());
        }
        assert!(copies.enter(processes(&[50]), 3).is_err(), "of all");
        drop(first);
        drop(copies.enter(processes(&[7]), 1).unwrap());
        held.clear();
        assert!(copies.0.lock().is_empty());
    }
}
