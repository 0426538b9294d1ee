//! Processes and address spaces as they were a moment ago, so that a look-up does not read `maps` again.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use lru::LruCache;

use super::mapping_table::MappingTable;
use super::opened::OpenProcesses;
use super::{LISTING_VALID, Pass};
use crate::common::aged::Aged;
use crate::common::clock::Clock;
use crate::common::error::Result;
use crate::common::sync::Mutex;
use crate::target::{
    Credentials, LONGEST_EXEC, ProcessId, ProcessIdentity, ProcessInfo, ProcessSource,
};

/// Whose lists of processes are kept: those of so many others, beside the mounter's.
pub(super) const VIEWERS: NonZeroUsize = NonZeroUsize::new(8).expect("not zero");

/// Who is shown processes; `None` is the mounter.
pub(super) type Viewer = Option<Arc<Credentials>>;

/// Address spaces that are kept.
const KEPT: NonZeroUsize = NonZeroUsize::new(16).expect("not zero");

/// Mappings of all of them together: those of four processes that have as many as the kernel
/// allows by default (`vm.max_map_count`), about 23 MB where nobody else keeps them. The address space that was read last is always kept.
const KEPT_MAPPINGS: usize = 4 << 16;

/// What was read may be as old as its reading took, times this: then a walk
/// through all names spends at most a tenth of its time on reading.
const COST_FACTOR: u32 = 10;

/// Processes and their address spaces, as they were a moment ago or are now.
#[derive(Debug)]
pub(super) struct ProcessTable {
    source: Arc<dyn ProcessSource>,
    opened: Arc<OpenProcesses>,
    clock: Arc<dyn Clock>,
    /// The freshness bound.
    bound: Duration,
    /// Guards the last address spaces. It is not held while `maps` is read, and nothing is locked inside it.
    known_spaces: Mutex<KnownSpaces>,
    /// Guards the last list of each who was shown one. It is not held while processes are listed, and nothing is locked inside it.
    lists: Mutex<LruCache<Viewer, Aged<List>>>,
}

/// Address spaces as they were, each the last one of its process.
#[derive(Debug)]
struct KnownSpaces(LruCache<ProcessIdentity, Aged<Arc<MappingTable>>>);

impl KnownSpaces {
    fn get(&mut self, identity: &ProcessIdentity) -> Option<Aged<Arc<MappingTable>>> {
        self.0.get(identity).cloned()
    }

    /// Keeps an address space, and returns those that it pushes out, to be dropped outside the lock.
    fn put(
        &mut self,
        identity: ProcessIdentity,
        known_space: Aged<Arc<MappingTable>>,
    ) -> Vec<Aged<Arc<MappingTable>>> {
        let mut out: Vec<_> = self
            .0
            .push(identity, known_space)
            .map(|(_, known_space)| known_space)
            .into_iter()
            .collect();
        while self.0.len() > 1 && self.mappings() > KEPT_MAPPINGS {
            out.extend(self.0.pop_lru().map(|(_, known_space)| known_space));
        }
        out
    }

    /// Mappings of all of them.
    fn mappings(&self) -> usize {
        let known_spaces = self.0.iter();
        known_spaces
            .map(|(_, known_space)| known_space.value().mappings().len())
            .sum()
    }
}

/// The processes at one moment, lowest number first.
pub(super) type List = Arc<[Arc<ProcessInfo>]>;

impl ProcessTable {
    /// A table of `source`'s processes, which `opened` pins, and whose address spaces may be as old as `bound`.
    pub(super) fn new(
        source: Arc<dyn ProcessSource>,
        opened: Arc<OpenProcesses>,
        clock: Arc<dyn Clock>,
        bound: Duration,
    ) -> Self {
        Self {
            source,
            opened,
            clock,
            bound,
            known_spaces: Mutex::new(KnownSpaces(LruCache::new(KEPT))),
            lists: Mutex::new(LruCache::new(VIEWERS)),
        }
    }

