//! `process` in a snapshot: what identifies the process, for whoever restores it.

use std::sync::Arc;

use super::{Frozen, Snapshot};
use crate::common::error::{Error, Result};
use crate::files::attributes::BLOCK;
use crate::files::text::Text;
use crate::files::{Access, Attributes, Context, CountedUsage, File, Kind, Open, Subject};
use crate::target::snapshot::ProcessRecord;

/// What identifies a process that was copied.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FrozenRecord(pub(super) Frozen);

impl File for FrozenRecord {
    fn kind(&self) -> Kind {
        Kind::File
    }

    fn path(&self) -> String {
        format!("{}/{}", self.0.path(), ProcessRecord::FILE)
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
        let process = self.0.process();
        let size = process.map_or(0, |process| process.record.len() as u64);
        Attributes {
            mode: 0o400,
            size,
            blocks: size.div_ceil(BLOCK),
            ..self.0.snapshot.attributes(plain)
        }
    }

    fn open(&self, _context: &Context, _subject: &Subject, access: Access) -> Result<Open> {
        match access.write {
            true => Err(Error::NotPermitted),
            false => Ok(Open {
                direct: false,
                is_constant: true,
                ..Text::open(self.0.process()?.record.clone())
            }),
        }
    }
}
