//! A process that reads, writes, maps, unmaps, protects, forks and runs new programs as chance has it, and a mount
//! that is asked about it: what the mount gives is what the process itself finds.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use nix::unistd::Whence;
use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence, TestRunner};

use crate::support::{Mount, PAGE, Target, errno_name, eventually, open_rw, rounds, seek, tests};

tests![
    random_sequences_agree_with_the_targets_own_account: [Need::Root],
];

/// Pages of the region that all of it happens in.
const PAGES: usize = 16;

/// What is done: by the process (`Own`), or through the mount.
#[derive(Clone, Debug)]
enum Step {
    OwnWrite {
        at: usize,
        len: usize,
        byte: u8,
    },
    OwnUnmap {
        page: usize,
        pages: usize,
    },
    OwnProtect {
        page: usize,
        pages: usize,
        prot: &'static str,
    },
    Read {
        at: usize,
        len: usize,
    },
    Write {
        at: usize,
        len: usize,
        byte: u8,
    },
    Seek {
        page: usize,
        data: bool,
    },
    Reopen,
    Exec,
    Fork,
}

fn step() -> impl Strategy<Value = Step> {
    let at = || 0..PAGES * PAGE;
    let pages = || (0..PAGES, 1..4_usize);
    let prot = proptest::sample::select(&["rw", "r", "-"][..]);
    prop_oneof![
        4 => (at(), 1..2000_usize, any::<u8>()).prop_map(|(at, len, byte)| Step::OwnWrite { at, len, byte }),
        1 => pages().prop_map(|(page, pages)| Step::OwnUnmap { page, pages }),
        3 => (pages(), prot).prop_map(|((page, pages), prot)| Step::OwnProtect { page, pages, prot }),
        8 => (at(), 1..5 * PAGE).prop_map(|(at, len)| Step::Read { at, len }),
        4 => (at(), 1..9000_usize, any::<u8>()).prop_map(|(at, len, byte)| Step::Write { at, len, byte }),
        2 => (0..PAGES, any::<bool>()).prop_map(|(page, data)| Step::Seek { page, data }),
        1 => Just(Step::Reopen),
        1 => Just(Step::Exec),
        1 => Just(Step::Fork),
    ]
}

/// What is known of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Writable,
    Protected,
    Gone,
}

/// A process, and what it has been told to do.
struct Model<'a> {
    mount: &'a Mount,
    target: Target,
    start: usize,
    pages: [State; PAGES],
    /// Of the whole address space: mappings come and go.
    file: File,
    generation: u64,
}

impl<'a> Model<'a> {
    fn new(mount: &'a Mount) -> Self {
        let target = Target::new();
        let file = open_rw(&space(mount, target.pid())).unwrap();
        Self {
            mount,
            start: target.region("private").start,
            target,
            pages: [State::Writable; PAGES],
            file,
            generation: 1,
        }
    }

    fn states(&self, at: usize, len: usize) -> &[State] {
        &self.pages[at / PAGE..(at + len).div_ceil(PAGE).min(PAGES)]
    }

    /// Bytes from `at` on before the first page that is in one of these states.
    fn before(&self, at: usize, len: usize, ends: &[State]) -> usize {
        let end = (at / PAGE..PAGES).find(|page| ends.contains(&self.pages[*page]));
        end.map_or(len, |page| (page * PAGE).saturating_sub(at).min(len))
    }

    fn step(&mut self, step: &Step) {
        let whole = PAGES * PAGE;
        match *step {
            Step::OwnWrite { at, len, byte } => {
                let len = len.min(whole - at);
                if self
                    .states(at, len)
                    .iter()
                    .all(|state| *state == State::Writable)
                {
                    self.target.write(self.start + at, &vec![byte; len]);
                }
            }
            Step::OwnUnmap { page, pages } => {
                let pages = pages.min(PAGES - page);
                self.target.ask(&format!(
                    "unmap {:x} {}",
                    self.start + page * PAGE,
                    pages * PAGE
                ));
                self.pages[page..page + pages].fill(State::Gone);
            }
            Step::OwnProtect { page, pages, prot } => {
                let pages = pages.min(PAGES - page);
                if self.pages[page..page + pages].contains(&State::Gone) {
                    return;
                }
                let at = self.start + page * PAGE;
                self.target
                    .ask(&format!("protect {at:x} {} {prot}", pages * PAGE));
                let state = if prot == "rw" {
                    State::Writable
                } else {
                    State::Protected
                };
                self.pages[page..page + pages].fill(state);
            }
            Step::Read { at, len } => self.read(at, len.min(whole - at)),
            Step::Write { at, len, byte } => self.write(at, len.min(whole - at), byte),
            Step::Seek { page, data } => self.seek(page, data),
            Step::Reopen => self.reopen(),
            Step::Exec => {
                self.generation += 1;
                self.target.exec(self.generation);
                let read = self.file.read_at(&mut [0], self.start as u64);
                let errno = read.unwrap_err().raw_os_error().unwrap();
                assert_eq!(errno, libc::ESTALE, "{}", errno_name(errno));
                self.start = self.target.region("private").start;
                self.pages = [State::Writable; PAGES];
                self.reopen();
            }
            Step::Fork => self.fork(),
        }
    }

