//! Directories as they were when a walk over them began.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::{DirectoryEntry, Node, Snapshot};
use crate::target::ProcessInfo;

/// How long the kernel, and a walk that has not begun yet, may keep what was listed, whatever the freshness bound.
pub const LISTING_VALID: Duration = Duration::from_secs(1);

/// An open directory.
///
/// Its entries stay as they are for one walk, so that positions keep their meaning (`telldir`); a
/// walk that begins anew (`rewinddir`) shows what is there by then (readdir(3)).
#[derive(Debug)]
pub struct OpenDirectory {
    node: Node,
    walk: Mutex<Walk>,
}

#[derive(Debug)]
struct Walk {
    listing: Arc<Listing>,
    taken: Duration,
    has_begun: bool,
}

impl OpenDirectory {
    /// The directory `node`, as it was listed at `taken`.
    pub fn new(node: Node, listing: Listing, taken: Duration) -> Self {
        let walk = Walk {
            listing: Arc::new(listing),
            taken,
            has_begun: false,
        };
        Self {
            node,
            walk: Mutex::new(walk),
        }
    }

    /// The directory.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The entries for who asks for those from `position` on; `None` where the directory must be
    /// listed again before, since a walk begins and another one has been over these, or they are old.
    pub fn listing(&self, position: u64, now: Duration) -> Option<Arc<Listing>> {
        let mut walk = self.walk.lock();
        if position == 0 {
            if walk.has_begun || now.saturating_sub(walk.taken) > LISTING_VALID {
                return None;
            }
            walk.has_begun = true;
        }
        Some(Arc::clone(&walk.listing))
    }

    /// Begins a walk over entries that were listed at `taken`.
    pub fn begin(&self, listing: Listing, taken: Duration) -> Arc<Listing> {
        let listing = Arc::new(listing);
        let walk = Walk {
            listing: Arc::clone(&listing),
            taken,
            has_begun: true,
        };
        let former = std::mem::replace(&mut *self.walk.lock(), walk);
        // Outside the lock: it may be large.
        drop(former);
        listing
    }
}

/// The entries of a directory at one moment.
///
/// Those of a process's mappings, of which there can be very many, are made as they are asked for.
#[derive(Debug)]
pub struct Listing {
    entries: Vec<DirectoryEntry>,
    mappings: Option<(Arc<ProcessInfo>, Arc<Snapshot>)>,
}

impl Listing {
    /// A listing of these entries.
    pub fn new(entries: Vec<DirectoryEntry>) -> Self {
        let mappings = None;
        Self { entries, mappings }
    }

    /// A listing of these entries, and behind them all mappings of an address space.
    pub fn with_mappings(
        entries: Vec<DirectoryEntry>,
        info: &Arc<ProcessInfo>,
        snapshot: Arc<Snapshot>,
    ) -> Self {
        let mappings = Some((Arc::clone(info), snapshot));
        Self { entries, mappings }
    }

    /// The entries from a position on, each with the position behind it.
    pub fn from_position(&self, position: u64) -> impl Iterator<Item = (u64, DirectoryEntry)> {
        let mappings = self.mappings.as_ref();
        let len =
            self.entries.len() + mappings.map_or(0, |(_, snapshot)| snapshot.mappings().len());
        let position = usize::try_from(position).map_or(len, |position| position.min(len));
        (position..len).map_while(|at| Some((at as u64 + 1, self.entry(at)?)))
    }

    /// All entries.
    pub fn iter(&self) -> impl Iterator<Item = DirectoryEntry> {
        self.from_position(0).map(|(_, entry)| entry)
    }

    fn entry(&self, position: usize) -> Option<DirectoryEntry> {
        if let Some(entry) = self.entries.get(position) {
            return Some(entry.clone());
        }
        let (info, snapshot) = self.mappings.as_ref()?;
        let mapping = snapshot.mappings().get(position - self.entries.len())?;
        Some(DirectoryEntry {
            name: mapping.file_name(),
            node: Node::Mapping(Arc::clone(info), Arc::clone(mapping)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::clock::ManualClock;
    use crate::target::ProcessSource;
    use crate::target::fake::{FakeProcess, FakeSource};
    use crate::tree::ProcessTable;

    /// SEMANTICS: a walk that begins anew shows what is there by then.
    #[test]
    fn positions_hold_for_one_walk_and_the_next_one_begins_anew() {
        let root = |name: &str| {
            Listing::new(vec![DirectoryEntry {
                name: name.to_owned(),
                node: Node::Root,
            }])
        };
        let names = |listing: Arc<Listing>| listing.iter().next().map(|entry| entry.name);
        let now = Duration::from_secs(100);
        let open = OpenDirectory::new(Node::Root, root("old"), now);
        let first = open.listing(0, now).and_then(names);
        assert_eq!(first.as_deref(), Some("old"), "as it was opened");
        let later = now + 10 * LISTING_VALID;
        assert!(open.listing(1, later).is_some(), "the walk goes on");
        assert!(open.listing(0, now).is_none(), "rewound");
        assert_eq!(names(open.begin(root("new"), now)).as_deref(), Some("new"));
        assert_eq!(
            open.listing(1, later).and_then(names).as_deref(),
            Some("new")
        );
        assert!(open.listing(0, now).is_none(), "rewound again");
        let waiting = OpenDirectory::new(Node::Root, root("old"), now);
        assert!(
            waiting.listing(0, later).is_none(),
            "read long after it was opened"
        );
    }

    #[test]
    fn entries_are_counted_across_both_kinds() {
        let process = FakeProcess::new(7, b"fake");
        process.set_maps(b"1000-2000 rw-p 0 00:00 0\n5000-9000 r--p 0 00:00 0\n");
        let source = FakeSource::default();
        source.add(process.clone());
        let info = Arc::new(source.describe(process.identity().pid).unwrap());
        let clock = Arc::new(ManualClock::new());
        let table = ProcessTable::new(Arc::new(source), clock, Duration::ZERO);
        let own = DirectoryEntry {
            name: ".".to_owned(),
            node: Node::Process(Arc::clone(&info)),
        };
        let snapshot = table.listed(&info).unwrap();
        let listing = Listing::with_mappings(vec![own.clone()], &info, snapshot);
        let names: Vec<String> = listing.iter().map(|entry| entry.name).collect();
        let first = "000000001000-000000002000.rw-p.anon";
        let second = "000000005000-000000009000.r--p.anon";
        assert_eq!(names, [".", first, second]);
        let next: Vec<u64> = listing.from_position(1).map(|(next, _)| next).collect();
        assert_eq!(next, [2, 3]);
        for behind in [3, 4, u64::MAX] {
            assert!(listing.from_position(behind).next().is_none());
        }
        let plain = Listing::new(vec![own]);
        assert_eq!(plain.iter().count(), 1);
    }
}
