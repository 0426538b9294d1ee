//! Directories as they were when a walk over them began.

use std::sync::Arc;
use std::time::Duration;

use crate::common::sync::Mutex;
use crate::files::{LISTING_VALID, Listing, Node};

/// An open directory.
///
/// Its entries stay as they are for one walk, so that positions keep their meaning (`telldir`); a
/// walk that begins anew (`rewinddir`) shows what is there by then (readdir(3)).
#[derive(Debug)]
pub(super) struct OpenDirectory {
    node: Node,
    /// Guards the walk. It is not held while the directory is listed, and nothing is locked inside it.
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
    pub(super) fn new(node: Node, listing: Listing, taken: Duration) -> Self {
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

    /// Entries that it holds.
    pub(super) fn entries(&self) -> usize {
        self.walk.lock().listing.len()
    }

    pub(super) fn node(&self) -> &Node {
        &self.node
    }

    /// The entries for who asks for those from `position` on; `None` where the directory must be
    /// listed again before, since a walk begins and another one has been over these, or they are old.
    pub(super) fn known_listing(&self, position: u64, now: Duration) -> Option<Arc<Listing>> {
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
    pub(super) fn begin(&self, listing: Listing, taken: Duration) -> Arc<Listing> {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// SEMANTICS: a walk that begins anew shows what is there by then.
    #[test]
    fn positions_hold_for_one_walk_and_the_next_one_begins_anew() {
        let root = |name: &str| {
            let mut listing = Listing::default();
            listing.add(name, Node::ROOT);
            listing
        };
        let names = |listing: Arc<Listing>| listing.iter().next().map(|entry| entry.name);
        let now = Duration::from_secs(100);
        let open = OpenDirectory::new(Node::ROOT, root("old"), now);
        let first = open.known_listing(0, now).and_then(names);
        assert_eq!(first.as_deref(), Some("old"), "as it was opened");
        let later = now + 10 * LISTING_VALID;
        assert!(open.known_listing(1, later).is_some(), "the walk goes on");
        assert!(open.known_listing(0, now).is_none(), "rewound");
        assert_eq!(names(open.begin(root("new"), now)).as_deref(), Some("new"));
        assert_eq!(
            open.known_listing(1, later).and_then(names).as_deref(),
            Some("new")
        );
        assert!(open.known_listing(0, now).is_none(), "rewound again");
        let waiting = OpenDirectory::new(Node::ROOT, root("old"), now);
        assert!(
            waiting.known_listing(0, later).is_none(),
            "read long after it was opened"
        );
    }
}
