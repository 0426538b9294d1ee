//! Models of the server on fake processes: who answers a request, and what is left of it.

use std::sync::PoisonError;
use std::time::Duration;

use nix::errno::Errno;

use super::admission::models::ModelTasks;
use super::admission::{Admission, Limits};
use super::file_system::tests::{Bench, HEAP, TEXT, bench};
use super::inodes::ROOT;
use super::*;
use crate::common::clock::ManualClock;
use crate::common::models::{explore, wait_up_to};
use crate::common::sync::thread;
use crate::files::Access;
use crate::target::fake::FakeProcess;

/// What came of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Entry(Inode),
    Handle(u64),
    Names(Vec<String>),
    Error(Errno),
}

/// Somebody who waits for an answer, and notes each that comes.
#[derive(Clone, Debug, Default)]
struct Waiting(Arc<std::sync::Mutex<Vec<Told>>>);

impl Waiting {
    fn told(&self) -> Vec<Told> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The one answer.
    fn answer(&self) -> Told {
        let told = self.told();
        assert_eq!(told.len(), 1, "one answer: {told:?}");
        told[0].clone()
    }
}

impl Respond for Waiting {
    fn respond(self, reply: std::result::Result<Reply<'_>, Errno>) -> usize {
        let told = match reply {
            Ok(Reply::Entry(entry, _)) => Told::Entry(entry.inode),
            Ok(Reply::Opened(opened)) => Told::Handle(opened.handle),
            Ok(Reply::Names(names)) => Told::Names(names.map(|name| name.name).collect()),
            Ok(_) => panic!("an answer of another operation"),
            Err(errno) => Told::Error(errno),
        };
        thread::yield_now();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(told);
        0
    }
}

/// A server with one permit and one worker.
struct Model {
    server: Arc<Server>,
    clock: Arc<ManualClock>,
    tasks: Arc<ModelTasks>,
    process: FakeProcess,
    directory: Inode,
    heap: Inode,
    /// Inodes that are remembered, and handles, before anything is asked.
    held: (usize, usize),
}

impl Model {
    fn new() -> Self {
        let bench = bench();
        for pid in [3, 9] {
            bench.source.add(FakeProcess::new(pid, b"fake"));
        }
        let find = |path: &str| bench.find(path).expect("it is there").inode;
        let (directory, heap) = (find("7"), find(&format!("7/{HEAP}")));
        let Bench {
            clock, process, fs, ..
        } = bench;
        let limits = Limits {
            workers: 1,
            handover: Duration::ZERO,
            ..Limits::for_threads(2)
        };
        let tasks = Arc::<ModelTasks>::default();
        let admission = Admission::new(Arc::clone(&clock) as _, Arc::clone(&tasks) as _, limits);
        let held = fs.held();
        let server = Server::new(Arc::new(fs), Invalidations::new().0, Arc::new(admission));
        Self {
            server: Arc::new(server),
            clock,
            tasks,
            process,
            directory,
            heap,
            held,
        }
    }

    fn ask(&self, operation: Operation) -> (Waiting, thread::JoinHandle<()>) {
        let waiting = Waiting::default();
        let (server, reply) = (Arc::clone(&self.server), waiting.clone());
        let request = Request::of(operation);
        let thread = thread::spawn(move || server.serve(request, Buffers::none(), reply));
        (waiting, thread)
    }

    fn pass(&self, millis: u64) {
        self.clock.advance(Duration::from_millis(millis));
        self.server.admission.check_deadlines();
        thread::yield_now();
    }

    /// What holds in the end: nobody is inside, and what nobody was told of is not kept.
    fn check(&self, told: &[Told]) {
        for told in told {
            match told {
                Told::Entry(inode) => self.server.forget(*inode, 1),
                Told::Handle(handle) => self.server.release(*handle),
                Told::Names(_) | Told::Error(_) => (),
            }
        }
        self.tasks.join();
        assert!(self.server.admission.is_idle());
        assert_eq!(self.server.fs.held(), self.held);
    }
}

