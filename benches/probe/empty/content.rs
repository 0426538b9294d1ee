//! What all the files hold: noise, in the whole file or in some of its pages.

use std::cell::RefCell;

use procmemfs::transport::MAX_REQUEST;

use super::super::scattered::scattered;
use super::super::{Noise, PAGE, SEED};

/// After so many bytes the noise comes again. Few enough that what is sent stays
/// in the CPU's cache, and as long as no page is like its neighbour.
const PERIOD: usize = 1 << 16;

const PAGE_SIZE: u64 = PAGE as u64;

thread_local! {
    /// Where answers that have holes are put together. All zeros in between.
    static ANSWER: RefCell<Vec<u8>> = RefCell::new(vec![0; MAX_REQUEST as usize]);
}

/// The bytes of a file, and where there are any.
pub(in super::super) struct Content {
    size: u64,
    /// A request can begin anywhere in the period, so there is one more than the longest takes.
    /// Noise as in the targets, since how fast a tool searches depends on what it meets.
    noise: Vec<u8>,
    /// The offsets of the pages that are no hole; `None` where there is no hole.
    pages: Option<Vec<u64>>,
}

impl Content {
    pub(in super::super) fn full(size: u64) -> Self {
        Self::new(size, None)
    }

    /// Data in the same places as in a target that reserves as much and uses as many pages.
    pub(in super::super) fn sparse(size: u64, pages: u64) -> Self {
        Self::new(size, Some(scattered(size, pages).collect()))
    }

    fn new(size: u64, pages: Option<Vec<u64>>) -> Self {
        let mut noise = Noise(SEED);
        let words = (0..PERIOD / size_of::<u64>()).flat_map(|_| noise.next().to_ne_bytes());
        let mut noise: Vec<u8> = words.collect();
        for at in 0..MAX_REQUEST as usize {
            noise.push(noise[at]);
        }
        Self { size, noise, pages }
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Bytes that are no holes.
    pub(super) fn held(&self) -> u64 {
        let pages = self.pages.as_ref();
        pages.map_or(self.size, |pages| pages.len() as u64 * PAGE_SIZE)
    }

    /// Hands over what a read of `wanted` bytes from `offset` on gets.
    pub(super) fn read(&self, offset: u64, wanted: u32, give: impl FnOnce(&[u8])) {
        let len = self.size.saturating_sub(offset).min(wanted.into());
        let Some(pages) = &self.pages else {
            return give(self.noise_at(offset, len as usize));
        };
        let end = offset + len;
        let met = pages[first_behind(pages, offset)..].iter();
        let met = met
            .take_while(|page| **page < end)
            .map(|page| ((*page).max(offset), (page + PAGE_SIZE).min(end)));
        ANSWER.with_borrow_mut(|answer| {
            let place = |(from, to)| (from - offset) as usize..(to - offset) as usize;
            for part in met.clone() {
                let range = place(part);
                let noise = self.noise_at(part.0, range.len());
                answer[range].copy_from_slice(noise);
            }
            give(&answer[..len as usize]);
            for part in met {
                answer[place(part)].fill(0);
            }
        });
    }

    fn noise_at(&self, offset: u64, len: usize) -> &[u8] {
        &self.noise[offset as usize % PERIOD..][..len]
    }

    /// Where data begins, from `offset` on; `None` where there is no more.
    pub(super) fn data(&self, offset: u64) -> Option<u64> {
        let start = match &self.pages {
            None => offset,
            Some(pages) => offset.max(*pages.get(first_behind(pages, offset))?),
        };
        (start < self.size).then_some(start)
    }

    /// Where a hole begins, from `offset` on: the end is one, too.
    pub(super) fn hole(&self, offset: u64) -> Option<u64> {
        let start = match &self.pages {
            None => self.size,
            Some(pages) => {
                let mut start = offset;
                for page in &pages[first_behind(pages, offset)..] {
                    if *page > start {
                        break;
                    }
                    start = page + PAGE_SIZE;
                }
                start
            }
        };
        (offset < self.size).then_some(start)
    }
}

/// Which of the pages is the first that does not lie before `offset` as a whole.
fn first_behind(pages: &[u64], offset: u64) -> usize {
    pages.partition_point(|page| page + PAGE_SIZE <= offset)
}
