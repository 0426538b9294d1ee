//! Which store takes what.

use std::collections::HashMap;
use std::sync::Arc;

use super::budget::{Budget, Reservation};
use super::copy::Target;
use super::frozen::{KeptStore, Place};
use super::plan::MappingPlan;
use super::store::{NewStore, StoreSource};
use super::watch::Watch;
use crate::common::address::{Address, AddressRange};
use crate::common::error::{Error, Result};
use crate::target::page_state::Run;

/// A mapping of which so much is copied has a store of its own, laid out as its file is: the kernel can then read that itself.
const OWN: u64 = 1 << 20;

/// Bytes for which memory is taken at a time.
const STEP: u64 = 64 << 20;

/// Stores of one process: each holds a descriptor.
const MOST: usize = 256;

/// What a store of a mapping must fit to be of use: where the mapping lies, and how long its file is.
type Key = (AddressRange, u64);

/// Memory that is taken for a process while it still runs.
#[derive(Debug)]
pub(super) struct Prepared {
    own: HashMap<Key, (Box<dyn NewStore>, Vec<AddressRange>)>,
    pool: Option<(Box<dyn NewStore>, u64)>,
    reservation: Reservation,
}

/// The stores of a process, as they are filled.
#[derive(Debug)]
pub(super) struct Layout {
    plans: Vec<MappingPlan>,
    own: Vec<Own>,
    pool: Option<Pool>,
    reservation: Reservation,
}

/// A store of one mapping.
#[derive(Debug)]
struct Own {
    /// Which of the plans.
    plan: usize,
    store: Box<dyn NewStore>,
    /// For what memory was taken before.
    prepared: Vec<AddressRange>,
}

/// The store of all others, without a gap in it.
#[derive(Debug)]
struct Pool {
    store: Box<dyn NewStore>,
    len: u64,
    /// Bytes of it that are of use.
    used: u64,
    /// Which of the plans it has, and where in it they begin.
    plans: Vec<(usize, u64)>,
}

/// Which plans have a store of their own: the largest.
fn have_own(plans: &[MappingPlan]) -> Vec<bool> {
    let mut large: Vec<_> = (0..plans.len())
        .filter(|at| plans[*at].bytes() >= OWN)
        .collect();
    large.sort_by_key(|at| std::cmp::Reverse(plans[*at].bytes()));
    large.truncate(MOST);
    let mut own = vec![false; plans.len()];
    for at in large {
        own[at] = true;
    }
    own
}

fn offset_in(plan: &MappingPlan, range: AddressRange) -> u64 {
    range.start().since(plan.mapping.range().start())
}

impl Prepared {
    /// Takes memory for what is to be copied by now.
    ///
    /// # Errors
    /// `NoRoom`, `Interrupted`, `System`.
    pub(super) fn new(
        plans: &[MappingPlan],
        stores: &dyn StoreSource,
        budget: &Arc<Budget>,
        watch: &Watch,
    ) -> Result<Self> {
        let needed = plans.iter().map(MappingPlan::bytes).sum();
        let reservation = reserve(needed, stores, budget)?;
        let mut own = HashMap::new();
        let mut pool_len = 0;
        for (plan, has_own) in plans.iter().zip(have_own(plans)) {
            if !has_own {
                pool_len += plan.bytes();
                continue;
            }
            let mut store = stores.create(plan.mapping.size())?;
            for copied in &plan.copied {
                prepare(&mut *store, offset_in(plan, *copied), copied.len(), watch)?;
            }
            own.insert(key(plan), (store, plan.copied.clone()));
        }
        let pool = match pool_len {
            0 => None,
            len => {
                let mut store = stores.create(len)?;
                prepare(&mut *store, 0, len, watch)?;
                Some((store, len))
            }
        };
        Ok(Self {
            own,
            pool,
            reservation,
        })
    }
}

fn key(plan: &MappingPlan) -> Key {
    (plan.mapping.range(), plan.mapping.size())
}

