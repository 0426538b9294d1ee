//! Messages of FUSE, as they come through `/dev/fuse`: parsed by the crate `fuser`, answered by the server.

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use fuser::{Config, Session, SessionACL};

use super::world::{Setup, World};
use crate::files::FileOptions;
use crate::transport::fuser::{Adapter, Features};

/// Messages of one input at most.
const MOST: usize = 40;

/// What a message is followed by is one answer of its number, or none where none belongs to it.
pub(super) fn check(data: &[u8]) {
    let mut from = Unstructured::new(data);
    let mut kernel = Kernel::begin(from.arbitrary().unwrap_or_default());
    for _ in 0..MOST {
        // It ends where the bytes do.
        if from.is_empty() || kernel.step(&mut from).is_err() {
            break;
        }
    }
    kernel.end();
}

/// Numbers of operations (`enum fuse_opcode` in `include/uapi/linux/fuse.h`).
const FORGET: u32 = 2;
const READ: u32 = 15;
const INIT: u32 = 26;
const DESTROY: u32 = 38;
const BATCH_FORGET: u32 = 42;
/// Operations of which the body holds a size, after so many bytes, that answers are as long as.
const SIZED: [(u32, usize); 5] = [(READ, 16), (28, 16), (44, 16), (22, 0), (23, 0)];
/// What an answer may have here, where a message has to fit into a socket.
const MOST_BYTES: u32 = 1 << 15;

/// Length of `fuse_in_header` and `fuse_out_header`.
const IN_HEADER: usize = 40;
const OUT_HEADER: usize = 16;

/// The other end of the connection.
struct Kernel {
    socket: UnixDatagram,
    session: std::thread::JoinHandle<std::io::Result<()>>,
    next: u64,
    inodes: Vec<u64>,
    handles: Vec<u64>,
}

impl Kernel {
    /// Agrees with a server on how to talk.
    fn begin(writable: bool) -> Self {
        let (ours, theirs) = UnixDatagram::pair().expect("two sockets");
        let patience = Some(Duration::from_secs(20));
        ours.set_read_timeout(patience).expect("a time");
        let setup = Setup {
            options: FileOptions {
                writable,
                ..FileOptions::default()
            },
            ..Setup::default()
        };
        let (_world, server, queue) = World::new(&setup);
        // Major and minor version, readahead, and all flags there are.
        let mut greeting = Vec::new();
        for number in [7_u32, 45, 1 << 17, u32::MAX, u32::MAX] {
            greeting.extend_from_slice(&number.to_le_bytes());
        }
        greeting.resize(64, 0);
        let first = message(INIT, 1, 0, &greeting);
        ours.send(&first).expect("there is room for it");
        let adapter = Adapter::new(Arc::new(server), Features::default(), Arc::default());
        let (fd, acl) = (OwnedFd::from(theirs), SessionACL::Owner);
        let session = Session::from_fd(adapter, fd, acl, Config::default());
        let session = session.expect("an agreement");
        queue.serve(session.notifier()).expect("a thread");
        let kernel = Self {
            socket: ours,
            session: std::thread::spawn(move || session.run()),
            next: 2,
            inodes: vec![1],
            handles: vec![0],
        };
        assert!(kernel.answer(1).expect("an answer").len() > OUT_HEADER);
        kernel
    }

    fn step(&mut self, from: &mut Unstructured<'_>) -> Result<()> {
        // All that the kernel knows, and one that it does not. After DESTROY there is nobody left.
        let operation = match from.int_in_range(1..=53)? {
            DESTROY => 4096,
            operation => operation,
        };
        let inode = match from.ratio(1, 16)? {
            true => from.arbitrary()?,
            false => *from.choose(&self.inodes)?,
        };
        let mut body = self.body(from, operation)?;
        as_the_kernel_does(operation, &mut body);
        if let Some((_, at)) = SIZED.iter().find(|(sized, _)| *sized == operation)
            && let Some(size) = body.get_mut(*at..at + 4)
        {
            let given = u32::from_le_bytes(size.try_into().unwrap_or_default());
            size.copy_from_slice(&(given % MOST_BYTES).to_le_bytes());
        }
        let number = self.next;
        self.next += 1;
        let message = message(operation, number, inode, &body);
        self.socket.send(&message).expect("somebody reads");
        if [FORGET, BATCH_FORGET].contains(&operation) {
            // Where it is cut off an error is sent, which the kernel passes over: it waits for none.
            return Ok(());
        }
        let answer = self.answer(number).expect("an answer");
        self.learn(operation, &answer);
        Ok(())
    }

