//! The directory of a process that was copied, and that of several.

use std::sync::Arc;

use super::extents::FrozenExtents;
use super::file::{FrozenCore, FrozenSpace};
use super::mapping::{FrozenLink, FrozenMapping};
use super::record::FrozenRecord;
use super::{Frozen, Snapshot, Snapshots};
use crate::common::error::{Error, Result};
use crate::files::mapping::WellKnown;
use crate::files::process::COPIED_XATTRS;
use crate::files::{Attributes, Context, CountedUsage, File, Kind, Listing, Mapping, Node, Pass};
use crate::target::ProcessId;
use crate::target::snapshot::ProcessRecord;

/// Names of the files that show the same bytes once more. They are found by name and not listed: `diff -r`, `yara -r` and backup
/// programs would read everything twice, and one of 128 TiB from its beginning to its end.
const SPACE: &str = "mem";
const CORE: &str = "core";

/// The directory of a process that was copied: a file for each of its mappings, and by name `mem`, `core` and `extents`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FrozenDirectory(pub(super) Frozen);

impl File for FrozenDirectory {
    fn kind(&self) -> Kind {
        Kind::Directory
    }

    fn path(&self) -> String {
        self.0.path()
    }

    fn parent(&self) -> Node {
        match self.0.snapshot.is_group() {
            true => SnapshotGroup(Arc::clone(&self.0.snapshot)).into(),
            false => Snapshots.into(),
        }
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
        let frozen = &self.0;
        let process = frozen.process()?;
        if name == SPACE {
            return Ok(FrozenSpace(frozen.clone()).into());
        }
        if name == ProcessRecord::FILE {
            return Ok(FrozenRecord(frozen.clone()).into());
        }
        if name == FrozenExtents::NAME {
            return Ok(FrozenExtents(frozen.clone()).into());
        }
        if name == CORE {
            return Ok(FrozenCore(frozen.clone()).into());
        }
        if let Some(link) = WellKnown::named(name) {
            link.of(&process.mappings).ok_or(Error::NoEntry)?;
            return Ok(FrozenLink::new(frozen, link).into());
        }
        if !Mapping::may_be_named(name) {
            return Err(Error::NoEntry);
        }
        let index = process.mappings.index_of(name).ok_or(Error::NoEntry)?;
        Ok(FrozenMapping::new(frozen, index).into())
    }

    fn entries(&self, _context: &Context, _pass: &Pass<'_>) -> Result<Listing> {
        let frozen = &self.0;
        let process = frozen.process()?;
        let mut listing = Listing::default();
        for link in WellKnown::ALL {
            if link.of(&process.mappings).is_some() {
                listing.add(link.name(), FrozenLink::new(frozen, link));
            }
        }
        listing.add(ProcessRecord::FILE, FrozenRecord(frozen.clone()));
        let of = frozen.clone();
        let node = move |_: &_, index| FrozenMapping::new(&of, index).into();
        Ok(listing.with_mappings_as(Arc::clone(&process.mappings), node))
    }

    fn xattr_names(&self) -> Vec<&'static str> {
        COPIED_XATTRS.to_vec()
    }

    fn xattr(&self, _context: &Context, name: &str) -> Result<Vec<u8>> {
        let process = self.0.process()?;
        let frozen = &process.frozen;
        Ok(match name {
            "comm" => frozen.info.command.clone(),
            "exe" => frozen.executable.clone(),
            "cmdline" => frozen.facts.process.arguments.clone(),
            "uid" => frozen.info.uid.to_string().into_bytes(),
            "state" => vec![frozen.facts.process.state],
            "rss" => {
                let resident = frozen.facts.vmas.iter().map(|vma| vma.resident);
                resident.sum::<u64>().to_string().into_bytes()
            }
            _ => return Err(Error::NoAttribute),
        })
    }
}

/// A directory for each of the processes that were copied together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SnapshotGroup(pub(super) Arc<Snapshot>);

impl Snapshot {
    /// Its directory.
    pub(super) fn node(self: &Arc<Self>) -> Node {
        match self.is_group() {
            true => SnapshotGroup(Arc::clone(self)).into(),
            false => FrozenDirectory(Frozen {
                snapshot: Arc::clone(self),
                index: 0,
            })
            .into(),
        }
    }
}

impl SnapshotGroup {
    fn directory(&self, index: usize) -> Node {
        FrozenDirectory(Frozen {
            snapshot: Arc::clone(&self.0),
            index: index as u16,
        })
        .into()
    }
}

impl File for SnapshotGroup {
    fn kind(&self) -> Kind {
        Kind::Directory
    }

    fn path(&self) -> String {
        format!("snap/{}", self.0.name())
    }

    fn parent(&self) -> Node {
        Snapshots.into()
    }

    fn snapshot(&self) -> Option<&Arc<Snapshot>> {
        Some(&self.0)
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
        let pid = ProcessId::parse(name).ok_or(Error::NoEntry)?;
        let all = self.0.all();
        let index = all
            .iter()
            .position(|copied| copied.frozen.info.identity.pid == pid);
        index
            .map(|index| self.directory(index))
            .ok_or(Error::NoEntry)
    }

    fn entries(&self, _context: &Context, _pass: &Pass<'_>) -> Result<Listing> {
        let mut listing = Listing::default();
        for (index, copied) in self.0.all().iter().enumerate() {
            let name = copied.frozen.info.identity.pid.to_string();
            listing.add(name, self.directory(index));
        }
        Ok(listing)
    }
}
