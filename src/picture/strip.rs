//! A mapping as a strip of cells: what is where in it.

use crate::target::page_state::PageState;

/// Where the bytes of a page are, for whoever looks at a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// In memory, in the process's page table.
    Resident,
    /// In swap.
    Swapped,
    /// Nowhere: they read as zeros.
    Zero,
    /// In the file or the shared memory object of the mapping; this process has not mapped them.
    Absent,
    /// Nowhere, or not to be read: past the end of a file, of a device, guarded.
    Unreadable,
}

impl Place {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 5] = [
        Self::Resident,
        Self::Swapped,
        Self::Zero,
        Self::Absent,
        Self::Unreadable,
    ];

    /// What it is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Resident => "resident",
            Self::Swapped => "swapped",
            Self::Zero => "zero",
            Self::Absent => "absent",
            Self::Unreadable => "unreadable",
        }
    }

    /// The place of pages in this state. A page of a file that cannot be opened without harm, or by this user, is in its
    /// file all the same.
    pub(super) fn of(state: PageState, has_file: bool) -> Self {
        match state {
            PageState::Resident => Self::Resident,
            PageState::Swapped => Self::Swapped,
            PageState::Zero => Self::Zero,
            PageState::File => Self::Absent,
            PageState::Unreadable if has_file => Self::Absent,
            PageState::Unreadable => Self::Unreadable,
        }
    }
}

/// A part of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Where most of its pages are.
    pub place: Place,
    /// Whether some of them are in memory or in swap.
    pub holds_some: bool,
}

/// Counts pages by cell.
#[derive(Debug)]
pub(super) struct Strip {
    pages: u64,
    counts: Vec<[u64; Place::ALL.len()]>,
}

impl Strip {
    /// A strip of `cells` cells, or of one for each page where there are less.
    pub(super) fn new(pages: u64, cells: usize) -> Self {
        let cells = usize::try_from(pages).unwrap_or(cells).min(cells);
        Self {
            pages,
            counts: vec![[0; Place::ALL.len()]; cells],
        }
    }

    /// The first page of a cell.
    fn start(&self, cell: usize) -> u64 {
        let cells = self.counts.len() as u128;
        // No more than the number of pages.
        (cell as u128 * u128::from(self.pages)).div_ceil(cells) as u64
    }

    /// Takes in that `count` pages from `first` on are there.
    pub(super) fn add(&mut self, first: u64, count: u64, place: Place) {
        let end = first.saturating_add(count).min(self.pages);
        if first >= end {
            return;
        }
        let cells = self.counts.len() as u128;
        let mut cell = (u128::from(first) * cells / u128::from(self.pages)) as usize;
        let mut at = first;
        while at < end {
            let upto = self.start(cell + 1).min(end);
            self.counts[cell][place as usize] += upto - at;
            at = upto;
            cell += 1;
        }
    }

    /// The cells. One that nothing was told of cannot be read.
    pub(super) fn finish(self) -> Vec<Cell> {
        let cell = |counts: &[u64; Place::ALL.len()]| {
            // Of two that are equal the one that is named first: memory is what is looked for.
            let most = Place::ALL
                .into_iter()
                .rev()
                .max_by_key(|place| counts[*place as usize]);
            Cell {
                place: most.unwrap_or(Place::Unreadable),
                holds_some: counts[Place::Resident as usize] + counts[Place::Swapped as usize] > 0,
            }
        };
        self.counts.iter().map(cell).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(strip: Strip) -> Vec<(Place, bool)> {
        let cells = strip.finish().into_iter();
        cells.map(|cell| (cell.place, cell.holds_some)).collect()
    }

    #[test]
    fn a_cell_shows_where_most_of_its_pages_are() {
        let mut strip = Strip::new(12, 3);
        strip.add(0, 3, Place::Resident);
        strip.add(3, 5, Place::Zero);
        strip.add(8, 1, Place::Swapped);
        strip.add(9, 3, Place::Absent);
        assert_eq!(
            places(strip),
            [
                (Place::Resident, true),
                (Place::Zero, false),
                (Place::Absent, true)
            ]
        );
    }

    #[test]
    fn a_strip_has_no_more_cells_than_pages() {
        let mut strip = Strip::new(2, 8);
        strip.add(1, 7, Place::Resident);
        strip.add(0, 1, Place::Zero);
        assert_eq!(
            places(strip),
            [(Place::Zero, false), (Place::Resident, true)]
        );
        assert_eq!(places(Strip::new(0, 8)), []);
    }

    #[test]
    fn every_page_is_in_one_cell() {
        for (pages, cells) in [(1, 1), (7, 3), (10, 7), (1 << 40, 192), (5, 192)] {
            let mut strip = Strip::new(pages, cells);
            strip.add(0, pages, Place::Zero);
            let sum: u64 = strip
                .counts
                .iter()
                .map(|counts| counts.iter().sum::<u64>())
                .sum();
            assert_eq!(sum, pages, "{pages} in {cells}");
            // As many by one page each.
            let mut one_by_one = Strip::new(pages.min(1000), cells);
            for page in 0..pages.min(1000) {
                one_by_one.add(page, 1, Place::Zero);
            }
            let mut at_once = Strip::new(pages.min(1000), cells);
            at_once.add(0, pages.min(1000), Place::Zero);
            assert_eq!(one_by_one.counts, at_once.counts, "{pages} in {cells}");
        }
    }
}
