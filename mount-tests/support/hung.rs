//! A file system that stops to answer: what makes targets wait in the kernel for ever.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, SystemTime};

use fuser::{
    BackgroundSession, Config, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry,
    ReplyOpen, ReplyWrite, Request, Session, TimeOrNow, WriteFlags,
};

use super::abort::Connection;
use super::run::current_test;
use super::{MountPoint, PAGE, unmount_lazily};

/// What is not answered any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hang {
    /// Writes: whoever lets go of a dirty page waits.
    Writes = 1,
    /// Questions for attributes.
    Attributes = 2,
    /// Closing.
    Closing = 4,
    /// Reads.
    Reads = 8,
}

/// How long the longest test may take; then everybody is let go.
const LONGEST: Duration = Duration::from_secs(200);

/// Pages of each of its files: more than the kernel reads ahead when one is touched.
const PAGES: usize = 1024;

/// A mounted file system with a file of any name. When dropped it lets go of whoever waits for it.
#[derive(Debug)]
pub(crate) struct HungFs {
    connection: Connection,
    hangs: Arc<AtomicU8>,
    _session: BackgroundSession,
    _watchdog: mpsc::Sender<()>,
    // Last: it unmounts what the connection has left.
    point: MountPoint,
}

impl HungFs {
    /// A new one, which answers as yet.
    #[track_caller]
    pub(crate) fn new() -> Self {
        let point = MountPoint::new();
        let hangs = Arc::new(AtomicU8::new(0));
        let server = Server {
            hangs: Arc::clone(&hangs),
            unanswered: Mutex::default(),
        };
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("hung".to_owned())];
        let session = Session::new(server, point.path(), &config).unwrap();
        let session = session.spawn().unwrap();
        let connection = Connection::of(point.path()).expect("it answers");
        Self {
            connection,
            hangs,
            _session: session,
            _watchdog: watch(connection),
            point,
        }
    }

    /// The length of its files.
    pub(crate) const fn len() -> usize {
        PAGES * PAGE
    }

    /// A file of it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.point.path().join(name)
    }

    /// Answers this no more.
    pub(crate) fn hang(&self, hang: Hang) {
        self.hangs.fetch_or(hang as u8, Ordering::SeqCst);
    }

    /// Ends it: whoever waits gets an error.
    pub(crate) fn abort(&self) {
        self.connection.abort();
    }
}

impl Drop for HungFs {
    fn drop(&mut self) {
        // Nothing else first: whatever looks at its mount point could wait.
        self.abort();
        unmount_lazily(self.point.path());
    }
}

/// Lets everybody go once a test has taken too long. Ends when the sender is dropped.
fn watch(connection: Connection) -> mpsc::Sender<()> {
    let (sender, receiver) = mpsc::channel();
    let name = current_test();
    std::thread::spawn(move || {
        if receiver.recv_timeout(LONGEST) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("[{name}] hangs: ending its file system");
            connection.abort();
        }
    });
    sender
}

/// A reply that nobody gives.
#[derive(Debug)]
#[expect(dead_code, reason = "held so that it is not given")]
enum Unanswered {
    Write(ReplyWrite),
    Attributes(ReplyAttr),
    Entry(ReplyEntry),
    Closing(ReplyEmpty),
    Read(ReplyData),
}

#[derive(Debug)]
struct Server {
    hangs: Arc<AtomicU8>,
    unanswered: Mutex<Vec<Unanswered>>,
}

impl Server {
    fn hangs(&self, hang: Hang) -> bool {
        self.hangs.load(Ordering::SeqCst) & hang as u8 != 0
    }

    fn leave(&self, unanswered: Unanswered) {
        self.unanswered.lock().unwrap().push(unanswered);
    }
}

const ROOT: u64 = 1;
const VALID: Duration = Duration::from_millis(1);

fn attributes(inode: u64) -> FileAttr {
    let time = SystemTime::UNIX_EPOCH;
    FileAttr {
        ino: INodeNo(inode),
        size: HungFs::len() as u64,
        blocks: 8 * PAGES as u64,
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind: match inode {
            ROOT => FileType::Directory,
            _ => FileType::RegularFile,
        },
        perm: 0o755,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: PAGE as u32,
        flags: 0,
    }
}

impl Filesystem for Server {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if self.hangs(Hang::Attributes) {
            return self.leave(Unanswered::Entry(reply));
        }
        // A number of its own for each name.
        let bytes = name.as_encoded_bytes();
        let number = bytes.iter().fold(2, |number: u64, byte| {
            number.wrapping_mul(257).wrapping_add(u64::from(*byte))
        });
        reply.entry(&VALID, &attributes(number.max(2)), Generation(0));
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        if self.hangs(Hang::Attributes) {
            return self.leave(Unanswered::Attributes(reply));
        }
        reply.attr(&VALID, &attributes(inode.0));
    }

    fn setattr(
        &self,
        _: &Request,
        inode: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        _size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        reply.attr(&VALID, &attributes(inode.0));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        if self.hangs(Hang::Reads) {
            return self.leave(Unanswered::Read(reply));
        }
        reply.data(&vec![b'f'; size as usize]);
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        if self.hangs(Hang::Writes) {
            return self.leave(Unanswered::Write(reply));
        }
        reply.written(data.len() as u32);
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        if self.hangs(Hang::Closing) {
            return self.leave(Unanswered::Closing(reply));
        }
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }
}

/// Where the descriptors of a process lead, those of `/dev/fuse` left out.
pub(crate) fn descriptors(pid: u32) -> Vec<PathBuf> {
    let dir = format!("/proc/{pid}/fd");
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    let links = entries.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    links
        .filter(|link| link != Path::new("/dev/fuse"))
        .collect()
}
