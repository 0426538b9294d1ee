//! Lists of ranges that lie in order and apart.

use crate::common::address::{Address, AddressRange};

/// What two lists of ranges, each in order, have in common.
pub(super) fn in_both(ranges: &[AddressRange], others: &[AddressRange]) -> Vec<AddressRange> {
    let mut common = Vec::new();
    let (mut one, mut other) = (0, 0);
    while let (Some(first), Some(second)) = (ranges.get(one), others.get(other)) {
        let start = first.start().max(second.start());
        add(&mut common, start, first.end().min(second.end()));
        match first.end() <= second.end() {
            true => one += 1,
            false => other += 1,
        }
    }
    common
}

/// What is left of ranges without others; both lie in order.
pub(super) fn without(ranges: &[AddressRange], others: &[AddressRange]) -> Vec<AddressRange> {
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
    fn what_two_lists_have_in_common_is_in_both() {
        let ranges = [range(10, 20), range(30, 40)];
        let table: [(&[AddressRange], &[AddressRange]); 5] = [
            (&[], &[]),
            (&[range(0, 50)], &ranges),
            (&[range(20, 30)], &[]),
            (
                &[range(12, 14), range(19, 31), range(33, 34)],
                &[range(12, 14), range(19, 20), range(30, 31), range(33, 34)],
            ),
            (
                &[range(0, 15), range(35, 60)],
                &[range(10, 15), range(35, 40)],
            ),
        ];
        for (others, expected) in table {
            assert_eq!(in_both(&ranges, others), expected, "{others:?}");
            assert_eq!(in_both(others, &ranges), expected, "{others:?}");
        }
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
