//! Which bytes of a process cannot be read, and why.

use serde::Serialize;

use super::finding::{Finding, Verdict};
use crate::common::address::{Address, AddressRange};
use crate::common::error::{Error, Result};
use crate::common::sync::atomic::{AtomicU64, Ordering};
use crate::target::mapping::{AccessibleLength, Mapping};
use crate::target::page_state::PageState;
use crate::target::{ProcessMemory, ReadSegment};

/// Extents of one process that are looked at: as many as `user.procmemfs.unreadable_bytes` counts.
const MOST_EXTENTS: usize = 1 << 16;

/// Extents that are asked for together.
const AT_ONCE: usize = 1024;

/// Unreadable extents of one mapping that are asked why.
const MOST_ASKED: usize = 16;

/// Bytes of a mapping that cannot be read, all for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UnreadableBytes {
    /// The name of the mapping's file in the tree.
    pub mapping: String,
    /// How many, as far as they were counted.
    pub bytes: u64,
    /// Where the first of them lies, as in `/proc/PID/maps`.
    pub from: String,
    /// Why, and what would help.
    #[serde(flatten)]
    pub why: Finding,
}

/// What was found in a process.
#[derive(Clone, Debug, Default)]
pub(super) struct Looked {
    pub(super) unreadable: Vec<UnreadableBytes>,
    /// Bytes of all mappings.
    pub(super) bytes: u64,
    /// Whether all extents were looked at.
    pub(super) is_all: bool,
}

/// Looks at the pages of all mappings, and touches none; `steps` grows while that gets on.
///
/// # Errors
/// Whatever the memory says.
pub(super) fn look(
    memory: &dyn ProcessMemory,
    mappings: &[Mapping],
    shows_protected: bool,
    steps: &AtomicU64,
) -> Result<Looked> {
    let mut looked = Looked {
        is_all: true,
        ..Looked::default()
    };
    let mut left = MOST_EXTENTS;
    for mapping in mappings {
        looked.bytes += mapping.range().len();
        let mut reasons = Reasons::of(mapping);
        if let AccessibleLength::Nothing(barrier) = mapping.accessible_length() {
            let finding = Finding::ok(CHECK, barrier.reason());
            reasons.add(mapping.range(), finding);
            looked.unreadable.append(&mut reasons.found);
            continue;
        }
        let shown = mapping.range().truncated(mapping.size());
        let mut at = shown.start();
        let mut asked = 0;
        while let Some(rest) = AddressRange::new(at, shown.end()).filter(|rest| !rest.is_empty()) {
            if left == 0 {
                looked.is_all = false;
                break;
            }
            let extents = memory.extents(mapping, rest, left.min(AT_ONCE))?;
            steps.fetch_add(1, Ordering::Relaxed);
            left = left.saturating_sub(extents.len().max(1));
            let nothing = extents
                .iter()
                .filter(|extent| extent.state == PageState::Unreadable);
            for extent in nothing {
                if asked < MOST_ASKED {
                    let why = why(memory, mapping, extent.range.start(), shows_protected)?;
                    reasons.last = why.unwrap_or_else(gone);
                    asked += 1;
                }
                let why = reasons.last.clone();
                reasons.add(extent.range, why);
            }
            match extents.last() {
                Some(last) if last.range.end() > at => at = last.range.end(),
                _ => {
                    looked.is_all = false;
                    break;
                }
            }
        }
        if let Some(past) = AddressRange::new(shown.end(), mapping.range().end())
            && !past.is_empty()
        {
            let finding = Finding::ok(CHECK, "past the end of its file there is nothing (SIGBUS)");
            reasons.add(past, finding);
        }
        looked.unreadable.append(&mut reasons.found);
    }
    Ok(looked)
}

const CHECK: &str = "mapping";

/// What cannot be read of one mapping.
struct Reasons<'a> {
    mapping: &'a Mapping,
    found: Vec<UnreadableBytes>,
    last: Finding,
}

impl<'a> Reasons<'a> {
    fn of(mapping: &'a Mapping) -> Self {
        Self {
            mapping,
            found: Vec::new(),
            last: gone(),
        }
    }

    fn add(&mut self, range: AddressRange, why: Finding) {
        match self.found.iter_mut().find(|known| known.why == why) {
            Some(known) => known.bytes += range.len(),
            None => self.found.push(UnreadableBytes {
                mapping: self.mapping.file_name(),
                bytes: range.len(),
                from: range.start().to_string(),
                why,
            }),
        }
    }
}

/// What came and went while it was looked at.
fn gone() -> Finding {
    Finding::ok(CHECK, "it changes while it is looked at")
}

/// Why a byte cannot be read, by reading it: what is unreadable is not touched for that. `None` where it can be read by now.
///
/// # Errors
/// Whatever does not speak of the byte.
fn why(
    memory: &dyn ProcessMemory,
    mapping: &Mapping,
    address: Address,
    shows_protected: bool,
) -> Result<Option<Finding>> {
    let mut byte = [0];
    let segment = ReadSegment {
        address,
        buffer: &mut byte,
        mapping,
    };
    match memory.read(&mut [segment]) {
        Ok(_) => Ok(None),
        Err(Error::Unknown(_, why)) => {
            let mut finding = Finding::refused(CHECK, &why);
            finding.verdict = Verdict::Warning;
            Ok(Some(finding))
        }
        Err(Error::Unreachable(_)) if !shows_protected && !mapping.protection().read => {
            let found = "the mapping may not be read, and the kernel does not let its protection be passed over";
            let fix = "start the kernel without proc_mem.force_override=";
            Ok(Some(Finding::warning(CHECK, found).fix(fix)))
        }
        Err(Error::Unreachable(_)) => {
            let found = "nobody can read it, its process included: a guard page (MADV_GUARD_INSTALL), a poisoned \
                         (UFFDIO_POISON) or a broken one, or it was unmapped just now";
            Ok(Some(Finding::ok(CHECK, found)))
        }
        Err(error) if error.is_of_bytes() || error == Error::OwnMemory => {
            Ok(Some(Finding::warning(CHECK, error.to_string())))
        }
        Err(error) => Err(error),
    }
}
