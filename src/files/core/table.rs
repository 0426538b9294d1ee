//! The core files that are open, and how large others were a moment ago.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Weak};
use std::time::Duration;

use lru::LruCache;

use super::OpenCore;
use crate::common::address::PAGE_SIZE;
use crate::common::aged::Aged;
use crate::common::clock::Clock;
use crate::common::error::Result;
use crate::common::log_limit::LogLimit;
use crate::common::sync::Mutex;
use crate::coredump::CoreImage;
use crate::files::Context;
use crate::target::{ProcessIdentity, ProcessInfo};

/// Sizes that are kept.
const KEPT: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");

/// A size may be as old as finding it took, times this: the kernel walks all page tables of the process for it.
const COST_FACTOR: u32 = 20;

/// What `stat` shows of a core file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Length in bytes.
    pub(super) size: u64,
    /// Memory in use, in bytes.
    pub(super) held: u64,
}

impl Shape {
    pub(super) fn of(image: &CoreImage) -> Self {
        Self {
            size: image.size(),
            held: image.headers().len() as u64 + image.held(),
        }
    }

    /// What it may be about, where only so much is known.
    pub(super) fn of_resident(bytes: u64) -> Self {
        Self {
            size: bytes + PAGE_SIZE,
            held: bytes,
        }
    }
}

/// What is known of core files.
#[derive(Debug)]
pub(in crate::files) struct CoreTable {
    clock: Arc<dyn Clock>,
    /// The freshness bound.
    bound: Duration,
    /// The one of each process that the kernel may keep pages of, while it is open. Nothing is locked inside.
    open: Mutex<HashMap<ProcessIdentity, Weak<OpenCore>>>,
    /// How large others were. It is not held while that is found out, and nothing is locked inside.
    known: Mutex<LruCache<ProcessIdentity, Aged<Shape>>>,
    /// Cores without registers.
    pub(super) warnings: LogLimit<&'static str>,
}

impl CoreTable {
    pub(in crate::files) fn new(clock: Arc<dyn Clock>, bound: Duration) -> Self {
        Self {
            warnings: LogLimit::new(Arc::clone(&clock)),
            clock,
            bound,
            open: Mutex::default(),
            known: Mutex::new(LruCache::new(KEPT)),
        }
    }

    /// Takes note of a core file that was opened; returns whether it is the only one of its process.
    pub(super) fn add(&self, core: &Arc<OpenCore>) -> bool {
        let mut open = self.open.lock();
        open.retain(|_, core| core.strong_count() > 0);
        let identity = *core.memory.process.identity();
        let is_only = !open.contains_key(&identity);
        if is_only {
            open.insert(identity, Arc::downgrade(core));
        }
        is_only
    }

    fn open_shape(&self, identity: &ProcessIdentity) -> Option<Shape> {
        let core = self.open.lock().get(identity)?.upgrade()?;
        Some(Shape::of(core.file.image()))
    }

    fn recent_shape(&self, identity: &ProcessIdentity) -> Option<Shape> {
        let now = self.clock.now();
        let mut known = self.known.lock();
        let known = known.get(identity)?;
        known
            .is_within(now, self.bound, COST_FACTOR)
            .then(|| *known.value())
    }
}

impl Context {
    /// What is to be shown of the core file of a process: that which is open, or else what one would be that is opened now. `None`
    /// where that is not known, and `may_ask` does not allow to find it out.
    pub(super) fn core_shape(&self, info: &Arc<ProcessInfo>, may_ask: bool) -> Option<Shape> {
        let identity = &info.identity;
        let known = self.cores.open_shape(identity);
        if let Some(known) = known.or_else(|| self.cores.recent_shape(identity)) {
            return Some(known);
        }
        if !may_ask {
            return None;
        }
        let shape = Aged::try_find(&*self.cores.clock, || self.new_core_shape(info)).ok()?;
        let found = *shape.value();
        self.cores.known.lock().put(*identity, shape);
        Some(found)
    }

    fn new_core_shape(&self, info: &Arc<ProcessInfo>) -> Result<Shape> {
        let process = self.opened.open(&info.identity)?;
        let memory = Arc::clone(process.memory()?);
        let file = self.core_file(info, &process, memory, false)?;
        Ok(Shape::of(file.image()))
    }
}
