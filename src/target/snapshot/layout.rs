//! Which store takes what.

use std::collections::HashMap;
use std::sync::Arc;

use super::budget::{Budget, Reservation};
use super::copy::Target;
use super::frozen::{KeptStore, Place};
use super::parallel::in_parallel;
use super::plan::MappingPlan;
use super::ranges::{in_both, without};
use super::store::{NewStore, StoreSource};
use super::watch::Watch;
use crate::common::address::AddressRange;
use crate::common::error::{Error, Result};
use crate::target::WriteTracker;
use crate::target::mapping::Mapping;
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
    own: HashMap<Key, Ready>,
    pool: Option<(Box<dyn NewStore>, u64)>,
    reservation: Reservation,
}

/// A store for one mapping.
#[derive(Debug)]
struct Ready {
    mapping: Arc<Mapping>,
    store: Box<dyn NewStore>,
    /// For what memory was taken.
    prepared: Vec<AddressRange>,
    /// Whether it is copied while the process runs.
    is_tracked: bool,
    /// What was copied so.
    copied: Vec<AddressRange>,
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
    /// What was copied before, and need not be copied again.
    current: Vec<AddressRange>,
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

fn offset_in(mapping: &Mapping, range: AddressRange) -> u64 {
    range.start().since(mapping.range().start())
}

/// Where in its own store what is copied of a mapping goes.
fn own_places(plan: &MappingPlan) -> impl Iterator<Item = (AddressRange, u64)> {
    let copied = plan.copied.iter();
    copied.map(|range| (*range, offset_in(&plan.mapping, *range)))
}

/// Where in the pool it goes, from `start` on.
fn pool_places(plan: &MappingPlan, start: u64) -> impl Iterator<Item = (AddressRange, u64)> {
    let mut at = start;
    plan.copied.iter().map(move |range| {
        let place = (*range, at);
        at += range.len();
        place
    })
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
            let ready = Ready {
                mapping: Arc::clone(&plan.mapping),
                store: stores.create(plan.mapping.size())?,
                prepared: plan.copied.clone(),
                is_tracked: false,
                copied: Vec::new(),
            };
            own.insert(key(plan), ready);
        }
        let pool = match pool_len {
            0 => None,
            len => Some((stores.create(len)?, len)),
        };
        let prepared = Self {
            own,
            pool,
            reservation,
        };
        prepared.take_memory(watch)?;
        Ok(prepared)
    }

    /// Takes memory step by step, so that it can be given up, and by all processors: most of the time goes into that.
    fn take_memory(&self, watch: &Watch) -> Result<()> {
        let own = self.own.values().flat_map(|ready| {
            let store = &*ready.store;
            let ranges = ready.prepared.iter();
            ranges.map(move |range| (store, offset_in(&ready.mapping, *range), range.len()))
        });
        let pool = self.pool.iter().map(|(store, len)| (&**store, 0, *len));
        let steps: Vec<_> = own
            .chain(pool)
            .flat_map(|(store, offset, len)| {
                let starts = (0..len).step_by(length(STEP));
                starts.map(move |start| (store, offset + start, STEP.min(len - start)))
            })
            .collect();
        in_parallel(steps.len(), |number| {
            let (store, offset, len) = steps[number];
            watch.advance()?;
            store.prepare(offset, len)
        })
        .map(drop)
    }

    /// The anonymous private mappings that have a store of their own, and all that is prepared of them; of those that are among
    /// `mappings` still.
    pub(super) fn private(
        &mut self,
        mappings: &[Arc<Mapping>],
    ) -> (Vec<AddressRange>, Vec<Target<'_>>) {
        let mut ranges = Vec::new();
        let mut targets = Vec::new();
        for ready in self.own.values_mut() {
            let mapping = &*ready.mapping;
            // They lie in order, and the process stands still: it may have a million of them.
            let start = mapping.range().start();
            let same = mappings
                .binary_search_by_key(&start, |it| it.range().start())
                .map(|at| &mappings[at]);
            ready.is_tracked = mapping.is_private_anonymous()
                && same.is_ok_and(|it| it.range() == mapping.range() && it.is_private_anonymous());
            if !ready.is_tracked {
                continue;
            }
            ranges.push(mapping.range());
            let prepared = ready.prepared.iter();
            let places = prepared.map(|range| (mapping, *range, offset_in(mapping, *range)));
            add_targets(&mut targets, ready.store.bytes(), places);
        }
        (ranges, targets)
    }

    /// Takes note that what [`private`](Self::private) said is copied, but for what could not be.
    pub(super) fn set_copied(&mut self, mut unreadable: Vec<AddressRange>) {
        unreadable.sort_by_key(|range| range.start());
        for ready in self.own.values_mut() {
            if ready.is_tracked {
                ready.copied = without(&ready.prepared, &unreadable);
            }
        }
    }
}

