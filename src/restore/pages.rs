//! Which pages differ, and taking back what was written.

use std::io;

use nix::errno::Errno;

use crate::backup::SavedMapping;
use crate::common::address::{Address, AddressRange};
use crate::common::error::{Error, Result};
use crate::common::pages::compared;
use crate::target::mapping::Mapping;
use crate::target::page_state::PageState;
use crate::target::{ProcessMemory, ReadSegment, WriteMode, all_extents};

/// Bytes that are compared, and written, at a time.
const STEP: u64 = 1 << 20;

/// Neighbouring pages that differ.
#[derive(Debug)]
pub(super) struct Difference {
    pub(super) address: Address,
    pub(super) old: Vec<u8>,
    pub(super) new: Vec<u8>,
}

/// What differs in one mapping.
#[derive(Debug, Default)]
pub(super) struct Differences {
    pub(super) runs: Vec<Difference>,
    pub(super) compared: u64,
    pub(super) left: Vec<String>,
}

/// Compares a mapping with its file. What was not copied, and what cannot be read now, is left as it is.
///
/// # Errors
/// What the memory says, and `System` where the file cannot be read.
pub(super) fn differences(
    memory: &dyn ProcessMemory,
    mapping: &Mapping,
    saved: &SavedMapping,
    unreadable: &[AddressRange],
    mut progress: impl FnMut(u64),
) -> Result<Differences> {
    let mut found = Differences::default();
    let shown = mapping.range().truncated(mapping.size());
    let start = mapping.range().start();
    let mut unknown = 0;
    for run in all_extents(memory, mapping, shown, || Ok(()))? {
        let mut at = run.range.start();
        while at < run.range.end() {
            // What is a hole in both is the same.
            if run.state == PageState::Zero {
                let data = saved.next_data(at.since(start));
                at = at.max(start.plus(data).page_start()).min(run.range.end());
            }
            let step = AddressRange::new(at, run.range.end())
                .unwrap_or_default()
                .truncated(STEP);
            at = step.end();
            let is_known = run.state != PageState::Unreadable
                && unreadable
                    .iter()
                    .all(|other| other.intersection(step).is_empty());
            match is_known {
                true => compare(memory, mapping, saved, step, &mut found)?,
                false => unknown += step.len(),
            }
            progress(at.since(start));
        }
    }
    found.compared = shown.len();
    if unknown > 0 {
        found.left.push(format!(
            "{}: {unknown} bytes that cannot be read",
            saved.name()
        ));
    }
    Ok(found)
}

fn compare(
    memory: &dyn ProcessMemory,
    mapping: &Mapping,
    saved: &SavedMapping,
    step: AddressRange,
    found: &mut Differences,
) -> Result<()> {
    let len = step.len() as usize;
    let (mut old, mut new) = (vec![0; len], vec![0; len]);
    let segment = ReadSegment {
        address: step.start(),
        buffer: &mut old,
        mapping,
    };
    let read = memory.read(&mut [segment])?;
    if read < len {
        return Err(Error::Unreachable(step.start().plus(read as u64)));
    }
    let offset = step.start().since(mapping.range().start());
    saved
        .read(offset, &mut new)
        .map_err(|error| unreadable_file(&error))?;
    for (run, same) in compared(&old, &new) {
        if !same {
            found.runs.push(Difference {
                address: step.start().plus(run.start as u64),
                old: old[run.clone()].to_vec(),
                new: new[run].to_vec(),
            });
        }
    }
    Ok(())
}

fn unreadable_file(error: &io::Error) -> Error {
    let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
    Error::system("reading the copy", errno)
}

/// What was there before it was written over.
#[derive(Debug, Default)]
pub(super) struct Undo(Vec<(Address, Vec<u8>)>);

impl Undo {
    pub(super) fn add(&mut self, address: Address, old: Vec<u8>) {
        self.0.push((address, old));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Writes all of it back.
    ///
    /// # Errors
    /// What could not be.
    pub(super) fn take_back(&self, memory: &dyn ProcessMemory) -> Result<()> {
        let mut answer = Ok(());
        for (address, old) in self.0.iter().rev() {
            match memory.write(*address, old, WriteMode::Force) {
                Ok(written) if written == old.len() => (),
                Ok(written) => answer = Err(Error::Unreachable(address.plus(written as u64))),
                Err(error) => answer = Err(error),
            }
        }
        answer
    }
}