    fn reopen(&mut self) {
        self.file = open_rw(&space(self.mount, self.target.pid())).unwrap();
    }

    /// A read gives the bytes before the first page that is not there; the process reads them by itself.
    fn read(&mut self, at: usize, len: usize) {
        let expected = self.before(at, len, &[State::Gone]);
        let mut bytes = vec![0xa5; len];
        match self.file.read_at(&mut bytes, (self.start + at) as u64) {
            Ok(count) => {
                assert_eq!(count, expected, "bytes read at {at:#x}");
                let own = self.target.read_mem(self.start + at, count);
                assert!(bytes[..count] == own, "wrong bytes at {at:#x}");
            }
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::EIO), "{error}");
                assert_eq!(expected, 0, "an error at {at:#x}");
            }
        }
    }

    /// A write is done up to the first page that the process could not write itself.
    fn write(&mut self, at: usize, len: usize, byte: u8) {
        let expected = self.before(at, len, &[State::Gone, State::Protected]);
        match self
            .file
            .write_at(&vec![byte; len], (self.start + at) as u64)
        {
            Ok(count) => {
                assert_eq!(count, expected, "bytes written at {at:#x}");
                let own = self.target.read_mem(self.start + at, count);
                assert!(own.iter().all(|own| *own == byte), "not written at {at:#x}");
            }
            Err(error) => {
                let errors = match self.pages[at / PAGE] {
                    // What it was a moment ago says so before it is tried.
                    State::Protected => &[libc::EACCES, libc::EIO][..],
                    _ => &[libc::EIO],
                };
                let errno = error.raw_os_error().unwrap();
                assert!(errors.contains(&errno), "{error}");
                assert_eq!(expected, 0, "an error at {at:#x}");
            }
        }
    }

    /// All pages of the region were written: data is what is there, and what is not is a hole.
    fn seek(&mut self, page: usize, data: bool) {
        let is_data = |page: &usize| self.pages[*page] != State::Gone;
        let found = (page..PAGES).find(|page| is_data(page) == data);
        let whence = if data {
            Whence::SeekData
        } else {
            Whence::SeekHole
        };
        let at = (self.start + page * PAGE) as u64;
        let got = seek(&self.file, at, whence).unwrap().unwrap();
        match found {
            Some(found) => assert_eq!(got, (self.start + found * PAGE) as u64, "{whence:?}"),
            None => assert!(
                got >= (self.start + PAGES * PAGE) as u64,
                "{whence:?}: {got:#x}"
            ),
        }
    }

    /// A child has what its parent has.
    fn fork(&mut self) {
        let child: u32 = self.target.ask("fork").parse().unwrap();
        let path = space(self.mount, child);
        let file = eventually("the child is there", || File::open(&path).ok());
        for page in 0..PAGES {
            let at = (self.start + page * PAGE) as u64;
            let mut bytes = vec![0xa5; PAGE];
            match self.pages[page] {
                State::Gone => assert!(file.read_at(&mut bytes, at).is_err()),
                _ => {
                    file.read_exact_at(&mut bytes, at).unwrap();
                    assert!(
                        bytes == self.target.read_mem(at as usize, PAGE),
                        "page {page}"
                    );
                }
            }
        }
    }
}

fn space(mount: &Mount, pid: u32) -> PathBuf {
    mount.path("mem").join(pid.to_string())
}

/// Each sequence begins with a new process. What fails is written to a file beside this one, with its seed, and is
/// tried first from then on.
fn random_sequences_agree_with_the_targets_own_account() {
    let mount = Mount::new("write,cache_ttl=0");
    let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/mount-tests/model.seeds");
    let config = Config {
        cases: rounds(12, 1000) as u32,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(seeds))),
        max_shrink_iters: 200,
        ..Config::default()
    };
    let steps = proptest::collection::vec(step(), 1..60);
    let tried = TestRunner::new(config).run(&steps, |steps| {
        let mut model = Model::new(&mount);
        for step in &steps {
            model.step(step);
        }
        Ok(())
    });
    if let Err(error) = tried {
        panic!("{error}");
    }
}
