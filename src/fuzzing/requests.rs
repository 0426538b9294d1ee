//! Requests, as no kernel would send them: any operations with any numbers, while processes change and end.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use nix::errno::Errno;

use super::world::{Answer, Answers, MAPS, PIDS, ROOT, Setup, Waiting, World, byte_of, fill};
use crate::common::address::PAGE_SIZE;
use crate::files::view::{FaultPolicy, Seek};
use crate::files::{Access, Caller, Change, FileOptions, Node};
use crate::server::admission::Limits;
use crate::server::{Buffers, Inode, InvalidationQueue, Operation, Request, Server};

/// Requests of one input at most.
const MOST: usize = 200;

/// Each request is answered, once and by what belongs to it; no byte is another program's; no permit is lost; and
/// nothing is left once all was released and forgotten.
pub(super) fn check(data: &[u8]) {
    let mut from = Unstructured::new(data);
    let Ok(setup) = setup(&mut from) else { return };
    let mut kernel = Kernel::new(&setup);
    for _ in 0..MOST {
        // It ends where the bytes do.
        if from.is_empty() || kernel.step(&mut from).is_err() {
            break;
        }
        kernel.take_answers();
    }
    kernel.end();
}

fn setup(from: &mut Unstructured<'_>) -> Result<Setup> {
    let plain = Setup::default();
    let kind = from.int_in_range(0..=4)?;
    let faults = *from.choose(&[FaultPolicy::Error, FaultPolicy::Zero])?;
    let bounds = [Duration::ZERO, plain.bound, Duration::from_secs(5)];
    Ok(Setup {
        options: FileOptions {
            writable: kind >= 2,
            read_only: kind == 1,
            force: kind == 4,
            faults,
            ..FileOptions::default()
        },
        bound: *from.choose(&bounds)?,
        limits: Limits {
            permits: *from.choose(&[3, 1, 0])?,
            per_process: *from.choose(&[2, 1])?,
            queued: *from.choose(&[64, 2, 0])?,
            queued_bytes: *from.choose(&[1 << 20, 64])?,
            workers: *from.choose(&[4, 1])?,
            ..plain.limits
        },
    })
}

/// The other end: it asks, and keeps count of what it was told.
struct Kernel {
    world: World,
    server: Arc<Server>,
    queue: InvalidationQueue,
    answers: Answers,
    /// What was asked and has not been answered yet.
    asked: HashMap<u64, Operation>,
    next: u64,
    /// Inodes that it holds, and how often it was told of each.
    inodes: BTreeMap<Inode, u64>,
    /// Handles that were given out, with the byte of the program that each is open on.
    handles: Vec<(u64, Option<u8>)>,
    names: Vec<String>,
}

impl Kernel {
    fn new(setup: &Setup) -> Self {
        let (world, server, queue) = World::new(setup);
        Self {
            world,
            server: Arc::new(server),
            queue,
            answers: Answers::default(),
            asked: HashMap::new(),
            next: 1,
            inodes: BTreeMap::new(),
            handles: Vec::new(),
            names: [
                "7",
                "9",
                "4711",
                "mem",
                "core",
                "by-name",
                "my_prog",
                "by-cgroup",
                "group",
                "self",
                "stats",
                "heap",
            ]
            .map(str::to_owned)
            .to_vec(),
        }
    }

    fn step(&mut self, from: &mut Unstructured<'_>) -> Result<()> {
        match from.int_in_range(0..=31)? {
            0 => self.change_process(from)?,
            1 => {
                let millis = *from.choose(&[0, 10, 50, 101, 1000, 2001, 60_001])?;
                self.world.clock.advance(Duration::from_millis(millis));
            }
            2 => {
                let (inode, lookups) = (self.inode(from)?, u64::from(from.arbitrary::<u8>()?));
                self.forget(inode, lookups);
            }
            3 => {
                let handle = self.handle(from)?;
                self.handles.retain(|(known, _)| *known != handle);
                self.server.release(handle);
            }
            4 => {
                let tasks = &self.world.tasks;
                let is_exhausted = from.ratio(1, 4)?;
                tasks.exhausted.store(is_exhausted, Ordering::Relaxed);
                tasks.running.store(from.ratio(1, 4)?, Ordering::Relaxed);
            }
            5 => self.world.tasks.run(),
            6 => self.world.admission.check_deadlines(),
            7 => {
                self.world.fs.context().close_unused();
            }
            8 => self.queue.tell(&()),
            _ => {
                let operation = self.operation(from)?;
                self.ask(from, operation)?;
            }
        }
        Ok(())
    }

    fn change_process(&mut self, from: &mut Unstructured<'_>) -> Result<()> {
        let index = from.choose_index(self.world.processes.len())?;
        let process = self.world.processes[index].clone();
        let page = PAGE_SIZE * *from.choose(&[0x10, 0x11, 0x12, 0x20, 0x40, 0x43])?;
        match from.int_in_range(0..=8)? {
            0 => {
                process.exec();
                fill(&process);
            }
            1 => process.end(),
            2 => process.deny(),
            3 => process.set_in_exec(from.arbitrary()?),
            4 => {
                process.unmap(page);
            }
            5 => {
                let byte = byte_of(&process.identity());
                process.map(page, &[byte; PAGE_SIZE as usize]);
            }
            6 => {
                process.set_maps(from.choose::<&[u8]>(&MAPS)?);
            }
            7 => {
                process.swap_out(page);
            }
            _ => {
                let pid = *from.choose(&PIDS)?;
                self.world.add(pid, MAPS[0], b"another");
            }
        }
        Ok(())
    }

