//! A pass over all processes that waits for none of them.

use std::sync::Arc;
use std::time::Duration;

use super::Subject;
use crate::common::error::{Error, Result};
use crate::common::sync::Mutex;
use crate::target::visit::{Everywhere, Visit, Visits};
use crate::target::{Credentials, ProcessId, ProcessInfo, ProcessSource};

/// How long a pass waits at its end for processes that it met in the middle of an exec, and that do nothing, for all of
/// them together: an exec takes far less, unless it waits for something that does not answer, or for a processor.
const EXECS: Duration = Duration::from_millis(30);

/// What one pass has found so far, lowest number first: whoever takes it over goes on from there.
///
/// The lock is not held while a process is visited, and nothing is locked inside it.
#[derive(Debug, Default)]
pub(crate) struct Found(Mutex<Vec<(ProcessId, Option<Arc<ProcessInfo>>)>>);

impl Found {
    fn get(&self, pid: ProcessId) -> Option<Option<Arc<ProcessInfo>>> {
        let found = self.0.lock();
        let index = found.binary_search_by_key(&pid, |(pid, _)| *pid).ok()?;
        Some(found[index].1.clone())
    }

    fn add(&self, pid: ProcessId, info: Option<Arc<ProcessInfo>>) {
        let mut found = self.0.lock();
        if let Err(index) = found.binary_search_by_key(&pid, |(pid, _)| *pid) {
            found.insert(index, (pid, info));
        }
    }

    fn all(&self) -> Arc<[Arc<ProcessInfo>]> {
        let found = self.0.lock();
        found.iter().filter_map(|(_, info)| info.clone()).collect()
    }
}

/// One pass over all processes, which may have been begun by another thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pass<'a> {
    visits: &'a dyn Visits,
    found: &'a Found,
    who: Option<&'a Arc<Credentials>>,
}

impl<'a> Pass<'a> {
    /// A pass that visits what `visits` says, and goes on from what was `found`.
    pub(crate) fn new(visits: &'a dyn Visits, found: &'a Found) -> Self {
        let who = None;
        Self { visits, found, who }
    }

    /// The same pass for `subject`, which sees the processes that the kernel would show it.
    pub(crate) fn for_subject(self, subject: &'a Subject) -> Self {
        let who = subject.credentials.as_ref();
        Self { who, ..self }
    }

    /// Whose view it is, where that is not the mounter's.
    pub(super) fn who(&self) -> Option<&'a Arc<Credentials>> {
        self.who
    }

    /// A pass that visits all processes, however long that takes.
    pub(crate) fn everywhere(found: &'a Found) -> Self {
        Self::new(&Everywhere, found)
    }

    /// The processes that can be seen now, each as `describe` finds it.
    pub(super) fn over(
        &self,
        source: &dyn ProcessSource,
        describe: impl Fn(Option<&Credentials>, ProcessId, Duration) -> Result<ProcessInfo>,
    ) -> Result<Arc<[Arc<ProcessInfo>]>> {
        let who = self.who.map(|who| &**who);
        let mut in_exec = Vec::new();
        for pid in source.numbers()? {
            if self.found.get(pid).is_some() {
                continue;
            }
            if !self.may_enter(pid)? {
                continue;
            }
            match describe(who, pid, Duration::ZERO) {
                Err(Error::TimedOut(_)) => in_exec.push(pid),
                // None of them can be told: an empty list would be a lie.
                Err(Error::WrongProc) => return Err(Error::WrongProc),
                answer => self.found.add(pid, listed(pid, answer)?),
            }
        }
        let mut timeout = EXECS;
        for pid in in_exec {
            if !self.may_enter(pid)? {
                continue;
            }
            let answer = describe(who, pid, timeout);
            if matches!(answer, Err(Error::TimedOut(_))) {
                // They had the same time to end.
                timeout = Duration::ZERO;
            }
            self.found.add(pid, listed(pid, answer)?);
        }
        Ok(self.found.all())
    }

    /// Whether to visit a process, or to pass over it.
    fn may_enter(&self, pid: ProcessId) -> Result<bool> {
        match self.visits.visit(pid) {
            Visit::Enter => Ok(true),
            Visit::Skip => Ok(false),
            Visit::Stop => Err(Error::TimedOut(pid)),
        }
    }
}

