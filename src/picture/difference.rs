//! What differs between two copies of a process, page by page.

use std::io;

use thiserror::Error;

use crate::backup::{Backup, SavedMapping};
use crate::common::address::{Address, AddressRange, PAGE_SIZE};

const PAGE: usize = PAGE_SIZE as usize;

/// Bytes of each copy that are compared at a time.
const STEP: u64 = 1 << 20;

/// Why two copies cannot be compared.
#[derive(Debug, Error)]
#[error("{name}: {error}")]
pub struct DifferenceError {
    /// The file of a mapping.
    pub name: String,
    /// What the file system says.
    #[source]
    pub error: io::Error,
}

/// Numbers of pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageCounts {
    /// In both, with the same bytes.
    pub same: u64,
    /// In both, with other bytes.
    pub changed: u64,
    /// In the new copy alone.
    pub came: u64,
    /// In the old copy alone.
    pub went: u64,
    /// In both, and not known: one of the copies could not be made of them, or cannot be read.
    pub unknown: u64,
}

impl PageCounts {
    /// Pages that are not as they were.
    pub fn moved(self) -> u64 {
        self.changed + self.came + self.went
    }

    /// Adds others.
    pub fn add(&mut self, other: Self) {
        self.same += other.same;
        self.changed += other.changed;
        self.came += other.came;
        self.went += other.went;
        self.unknown += other.unknown;
    }
}

/// What differs in one mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappingDifference {
    /// The name of its file: in the new copy, or in the old one where that alone has it.
    pub name: String,
    /// How many of its pages differ.
    pub pages: PageCounts,
}

/// What differs between two copies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Lowest address first.
    pub mappings: Vec<MappingDifference>,
}

impl Difference {
    /// All mappings together.
    pub fn totals(&self) -> PageCounts {
        let mut totals = PageCounts::default();
        for mapping in &self.mappings {
            totals.add(mapping.pages);
        }
        totals
    }
}

/// Compares the pages that `old` and `new` have at the same addresses. `progress` is told how many bytes of how many were
/// looked at.
///
/// What one mapping of the old copy alone has is counted with the mapping of the new one that lies in its place, as where a
/// heap has shrunk. What is a hole in both is the same.
///
/// # Errors
/// Where a file cannot be read for another reason than that its memory could not.
pub fn difference(
    old: &Backup,
    new: &Backup,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Difference, DifferenceError> {
    let mut comparison = Comparison {
        unknown: unreadable(&[old, new]),
        done: 0,
        total: new.mappings().map(|saved| saved.held().len()).sum(),
        progress,
    };
    let old: Vec<&SavedMapping> = old.mappings().collect();
    let mut rows: Vec<(Address, MappingDifference)> = Vec::new();
    for now in new.mappings() {
        let range = now.held();
        let mut pages = PageCounts::default();
        let mut in_both = 0;
        for before in overlapping(&old, range, SavedMapping::held) {
            let part = before.held().intersection(range);
            in_both += part.len();
            comparison.compare(before, now, part, &mut pages)?;
        }
        pages.came = (range.len() - in_both) / PAGE_SIZE;
        comparison.tell(range.len() - in_both);
        rows.push((now.range().start(), row(now, pages)));
    }
    let new: Vec<&SavedMapping> = new.mappings().collect();
    for before in old {
        let range = before.held();
        let in_both = overlapping(&new, range, SavedMapping::held)
            .map(|now| now.held().intersection(range).len());
        let went = (range.len() - in_both.sum::<u64>()) / PAGE_SIZE;
        if went == 0 {
            continue;
        }
        let heir = overlapping(&new, before.range(), SavedMapping::range).next();
        let heir = heir.and_then(|heir| {
            let start = heir.range().start();
            rows.iter_mut().find(|(at, _)| *at == start)
        });
        match heir {
            Some((_, row)) => row.pages.went += went,
            None => {
                let pages = PageCounts {
                    went,
                    ..PageCounts::default()
                };
                rows.push((before.range().start(), row(before, pages)));
            }
        }
    }
    rows.sort_by_key(|(at, _)| *at);
    Ok(Difference {
        mappings: rows.into_iter().map(|(_, row)| row).collect(),
    })
}

fn row(saved: &SavedMapping, pages: PageCounts) -> MappingDifference {
    MappingDifference {
        name: saved.name().to_owned(),
        pages,
    }
}

/// Those of `mappings`, which are in order, that share an address with `range`.
fn overlapping<'a>(
    mappings: &'a [&'a SavedMapping],
    range: AddressRange,
    extent: fn(&SavedMapping) -> AddressRange,
) -> impl Iterator<Item = &'a SavedMapping> {
    let first = mappings.partition_point(|saved| saved.range().end() <= range.start());
    mappings[first..]
        .iter()
        .take_while(move |saved| saved.range().start() < range.end())
        .copied()
        .filter(move |saved| !extent(saved).intersection(range).is_empty())
}