    /// A table of fake processes.
    #[cfg(test)]
    pub(super) fn of(
        source: crate::target::fake::FakeSource,
        clock: Arc<dyn Clock>,
        bound: Duration,
    ) -> Self {
        use crate::common::metrics::Metrics;
        use crate::target::cache::{Freshness, PageCache};

        let metrics = Arc::new(Metrics::default());
        let services = super::Services {
            stores: Arc::new(crate::target::fake::FakeStores::default()),
            budget: Arc::new(crate::target::snapshot::Budget::new(1 << 30)),
            source: Arc::new(source),
            cache: Arc::new(PageCache::new(1 << 20, Arc::clone(&metrics))),
            freshness: Arc::new(Freshness::new(bound, Arc::clone(&clock))),
            metrics,
        };
        let source = Arc::clone(&services.source);
        let opened = OpenProcesses::new(services, Arc::clone(&clock));
        Self::new(source, Arc::new(opened), clock, bound)
    }

    /// The processes as they are now, for a listing.
    ///
    /// # Errors
    /// What the source says; `TimedOut` where `pass` was taken over.
    pub(super) fn read_list(&self, pass: &Pass<'_>) -> Result<List> {
        let describe = |who: Option<&_>, pid, timeout| self.opened.describe(who, pid, timeout);
        let found = Aged::try_find(&*self.clock, || {
            self.opened.retry(|| pass.over(&*self.source, describe))
        })?;
        let processes = Arc::clone(found.value());
        let former = self.lists.lock().push(pass.who().cloned(), found);
        // Outside the lock: it may be the last to refer to many processes.
        drop(former);
        Ok(processes)
    }

    /// The processes as they were a moment ago, for a look-up by name.
    ///
    /// # Errors
    /// As [`read_list`](Self::read_list).
    pub(super) fn recent_list(&self, pass: &Pass<'_>) -> Result<List> {
        match self.known_list(pass.who(), |list| self.is_recent(list)) {
            Some(processes) => Ok(processes),
            None => self.read_list(pass),
        }
    }

    /// The processes for a look-up of a name that was not among the recent ones: as they are now, unless they were listed so
    /// short a time ago as that takes. So whoever asks for names that never were does not make us list them again and again.
    ///
    /// # Errors
    /// As [`read_list`](Self::read_list).
    pub(super) fn newer_list(&self, pass: &Pass<'_>) -> Result<List> {
        let now = self.clock.now();
        match self.known_list(pass.who(), |list| list.is_within(now, Duration::ZERO, 1)) {
            Some(processes) => Ok(processes),
            None => self.read_list(pass),
        }
    }

    /// The processes, no older than the freshness bound or [`LISTING_VALID`]: for the listings that repeat the root's.
    ///
    /// # Errors
    /// As [`read_list`](Self::read_list).
    pub(super) fn fresh_list(&self, pass: &Pass<'_>) -> Result<List> {
        let now = self.clock.now();
        match self.known_list(pass.who(), |list| {
            list.age(now) < self.bound.min(LISTING_VALID)
        }) {
            Some(processes) => Ok(processes),
            None => self.read_list(pass),
        }
    }

    /// The processes as they were listed last to somebody, if that is young enough.
    fn known_list(
        &self,
        who: Option<&Arc<Credentials>>,
        is_young: impl Fn(&Aged<List>) -> bool,
    ) -> Option<List> {
        let mut known = self.lists.lock();
        let list = known.get(&who.cloned()).filter(|list| is_young(list))?;
        Some(Arc::clone(list.value()))
    }

    /// What is to be known of one process: as it was listed a moment ago, if it still runs; for others than the mounter as it is
    /// now, if the kernel lets them know of it.
    ///
    /// # Errors
    /// `NoProcess`, `ProcessDenied`, `CallerDenied`.
    pub(super) fn describe(
        &self,
        who: Option<&Arc<Credentials>>,
        pid: ProcessId,
    ) -> Result<Arc<ProcessInfo>> {
        if let Some(who) = who {
            let described = self.opened.describe(Some(who), pid, LONGEST_EXEC);
            return described.map(Arc::new);
        }
        if let Some(listed) = self.known_list(None, |list| self.is_recent(list))
            && let Ok(index) = listed.binary_search_by_key(&pid, |info| info.identity.pid)
            && self.opened.is_current(&listed[index].identity)
        {
            return Ok(Arc::clone(&listed[index]));
        }
        let described = self.opened.describe(None, pid, LONGEST_EXEC);
        described.map(Arc::new)
    }