/// Takes memory step by step, so that it can be given up.
fn prepare(store: &mut dyn NewStore, offset: u64, len: u64, watch: &Watch) -> Result<()> {
    let mut done = 0;
    while done < len {
        watch.advance()?;
        let step = STEP.min(len - done);
        store.prepare(offset + done, step)?;
        done += step;
    }
    Ok(())
}

fn reserve(needed: u64, stores: &dyn StoreSource, budget: &Arc<Budget>) -> Result<Reservation> {
    let reservation = budget.reserve(needed)?;
    match stores.available() {
        left if left < needed => Err(Error::NoRoom { needed, left }),
        _ => Ok(reservation),
    }
}

impl Layout {
    /// The stores for what is to be copied now; those that were prepared are used where they fit.
    ///
    /// # Errors
    /// `NoRoom`, `System`.
    pub(super) fn new(
        plans: Vec<MappingPlan>,
        mut prepared: Prepared,
        stores: &dyn StoreSource,
        budget: &Arc<Budget>,
    ) -> Result<Self> {
        let needed: u64 = plans.iter().map(MappingPlan::bytes).sum();
        let more = needed.saturating_sub(prepared.reservation.bytes());
        let reservation = prepared.reservation;
        if more > 0 {
            reservation.join(&reserve(more, stores, budget)?);
        }
        let mut own = Vec::new();
        let mut pooled = Vec::new();
        let mut used = 0;
        for (at, (plan, has_own)) in plans.iter().zip(have_own(&plans)).enumerate() {
            if !has_own {
                pooled.push((at, used));
                used += plan.bytes();
                continue;
            }
            let (mut store, prepared) = match prepared.own.remove(&key(plan)) {
                Some(ready) => ready,
                None => (stores.create(plan.mapping.size())?, Vec::new()),
            };
            // So that it is known whether there is memory for the rest, too.
            for missing in without(&plan.copied, &prepared) {
                store.prepare(offset_in(plan, missing), missing.len())?;
            }
            own.push(Own {
                plan: at,
                store,
                prepared,
            });
        }
        let ready = prepared.pool.take().filter(|(_, len)| *len >= used);
        let pool = match (used, ready) {
            (0, _) => None,
            (_, Some((store, len))) => Some((store, len)),
            (len, None) => {
                let mut store = stores.create(len)?;
                store.prepare(0, len)?;
                Some((store, len))
            }
        };
        let pool = pool.map(|(store, len)| Pool {
            store,
            len,
            used,
            plans: pooled,
        });
        Ok(Self {
            plans,
            own,
            pool,
            reservation,
        })
    }

    /// All that is to be copied, and where it goes.
    pub(super) fn targets(&mut self) -> Vec<Target<'_>> {
        let mut targets = Vec::new();
        let plans = &self.plans;
        for own in &mut self.own {
            let plan = &plans[own.plan];
            let places = plan.copied.iter().map(|it| (*it, offset_in(plan, *it)));
            add_targets(
                &mut targets,
                own.store.bytes(),
                places.map(|(range, at)| (plan, range, at)),
            );
        }
        if let Some(pool) = &mut self.pool {
            let mut at = 0;
            let ranges = pool.plans.iter().flat_map(|(number, _)| {
                let plan = &plans[*number];
                plan.copied.iter().map(move |range| (plan, *range))
            });
            let places = ranges.map(|(plan, range)| {
                let place = (plan, range, at);
                at += range.len();
                place
            });
            add_targets(&mut targets, pool.store.bytes(), places);
        }
        targets
    }

    /// What was copied, and where it is; `unreadable` could not be.
    pub(super) fn finish(self, mut unreadable: Vec<AddressRange>) -> Vec<Run<Place>> {
        unreadable.sort_by_key(|range| range.start());
        let mut runs = Vec::new();
        for own in self.own {
            let plan = &self.plans[own.plan];
            let len = plan.mapping.size();
            let kept = keep(own.store, len, &self.reservation, plan.bytes());
            for range in without(&own.prepared, &plan.copied) {
                kept.store().discard(offset_in(plan, range), range.len());
            }
            let places = plan.copied.iter().map(|it| (*it, offset_in(plan, *it)));
            add_runs(&mut runs, &kept, places, &unreadable);
        }
        if let Some(pool) = self.pool {
            let kept = keep(pool.store, pool.len, &self.reservation, pool.used);
            kept.store().discard(pool.used, pool.len - pool.used);
            for (number, start) in pool.plans {
                let mut at = start;
                let ranges = self.plans[number].copied.iter();
                let places = ranges.map(|range| {
                    let place = (*range, at);
                    at += range.len();
                    place
                });
                add_runs(&mut runs, &kept, places, &unreadable);
            }
        }
        let bad = unreadable.into_iter().map(|range| Run {
            range,
            state: Place::Unreadable,
        });
        runs.extend(bad);
        for plan in self.plans {
            runs.extend(plan.elsewhere);
        }
        runs.sort_by_key(|run| run.range.start());
        runs
    }
}

