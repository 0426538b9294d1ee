//! Answers, whatever transport takes them, and who gives one.

use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;

use super::file_system::{Entry, Opened};
use super::inodes::Inode;
use crate::common::error::Error;
use crate::common::sync::Mutex;
use crate::common::sync::atomic::{AtomicBool, Ordering};
use crate::files::{Kind, Statistics};

pub(crate) enum Reply<'a> {
    Done,
    /// The name may be kept as long as this, the rest as long as its attributes hold.
    Entry(&'a Entry, Duration),
    Attributes(&'a Entry),
    Opened(&'a Opened),
    Data(&'a [u8]),
    /// So many bytes were written.
    Written(u32),
    Offset(u64),
    /// The names in a directory, as many as find place.
    Names(&'a mut dyn Iterator<Item = Name>),
    /// The same with attributes, which may be kept as long as they say.
    Entries(&'a [NamedEntry]),
    /// The value of an extended attribute, or their list.
    Attribute(&'a [u8]),
    /// The file system as a whole.
    Statistics(Statistics),
}

/// A name in a directory.
#[derive(Debug)]
pub(crate) struct Name {
    pub(crate) name: String,
    pub(crate) inode: Inode,
    pub(crate) kind: Kind,
    /// The position of the entry after it.
    pub(crate) next: u64,
}

/// A name in a directory and all that `stat` says of it.
#[derive(Debug)]
pub(crate) struct NamedEntry {
    pub(crate) name: String,
    pub(crate) entry: Entry,
    /// The position of the entry after it.
    pub(crate) next: u64,
    /// How long all of it may be kept.
    pub(crate) valid: Duration,
}

/// Who waits for the answer to one request.
pub(crate) trait Respond: Send + 'static {
    /// Answers. Returns how many entries of a directory found place; 0 for any other answer.
    fn respond(self, reply: Result<Reply<'_>, Errno>) -> usize;
}

/// A reply that is given once, by whoever comes first.
#[derive(Debug)]
pub(super) struct OneShot<R>(Arc<Inner<R>>);

#[derive(Debug)]
struct Inner<R> {
    /// When the request came, by the clock of the server.
    begun: Duration,
    /// `None` once it was given. The lock is held to take it alone: it is given outside, and nothing is locked inside.
    reply: Mutex<Option<R>>,
    /// Whether something did not answer.
    missed: AtomicBool,
}

impl<R> Clone for OneShot<R> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<R> OneShot<R> {
    pub(super) fn new(reply: R, begun: Duration) -> Self {
        Self(Arc::new(Inner {
            begun,
            reply: Mutex::new(Some(reply)),
            missed: AtomicBool::new(false),
        }))
    }

    pub(super) fn begun(&self) -> Duration {
        self.0.begun
    }

    /// Takes note of an error that says that something does not answer, whoever gives the reply.
    pub(super) fn note(&self, error: &Error) {
        if error.errno() == Errno::ETIMEDOUT {
            self.0.missed.store(true, Ordering::Relaxed);
        }
    }

    /// Whether such an error was noted.
    pub(super) fn is_missed(&self) -> bool {
        self.0.missed.load(Ordering::Relaxed)
    }

    /// The same reply for another thread to give: nobody can give this one any more. `None` where it was given.
    pub(super) fn hand_over(&self) -> Option<Self> {
        let reply = self.take()?;
        Some(Self::new(reply, self.begun()))
    }

    /// Takes the reply to answer with, unless somebody else has.
    pub(super) fn take(&self) -> Option<R> {
        self.0.reply.lock().take()
    }
}
