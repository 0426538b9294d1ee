//! Giving the kernel pages that it has not asked for yet.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use fuser::{INodeNo, Notifier};
use parking_lot::{Condvar, Mutex};

use super::shared::Shared;
use crate::fs::Surroundings;
use crate::tree::Inode;

/// Requests that may wait; one that finds no room is not missed, the kernel asks page by page.
const WAITING: usize = 1024;

/// Something to be done once pages that are on their way to the kernel have got there.
type Deferred = Box<dyn FnOnce() + Send>;

/// Gives the kernel the surroundings of what it asks for.
///
/// The kernel keeps what it is given until its attributes of the file expire, and so the bytes
/// must not come behind an `open` or a write, after which nothing older may be seen. Both end
/// the epoch first and then ask here: bytes of an epoch that has ended are not given any more,
/// and those on their way are waited for and dropped again, if need be.
///
/// Giving can wait for a page that is being read, and that read for one of the threads that
/// serve. So a thread of its own does it, and no serving thread waits for that one.
#[derive(Debug)]
pub struct Stores {
    jobs: SyncSender<(Arc<Shared>, Surroundings)>,
    under_way: Arc<UnderWay>,
}

/// The other end of [`Stores`].
#[derive(Debug)]
pub struct StoreJobs {
    jobs: Receiver<(Arc<Shared>, Surroundings)>,
    under_way: Arc<UnderWay>,
}

#[derive(Default)]
struct State {
    inode: Option<Inode>,
    deferred: Vec<Deferred>,
}

/// The file whose pages are on their way.
#[derive(Default)]
pub(super) struct UnderWay {
    state: Mutex<State>,
    over: Condvar,
}

impl std::fmt::Debug for UnderWay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("UnderWay")
            .field(&self.state.lock().inode)
            .finish()
    }
}

impl UnderWay {
    /// Does `work` once no page of `inode` is on its way: at once, or on the thread that gives them.
    fn after(&self, inode: Inode, work: impl FnOnce() + Send + 'static) {
        let mut state = self.state.lock();
        if state.inode == Some(inode) {
            state.deferred.push(Box::new(work));
            return;
        }
        drop(state);
        work();
    }

    /// Waits until no page is on its way.
    pub(super) fn wait(&self) {
        let mut state = self.state.lock();
        while state.inode.is_some() {
            self.over.wait(&mut state);
        }
    }

    /// Gives pages of `inode` by `give`, if `is_fresh` still, and takes them back by `take_back` if it is not behind that.
    fn give(
        &self,
        inode: Inode,
        is_fresh: impl Fn() -> bool,
        give: impl FnOnce(),
        take_back: impl FnOnce(),
    ) {
        {
            let mut state = self.state.lock();
            if !is_fresh() {
                return;
            }
            state.inode = Some(inode);
        }
        give();
        if !is_fresh() {
            take_back();
        }
        let deferred = {
            let mut state = self.state.lock();
            state.inode = None;
            self.over.notify_all();
            std::mem::take(&mut state.deferred)
        };
        for work in deferred {
            work();
        }
    }
}

impl Stores {
    /// A pair of ends.
    pub fn new() -> (Self, StoreJobs) {
        let (sender, receiver) = sync_channel(WAITING);
        let under_way = Arc::new(UnderWay::default());
        let stores = Self {
            jobs: sender,
            under_way: Arc::clone(&under_way),
        };
        let jobs = StoreJobs {
            jobs: receiver,
            under_way,
        };
        (stores, jobs)
    }

    /// Has them given to the kernel, if there is room.
    pub(super) fn ask(&self, shared: &Arc<Shared>, surroundings: Surroundings) {
        // Full, or the mount is about to end: nobody depends on it.
        let _ = self.jobs.try_send((Arc::clone(shared), surroundings));
    }

    /// Does `work` once no page of `inode` is on its way to the kernel.
    pub(super) fn after(&self, inode: Inode, work: impl FnOnce() + Send + 'static) {
        self.under_way.after(inode, work);
    }
}

impl StoreJobs {
    pub(super) fn under_way(&self) -> Arc<UnderWay> {
        Arc::clone(&self.under_way)
    }

    /// Starts the thread that does it; it ends with the file system.
    ///
    /// # Errors
    /// Where the system has no thread left.
    pub(crate) fn serve(self, notifier: Notifier) -> io::Result<()> {
        std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || {
                let mut bytes = Vec::new();
                for (shared, wanted) in self.jobs {
                    if !shared.fs.read_surroundings(&wanted, &mut bytes) {
                        continue;
                    }
                    let inode = INodeNo(wanted.inode.0);
                    let Range { start, end } = wanted.range;
                    let is_fresh = || shared.fs.may_show(&wanted);
                    let give = || {
                        for part in wanted.unasked() {
                            let from = (part.start - start) as usize;
                            let bytes = &bytes[from..][..(part.end - part.start) as usize];
                            match notifier.store(inode, part.start, bytes) {
                                Ok(()) => shared.fs.metrics().given_bytes.add(bytes.len() as u64),
                                Err(error) => {
                                    log::debug!("the kernel takes no pages of inode {inode}: {error}");
                                }
                            }
                        }
                    };
                    let take_back = || {
                        let (start, len) = (start.cast_signed(), (end - start).cast_signed());
                        if let Err(error) = notifier.inval_inode(inode, start, len) {
                            log::debug!("inode {inode} is not in the kernel's cache: {error}");
                        }
                    };
                    self.under_way.give(wanted.inode, is_fresh, give, take_back);
                }
            })
            .map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;

    const FILE: Inode = Inode(7);

    #[test]
    fn an_open_meanwhile_is_answered_behind_and_finds_nothing_old() {
        let under_way = Arc::new(UnderWay::default());
        let fresh = Arc::new(AtomicBool::new(true));
        let order = Arc::new(Mutex::new(Vec::new()));
        let note = |what| {
            let order = Arc::clone(&order);
            move || order.lock().push(what)
        };
        under_way.give(
            FILE,
            || fresh.load(Ordering::SeqCst),
            || {
                fresh.store(false, Ordering::SeqCst);
                under_way.after(FILE, note("opened"));
                under_way.after(Inode(8), note("another file opened"));
                note("given")();
            },
            note("taken back"),
        );
        let expected = ["another file opened", "given", "taken back", "opened"];
        assert_eq!(*order.lock(), expected);
        under_way.wait();
    }

    #[test]
    fn what_is_old_is_not_given() {
        let under_way = UnderWay::default();
        let given = AtomicUsize::new(0);
        let count = || {
            given.fetch_add(1, Ordering::SeqCst);
        };
        under_way.give(FILE, || false, count, count);
        assert_eq!(given.load(Ordering::SeqCst), 0);
        under_way.give(FILE, || true, count, || unreachable!("it is fresh"));
        assert_eq!(given.load(Ordering::SeqCst), 1);
    }
}