    /// One that it holds, most of the time.
    fn inode(&self, from: &mut Unstructured<'_>) -> Result<Inode> {
        match from.int_in_range(0..=15)? {
            0 => Ok(Inode(from.arbitrary()?)),
            1 | 2 => Ok(ROOT),
            _ if self.inodes.is_empty() => Ok(ROOT),
            _ => {
                let index = from.choose_index(self.inodes.len())?;
                Ok(self.inodes.keys().nth(index).copied().unwrap_or(ROOT))
            }
        }
    }

    fn handle(&self, from: &mut Unstructured<'_>) -> Result<u64> {
        match from.int_in_range(0..=15)? {
            0 => from.arbitrary(),
            _ if self.handles.is_empty() => Ok(0),
            _ => Ok(from.choose(&self.handles)?.0),
        }
    }

    fn name(&self, from: &mut Unstructured<'_>) -> Result<std::ffi::OsString> {
        Ok(match from.int_in_range(0..=7)? {
            0 => OsStr::from_bytes(from.arbitrary::<&[u8]>()?).to_owned(),
            _ => from.choose(&self.names)?.into(),
        })
    }

    fn offset(from: &mut Unstructured<'_>) -> Result<u64> {
        Ok(match from.int_in_range(0..=7)? {
            0 => from.arbitrary()?,
            1 => 0x7fff_ffff_f000 + u64::from(from.int_in_range(0_u16..=0x1fff)?),
            2 => *from.choose(&[0x10_000, 0x12_000, 0x1f_fff, 0x20_000, 0x41_fff])?,
            _ => from.int_in_range(0_u64..=0x3000)?,
        })
    }

    fn operation(&self, from: &mut Unstructured<'_>) -> Result<Operation> {
        let inode = self.inode(from)?;
        let kind = from.int_in_range(0..=20)?;
        let access = Access {
            read: from.arbitrary()?,
            write: from.arbitrary()?,
            execute: from.ratio(1, 8)?,
            is_direct: from.arbitrary()?,
        };
        let handle = self.handle(from)?;
        let position = u64::from(from.int_in_range(0_u8..=6)?);
        Ok(match kind {
            0..=4 => Operation::Lookup {
                parent: inode,
                name: self.name(from)?,
            },
            5 => Operation::GetAttributes {
                inode,
                handle: match from.arbitrary()? {
                    true => Some(handle),
                    false => None,
                },
            },
            6 => Operation::SetAttributes {
                inode,
                handle: Some(handle),
                change: Change {
                    metadata: from.ratio(1, 4)?,
                    size: from.arbitrary()?,
                },
            },
            7 => Operation::ReadLink { inode },
            8..=10 => Operation::Open { inode, access },
            11..=13 => Operation::Read {
                inode,
                handle,
                offset: Self::offset(from)?,
                size: *from.choose(&[0, 1, 100, 4096, 4097, 8192, 131_072])?,
            },
            14 => Operation::Write {
                inode,
                handle,
                offset: Self::offset(from)?,
                is_mapped: from.ratio(1, 8)?,
            },
            15 => Operation::Seek {
                inode,
                handle,
                offset: Self::offset(from)?.cast_signed(),
                whence: *from.choose(&[Some(Seek::Data), Some(Seek::Hole), None])?,
            },
            16 => Operation::OpenDirectory { inode },
            17 => Operation::ReadDirectory {
                inode,
                handle,
                position: *from.choose(&[0, position, u64::MAX])?,
            },
            18 => Operation::ReadDirectoryPlus {
                inode,
                handle,
                position,
            },
            19 => Operation::GetExtendedAttribute {
                inode,
                name: format!(
                    "user.procmemfs.{}",
                    from.choose(&["rss", "path", "comm", "state", "unreadable_bytes", "x"])?
                )
                .into(),
            },
            _ => match from.int_in_range(0..=3)? {
                0 => Operation::ListExtendedAttributes { inode },
                1 => Operation::Access { inode, access },
                2 => Operation::Statfs { inode },
                _ => Operation::Change { inode },
            },
        })
    }

    fn ask(&mut self, from: &mut Unstructured<'_>, operation: Operation) -> Result<()> {
        let number = self.next;
        self.next += 1;
        let waiting = Waiting {
            number,
            room: from.int_in_range(0..=40)?,
            answers: Arc::clone(&self.answers),
        };
        let data = match &operation {
            Operation::Write { handle, .. } => {
                let length = *from.choose(&[0, 1, 64, 65, 5000])?;
                vec![self.byte_of_handle(*handle).unwrap_or(0); length]
            }
            _ => Vec::new(),
        };
        let request = Request {
            number,
            caller: Caller {
                pid: *from.choose(&[0, 7, 9, 8, u32::MAX])?,
                ..Caller::default()
            },
            operation: operation.clone(),
        };
        self.asked.insert(number, operation);
        self.server.serve(request, Buffers::of(&data), waiting);
        Ok(())
    }

