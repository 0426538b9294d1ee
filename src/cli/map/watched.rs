//! A process that is looked at, once or again and again, and is given up where it does not answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use procmemfs::common::attended::attended;
use procmemfs::common::error::Error;
use procmemfs::picture::{Picture, picture};
use procmemfs::target::live::LiveSource;
use procmemfs::target::{Process, ProcessId, ProcessInfo, ProcessSource};

/// How long looking at a process may take without getting on: its mappings are looked at one by one.
const LONGEST: Duration = Duration::from_secs(10);

/// How many programs a process may run while one picture is taken.
const MOST_PROGRAMS: u32 = 8;

/// Where the pictures of a process come from. A thread of its own looks: a mapped file may lie on a file system that hangs.
#[derive(Debug)]
pub(super) struct Watched {
    pid: ProcessId,
    /// `None` once it has not answered.
    subject: Option<Subject>,
}

impl Watched {
    /// A process.
    ///
    /// # Errors
    /// As [`ProcessSource::describe`], and where it does not answer.
    pub(super) fn new(source: LiveSource, pid: ProcessId) -> Result<Self> {
        let subject = in_time(pid, LONGEST, move |_| Subject::new(source, pid))?;
        Ok(Self {
            pid,
            subject: Some(subject?),
        })
    }

    /// Its number.
    pub(super) fn pid(&self) -> ProcessId {
        self.pid
    }

    /// What it looks like now. Where the process runs a new program it is that one.
    ///
    /// # Errors
    /// As [`picture`]; where the number is another process's now, and where it does not answer.
    pub(super) fn look(
        &mut self,
        cells: usize,
        mut progress: impl FnMut(u64, u64) + Send + 'static,
    ) -> Result<Picture> {
        let Some(mut subject) = self.subject.take() else {
            return Err(unanswered(self.pid));
        };
        let (subject, picture) = in_time(self.pid, LONGEST, move |steps| {
            let picture = subject.look(cells, &mut |done, total| {
                steps.fetch_add(1, Ordering::Relaxed);
                progress(done, total);
            });
            (subject, picture)
        })?;
        self.subject = Some(subject);
        Ok(picture?)
    }
}

/// What `work` says, if it gets on.
fn in_time<T: Send + 'static>(
    pid: ProcessId,
    longest: Duration,
    work: impl FnOnce(&AtomicU64) -> T + Send + 'static,
) -> Result<T> {
    let answer = attended(longest, work).context("a thread")?;
    answer.ok_or_else(|| unanswered(pid))
}

fn unanswered(pid: ProcessId) -> anyhow::Error {
    let error = Error::TimedOut(pid);
    anyhow!("{error}, or a file that it has mapped does not: 'procmemfs doctor {pid}' says which")
}

#[derive(Debug)]
struct Subject {
    source: LiveSource,
    info: ProcessInfo,
    process: Arc<dyn Process>,
}

impl Subject {
    fn new(source: LiveSource, pid: ProcessId) -> Result<Self, Error> {
        let info = source.describe(pid)?;
        let process = source.open(&info.identity)?;
        Ok(Self {
            source,
            info,
            process,
        })
    }

    fn look(&mut self, cells: usize, progress: &mut dyn FnMut(u64, u64)) -> Result<Picture, Error> {
        for _ in 0..MOST_PROGRAMS {
            match picture(&self.info, &*self.process, cells, progress) {
                Err(Error::Replaced(_)) => self.follow()?,
                answer => return answer.map_err(ended),
            }
        }
        Err(Error::Replaced(self.info.identity.pid))
    }

    /// Takes the program that the process runs now.
    fn follow(&mut self) -> Result<(), Error> {
        let before = self.info.identity;
        self.info = self.source.describe(before.pid).map_err(ended)?;
        let now = self.info.identity;
        if (before.start_time, before.pidfd_inode) != (now.start_time, now.pidfd_inode) {
            return Err(Error::Ended(before.pid));
        }
        self.process = self.source.open(&now).map_err(ended)?;
        Ok(())
    }
}

/// A process that was there, and is not any more, has ended.
fn ended(error: Error) -> Error {
    match error {
        Error::NoProcess(pid) => Error::Ended(pid),
        error => error,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_process_that_does_not_answer_is_given_up() {
        let pid = ProcessId::new(7).unwrap();
        let (_held, hold) = channel::<()>();
        let answer = in_time(pid, Duration::from_millis(5), move |_| hold.recv().is_ok());
        let told = answer.unwrap_err().to_string();
        assert!(told.contains("process 7 does not answer"), "{told}");
        assert!(told.contains("procmemfs doctor 7"), "{told}");
        let mut watched = Watched { pid, subject: None };
        let again = watched.look(16, |_, _| ()).unwrap_err().to_string();
        assert_eq!(again, told, "nor is it asked again");
        assert_eq!(in_time(pid, LONGEST, |_| 5).unwrap(), 5);
    }
}
