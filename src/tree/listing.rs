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
        let position = usize::try_from(position).unwrap_or(usize::MAX);
        (position..).map_while(|at| Some((at as u64 + 1, self.entry(at)?)))
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