/// Keeps a store that is `len` bytes long, of which it holds `bytes`.
fn keep(
    store: Box<dyn NewStore>,
    len: u64,
    reservation: &Reservation,
    bytes: u64,
) -> Arc<KeptStore> {
    Arc::new(KeptStore::new(store.keep(), len, reservation.split(bytes)))
}

/// Adds a target for each place, whose offsets rise.
fn add_targets<'a>(
    targets: &mut Vec<Target<'a>>,
    bytes: &'a mut [u8],
    places: impl Iterator<Item = (&'a MappingPlan, AddressRange, u64)>,
) {
    let mut rest = bytes;
    let mut at = 0;
    for (plan, range, offset) in places {
        let (skipped, len) = (length(offset - at), length(range.len()));
        let (bytes, after) = rest.split_at_mut(skipped).1.split_at_mut(len);
        targets.push(Target {
            mapping: &plan.mapping,
            address: range.start(),
            bytes,
        });
        rest = after;
        at = offset + range.len();
    }
}

fn length(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// Adds a run for each place, but for what could not be read.
fn add_runs(
    runs: &mut Vec<Run<Place>>,
    store: &Arc<KeptStore>,
    places: impl Iterator<Item = (AddressRange, u64)>,
    unreadable: &[AddressRange],
) {
    for (range, offset) in places {
        for part in without(&[range], unreadable) {
            let offset = offset + part.start().since(range.start());
            let store = Arc::clone(store);
            runs.push(Run {
                range: part,
                state: Place::Stored { store, offset },
            });
        }
    }
}

/// What is left of ranges without others; both lie in order.
fn without(ranges: &[AddressRange], others: &[AddressRange]) -> Vec<AddressRange> {
    let mut left = Vec::new();
    for range in ranges {
        let mut at = range.start();
        let first = others.partition_point(|other| other.end() <= range.start());
        let others = others[first..]
            .iter()
            .take_while(|other| other.start() < range.end());
        for other in others {
            add(&mut left, at, other.start());
            at = at.max(other.end());
        }
        add(&mut left, at, range.end());
    }
    left
}

/// Adds a range, if it is one.
fn add(ranges: &mut Vec<AddressRange>, start: Address, end: Address) {
    ranges.extend(AddressRange::new(start, end).filter(|range| !range.is_empty()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, end: u64) -> AddressRange {
        AddressRange::new(Address::new(start), Address::new(end)).unwrap()
    }

    #[test]
    fn what_is_left_of_ranges_lies_between_the_others() {
        let ranges = [range(10, 20), range(30, 40)];
        let table: [(&[AddressRange], &[AddressRange]); 6] = [
            (&[], &ranges),
            (&[range(0, 10), range(20, 30), range(40, 50)], &ranges),
            (&[range(0, 50)], &[]),
            (
                &[range(12, 14), range(16, 18)],
                &[range(10, 12), range(14, 16), range(18, 20), range(30, 40)],
            ),
            (&[range(15, 35)], &[range(10, 15), range(35, 40)]),
            (
                &[range(10, 11), range(39, 45)],
                &[range(11, 20), range(30, 39)],
            ),
        ];
        for (others, expected) in table {
            assert_eq!(without(&ranges, others), expected, "{others:?}");
        }
    }
}
