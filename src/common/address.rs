//! Virtual addresses, ranges of them, and page arithmetic.

use std::fmt;

/// Size of a page in bytes.
///
/// All is counted in pages of this size: nothing is mounted where the kernel's have another.
pub const PAGE_SIZE: u64 = 4096;

/// A virtual address of some process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(u64);

impl Address {
    /// Wraps a raw address.
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// The raw number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The start of the page that holds this address.
    pub const fn page_start(self) -> Self {
        Self(self.0 & !(PAGE_SIZE - 1))
    }

    /// Bytes from here to the end of the page that holds this address (1 to [`PAGE_SIZE`]).
    pub const fn left_in_page(self) -> u64 {
        PAGE_SIZE - self.0 % PAGE_SIZE
    }

    /// The address `bytes` further on, held at the last one where that overflows.
    #[must_use]
    pub const fn plus(self, bytes: u64) -> Self {
        Self(self.0.saturating_add(bytes))
    }

    /// Bytes from `earlier` to here, 0 where `earlier` is not earlier.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:012x}", self.0)
    }
}

/// A half-open range of addresses, `start` included and `end` not; never inverted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AddressRange {
    start: Address,
    end: Address,
}

impl AddressRange {
    /// All addresses but the very last.
    pub const ALL: Self = Self {
        start: Address(0),
        end: Address(u64::MAX),
    };

    /// The range from `start` to `end`, or `None` where `end` lies before `start`.
    pub fn new(start: Address, end: Address) -> Option<Self> {
        (start <= end).then_some(Self { start, end })
    }

    /// First address.
    pub const fn start(self) -> Address {
        self.start
    }

    /// First address after the range.
    pub const fn end(self) -> Address {
        self.end
    }

    /// Length in bytes.
    pub const fn len(self) -> u64 {
        self.end.0 - self.start.0
    }

    /// Whether the range holds no byte.
    pub const fn is_empty(self) -> bool {
        self.end.0 == self.start.0
    }

    /// Whether `address` lies in the range.
    pub fn contains(self, address: Address) -> bool {
        self.start <= address && address < self.end
    }

    /// This range and `next` as one, if `next` starts where this one ends.
    pub fn joined(self, next: Self) -> Option<Self> {
        (self.end == next.start).then_some(Self {
            start: self.start,
            end: next.end,
        })
    }

    /// Adds this range after others, joined to the last where it is its neighbour.
    pub(crate) fn append_to(self, ranges: &mut Vec<Self>) {
        match ranges.last_mut().map(|last| (last.joined(self), last)) {
            Some((Some(joined), last)) => *last = joined,
            _ => ranges.push(self),
        }
    }

    /// What this range and `other` share; empty where they share nothing.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        let start = self.start.max(other.start).min(self.end);
        Self {
            start,
            end: self.end.min(other.end).max(start),
        }
    }

    /// The whole pages that hold this range.
    #[must_use]
    pub fn to_pages(self) -> Self {
        let end = self.end.plus(PAGE_SIZE - 1).page_start();
        Self {
            start: self.start.page_start(),
            end,
        }
    }

    /// The range's first `bytes` bytes; the whole of it where it is shorter.
    #[must_use]
    pub fn truncated(self, bytes: u64) -> Self {
        Self {
            start: self.start,
            end: self.start.plus(bytes).min(self.end),
        }
    }
}

/// `START-END` in lower-case hex, padded to 12 digits, so that names sort by address.
impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.start, self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_arithmetic() {
        let address = Address::new(0x1fff);
        assert_eq!(address.page_start(), Address::new(0x1000));
        assert_eq!(address.left_in_page(), 1);
        assert_eq!(Address::new(0x2000).left_in_page(), PAGE_SIZE);
        assert_eq!(Address::new(u64::MAX).plus(5), Address::new(u64::MAX));
        assert_eq!(Address::new(3).since(Address::new(5)), 0);
    }

    #[test]
    fn ranges_are_never_inverted() {
        assert!(AddressRange::new(Address::new(2), Address::new(1)).is_none());
        let range = AddressRange::new(Address::new(0x1000), Address::new(0x3000)).unwrap();
        assert_eq!(range.len(), 0x2000);
        assert!(range.contains(Address::new(0x2fff)));
        assert!(!range.contains(Address::new(0x3000)));
        assert_eq!(range.truncated(1).len(), 1);
        assert_eq!(range.truncated(u64::MAX), range);
        let next = AddressRange::new(Address::new(0x3000), Address::new(0x5001)).unwrap();
        assert_eq!(range.joined(next).unwrap().len(), 0x4001);
        assert!(next.joined(range).is_none());
        assert!(range.intersection(next).is_empty());
        assert_eq!(range.joined(next).unwrap().intersection(range), range);
        assert_eq!(next.to_pages().end(), Address::new(0x6000));
    }

    #[test]
    fn names_sort_by_address() {
        let low = AddressRange::new(Address::new(0x1000), Address::new(0x2000)).unwrap();
        let high = AddressRange::new(
            Address::new(0x7fff_0000_0000),
            Address::new(0x7fff_0000_1000),
        );
        assert_eq!(low.to_string(), "000000001000-000000002000");
        assert!(low.to_string() < high.unwrap().to_string());
    }
}