    /// Bytes, a known handle, or a name.
    fn body(&self, from: &mut Unstructured<'_>, operation: u32) -> Result<Vec<u8>> {
        const NAMES: [&[u8]; 10] = [
            b"7\0",
            b"9\0",
            b"mem\0",
            b"by-name\0",
            b"my_prog\0",
            b"stats\0",
            b"self\0",
            b"heap\0",
            b"000000010000-000000012000.rw-p.heap\0",
            b"000000014000-000000015000.---p.anon\0",
        ];

        if operation == 1 && !from.ratio(1, 8)? {
            return Ok(from.choose::<&[u8]>(&NAMES)?.to_vec());
        }
        let mut body = match from.arbitrary()? {
            true => from.choose(&self.handles)?.to_le_bytes().to_vec(),
            false => Vec::new(),
        };
        let more = from.int_in_range(0..=80)?;
        body.extend_from_slice(from.bytes(more.min(from.len()))?);
        if from.arbitrary()? {
            body.resize(body.len().max(40), 0);
        }
        Ok(body)
    }

    /// The answer to message `number`; notices that come before it are passed over.
    fn answer(&self, number: u64) -> std::io::Result<Vec<u8>> {
        let mut answer = vec![0; 1 << 17];
        loop {
            let len = loop {
                match self.socket.recv(&mut answer) {
                    Err(error) if error.kind() == ErrorKind::Interrupted => (),
                    received => break received?,
                }
            };
            let told = u32::from_le_bytes(answer[..4].try_into().unwrap_or_default());
            assert_eq!(told as usize, len, "its length is its own");
            let unique = u64::from_le_bytes(answer[8..16].try_into().unwrap_or_default());
            let errno = i32::from_le_bytes(answer[4..8].try_into().unwrap_or_default());
            // The number of notices, which have a positive code, is 0.
            if unique == 0 {
                assert!(errno > 0, "a notice");
                continue;
            }
            if unique < number {
                // An error in answer to a message that forgets, which was cut off.
                assert!(errno < 0 && len == OUT_HEADER);
                continue;
            }
            assert_eq!(unique, number, "the answer to another message");
            assert!((-4095..=0).contains(&errno), "{errno}");
            assert!(errno == 0 || len == OUT_HEADER);
            answer.truncate(len);
            return Ok(answer);
        }
    }

    /// Takes note of inodes and handles.
    fn learn(&mut self, operation: u32, answer: &[u8]) {
        let Some(first) = answer.get(OUT_HEADER..OUT_HEADER + 8) else {
            return;
        };
        let first = u64::from_le_bytes(first.try_into().unwrap_or_default());
        match operation {
            1 => self.inodes.push(first),
            14 | 27 => self.handles.push(first),
            _ => (),
        }
    }

    /// Ends the connection: nothing is left in it.
    fn end(mut self) {
        let number = self.next;
        self.next += 1;
        let last = message(DESTROY, number, 0, &[]);
        self.socket.send(&last).expect("somebody reads");
        self.answer(number).expect("an answer");
        let ended = self.session.join().expect("no panic");
        ended.expect("it ends well");
        self.socket.set_nonblocking(true).expect("a socket");
        let left = self.socket.recv(&mut [0; 16]);
        assert!(left.is_err(), "an answer too many");
    }
}

/// Sets what the kernel sees to and `fuser` relies on: lengths of what follows, and times that there are.
fn as_the_kernel_does(operation: u32, body: &mut [u8]) {
    const SETATTR: u32 = 4;
    const WRITE: u32 = 16;
    const SETXATTR: u32 = 21;
    const IOCTL: u32 = 39;

    let length = body.len() as u32;
    // After the name and its NUL.
    let name_end = body.iter().skip(8).position(|byte| *byte == 0);
    let value = name_end.map_or(0, |at| length - 9 - at as u32);
    let mut set = |at: usize, with: &dyn Fn(u32) -> u32| {
        if let Some(number) = body.get_mut(at..at + 4) {
            let given = u32::from_le_bytes((&*number).try_into().unwrap_or_default());
            number.copy_from_slice(&with(given).to_le_bytes());
        }
    };
    match operation {
        WRITE => set(16, &|_| length.saturating_sub(40)),
        IOCTL => set(24, &|_| length.saturating_sub(32)),
        SETXATTR => set(0, &|_| value),
        SETATTR => {
            for nanoseconds in [56, 60, 64] {
                set(nanoseconds, &|given| given % 1_000_000_000);
            }
            // `timestamp_truncate` in `fs/inode.c`: none before the first second.
            for seconds in [36, 44, 52] {
                set(seconds, &|given| given & 0x7fff_ffff);
            }
        }
        _ => (),
    }
}

/// A message: `fuse_in_header` and its body.
fn message(operation: u32, number: u64, inode: u64, body: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(IN_HEADER + body.len());
    let len = (IN_HEADER + body.len()) as u32;
    message.extend_from_slice(&len.to_le_bytes());
    message.extend_from_slice(&operation.to_le_bytes());
    message.extend_from_slice(&number.to_le_bytes());
    message.extend_from_slice(&inode.to_le_bytes());
    let user = nix::unistd::geteuid().as_raw();
    for number in [user, 0, 7, 0] {
        message.extend_from_slice(&number.to_le_bytes());
    }
    message.extend_from_slice(body);
    message
}