fn key(plan: &MappingPlan) -> Key {
    (plan.mapping.range(), plan.mapping.size())
}

fn reserve(needed: u64, stores: &dyn StoreSource, budget: &Arc<Budget>) -> Result<Reservation> {
    let reservation = budget.reserve(needed)?;
    match stores.available() {
        left if left < needed => Err(Error::NoRoom { needed, left }),
        _ => Ok(reservation),
    }
}

impl Layout {
    /// The stores for what is to be copied now; those that were prepared are used where they fit, and so is what was copied
    /// into them where `tracker` says that it was not written since.
    ///
    /// # Errors
    /// `NoRoom`, `System`.
    pub(super) fn new(
        plans: Vec<MappingPlan>,
        mut prepared: Prepared,
        tracker: Option<&dyn WriteTracker>,
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
            let ready = prepared.own.remove(&key(plan));
            let unwritten = match (&ready, tracker) {
                (Some(ready), Some(tracker))
                    if !ready.copied.is_empty() && plan.mapping.is_private_anonymous() =>
                {
                    tracker.unwritten(plan.mapping.range())?
                }
                _ => Vec::new(),
            };
            let (store, prepared, copied) = match ready {
                Some(ready) => (ready.store, ready.prepared, ready.copied),
                None => {
                    let store = stores.create(plan.mapping.size())?;
                    (store, Vec::new(), Vec::new())
                }
            };
            // So that it is known whether there is memory for the rest, too.
            for missing in without(&plan.copied, &prepared) {
                store.prepare(offset_in(&plan.mapping, missing), missing.len())?;
            }
            own.push(Own {
                plan: at,
                store,
                prepared,
                current: in_both(&copied, &unwritten),
            });
        }
        let ready = prepared.pool.take().filter(|(_, len)| *len >= used);
        let pool = match (used, ready) {
            (0, _) => None,
            (_, Some((store, len))) => Some((store, len)),
            (len, None) => {
                let store = stores.create(len)?;
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
            let mapping = &*plan.mapping;
            let wanted = without(&plan.copied, &own.current);
            let places = wanted
                .iter()
                .map(|range| (mapping, *range, offset_in(mapping, *range)));
            add_targets(&mut targets, own.store.bytes(), places);
        }
        if let Some(pool) = &mut self.pool {
            let places = pool.plans.iter().flat_map(|(number, start)| {
                let plan = &plans[*number];
                pool_places(plan, *start).map(|(range, at)| (&*plan.mapping, range, at))
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
                let offset = offset_in(&plan.mapping, range);
                kept.store().discard(offset, range.len());
            }
            add_runs(&mut runs, &kept, own_places(plan), &unreadable);
        }
        if let Some(pool) = self.pool {
            let kept = keep(pool.store, pool.len, &self.reservation, pool.used);
            kept.store().discard(pool.used, pool.len - pool.used);
            for (number, start) in pool.plans {
                let places = pool_places(&self.plans[number], start);
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
    places: impl Iterator<Item = (&'a Mapping, AddressRange, u64)>,
) {
    let mut rest = bytes;
    let mut at = 0;
    for (mapping, range, offset) in places {
        let (skipped, len) = (length(offset - at), length(range.len()));
        let (bytes, after) = rest.split_at_mut(skipped).1.split_at_mut(len);
        targets.push(Target {
            mapping,
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
