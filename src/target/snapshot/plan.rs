//! What of a process is to be copied, and where it goes.

use std::collections::HashMap;
use std::sync::Arc;

use super::frozen::{HeldFile, Place};
use super::watch::Watch;
use crate::common::address::AddressRange;
use crate::common::error::Result;
use crate::target::mapping::{Device, Mapping};
use crate::target::page_state::{PageState, Run, push};
use crate::target::{ProcessMemory, all_extents};

/// What the file of a mapping holds where the process has mapped no page.
#[derive(Clone, Debug)]
pub enum FileContent {
    /// It is held open, and tells whether it has changed since.
    Held(Arc<dyn HeldFile>),
    /// It lives in memory alone, and others can change it unseen: it must be copied.
    Memory,
    /// It cannot be known.
    Unknown,
}

/// The part of one mapping.
#[derive(Debug)]
pub(super) struct MappingPlan {
    pub(super) mapping: Arc<Mapping>,
    /// What is to be copied, lowest address first.
    pub(super) copied: Vec<AddressRange>,
    /// What is elsewhere, lowest address first.
    pub(super) elsewhere: Vec<Run<Place>>,
}

impl MappingPlan {
    /// Bytes that are to be copied.
    pub(super) fn bytes(&self) -> u64 {
        self.copied.iter().map(|range| range.len()).sum()
    }
}

/// Files by what is the same for all mappings of one.
type Files = HashMap<(Device, u64), FileContent>;

/// What is to be copied of all `mappings`, as far as it can be read at all.
///
/// # Errors
/// `Ended`, `Replaced`, `Interrupted`, and what the memory says.
pub(super) fn plan(
    memory: &dyn ProcessMemory,
    mappings: &[Arc<Mapping>],
    watch: &Watch,
) -> Result<Vec<MappingPlan>> {
    let mut files = Files::new();
    let plans = mappings
        .iter()
        .map(|mapping| plan_mapping(memory, mapping, &mut files, watch));
    plans.collect()
}

fn plan_mapping(
    memory: &dyn ProcessMemory,
    mapping: &Arc<Mapping>,
    files: &mut Files,
    watch: &Watch,
) -> Result<MappingPlan> {
    let shown = mapping.range().truncated(mapping.size());
    let mut runs: Vec<Run<PageState>> = Vec::new();
    for run in all_extents(memory, mapping, shown, || watch.advance())? {
        push(&mut runs, run.range, alike(run.state));
    }
    let mut plan = MappingPlan {
        mapping: Arc::clone(mapping),
        copied: Vec::new(),
        elsewhere: Vec::new(),
    };
    for run in runs {
        let content = match run.state {
            PageState::Resident | PageState::Swapped => FileContent::Memory,
            PageState::Zero => continue,
            PageState::File => {
                let key = (mapping.device(), mapping.inode());
                let content = files.entry(key);
                content
                    .or_insert_with(|| memory.file_content(mapping))
                    .clone()
            }
            PageState::Unreadable => FileContent::Unknown,
        };
        match content {
            FileContent::Memory => run.range.append_to(&mut plan.copied),
            FileContent::Held(file) => {
                let since = run.range.start().since(mapping.range().start());
                let offset = mapping.offset().wrapping_add(since);
                plan.elsewhere.push(Run {
                    range: run.range,
                    state: Place::File { file, offset },
                });
            }
            FileContent::Unknown => plan.elsewhere.push(Run {
                range: run.range,
                state: Place::Unreadable,
            }),
        }
    }
    Ok(plan)
}

/// What is in swap is copied as what is in memory.
fn alike(state: PageState) -> PageState {
    match state {
        PageState::Swapped => PageState::Resident,
        other => other,
    }
}