/// What a listing has of a process.
///
/// # Errors
/// What this daemon lacks: a list without the processes that it could not ask for would be a lie.
fn listed(pid: ProcessId, answer: Result<ProcessInfo>) -> Result<Option<Arc<ProcessInfo>>> {
    match answer {
        Ok(info) => Ok(Some(Arc::new(info))),
        Err(Error::NoProcess(_) | Error::ProcessDenied(_) | Error::CallerDenied(_)) => Ok(None),
        Err(error) if error.is_shortage() => Err(error),
        Err(error) => {
            log::debug!("process {pid} is left out of the listing: {error}");
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;
    use crate::target::fake::{FakeProcess, FakeSource};

    /// Visits all but these, and ends at that one.
    #[derive(Debug)]
    struct Partly<'a> {
        skipped: &'a [u32],
        stop: u32,
    }

    impl Visits for Partly<'_> {
        fn visit(&self, process: ProcessId) -> Visit {
            match process.get() {
                pid if pid == self.stop => Visit::Stop,
                pid if self.skipped.contains(&pid) => Visit::Skip,
                _ => Visit::Enter,
            }
        }
    }

    fn source() -> (FakeSource, Vec<FakeProcess>) {
        let source = FakeSource::default();
        let processes: Vec<_> = (1..=5).map(|pid| FakeProcess::new(pid, b"fake")).collect();
        for process in &processes {
            source.add(process.clone());
        }
        (source, processes)
    }

    /// Each process as the source itself describes it.
    fn described_by(
        source: &FakeSource,
    ) -> impl Fn(Option<&Credentials>, ProcessId, Duration) -> Result<ProcessInfo> {
        |who, pid, timeout| source.describe_for(who, pid, timeout)
    }

    fn pids(found: &[Arc<ProcessInfo>]) -> Vec<u32> {
        found.iter().map(|info| info.identity.pid.get()).collect()
    }

    #[test]
    fn who_takes_over_goes_on_from_what_was_found() {
        let (source, processes) = source();
        let found = Found::default();
        let first = Partly {
            skipped: &[],
            stop: 3,
        };
        let stopped = Pass::new(&first, &found).over(&source, described_by(&source));
        assert!(matches!(stopped, Err(Error::TimedOut(pid)) if pid.get() == 3));
        processes[0].end();
        let second = Partly {
            skipped: &[3],
            stop: 0,
        };
        let all = Pass::new(&second, &found)
            .over(&source, described_by(&source))
            .unwrap();
        assert_eq!(pids(&all), [1, 2, 4, 5], "1 was found before it ended");
    }

    #[test]
    fn processes_in_an_exec_are_passed_over_and_visited_last() {
        let (source, processes) = source();
        processes[1].set_in_exec(true);
        let found = Found::default();
        let all = Pass::everywhere(&found)
            .over(&source, described_by(&source))
            .unwrap();
        assert_eq!(pids(&all), [1, 3, 4, 5]);
        processes[1].set_in_exec(false);
        let found = Found::default();
        let all = Pass::everywhere(&found)
            .over(&source, described_by(&source))
            .unwrap();
        assert_eq!(pids(&all), [1, 2, 3, 4, 5]);
    }

    /// SEMANTICS: where the daemon lacks descriptors or memory, that is an error, and no list with gaps.
    #[test]
    fn a_list_is_whole_or_an_error() {
        let pid = ProcessId::new(7).unwrap();
        for errno in [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM] {
            let answer = listed(pid, Err(Error::system("open of stat", errno)));
            assert_eq!(answer.unwrap_err().errno(), errno);
        }
        for of_the_process in [
            Error::NoProcess(pid),
            Error::ProcessDenied(pid),
            Error::CallerDenied(pid),
            Error::system("reading stat", Errno::EIO),
        ] {
            assert_eq!(listed(pid, Err(of_the_process)), Ok(None));
        }
    }
}
