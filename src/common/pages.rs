//! Comparing memory page by page.

use std::ops::Range;

use super::address::PAGE_SIZE;

/// Runs of pages that are the same in both, or differ, as the flag says; the last page may be a part of one.
pub(crate) fn compared(one: &[u8], other: &[u8]) -> Vec<(Range<usize>, bool)> {
    let page = PAGE_SIZE as usize;
    let mut runs: Vec<(Range<usize>, bool)> = Vec::new();
    let pages = one.chunks(page).zip(other.chunks(page));
    for (number, (one, other)) in pages.enumerate() {
        let start = number * page;
        let (end, same) = (start + one.len(), one == other);
        match runs.last_mut() {
            Some((run, is_same)) if *is_same == same => run.end = end,
            _ => runs.push((start..end, same)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_one_run() {
        const PAGE: usize = PAGE_SIZE as usize;
        let one = vec![1; 4 * PAGE + 8];
        let mut other = one.clone();
        assert_eq!(compared(&one, &other), [(0..one.len(), true)]);
        other[PAGE] = 2;
        other[3 * PAGE - 1] = 2;
        other[4 * PAGE + 7] = 2;
        let runs = [
            (0..PAGE, true),
            (PAGE..3 * PAGE, false),
            (3 * PAGE..4 * PAGE, true),
            (4 * PAGE..one.len(), false),
        ];
        assert_eq!(compared(&one, &other), runs);
        assert_eq!(compared(&[], &[]), []);
    }
}
