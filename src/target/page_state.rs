//! What the kernel knows of the pages of a range, without touching them.

use crate::common::address::{Address, AddressRange};

/// Where the bytes of pages are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PageState {
    /// In memory, in the process's page table.
    Resident,
    /// In swap.
    Swapped,
    /// Nowhere, and the kernel says that they read as zeros: private
    /// anonymous memory never written, the shared page of zeros, holes of a file.
    Zero,
    /// In the file or the shared memory object of the mapping; this
    /// process has not mapped them.
    File,
    /// Nowhere, and there is no memory either: unmapped, past the end of the file, or not to be read.
    Unreadable,
}

impl PageState {
    /// Whether a reader of a sparse file has something to read there. Zeros are a hole, and so is
    /// what cannot be read: a sparse copy asks for data alone, and an error would end it half-way.
    pub fn is_data(self) -> bool {
        match self {
            Self::Resident | Self::Swapped | Self::File => true,
            Self::Zero | Self::Unreadable => false,
        }
    }
}

/// Neighbouring pages, or parts of them, in one state. `T` says which states there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Run<T> {
    /// Where they lie; not empty in any list of runs.
    pub range: AddressRange,
    /// What they have in common.
    pub state: T,
}

/// Neighbouring pages whose bytes are in one place.
pub type Extent = Run<PageState>;

/// Adds a run after the others, joined to the last where it is its neighbour and in its state; an
/// empty one is left out.
pub fn push<T: PartialEq>(runs: &mut Vec<Run<T>>, range: AddressRange, state: T) {
    if range.is_empty() {
        return;
    }
    if let Some(last) = runs.last_mut() {
        debug_assert!(last.range.end() <= range.start(), "runs are in order");
        if last.state == state
            && let Some(joined) = last.range.joined(range)
        {
            last.range = joined;
            return;
        }
    }
    runs.push(Run { range, state });
}

/// Cuts off what lies outside of `range`.
pub fn trim<T>(runs: &mut Vec<Run<T>>, range: AddressRange) {
    runs.retain_mut(|run| {
        run.range = run.range.intersection(range);
        !run.range.is_empty()
    });
}

/// Whether the runs lie in order and without a gap from `start` on, and none is empty.
pub fn are_contiguous<T>(runs: &[Run<T>], start: Address) -> bool {
    let mut at = start;
    runs.iter().all(|run| {
        let follows = run.range.start() == at && !run.range.is_empty();
        at = run.range.end();
        follows
    })
}

/// Memory that a range takes, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUsage {
    /// In memory.
    pub resident: u64,
    /// In swap.
    pub swapped: u64,
    /// Whether none of it can be read, although it is there.
    pub is_hidden: bool,
}

impl MemoryUsage {
    /// Both together.
    pub fn total(self) -> u64 {
        self.resident + self.swapped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, end: u64) -> AddressRange {
        AddressRange::new(Address::new(start), Address::new(end)).unwrap()
    }

    /// SEMANTICS: what cannot be read is a hole.
    #[test]
    fn data_is_what_can_be_read_and_may_differ_from_zeros() {
        let states = [
            (PageState::Resident, true),
            (PageState::Swapped, true),
            (PageState::File, true),
            (PageState::Zero, false),
            (PageState::Unreadable, false),
        ];
        for (state, is_data) in states {
            assert_eq!(state.is_data(), is_data, "{state:?}");
        }
    }

    #[test]
    fn neighbours_in_one_state_are_one_run() {
        let mut extents = Vec::new();
        push(&mut extents, range(0x1000, 0x2000), PageState::Zero);
        push(&mut extents, range(0x2000, 0x3000), PageState::Zero);
        push(&mut extents, range(0x3000, 0x3000), PageState::File);
        push(&mut extents, range(0x3000, 0x4000), PageState::Resident);
        push(&mut extents, range(0x5000, 0x6000), PageState::Resident);
        let states = |extents: &[Extent]| -> Vec<_> {
            extents.iter().map(|run| (run.range, run.state)).collect()
        };
        assert_eq!(
            states(&extents),
            [
                (range(0x1000, 0x3000), PageState::Zero),
                (range(0x3000, 0x4000), PageState::Resident),
                (range(0x5000, 0x6000), PageState::Resident),
            ]
        );
        assert!(!are_contiguous(&extents, Address::new(0x1000)));
        assert!(are_contiguous(&extents[..2], Address::new(0x1000)));
        assert!(!are_contiguous(&extents[..2], Address::new(0)));
        trim(&mut extents, range(0x2800, 0x4000));
        assert_eq!(
            states(&extents),
            [
                (range(0x2800, 0x3000), PageState::Zero),
                (range(0x3000, 0x4000), PageState::Resident),
            ]
        );
    }
}