    fn byte_of_handle(&self, handle: u64) -> Option<u8> {
        let mut handles = self.handles.iter();
        handles.find(|(known, _)| *known == handle)?.1
    }

    /// Takes in what was answered since.
    fn take_answers(&mut self) {
        let answers = std::mem::take(&mut *self.answers.lock());
        for (number, answer) in answers {
            let asked = self.asked.remove(&number);
            let asked = asked.unwrap_or_else(|| panic!("answered twice: {answer:?}"));
            self.take(asked, answer);
        }
    }

    fn take(&mut self, asked: Operation, answer: Answer) {
        match (asked, answer) {
            // A panic, or an answer of another operation.
            (_, Answer::Error(errno)) => assert_ne!(errno, Errno::UnknownErrno),
            (Operation::Lookup { .. }, Answer::Entry(inode)) => self.hold(inode),
            (Operation::GetAttributes { .. } | Operation::SetAttributes { .. }, answer) => {
                assert_eq!(answer, Answer::Attributes);
            }
            (Operation::ReadLink { .. }, Answer::Data(target)) => {
                assert!(!target.is_empty() && target.is_ascii());
            }
            (Operation::Open { inode, .. }, Answer::Opened(handle)) => {
                let node = self.world.fs.node(inode).ok();
                // A core has bytes of its own: headers and notes.
                let node = node.filter(|node| !matches!(node, Node::Core(_)));
                let info = node.as_ref().and_then(|node| node.process());
                let byte = info.map(|info| byte_of(&info.identity));
                self.handles.push((handle, byte));
            }
            (Operation::OpenDirectory { .. }, Answer::Opened(handle)) => {
                self.handles.push((handle, None));
            }
            (Operation::Read { handle, size, .. }, Answer::Data(bytes)) => {
                assert!(bytes.len() <= size);
                if let Some(own) = self.byte_of_handle(handle) {
                    let is_own = |byte: &u8| [0, own].contains(byte);
                    assert!(bytes.iter().all(is_own), "a byte of another program");
                }
            }
            (Operation::Write { .. }, Answer::Written(bytes)) => assert!(bytes <= 5000),
            (Operation::Seek { offset, .. }, Answer::Offset(found)) => {
                assert!(i64::try_from(found).is_ok_and(|found| found >= offset));
            }
            (Operation::ReadDirectory { .. }, Answer::Names(names)) => {
                self.names.extend(names.into_iter().map(|(name, _)| name));
                self.names.truncate(64);
            }
            (Operation::ReadDirectoryPlus { .. }, Answer::Entries(entries)) => {
                for (name, inode) in entries {
                    if name != "." && name != ".." {
                        self.hold(inode);
                    }
                }
            }
            (
                Operation::GetExtendedAttribute { .. } | Operation::ListExtendedAttributes { .. },
                Answer::Attribute(_),
            )
            | (Operation::Access { .. }, Answer::Done) => (),
            (Operation::Statfs { .. }, Answer::Statistics(of)) => {
                assert!(of.available <= of.free && of.free <= of.blocks);
            }
            (asked, answer) => panic!("{answer:?} is no answer to {asked:?}"),
        }
    }

    fn hold(&mut self, inode: Inode) {
        *self.inodes.entry(inode).or_default() += 1;
    }

    fn forget(&mut self, inode: Inode, lookups: u64) {
        if let Some(held) = self.inodes.get_mut(&inode) {
            *held = held.saturating_sub(lookups);
        }
        self.inodes.retain(|_, held| *held > 0);
        self.server.forget(inode, lookups);
    }

    /// Lets all that waits come to its end, and gives everything back.
    fn end(mut self) {
        const ROUNDS: usize = 8;

        self.world.tasks.exhausted.store(false, Ordering::Relaxed);
        self.world.tasks.running.store(false, Ordering::Relaxed);
        for _ in 0..ROUNDS {
            self.come_to_rest();
        }
        assert!(self.asked.is_empty(), "never answered: {:?}", self.asked);
        for (handle, _) in std::mem::take(&mut self.handles) {
            self.server.release(handle);
        }
        for (inode, lookups) in std::mem::take(&mut self.inodes) {
            self.server.forget(inode, lookups);
        }
        for _ in 0..ROUNDS {
            self.come_to_rest();
        }
        assert!(self.world.admission.is_idle(), "{:?}", self.world.admission);
        assert_eq!(self.world.fs.held(), (1, 0), "inodes and handles");
        assert_eq!(self.world.fs.context().close_unused(), None);
    }

    fn come_to_rest(&mut self) {
        self.world.clock.advance(Duration::from_millis(1001));
        self.world.admission.check_deadlines();
        self.world.tasks.run();
        self.queue.tell(&());
        self.take_answers();
    }
}
