//! Pages that two snapshots of one process have in common are kept once.

use std::sync::Arc;

use super::frozen::{FrozenMemory, KeptStore, Place};
use super::watch::Watch;
use crate::common::address::{Address, AddressRange};
use crate::common::error::Result;
use crate::common::pages::compared;
use crate::target::page_state::Run;

/// Bytes that are compared at a time: both sides stay in a processor's cache.
const STEP: u64 = 128 << 10;

/// Runs that follow each other, joined where they lie in one place.
#[derive(Debug, Default)]
struct Runs(Vec<Run<Place>>);

impl Runs {
    fn add(&mut self, range: AddressRange, place: Place) {
        if let Some(last) = self.0.last_mut()
            && let Some(joined) = last.range.joined(range)
            && let (
                Place::Stored { store, offset },
                Place::Stored {
                    store: next,
                    offset: next_offset,
                },
            ) = (&last.state, &place)
            && Arc::ptr_eq(store, next)
            && offset + last.range.len() == *next_offset
        {
            last.range = joined;
            return;
        }
        self.0.push(Run {
            range,
            state: place,
        });
    }
}

/// Replaces pages that are the same in an earlier snapshot by those of that one, and gives theirs back.
///
/// # Errors
/// `Interrupted`, and where a store cannot be read.
pub(super) fn share(
    runs: Vec<Run<Place>>,
    earlier: &FrozenMemory,
    watch: &Watch,
) -> Result<Vec<Run<Place>>> {
    let mut shared = Runs::default();
    let mut buffers = (vec![0; STEP as usize], vec![0; STEP as usize]);
    for run in runs {
        let Place::Stored { store, offset } = &run.state else {
            shared.add(run.range, run.state);
            continue;
        };
        let place_at = |address: Address| run.state.after(address.since(run.range.start()));
        let mut at = run.range.start();
        for known in earlier.runs(run.range) {
            let Place::Stored { .. } = known.state else {
                continue;
            };
            let both = known.range.intersection(run.range);
            add_between(&mut shared, at, both.start(), &place_at);
            at = both.start();
            while at < both.end() {
                watch.advance()?;
                let step = AddressRange::new(at, both.end())
                    .unwrap_or_default()
                    .truncated(STEP);
                let theirs = known.state.after(at.since(known.range.start()));
                let own = (store, offset + at.since(run.range.start()));
                compare(step, own, &theirs, &mut buffers, &mut shared)?;
                at = step.end();
            }
        }
        add_between(&mut shared, at, run.range.end(), &place_at);
    }
    Ok(shared.0)
}

fn add_between(
    shared: &mut Runs,
    start: Address,
    end: Address,
    place_at: &impl Fn(Address) -> Place,
) {
    if let Some(range) = AddressRange::new(start, end).filter(|range| !range.is_empty()) {
        shared.add(range, place_at(start));
    }
}

/// Compares the pages of `step`, and takes for each the place where it is from now on.
fn compare(
    step: AddressRange,
    (store, offset): (&Arc<KeptStore>, u64),
    theirs: &Place,
    (own_bytes, their_bytes): &mut (Vec<u8>, Vec<u8>),
    shared: &mut Runs,
) -> Result<()> {
    let Place::Stored {
        store: their_store,
        offset: their_offset,
    } = theirs
    else {
        return Ok(());
    };
    let len = step.len() as usize;
    store.store().read(offset, &mut own_bytes[..len])?;
    their_store
        .store()
        .read(*their_offset, &mut their_bytes[..len])?;
    for (run, same) in compared(&own_bytes[..len], &their_bytes[..len]) {
        let (at, bytes) = (run.start as u64, run.len() as u64);
        let start = step.start().plus(at);
        let range = AddressRange::new(start, start.plus(bytes)).unwrap_or_default();
        if same {
            store.discard(offset + at, bytes);
            shared.add(range, theirs.after(at));
        } else {
            let store = Arc::clone(store);
            let offset = offset + at;
            shared.add(range, Place::Stored { store, offset });
        }
    }
    Ok(())
}