    /// What `find` picks, from a recent address space, or from a new one where that has none.
    ///
    /// # Errors
    /// What the source says.
    pub(super) fn find<T>(
        &self,
        info: &Arc<ProcessInfo>,
        find: impl Fn(&MappingTable) -> Option<T>,
    ) -> Result<Option<T>> {
        if let Some(recent) = self.recent_address_space(&info.identity) {
            if let Some(found) = find(recent.value()) {
                return Ok(Some(found));
            }
            // A name that is not there may have come up since. But whoever asks for names
            // that never were must not make us read `maps` again and again.
            if recent.is_within(self.clock.now(), Duration::ZERO, 1) {
                return Ok(None);
            }
        }
        Ok(find(&*self.read_address_space(info)?))
    }

    /// The address space, no older than the freshness bound.
    ///
    /// # Errors
    /// What the source says.
    pub(super) fn fresh_address_space(&self, info: &Arc<ProcessInfo>) -> Result<Arc<MappingTable>> {
        match self.recent_address_space(&info.identity) {
            // Bytes depend on this: it is never older than the bound, whatever that costs.
            Some(recent) if recent.age(self.clock.now()) < self.bound => {
                Ok(Arc::clone(recent.value()))
            }
            _ => self.read_address_space(info),
        }
    }

    /// The address space as it was a moment ago.
    fn recent_address_space(&self, identity: &ProcessIdentity) -> Option<Aged<Arc<MappingTable>>> {
        // One that is too old stays: the next one will mostly consist of the same mappings.
        let known_space = self.known_spaces.lock().get(identity)?;
        self.is_recent(&known_space).then_some(known_space)
    }

    /// The address space as it is now.
    ///
    /// # Errors
    /// What the source says.
    pub(super) fn read_address_space(&self, info: &Arc<ProcessInfo>) -> Result<Arc<MappingTable>> {
        let space = Aged::try_find(&*self.clock, || {
            self.opened
                .ask(&info.identity, |process| process.address_space())
        })?;
        let earlier = self.known_spaces.lock().get(&info.identity);
        let earlier = earlier.as_ref().map(|earlier| &**earlier.value());
        let kept = space.map(|space| Arc::new(MappingTable::new(space, earlier)));
        let known_space = Arc::clone(kept.value());
        let out = self.known_spaces.lock().put(info.identity, kept);
        drop(out);
        Ok(known_space)
    }

    fn is_recent<T>(&self, known: &Aged<T>) -> bool {
        known.is_within(self.clock.now(), self.bound, COST_FACTOR)
    }
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;
    use crate::common::clock::ManualClock;
    use crate::common::error::Error;
    use crate::target::fake::{FakeProcess, FakeSource};

    const BOUND: Duration = Duration::from_millis(100);
    const MAPS: &[u8] = b"\
1000-2000 rw-p 00000000 00:00 0          [heap]\n\
5000-9000 r--p 00000000 00:00 0\n\
f000-ff00 rw-p 00000000 00:00 0          [stack]\n";

    fn table() -> (
        Arc<ManualClock>,
        FakeProcess,
        Arc<ProcessInfo>,
        ProcessTable,
    ) {
        let process = FakeProcess::new(7, b"fake");
        process.set_maps(MAPS);
        let source = FakeSource::default();
        source.add(process.clone());
        let info = Arc::new(source.describe(process.identity().pid).unwrap());
        let clock = Arc::new(ManualClock::new());
        let table = ProcessTable::of(source, Arc::clone(&clock) as _, BOUND);
        (clock, process, info, table)
    }

    fn find(table: &ProcessTable, info: &Arc<ProcessInfo>, name: &str) -> bool {
        table
            .find(info, |known_space| known_space.named(name).cloned())
            .unwrap()
            .is_some()
    }

    #[test]
    fn looking_up_many_names_reads_maps_once() {
        let (clock, process, info, table) = table();
        let known_space = table.read_address_space(&info).unwrap();
        for _ in 0..3 {
            for mapping in known_space.mappings().iter() {
                assert!(find(&table, &info, &mapping.file_name()));
                clock.advance(BOUND / 10);
            }
        }
        assert_eq!(process.maps_reads(), 1);
        clock.advance(BOUND);
        assert!(find(&table, &info, "000000001000-000000002000.rw-p.heap"));
        assert_eq!(process.maps_reads(), 2);
    }

