//! Directories as they were when they were opened.

use std::sync::Arc;

use super::{DirectoryEntry, Node, Snapshot};
use crate::process::ProcessInfo;

/// The entries of an open directory.
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
    use std::time::Duration;

    use super::*;
    use crate::clock::ManualClock;
    use crate::process::ProcessSource;
    use crate::process::fake::{FakeProcess, FakeSource};
    use crate::tree::ProcessTable;

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