/// Pages that one of the copies could not be made of, in order and disjoint.
fn unreadable(copies: &[&Backup]) -> Vec<AddressRange> {
    let ranges = copies.iter().flat_map(|copy| &copy.record().unreadable);
    let mut ranges: Vec<_> = ranges.map(|range| range.to_pages()).collect();
    ranges.sort_by_key(|range| range.start());
    let mut joined: Vec<AddressRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start() <= last.end() => {
                let end = last.end().max(range.end());
                *last = AddressRange::new(last.start(), end).unwrap_or(*last);
            }
            _ => joined.push(range),
        }
    }
    joined
}

struct Comparison<'a> {
    /// What one of the copies could not be made of: in order and disjoint.
    unknown: Vec<AddressRange>,
    done: u64,
    total: u64,
    progress: &'a mut dyn FnMut(u64, u64),
}

impl Comparison<'_> {
    fn tell(&mut self, bytes: u64) {
        self.done += bytes;
        (self.progress)(self.done, self.total);
    }

    /// Compares the pages of `range`, which both have.
    fn compare(
        &mut self,
        old: &SavedMapping,
        new: &SavedMapping,
        range: AddressRange,
        pages: &mut PageCounts,
    ) -> Result<(), DifferenceError> {
        let next_data = |saved: &SavedMapping, at: Address| {
            let start = saved.range().start();
            start.plus(saved.next_data(at.since(start))).page_start()
        };
        let mut at = range.start();
        while at < range.end() {
            let data = next_data(old, at).min(next_data(new, at));
            let data = data.clamp(at, range.end());
            // What could not be copied is a hole, too.
            let hole = AddressRange::new(at, data).unwrap_or_default();
            let unknown = self.unknown_in(hole);
            pages.unknown += unknown;
            pages.same += hole.len() / PAGE_SIZE - unknown;
            let step = AddressRange::new(data, range.end())
                .unwrap_or_default()
                .truncated(STEP);
            if !step.is_empty() {
                self.compare_step(old, new, step, pages)?;
            }
            self.tell(step.end().since(at));
            at = step.end();
        }
        Ok(())
    }

    /// Pages of `range` that one of the copies could not be made of.
    fn unknown_in(&self, range: AddressRange) -> u64 {
        let first = self
            .unknown
            .partition_point(|unknown| unknown.end() <= range.start());
        let met = self.unknown[first..]
            .iter()
            .take_while(|unknown| unknown.start() < range.end());
        let bytes = met.map(|unknown| unknown.intersection(range).len());
        bytes.sum::<u64>() / PAGE_SIZE
    }

    fn is_unknown(&self, page: Address) -> bool {
        let end = page.plus(PAGE_SIZE);
        AddressRange::new(page, end).is_some_and(|page| self.unknown_in(page) > 0)
    }

    fn compare_step(
        &self,
        old: &SavedMapping,
        new: &SavedMapping,
        step: AddressRange,
        pages: &mut PageCounts,
    ) -> Result<(), DifferenceError> {
        let before = Bytes::read(old, step)?;
        let after = Bytes::read(new, step)?;
        for (index, page) in pages_of(step).enumerate() {
            let at = index * PAGE..(index + 1) * PAGE;
            let is_known = !before.unreadable[index] && !after.unreadable[index];
            if !is_known || self.is_unknown(page) {
                pages.unknown += 1;
            } else if before.bytes[at.clone()] == after.bytes[at] {
                pages.same += 1;
            } else {
                pages.changed += 1;
            }
        }
        Ok(())
    }
}

fn pages_of(range: AddressRange) -> impl Iterator<Item = Address> {
    let count = range.len() / PAGE_SIZE;
    (0..count).map(move |index| range.start().plus(index * PAGE_SIZE))
}

/// Pages of a copy.
struct Bytes {
    bytes: Vec<u8>,
    /// For each page whether it cannot be read: a file that was mapped has changed since the snapshot.
    unreadable: Vec<bool>,
}

