//! The names in a directory.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

#[cfg(doc)]
use super::File;
use super::mapping_table::MappingTable;
use super::{Context, Mapping, Node, Pass, Process};
use crate::common::error::Result;
use crate::target::ProcessInfo;
use crate::target::mapping::Mapping as Memory;

/// How long the kernel, and a walk that has not begun yet, may keep what was listed, whatever the freshness bound.
pub(crate) const LISTING_VALID: Duration = Duration::from_secs(1);

/// A name in a directory and what it stands for.
#[derive(Clone, Debug)]
pub(crate) struct DirectoryEntry {
    pub(crate) name: String,
    pub(crate) node: Node,
}

/// The entries of a directory at one moment.
///
/// Those of a process's mappings, of which there can be very many, are made as they are asked for.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    entries: Vec<DirectoryEntry>,
    mappings: Option<Mappings>,
}

/// What a mapping is in a directory.
type MakeNode = dyn Fn(&Arc<Memory>, usize) -> Node + Send + Sync;

/// The mappings of an address space, each of which is an entry.
struct Mappings {
    table: Arc<MappingTable>,
    node: Box<MakeNode>,
}

impl fmt::Debug for Mappings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Mappings").field(&self.table).finish()
    }
}

impl Listing {
    pub(crate) fn add(&mut self, name: impl Into<String>, node: impl Into<Node>) {
        self.entries.push(DirectoryEntry {
            name: name.into(),
            node: node.into(),
        });
    }

    /// With all mappings of an address space after the other entries.
    pub(super) fn with_mappings(self, info: &Arc<ProcessInfo>, table: Arc<MappingTable>) -> Self {
        let info = Arc::clone(info);
        self.with_mappings_as(table, move |mapping, _| Mapping::new(&info, mapping).into())
    }

    /// The same, where `node` says what a mapping is in this directory, and which of them it is.
    pub(super) fn with_mappings_as(
        self,
        table: Arc<MappingTable>,
        node: impl Fn(&Arc<Memory>, usize) -> Node + Send + Sync + 'static,
    ) -> Self {
        let node = Box::new(node);
        Self {
            mappings: Some(Mappings { table, node }),
            ..self
        }
    }

    /// With `.` and `..` before the other entries of `directory`.
    fn with_dots(mut self, directory: &Node) -> Self {
        let mut dots = Self::default();
        dots.add(".", directory.clone());
        dots.add("..", directory.parent());
        self.entries.splice(0..0, dots.entries);
        self
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        let mappings = self.mappings.as_ref();
        self.entries.len() + mappings.map_or(0, |mappings| mappings.table.mappings().len())
    }

    /// The entries from a position on, each with the position after it.
    pub(crate) fn starting_at(&self, position: u64) -> impl Iterator<Item = (u64, DirectoryEntry)> {
        let len = self.len();
        let position = usize::try_from(position).map_or(len, |position| position.min(len));
        (position..len).map_while(|at| Some((at as u64 + 1, self.entry(at)?)))
    }

    /// All entries.
    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = DirectoryEntry> {
        self.starting_at(0).map(|(_, entry)| entry)
    }

    fn entry(&self, position: usize) -> Option<DirectoryEntry> {
        if let Some(entry) = self.entries.get(position) {
            return Some(entry.clone());
        }
        let Mappings { table, node } = self.mappings.as_ref()?;
        let index = position - self.entries.len();
        let mapping = table.mappings().get(index)?;
        Some(DirectoryEntry {
            name: mapping.file_name(),
            node: node(mapping, index),
        })
    }
}

impl Context {
    /// A file for each process that `pass` finds, by its number.
    ///
    /// # Errors
    /// What listing the processes says.
    pub(super) fn list_each<N: Into<Node>>(
        &self,
        pass: &Pass<'_>,
        file: impl Fn(Process) -> N,
    ) -> Result<Listing> {
        let mut listing = Listing::default();
        for info in self.processes.fresh_list(pass)?.iter() {
            let name = info.identity.pid.to_string();
            listing.add(name, file(Process(Arc::clone(info))));
        }
        Ok(listing)
    }

    /// The entries of a directory as they are now, `.` and `..` first; where all processes are listed, `pass`
    /// finds them.
    ///
    /// # Errors
    /// As [`File::entries`].
    pub(crate) fn list(&self, directory: &Node, pass: &Pass<'_>) -> Result<Listing> {
        Ok(directory.entries(self, pass)?.with_dots(directory))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::clock::ManualClock;
    use crate::files::processes::ProcessTable;
    use crate::target::ProcessSource;
    use crate::target::fake::{FakeProcess, FakeSource};

    #[test]
    fn entries_are_counted_across_both_kinds() {
        let process = FakeProcess::new(7, b"fake");
        process.set_maps(b"1000-2000 rw-p 0 00:00 0\n5000-9000 r--p 0 00:00 0\n");
        let source = FakeSource::default();
        source.add(process.clone());
        let info = Arc::new(source.describe(process.identity().pid).unwrap());
        let clock = Arc::new(ManualClock::new());
        let table = ProcessTable::of(source, clock, Duration::ZERO);
        let own = Node::from(Process(Arc::clone(&info)));
        let mappings = table.read_address_space(&info).unwrap();
        let listing = Listing::default().with_mappings(&info, mappings);
        let listing = listing.with_dots(&own);
        let names: Vec<String> = listing.iter().map(|entry| entry.name).collect();
        let first = "000000001000-000000002000.rw-p.anon";
        let second = "000000005000-000000009000.r--p.anon";
        assert_eq!(names, [".", "..", first, second]);
        let next: Vec<u64> = listing.starting_at(1).map(|(next, _)| next).collect();
        assert_eq!(next, [2, 3, 4]);
        for past in [4, 5, u64::MAX] {
            assert!(listing.starting_at(past).next().is_none());
        }
        let plain = Listing::default().with_dots(&own);
        assert_eq!(plain.iter().count(), 2);
    }
}
