//! `extents` in a snapshot: a file for each part of a mapping that holds data, for programs that know no holes.

use std::sync::Arc;

use super::{Frozen, FrozenDirectory, FrozenMapping, Snapshot};
use crate::common::address::AddressRange;
use crate::common::error::{Error, Result};
use crate::files::mapping_table::MappingTable;
use crate::files::{Attributes, Context, CountedUsage, File, Kind, Listing, Mapping, Node, Pass};
use crate::target::snapshot::FrozenProcess;

/// Zeros between two pages that are shown with them: to read these costs less than another file.
const GAP: u64 = 64 << 10;

/// The extents of all mappings of a process that was copied. It is found by name and not listed, since it shows
/// the same bytes once more.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FrozenExtents(pub(super) Frozen);

impl FrozenExtents {
    /// Its name.
    pub(super) const NAME: &str = "extents";
}

/// The extents of all mappings, each as a mapping of its own.
pub(super) fn extents(frozen: &FrozenProcess) -> MappingTable {
    let mut parts = Vec::new();
    for mapping in &*frozen.mappings {
        let shown = mapping.range().truncated(mapping.size());
        let mut at: Option<AddressRange> = None;
        for run in frozen.memory.runs(shown).filter(|run| run.state.is_data()) {
            let run = run.range.intersection(shown);
            at = match at {
                Some(last) if run.start().since(last.end()) <= GAP => {
                    AddressRange::new(last.start(), run.end())
                }
                Some(last) => {
                    parts.push(Arc::new(mapping.part(last)));
                    Some(run)
                }
                None => Some(run),
            };
        }
        parts.extend(at.map(|last| Arc::new(mapping.part(last))));
    }
    MappingTable::of_known(parts.into())
}

impl File for FrozenExtents {
    fn kind(&self) -> Kind {
        Kind::Directory
    }

    fn path(&self) -> String {
        format!("{}/{}", self.0.path(), Self::NAME)
    }

    fn parent(&self) -> Node {
        FrozenDirectory(self.0.clone()).into()
    }

    fn snapshot(&self) -> Option<&Arc<Snapshot>> {
        Some(&self.0.snapshot)
    }

    fn attributes(
        &self,
        _context: &Context,
        plain: Attributes,
        _counted: &CountedUsage,
    ) -> Attributes {
        Attributes {
            mode: 0o500,
            ..self.0.attributes(plain)
        }
    }

    fn lookup(&self, _context: &Context, name: &str, _pass: &Pass<'_>) -> Result<Node> {
        let process = self.0.process()?;
        if !Mapping::may_be_named(name) {
            return Err(Error::NoEntry);
        }
        let index = process.extents().index_of(name).ok_or(Error::NoEntry)?;
        Ok(FrozenMapping::extent(&self.0, index).into())
    }

    fn entries(&self, _context: &Context, _pass: &Pass<'_>) -> Result<Listing> {
        let process = self.0.process()?;
        let of = self.0.clone();
        let node = move |_: &_, index| FrozenMapping::extent(&of, index).into();
        Ok(Listing::default().with_mappings_as(Arc::clone(process.extents()), node))
    }
}
