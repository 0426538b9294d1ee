//! Telling the kernel that a write has outdated the pages that it keeps.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};

use fuser::{INodeNo, Notifier, ReplyWrite};

use crate::contained::contained;
use crate::fs::Written;
use crate::tree::Inode;

/// An offset that stands for the attributes alone (`fuse_reverse_inval_inode` in `fs/fuse/inode.c`).
///
/// Without them the next read asks for the time of last modification, which the write has moved, and
/// drops the pages itself. To have them dropped here would wait for each page that is being read just
/// now, where no signal reaches: all writers would wait for a target that does not answer, and
/// readers would wait for ever for a daemon that was killed meanwhile.
const ATTRIBUTES: i64 = -1;

/// A write that is done, and is to be answered once the kernel knows what it outdated.
#[derive(Debug)]
struct Job {
    /// `None` where the writer has been answered without.
    reply: Option<ReplyWrite>,
    written: Written,
}

impl Job {
    fn work(self, notifier: &Notifier) {
        for Inode(inode) in &self.written.outdated {
            // ENOENT: the kernel has dropped the whole inode meanwhile.
            if let Err(error) = notifier.inval_inode(INodeNo(*inode), ATTRIBUTES, 0) {
                log::debug!("inode {inode} is not in the kernel's cache: {error}");
            }
        }
        self.answer();
    }

    fn answer(self) {
        if let Some(reply) = self.reply {
            reply.written(self.written.bytes as u32);
        }
    }
}

/// Answers writes after the kernel was told what they outdated.
///
/// It looks up the inode for that, and waits where it is just letting go of it, which takes until the
/// last page that is being read has come: from one of our threads. So the threads that serve
/// requests never tell it themselves: another one does, which nobody waits for.
#[derive(Clone, Debug)]
pub struct Outdated {
    jobs: Sender<Job>,
}

/// The other end of [`Outdated`].
#[derive(Debug)]
pub struct Jobs(Receiver<Job>);

impl Outdated {
    /// A pair of ends.
    pub fn new() -> (Self, Jobs) {
        let (jobs, receiver) = channel();
        (Self { jobs }, Jobs(receiver))
    }

    /// Answers a write, at once where no file is buffered.
    pub(super) fn answer(&self, reply: ReplyWrite, written: Written) {
        if written.outdated.is_empty() {
            return reply.written(written.bytes as u32);
        }
        let reply = Some(reply);
        if let Err(unsent) = self.jobs.send(Job { reply, written }) {
            unsent.0.answer();
        }
    }

    /// As [`answer`](Self::answer), for a write that nobody waits for any more.
    pub(super) fn tell(&self, written: Written) {
        let reply = None;
        // Where the other end is gone, so is the kernel's cache.
        let _ = self.jobs.send(Job { reply, written });
    }
}

impl Jobs {
    /// Starts the thread that does it; it ends with the file system.
    ///
    /// # Errors
    /// Where the system has no thread left.
    pub(crate) fn serve(self, notifier: Notifier) -> io::Result<()> {
        std::thread::Builder::new()
            .name("outdate".to_owned())
            .spawn(move || {
                for job in self.0 {
                    contained(|| job.work(&notifier));
                }
            })
            .map(drop)
    }
}
