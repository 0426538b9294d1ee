//! The server on fake processes, all of it by one thread: what it would start threads for is done when it is told to be.

use std::collections::VecDeque;
use std::fmt::{self, Debug};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use parking_lot::Mutex;

use crate::common::address::PAGE_SIZE;
use crate::common::clock::ManualClock;
use crate::common::metrics::Metrics;
use crate::files::{Caller, Context, FileOptions, Services, Statistics};
use crate::server::admission::{Admission, Limits, Tasks};
use crate::server::{
    FileSystem, Inode, InvalidationQueue, Invalidations, Operation, Reply, Request, Respond, Server,
};
use crate::target::cache::{Freshness, PageCache};
use crate::target::fake::{FakeProcess, FakeSource};
use crate::target::{Activity, ProcessId, ProcessIdentity};

/// The mount point.
pub(super) const ROOT: Inode = Inode(1);

/// Numbers of the processes that are there at first.
pub(super) const PIDS: [u32; 3] = [7, 9, 4711];

/// Texts of `maps`.
pub(super) const MAPS: [&[u8]; 3] = [
    b"\
00010000-00012000 rw-p 00000000 00:00 0      [heap]\n\
00020000-00021000 r-xp 00000000 fe:00 9      /usr/bin/bin\n\
00030000-00031000 r--p 00000000 00:00 0      [vvar]\n\
00040000-00050000 rw-p 00000000 00:00 0      [stack]\n",
    b"\
00010000-00014000 rw-s 00000000 00:01 4      /memfd:a\\012b (deleted)\n\
00014000-00015000 ---p 00000000 00:00 0\n\
00020000-00021000 rw-p 00000000 fe:00 9      /usr/bin/\xff\xfe x\n\
7ffffffff000-800000000000 rw-p 00000000 00:00 0\n",
    b"",
];

/// Pages that a program has at first.
const PAGES: [u64; 5] = [0x10_000, 0x11_000, 0x20_000, 0x40_000, 0x42_000];

/// How a server is set up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    pub(super) options: FileOptions,
    pub(super) bound: Duration,
    pub(super) limits: Limits,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            options: FileOptions::default(),
            bound: Duration::from_millis(100),
            limits: Limits {
                // A worker without work ends at once, on the one thread that there is.
                linger: Duration::ZERO,
                ..Limits::for_threads(4)
            },
        }
    }
}

/// Threads that were started, and run when it is asked for.
#[derive(Default)]
pub(super) struct LaterTasks {
    /// Guards what is to be run. Nothing is locked inside it, and nothing is run.
    started: Mutex<VecDeque<Box<dyn FnOnce() + Send>>>,
    /// Whether the system has no thread left.
    pub(super) exhausted: AtomicBool,
    /// Whether a thread that is asked about is at work.
    pub(super) running: AtomicBool,
}

impl Debug for LaterTasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaterTasks").finish_non_exhaustive()
    }
}

impl Tasks for LaterTasks {
    fn current(&self) -> i32 {
        1
    }

    fn activity(&self, _thread: i32) -> Activity {
        Activity {
            is_running: self.running.load(Ordering::Relaxed),
            scheduled: 0,
        }
    }

    fn waits_in(&self, _thread: i32) -> String {
        String::new()
    }

    fn instance(&self, process: ProcessId) -> Option<u64> {
        Some(process.get().into())
    }

    fn start(&self, _name: &str, work: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        if self.exhausted.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.started.lock().push_back(work);
        Ok(())
    }
}

impl LaterTasks {
    /// Runs what was started, and what that starts.
    pub(super) fn run(&self) {
        loop {
            let work = self.started.lock().pop_front();
            match work {
                Some(work) => work(),
                None => return,
            }
        }
    }
}

/// Fake processes and what serves them.
pub(super) struct World {
    pub(super) clock: Arc<ManualClock>,
    pub(super) source: FakeSource,
    pub(super) processes: Vec<FakeProcess>,
    pub(super) tasks: Arc<LaterTasks>,
    pub(super) admission: Arc<Admission>,
    pub(super) fs: Arc<FileSystem>,
}

impl World {
    /// Three processes, their server, and what the kernel has to be told.
    pub(super) fn new(setup: &Setup) -> (Self, Server, InvalidationQueue) {
        let clock = Arc::new(ManualClock::new());
        let source = FakeSource::default();
        let metrics = Arc::new(Metrics::default());
        let services = Services {
            stores: Arc::new(crate::target::fake::FakeStores::default()),
            budget: Arc::new(crate::target::snapshot::Budget::new(1 << 30)),
            source: Arc::new(source.clone()),
            cache: Arc::new(PageCache::new(4 * PAGE_SIZE, Arc::clone(&metrics))),
            freshness: Arc::new(Freshness::new(setup.bound, Arc::clone(&clock) as _)),
            metrics,
        };
        let fs = Arc::new(FileSystem::new(Context::new(services, setup.options)));
        let tasks = Arc::new(LaterTasks::default());
        let admission = Admission::new(
            Arc::clone(&clock) as _,
            Arc::clone(&tasks) as _,
            setup.limits,
        );
        let admission = Arc::new(admission);
        let (invalidations, queue) = Invalidations::new();
        let server = Server::new(Arc::clone(&fs), invalidations, Arc::clone(&admission));
        let mut world = Self {
            clock,
            source,
            processes: Vec::new(),
            tasks,
            admission,
            fs,
        };
        for (index, pid) in PIDS.into_iter().enumerate() {
            world.add(pid, MAPS[index], [&b"my prog"[..], b"/\xff\n", b""][index]);
        }
        (world, server, queue)
    }