impl Bytes {
    /// Reads `range` of a copy.
    fn read(saved: &SavedMapping, range: AddressRange) -> Result<Self, DifferenceError> {
        let offset = range.start().since(saved.range().start());
        let len = range.len() as usize;
        let mut read = Self {
            bytes: vec![0; len],
            unreadable: vec![false; len / PAGE],
        };
        if saved.read(offset, &mut read.bytes).is_ok() {
            return Ok(read);
        }
        for (index, page) in read.bytes.chunks_mut(PAGE).enumerate() {
            match saved.read(offset + (index * PAGE) as u64, page) {
                Ok(()) => (),
                Err(error) if error.raw_os_error() == Some(nix::libc::EIO) => {
                    read.unreadable[index] = true;
                }
                Err(error) => {
                    let name = saved.name().to_owned();
                    return Err(DifferenceError { name, error });
                }
            }
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::snapshot::ProcessRecord;

    struct Copy(tempfile::TempDir);

    impl Copy {
        fn new(unreadable: &[(u64, u64)]) -> Self {
            let copy = Self(tempfile::tempdir().unwrap());
            let range = |(start, end): &(u64, u64)| {
                AddressRange::new(Address::new(*start), Address::new(*end)).unwrap()
            };
            let record = ProcessRecord {
                pid: 7,
                unreadable: unreadable.iter().map(range).collect(),
                ..ProcessRecord::default()
            };
            copy.save("process", record.to_string().as_bytes());
            copy
        }

        fn save(&self, name: &str, bytes: &[u8]) -> &Self {
            std::fs::write(self.0.path().join(name), bytes).unwrap();
            self
        }

        /// A file with a page of `byte` for each letter; a blank is a hole.
        fn pages(&self, name: &str, letters: &str) -> &Self {
            use std::os::unix::fs::FileExt;
            let file = std::fs::File::create(self.0.path().join(name)).unwrap();
            file.set_len(letters.len() as u64 * PAGE_SIZE).unwrap();
            for (index, byte) in letters.bytes().enumerate() {
                if byte != b' ' {
                    let at = index as u64 * PAGE_SIZE;
                    file.write_all_at(&[byte; PAGE], at).unwrap();
                }
            }
            self
        }
    }

    fn compared(old: &Copy, new: &Copy) -> Vec<(String, [u64; 5])> {
        let old = Backup::open(old.0.path()).unwrap();
        let new = Backup::open(new.0.path()).unwrap();
        let mut last = (0, 0);
        let found = difference(&old, &new, &mut |done, total| last = (done, total)).unwrap();
        assert_eq!(last.0, last.1, "all was looked at");
        let rows = found.mappings.into_iter().map(|row| {
            let pages = row.pages;
            let counts = [
                pages.same,
                pages.changed,
                pages.came,
                pages.went,
                pages.unknown,
            ];
            let label = row.name.rsplit('.').next().unwrap().to_owned();
            (label, counts)
        });
        rows.collect()
    }

    fn named(rows: &[(&str, [u64; 5])]) -> Vec<(String, [u64; 5])> {
        let rows = rows.iter();
        rows.map(|(name, counts)| ((*name).to_owned(), *counts))
            .collect()
    }

    /// SEMANTICS: pages of two copies are the same, changed, come or gone.
    #[test]
    fn pages_are_the_same_changed_come_or_gone() {
        let (old, new) = (Copy::new(&[]), Copy::new(&[]));
        old.pages("000000010000-000000014000.rw-p.grows", "ab c")
            .pages("000000030000-000000034000.rw-p.shrinks", "abcd")
            .pages("000000050000-000000052000.rw-p.goes", "ab")
            .pages("000000070000-000000074000.rw-p.splits", "abcd");
        new.pages("000000010000-000000016000.rw-p.grows", "aX cYZ")
            .pages("000000030000-000000032000.rw-p.shrinks", "ab")
            .pages("000000060000-000000061000.rw-p.comes", " ")
            .pages("000000070000-000000072000.rw-p.splits", "ab")
            .pages("000000072000-000000074000.r--p.apart", "cX");
        assert_eq!(
            compared(&old, &new),
            named(&[
                ("grows", [3, 1, 2, 0, 0]),
                ("shrinks", [2, 0, 0, 2, 0]),
                ("goes", [0, 0, 0, 2, 0]),
                ("comes", [0, 0, 1, 0, 0]),
                ("splits", [2, 0, 0, 0, 0]),
                ("apart", [1, 1, 0, 0, 0]),
            ])
        );
        let same = compared(&new, &new);
        assert!(
            same.iter().all(|(_, counts)| counts[1..] == [0; 4]),
            "{same:?}"
        );
    }

    #[test]
    fn what_was_not_copied_is_not_known() {
        let (old, new) = (Copy::new(&[(0x11000, 0x12000)]), Copy::new(&[]));
        old.pages("000000010000-000000014000.rw-p.x", "a  b");
        new.pages("000000010000-000000014000.rw-p.x", "aX b");
        let x = |counts| named(&[("x", counts)]);
        assert_eq!(compared(&old, &new), x([3, 0, 0, 0, 1]));
        assert_eq!(compared(&new, &old), x([3, 0, 0, 0, 1]));
    }

    /// A file that ends in the middle of a page shows whole pages.
    #[test]
    fn the_end_of_a_file_is_filled_up() {
        let (old, new) = (Copy::new(&[]), Copy::new(&[]));
        old.save("000000010000-000000012000.r--p.x", &[b'a'; PAGE + 10]);
        new.save("000000010000-000000012000.r--p.x", &[b'a'; PAGE + 10]);
        assert_eq!(compared(&old, &new), named(&[("x", [2, 0, 0, 0, 0])]));
    }
}
