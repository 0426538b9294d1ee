//! FUSE over io_uring (Linux 6.14, `Documentation/filesystems/fuse/fuse-io-uring.rst`): requests and answers lie in memory that the
//! kernel and this program share, and one system call answers a request and waits for the next.
//!
//! What nobody waits for (FORGET), the handshake and notifications still go through `/dev/fuse` (`transport::fuser`).

mod backing;
mod entry;
mod protocol;
mod reply;
mod request;
mod ring;
mod threads;

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use entry::EntryMemory;
use ring::Ring;
use threads::Threads;

use crate::server::Server;
use crate::transport::MAX_READ;

/// Rings besides one for each processor and another for when that is busy: for requests that others are to answer.
const SPARE: usize = 64;

/// Rings and memory, before anybody uses them.
#[derive(Debug)]
pub(crate) struct Rings {
    queues: usize,
    most: usize,
    rings: Vec<Ring>,
    memory: EntryMemory,
}

impl Rings {
    /// Prepares to serve, with at most so many threads for the requests of one processor: nothing can be missing later but
    /// threads.
    ///
    /// # Errors
    /// Where the system allows no rings to this program, or has no memory for them.
    pub(crate) fn new(most: usize) -> io::Result<Self> {
        let queues = possible_processors()?;
        let count = 2 * queues + SPARE;
        Ok(Self {
            queues,
            most,
            // A thread that a target holds up keeps its ring, while its entry goes to another one.
            rings: (0..count + most)
                .map(|_| Ring::new())
                .collect::<io::Result<_>>()?,
            memory: EntryMemory::new(count, MAX_READ as usize)?,
        })
    }

    /// Threads for the requests of one processor, at most.
    pub(crate) fn threads(&self) -> usize {
        self.most
    }

    /// Starts threads that serve the connection.
    ///
    /// # Errors
    /// Where the system has no thread left.
    pub(crate) fn serve(self, server: Arc<Server>, device: OwnedFd) -> io::Result<()> {
        let (queues, most) = (self.queues, self.most);
        let threads = Threads::new(server, device, self.memory, self.rings, queues, most);
        Arc::new(threads).start()
    }
}

/// How many processors there can be: the kernel has a queue for each (`fuse_uring_create` in `fs/fuse/dev_uring.c`).
fn possible_processors() -> io::Result<usize> {
    let list = fs::read_to_string("/sys/devices/system/cpu/possible")?;
    count_of(list.trim()).ok_or_else(|| io::Error::other(format!("processors {:?}", list.trim())))
}

/// How many numbers are in a list such as `0-3,8`.
fn count_of(list: &str) -> Option<usize> {
    let each = list.split(',').map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        (last + 1).checked_sub(first)
    });
    each.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_counted() {
        assert_eq!(count_of("0"), Some(1));
        assert_eq!(count_of("0-1"), Some(2));
        assert_eq!(count_of("0-3,8,10-11"), Some(7));
        assert_eq!(count_of(""), None);
        assert_eq!(count_of("3-1"), None);
    }
}