    /// Adds a process, in place of one of the same number.
    pub(super) fn add(&mut self, pid: u32, maps: &[u8], command: &[u8]) {
        let process = FakeProcess::new(pid, command);
        process.set_maps(maps);
        process.set_cgroup(&[b"0::/group/", command].concat());
        let former = self
            .processes
            .iter()
            .position(|of| of.identity().pid.get() == pid);
        // Another one than any that had the number, as its pidfd tells (here: its layout).
        if let Some(former) = former.map(|index| self.processes.swap_remove(index)) {
            while process.identity().layout <= former.identity().layout {
                process.exec();
            }
            former.end();
        }
        fill(&process);
        self.source.add(process.clone());
        self.processes.push(process);
    }
}

/// Gives a program the pages that it starts with.
pub(super) fn fill(process: &FakeProcess) {
    let byte = byte_of(&process.identity());
    for page in PAGES {
        process.map(page, &[byte; PAGE_SIZE as usize]);
    }
    process.reserve(0x41_000, 1);
}

/// The byte that all memory of a program holds which is not zero: no other program's does.
pub(super) fn byte_of(identity: &ProcessIdentity) -> u8 {
    let process = PIDS.iter().position(|pid| *pid == identity.pid.get());
    let process = process.unwrap_or(PIDS.len()) as u64;
    (1 + (identity.layout[0] * 4 + process) % 255) as u8
}

/// What somebody was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Done,
    Entry(Inode),
    Attributes,
    Opened(u64),
    Data(Vec<u8>),
    Written(u32),
    Offset(u64),
    Names(Vec<(String, Inode)>),
    /// Those that found place.
    Entries(Vec<(String, Inode)>),
    Attribute(Vec<u8>),
    Statistics(Statistics),
    Error(Errno),
}

/// Answers, with the numbers of what was asked.
pub(super) type Answers = Arc<Mutex<Vec<(u64, Answer)>>>;

/// Somebody who has asked for something, and has place for so many entries of a directory.
pub(super) struct Waiting {
    pub(super) number: u64,
    pub(super) room: usize,
    pub(super) answers: Answers,
}

impl Respond for Waiting {
    fn respond(self, reply: Result<Reply<'_>, Errno>) -> usize {
        let mut taken = 0;
        let answer = match reply {
            Ok(Reply::Done) => Answer::Done,
            Ok(Reply::Entry(entry, _)) => Answer::Entry(entry.inode),
            Ok(Reply::Attributes(_)) => Answer::Attributes,
            Ok(Reply::Opened(opened)) => Answer::Opened(opened.handle),
            Ok(Reply::Data(bytes)) => Answer::Data(bytes.to_vec()),
            Ok(Reply::Written(bytes)) => Answer::Written(bytes),
            Ok(Reply::Offset(offset)) => Answer::Offset(offset),
            Ok(Reply::Names(names)) => Answer::Names(
                names
                    .take(self.room)
                    .map(|name| (name.name, name.inode))
                    .collect(),
            ),
            Ok(Reply::Entries(entries)) => {
                taken = self.room.min(entries.len());
                let entries = entries[..taken].iter();
                Answer::Entries(
                    entries
                        .map(|of| (of.name.clone(), of.entry.inode))
                        .collect(),
                )
            }
            Ok(Reply::Attribute(value)) => Answer::Attribute(value.to_vec()),
            Ok(Reply::Statistics(of)) => Answer::Statistics(of),
            Err(errno) => Answer::Error(errno),
        };
        self.answers.lock().push((self.number, answer));
        taken
    }
}

/// Asks, and is answered at once.
pub(super) fn ask(server: &Arc<Server>, operation: Operation) -> Answer {
    let answers = Answers::default();
    let waiting = Waiting {
        number: 1,
        room: usize::MAX,
        answers: Arc::clone(&answers),
    };
    let request = Request {
        number: 1,
        caller: Caller::default(),
        operation,
    };
    server.serve(request, &[], waiting);
    let mut answers = std::mem::take(&mut *answers.lock());
    assert_eq!(answers.len(), 1, "answered once, and at once");
    answers.remove(0).1
}