/// Whoever comes first answers, the thread that does the work or the watchdog: once, and of what nobody was told
/// nothing is kept.
#[test]
fn a_request_is_answered_once_whoever_comes_first() {
    explore(2_000, || {
        let model = Model::new();
        let read = Access {
            read: true,
            write: false,
            execute: false,
            is_direct: false,
        };
        let open = || Operation::Open {
            inode: model.heap,
            access: read,
        };
        let lookup = Operation::Lookup {
            parent: model.directory,
            name: TEXT.into(),
        };
        let asked = [model.ask(open()), model.ask(lookup), model.ask(open())];
        for millis in [1900, 100, 100] {
            wait_up_to(100);
            model.pass(millis);
        }
        // Where one of them has not returned it is refused.
        let [first, second, third] = asked;
        let asked = [first, second, third, model.ask(open())];
        let told: Vec<Told> = asked
            .map(|(waiting, thread)| {
                thread.join().unwrap();
                waiting
            })
            // A worker may still be at it.
            .map(|waiting| {
                while waiting.told().is_empty() {
                    thread::yield_now();
                }
                waiting
            })
            .map(|waiting| waiting.answer())
            .into();
        for told in &told {
            let is_late = *told == Told::Error(Errno::ETIMEDOUT);
            assert!(is_late || !matches!(told, Told::Error(_)), "{told:?}");
        }
        model.check(&told);
    });
}

/// A listing waits for a process that does not answer until another thread takes it over: one answer, without that
/// process, and the first thread answers nothing when it gets on.
#[test]
fn a_listing_is_answered_once_by_whoever_takes_it_over() {
    explore(1_000, || {
        let model = Model::new();
        model.process.set_stalled(true);
        let (waiting, thread) = model.ask(Operation::OpenDirectory { inode: ROOT });
        while waiting.told().is_empty() {
            if model.process.waiting() > model.server.admission.stuck() {
                model.pass(10);
            } else {
                model.pass(0);
            }
        }
        let opened = waiting.answer();
        let Told::Handle(handle) = opened else {
            panic!("{opened:?}");
        };
        let goes_on = model.process.clone();
        let end = thread::spawn(move || goes_on.set_stalled(false));
        let (names, listing) = model.ask(Operation::ReadDirectory {
            inode: ROOT,
            handle,
            position: 1,
        });
        while names.told().is_empty() {
            model.pass(10);
        }
        for thread in [thread, end, listing] {
            thread.join().unwrap();
        }
        let Told::Names(listed) = names.answer() else {
            panic!("{names:?}");
        };
        let others = |name: &&String| *name == "3" || *name == "9";
        assert_eq!(listed.iter().filter(others).count(), 2, "{listed:?}");
        assert_eq!(waiting.answer(), opened);
        model.check(&[opened]);
    });
}

/// A kernel that counts what it is told, and is slow.
#[derive(Clone, Default)]
struct Kernel(Arc<std::sync::Mutex<Vec<Inode>>>);

impl Kernel {
    fn is_told(&self, inode: Inode) -> bool {
        let told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.contains(&inode)
    }
}

impl Invalidate for Kernel {
    fn invalidate_attributes(&self, inode: Inode) -> std::io::Result<()> {
        thread::yield_now();
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.push(inode);
        Ok(())
    }
}

/// A write is answered once, after the kernel was told what it made stale; the end loses none.
#[test]
fn a_write_is_answered_after_the_kernel_was_told() {
    explore(5_000, || {
        let (invalidations, queue) = Invalidations::new();
        let (kernel, invalidations) = (Kernel::default(), Arc::new(invalidations));
        let answers = Arc::new(std::sync::Mutex::new(Vec::new()));
        queue.serve(kernel.clone()).unwrap();
        let writers = [1, 2, 3].map(|number| {
            let (invalidations, kernel) = (Arc::clone(&invalidations), kernel.clone());
            let answers = Arc::clone(&answers);
            thread::spawn(move || {
                let (writer, inode) = (thread::current(), Inode(number));
                let noted = Arc::clone(&answers);
                invalidations.answer(&[inode], move |is_told| {
                    let is_told = is_told && kernel.is_told(inode);
                    noted.lock().unwrap().push((number, is_told));
                    writer.unpark();
                });
                drop(invalidations);
                let is_own = |(of, _): &(u64, bool)| *of == number;
                while !answers.lock().unwrap().iter().any(is_own) {
                    thread::park();
                }
            })
        });
        drop(invalidations);
        for writer in writers {
            writer.join().unwrap();
        }
        let mut answers = answers.lock().unwrap().clone();
        answers.sort_unstable();
        assert_eq!(answers, [(1, true), (2, true), (3, true)]);
    });
}