    #[test]
    fn a_new_mapping_is_found_within_the_bound() {
        let (clock, process, info, table) = table();
        table.read_address_space(&info).unwrap();
        process.set_maps(b"1000-3000 rw-p 00000000 00:00 0          [heap]\n");
        clock.advance(Duration::from_millis(1));
        assert!(find(&table, &info, "000000001000-000000003000.rw-p.heap"));
        assert!(!find(&table, &info, "000000001000-000000002000.rw-p.heap"));
    }

    #[test]
    fn mappings_that_stay_are_held_once() {
        let (_, process, info, table) = table();
        let before = table.read_address_space(&info).unwrap();
        process.set_maps(
            b"\
1000-2000 rw-p 00000000 00:00 0          [heap]\n\
3000-4000 rw-p 00000000 00:00 0\n\
5000-9000 rw-p 00000000 00:00 0\n\
f000-ff00 rw-p 00000000 00:00 0          [stack]\n",
        );
        let after = table.read_address_space(&info).unwrap();
        let is_shared = |mapping| {
            before
                .mappings()
                .iter()
                .any(|old| Arc::ptr_eq(old, mapping))
        };
        let shared: Vec<bool> = after.mappings().iter().map(is_shared).collect();
        assert_eq!(shared, [true, false, false, true]);
        assert!(after.heap().unwrap().is_heap() && after.stack().unwrap().is_stack());
        assert_eq!(after.mappings()[2].protection().to_string(), "rw-p");
        let again = table.read_address_space(&info).unwrap();
        assert!(
            Arc::ptr_eq(again.mappings(), after.mappings()),
            "nothing has changed"
        );
    }
    /// An address space of so many mappings.
    fn known_space(mappings: usize) -> Aged<Arc<MappingTable>> {
        let known_space = Arc::new(MappingTable::of(mappings));
        Aged::new(known_space, Duration::ZERO, Duration::ZERO)
    }

    #[test]
    fn few_large_address_spaces_are_kept() {
        let identity = |pid| FakeProcess::new(pid, b"fake").identity();
        let mut known_spaces = KnownSpaces(LruCache::new(KEPT));
        for pid in 1..=3 {
            known_spaces.put(identity(pid), known_space(KEPT_MAPPINGS / 2));
        }
        assert!(known_spaces.get(&identity(1)).is_none());
        assert!(
            known_spaces.get(&identity(2)).is_some() && known_spaces.get(&identity(3)).is_some()
        );
        let out = known_spaces.put(identity(4), known_space(KEPT_MAPPINGS + 1));
        assert_eq!(out.len(), 2);
        assert!(
            known_spaces.get(&identity(4)).is_some(),
            "the last one is kept"
        );
        for pid in 10..100 {
            known_spaces.put(identity(pid), known_space(1));
        }
        assert_eq!(known_spaces.0.len(), KEPT.get());
    }

    #[test]
    fn only_the_exact_name_is_found() {
        let (_, _, info, table) = table();
        for name in [
            "000000001000-000000002000.rw-p.stack",
            "000000001000-000000002000.rw-p.",
            "1000-2000.rw-p.heap",
            "000000001000",
            "heap",
            "",
        ] {
            assert!(!find(&table, &info, name), "{name}");
        }
    }

    #[test]
    fn heap_and_stack_have_names_of_their_own() {
        let (_, _, info, table) = table();
        let known_space = table.read_address_space(&info).unwrap();
        assert!(known_space.heap().unwrap().is_heap());
        assert!(known_space.stack().unwrap().is_stack());
    }

    #[test]
    fn what_is_kept_gives_way_where_descriptors_are_short() {
        let (_, _process, info, table) = table();
        fn short<T>() -> Result<T> {
            Err(Error::system("open", Errno::EMFILE))
        }
        let is_kept = || table.opened.known(&info.identity).is_some();
        assert_eq!(table.opened.retry(short::<()>), short(), "nothing is kept");
        table.read_address_space(&info).unwrap();
        assert!(is_kept());
        let answer = table.opened.retry(|| match is_kept() {
            true => short(),
            false => Ok(5),
        });
        assert_eq!(answer, Ok(5));
        let other = || Err::<(), _>(Error::NoProcess(info.identity.pid));
        table.read_address_space(&info).unwrap();
        assert_eq!(table.opened.retry(other), other());
        assert!(is_kept(), "that was no shortage");
    }
}
