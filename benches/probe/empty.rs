//! What FUSE itself can reach: a file system that has every answer at hand.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEntry, ReplyOpen,
    Request, Session,
};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use procmemfs::cache::{Freshness, SpaceEpoch};
use procmemfs::clock::SystemClock;
use procmemfs::config::MountConfig;
use procmemfs::fuse::{MAX_REQUEST, negotiate};

use super::PAGE;

const NAME: &str = "bytes";
const FILE: INodeNo = INodeNo(2);

/// Mounts, tells so, and serves until its standard input closes or its parent ends.
pub(super) fn serve(mountpoint: &str, size: u64) {
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
    let session = Session::new(Empty::new(size, &defaults), mountpoint, &config)
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

/// One file, with the settings of a mount of ours, so that the kernel asks and forgets as it does there.
struct Empty {
    size: u64,
    /// The answer to each read. Not zeros, whose pages would all be one.
    bytes: Vec<u8>,
    freshness: Freshness,
    epoch: SpaceEpoch,
}

impl Empty {
    fn new(size: u64, defaults: &MountConfig) -> Self {
        let freshness = Freshness::new(defaults.cache_ttl, Arc::new(SystemClock::new()));
        Self {
            size,
            bytes: vec![1; MAX_REQUEST as usize],
            epoch: freshness.new_space(),
            freshness,
        }
    }

    /// The attributes, and for how long they are valid.
    fn attributes(&self, inode: INodeNo) -> (FileAttr, Duration) {
        let (epoch, valid) = self.freshness.lend(&self.epoch);
        let modified = epoch.modified();
        let (kind, perm, size) = match inode {
            FILE => (FileType::RegularFile, 0o444, self.size),
            _ => (FileType::Directory, 0o555, 0),
        };
        let attributes = FileAttr {
            ino: inode,
            size,
            blocks: size.div_ceil(512),
            atime: modified,
            mtime: modified,
            ctime: modified,
            crtime: modified,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: PAGE as u32,
            flags: 0,
        };
        (attributes, valid)
    }
}

impl Filesystem for Empty {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        negotiate(config);
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if parent != INodeNo::ROOT || name != NAME {
            return reply.error(Errno::ENOENT);
        }
        let (attributes, valid) = self.attributes(FILE);
        reply.entry(&valid, &attributes, Generation(0));
    }

    fn getattr(
        &self,
        _request: &Request,
        inode: INodeNo,
        _handle: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        let (attributes, valid) = self.attributes(inode);
        reply.attr(&valid, &attributes);
    }

    fn open(&self, _request: &Request, _inode: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        self.freshness.renew(&self.epoch);
        reply.opened(FileHandle(0), FopenFlags::empty());
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
        let len = self.size.saturating_sub(offset).min(size.into());
        reply.data(&self.bytes[..len as usize]);
    }
}
