//! What FUSE itself can reach: a file system that has every answer at hand.

mod content;
mod tree;

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    KernelConfig, LockOwner, MountOption, OpenAccMode, OpenFlags, ReplyAttr, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEntry, ReplyLseek, ReplyOpen, ReplyWrite, Request,
    Session, WriteFlags,
};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use procmemfs::common::clock::SystemClock;
use procmemfs::mount::MountConfig;
use procmemfs::target::cache::{Freshness, SpaceEpoch};
use procmemfs::transport::fuser::negotiate;

use super::PAGE;
use tree::Node;

pub(super) use content::Content;
pub(super) use tree::Tree;

const GENERATION: Generation = Generation(0);

/// Mounts, tells so, and serves until its standard input closes or its parent ends.
pub(super) fn serve(mountpoint: &str, tree: Tree, content: Content) {
    // Not SIGKILL as for targets, which would leave the mount behind. Blocked
    // before there are threads, so that none of them dies of it.
    let end = SigSet::from(Signal::SIGTERM);
    end.thread_block().expect("pthread_sigmask");
    nix::sys::prctl::set_pdeathsig(Signal::SIGTERM).expect("prctl");
    let defaults = MountConfig::default();
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("empty".to_owned()), MountOption::RW];
    config.n_threads = Some(defaults.threads);
    config.clone_fd = true;
    let session = Session::new(Empty::new(tree, content, &defaults), mountpoint, &config)
        .and_then(Session::spawn)
        .expect("a mount");
    writeln!(io::stdout(), "mounted").expect("standard output");
    std::thread::spawn(|| {
        let _ = io::stdin().read(&mut [0]);
        kill(Pid::this(), Signal::SIGTERM)
    });
    end.wait().expect("sigwait");
    // Whoever still reads does not keep it in the tree.
    umount2(mountpoint, MntFlags::MNT_DETACH).expect("umount2");
    drop(session);
}

/// Has the settings of a mount of ours, so that the kernel asks and forgets as it does there.
struct Empty {
    tree: Tree,
    /// What each of the files holds.
    content: Content,
    freshness: Freshness,
    /// One for each directory, as for each process in a mount of ours.
    epochs: Vec<SpaceEpoch>,
}

impl Empty {
    fn new(tree: Tree, content: Content, defaults: &MountConfig) -> Self {
        let freshness = Freshness::new(defaults.cache_ttl, Arc::new(SystemClock::new()));
        let epochs = (0..tree.directories()).map(|_| freshness.new_space());
        Self {
            epochs: epochs.collect(),
            tree,
            content,
            freshness,
        }
    }

    /// The attributes, and for how long they are valid, as the name is: with the
    /// default bound that is less than the second that ours may be kept.
    fn attributes(&self, node: Node) -> (FileAttr, Duration) {
        let (modified, valid, size, held) = match node {
            Node::File(directory, _) => {
                let (epoch, valid) = self.freshness.for_kernel(&self.epochs[directory]);
                let (size, held) = (self.content.size(), self.content.held());
                (epoch.modified(), valid, size, held)
            }
            _ => (
                SystemTime::UNIX_EPOCH,
                self.freshness.longest_for_kernel(),
                0,
                0,
            ),
        };
        let kind = kind(node);
        let (perm, nlink) = match kind {
            FileType::Directory => (0o500, 2),
            _ => (0o600, 1),
        };
        let attributes = FileAttr {
            ino: self.tree.inode(node),
            size,
            blocks: held.div_ceil(512),
            atime: modified,
            mtime: modified,
            ctime: modified,
            crtime: modified,
            kind,
            perm,
            nlink,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: PAGE as u32,
            flags: 0,
        };
        (attributes, valid)
    }
}

fn kind(node: Node) -> FileType {
    match node {
        Node::File(..) => FileType::RegularFile,
        Node::Root | Node::Directory(_) => FileType::Directory,
    }
}

/// Closing, access and extended attributes are not here: the kernel is told so
/// once, or not at all, and asks no more.
impl Filesystem for Empty {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        negotiate(config);
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let Some(node) = self.tree.child(self.tree.node(parent), name) else {
            return reply.error(Errno::ENOENT);
        };
        let (attributes, valid) = self.attributes(node);
        reply.entry(&valid, &attributes, GENERATION);
    }

    fn getattr(
        &self,
        _request: &Request,
        inode: INodeNo,
        _handle: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        let (attributes, valid) = self.attributes(self.tree.node(inode));
        reply.attr(&valid, &attributes);
    }

    fn open(&self, _request: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if let Node::File(directory, _) = self.tree.node(inode) {
            self.freshness.renew(&self.epochs[directory]);
        }
        // As ours: the kernel keeps no page of what may be written.
        let mut open = FopenFlags::empty();
        let direct = flags.acc_mode() != OpenAccMode::O_RDONLY;
        open.set(FopenFlags::FOPEN_DIRECT_IO, direct);
        reply.opened(FileHandle(0), open);
    }

    fn read(
        &self,
        _request: &Request,
        _inode: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.content.read(offset, size, |answer| reply.data(answer));
    }

    /// Takes it, and drops it.
    fn write(
        &self,
        _request: &Request,
        _inode: INodeNo,
        _handle: FileHandle,
        _offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        reply.written(data.len() as u32);
    }

    fn lseek(
        &self,
        _request: &Request,
        _inode: INodeNo,
        _handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let offset = offset.cast_unsigned();
        let found = match whence {
            libc::SEEK_DATA => self.content.data(offset),
            _ => self.content.hole(offset),
        };
        match found {
            Some(offset) => reply.offset(offset.cast_signed()),
            None => reply.error(Errno::ENXIO),
        }
    }

    fn readdir(
        &self,
        _request: &Request,
        inode: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        for (next, node, name) in self.tree.entries(self.tree.node(inode), offset) {
            if reply.add(self.tree.inode(node), next, kind(node), name) {
                break;
            }
        }
        reply.ok();
    }

    fn readdirplus(
        &self,
        _request: &Request,
        inode: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        for (next, node, name) in self.tree.entries(self.tree.node(inode), offset) {
            let (attributes, valid) = self.attributes(node);
            if reply.add(attributes.ino, next, name, &valid, &attributes, GENERATION) {
                break;
            }
        }
        reply.ok();
    }
}
