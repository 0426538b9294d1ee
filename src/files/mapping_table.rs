//! An address space at one moment.

use std::sync::Arc;

use crate::common::address::Address;
use crate::target::mapping::{AddressSpace, Mapping};

/// One address space at one moment.
#[derive(Debug)]
pub(super) struct MappingTable {
    mappings: Arc<[Arc<Mapping>]>,
    heap: Option<usize>,
    stack: Option<usize>,
}

impl MappingTable {
    /// What was the same in an `earlier` one is held together with it.
    pub(super) fn new(space: AddressSpace, earlier: Option<&Self>) -> Self {
        let position = |wanted: Option<&Mapping>| {
            wanted.and_then(|wanted| {
                space
                    .mappings()
                    .binary_search_by_key(&wanted.range().start(), |mapping| {
                        mapping.range().start()
                    })
                    .ok()
            })
        };
        Self {
            heap: position(space.heap()),
            stack: position(space.stack()),
            mappings: match earlier {
                Some(earlier) => shared(space, &earlier.mappings),
                None => space.into_mappings().into_iter().map(Arc::new).collect(),
            },
        }
    }

    /// One of mappings that are held already.
    pub(super) fn of_known(mappings: Arc<[Arc<Mapping>]>) -> Self {
        let position = |is_it: fn(&Mapping) -> bool| mappings.iter().position(|it| is_it(it));
        Self {
            heap: position(Mapping::is_heap),
            stack: position(Mapping::is_stack),
            mappings,
        }
    }

    /// One of so many mappings.
    #[cfg(test)]
    pub(super) fn of(mappings: usize) -> Self {
        let space = AddressSpace::parse(b"1000-2000 rw-p 00000000 00:00 0\n").unwrap();
        let mapping = Arc::new(space.mappings()[0].clone());
        Self {
            mappings: std::iter::repeat_n(mapping, mappings).collect(),
            heap: None,
            stack: None,
        }
    }

    /// All mappings, lowest address first.
    pub(super) fn mappings(&self) -> &Arc<[Arc<Mapping>]> {
        &self.mappings
    }

    /// The mapping that has this name.
    pub(super) fn named(&self, name: &str) -> Option<&Arc<Mapping>> {
        self.index_of(name).map(|index| &self.mappings[index])
    }

    /// Which of the mappings has this name.
    pub(super) fn index_of(&self, name: &str) -> Option<usize> {
        let start = start_in_name(name)?;
        let index = self
            .mappings
            .binary_search_by_key(&start, |mapping| mapping.range().start())
            .ok()?;
        (self.mappings[index].file_name() == name).then_some(index)
    }

    /// The heap.
    pub(super) fn heap(&self) -> Option<&Arc<Mapping>> {
        self.heap.map(|index| &self.mappings[index])
    }

    /// The first thread's stack.
    pub(super) fn stack(&self) -> Option<&Arc<Mapping>> {
        self.stack.map(|index| &self.mappings[index])
    }
}

/// The mappings of `space`, and what was the same in an earlier list is held together with that.
fn shared(space: AddressSpace, earlier: &Arc<[Arc<Mapping>]>) -> Arc<[Arc<Mapping>]> {
    if space
        .mappings()
        .iter()
        .eq(earlier.iter().map(|known| &**known))
    {
        return Arc::clone(earlier);
    }
    let mut known = earlier.iter().peekable();
    let share = |mapping: Mapping| {
        let start = mapping.range().start();
        while known
            .next_if(|known| known.range().start() < start)
            .is_some()
        {}
        match known.peek() {
            Some(same) if ***same == mapping => Arc::clone(same),
            _ => Arc::new(mapping),
        }
    };
    space.into_mappings().into_iter().map(share).collect()
}

/// The start address that a mapping's name begins with.
pub(super) fn start_in_name(name: &str) -> Option<Address> {
    let (start, _) = name.split_once('-')?;
    u64::from_str_radix(start, 16).ok().map(Address::new)
}
