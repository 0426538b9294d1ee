//! What `/proc/PID/smaps` says of mappings beyond `maps`: their `VmFlags`, and how much of them is in memory and in swap.
//!
//! The kernel walks all page tables of the process for it, so it is read only where the answer depends on
//! it, and kept for as long as that pays.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::pinned::Pinned;
use crate::common::address::{Address, AddressRange};
use crate::common::aged::Aged;
use crate::common::clock::Clock;
use crate::common::error::Result;

/// An answer may be as old as reading it took, times this: at most a tenth of the time is spent on reading.
const COST_FACTOR: u32 = 10;

/// One mapping, by its lines in `smaps`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct VmaDetails {
    pub(crate) range: AddressRange,
    /// Pages of it that are in memory, in bytes.
    pub(crate) resident: u64,
    /// Those of them that are of no file.
    pub(crate) anonymous: u64,
    /// Pages of it that are in swap, in bytes.
    pub(crate) swapped: u64,
    /// Memory of a device: `io` (`VM_IO`).
    pub(crate) is_io: bool,
    /// The same, or `pf` (`VM_PFNMAP`).
    pub(crate) is_device: bool,
    /// Huge pages of hugetlbfs: `ht`.
    pub(crate) is_huge: bool,
    /// Left out of core dumps: `dd` (`VM_DONTDUMP`).
    pub(crate) is_left_out: bool,
    /// A `userfaultfd` fills in its absent pages: `um` (missing) or `ui` (minor).
    pub(crate) is_lazy: bool,
}

/// All mappings of a process, lowest address first.
#[derive(Debug, Default)]
pub(crate) struct Smaps(Vec<VmaDetails>);

impl Smaps {
    /// Reads all of it.
    ///
    /// # Errors
    /// As [`Pinned::lines`].
    pub(super) fn read(pinned: &Pinned) -> Result<Self> {
        let mut smaps = Self::default();
        pinned.lines("smaps", |line| {
            smaps.line(line);
            Ok(())
        })?;
        Ok(smaps)
    }

    /// All mappings, lowest address first.
    pub(super) fn vmas(&self) -> &[VmaDetails] {
        &self.0
    }

    /// The mapping at an address.
    pub(crate) fn at(&self, address: Address) -> Option<&VmaDetails> {
        let index = self.0.partition_point(|vma| vma.range.end() <= address);
        self.0.get(index).filter(|vma| vma.range.contains(address))
    }

    /// Takes the next line in, without its newline.
    pub(crate) fn line(&mut self, line: &[u8]) {
        if let Some(range) = range_of(line) {
            self.0.push(VmaDetails {
                range,
                ..VmaDetails::default()
            });
            return;
        }
        let Some(vma) = self.0.last_mut() else {
            return;
        };
        let bytes = |amount| kib(amount).unwrap_or(0).saturating_mul(1024);
        if let Some(flags) = line.strip_prefix(b"VmFlags:") {
            for flag in flags.split(|byte| *byte == b' ') {
                match flag {
                    b"io" => (vma.is_io, vma.is_device) = (true, true),
                    b"pf" => vma.is_device = true,
                    b"um" | b"ui" => vma.is_lazy = true,
                    b"ht" => vma.is_huge = true,
                    b"dd" => vma.is_left_out = true,
                    _ => (),
                }
            }
        } else if let Some(amount) = line.strip_prefix(b"Rss:") {
            vma.resident = bytes(amount);
        } else if let Some(amount) = line.strip_prefix(b"Anonymous:") {
            vma.anonymous = bytes(amount);
        } else if let Some(amount) = line.strip_prefix(b"Swap:") {
            vma.swapped = bytes(amount);
        }
    }
}

fn kib(amount: &[u8]) -> Option<u64> {
    let amount = std::str::from_utf8(amount).ok()?;
    amount.trim().strip_suffix(" kB")?.trim().parse().ok()
}

/// The range that a mapping's first line begins with. Other lines begin with a capital letter.
fn range_of(line: &[u8]) -> Option<AddressRange> {
    if line.first()?.is_ascii_uppercase() {
        return None;
    }
    let end = line.iter().position(|byte| *byte == b' ')?;
    let (start, end) = std::str::from_utf8(&line[..end]).ok()?.split_once('-')?;
    let hex = |digits| u64::from_str_radix(digits, 16).ok().map(Address::new);
    AddressRange::new(hex(start)?, hex(end)?)
}

/// `smaps` as it was a moment ago.
#[derive(Debug)]
pub(super) struct RecentSmaps {
    clock: Arc<dyn Clock>,
    /// Guards what was read last. It is not held while `smaps` is read, and nothing is locked inside it.
    recent: Mutex<Option<Aged<Arc<Smaps>>>>,
}

impl RecentSmaps {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            recent: Mutex::new(None),
        }
    }

    /// What it says of the mapping that was seen at `range` just now; `None` where there is none any more.
    ///
    /// # Errors
    /// As [`Smaps::read`].
    pub(super) fn details(
        &self,
        pinned: &Pinned,
        range: AddressRange,
    ) -> Result<Option<VmaDetails>> {
        let now = self.clock.now();
        let recent = self.recent.lock().clone();
        if let Some(recent) = recent.filter(|smaps| smaps.is_within(now, Duration::ZERO, COST_FACTOR))
            && let Some(found) = recent.value().at(range.start())
            // Else it may be another one by now.
            && found.range == range
        {
            return Ok(Some(*found));
        }
        // It may have grown meanwhile.
        Ok(self.renewed(pinned)?.at(range.start()).copied())
    }

    /// All of it as it is now.
    ///
    /// # Errors
    /// As [`Smaps::read`].
    pub(super) fn renewed(&self, pinned: &Pinned) -> Result<Arc<Smaps>> {
        let smaps = Aged::try_find(&*self.clock, || Smaps::read(pinned))?.map(Arc::new);
        let found = Arc::clone(smaps.value());
        *self.recent.lock() = Some(smaps);
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, end: u64) -> AddressRange {
        AddressRange::new(Address::new(start), Address::new(end)).unwrap()
    }

    #[test]
    fn flags_and_swap_are_those_of_the_mapping_above_them() {
        let text = b"\
1000-2000 rw-s 00000000 00:05 9    /dev/dri/card0-1\n\
Size:                  4 kB\n\
VmFlags: rd wr sh mr mw me ms pf io de dd sd\n\
5000-6000 rw-p 00000000 00:00 0\n\
Rss:                   4 kB\n\
Anonymous:             8 kB\n\
Swap:                 12 kB\n\
SwapPss:              99 kB\n\
VmFlags: rd wr mr mw me ac sd\n\
6000-9000 rw-p 00000000 00:00 0\n\
VmFlags: rd wr um ac ht sd\n\
7ffff000-80000000 rw-s 00000000 00:05 9    anon_inode:[x]\n\
VmFlags: rd pf\n";
        let mut smaps = Smaps::default();
        for line in text.split(|byte| *byte == b'\n') {
            smaps.line(line);
        }
        let devices: Vec<bool> = smaps.0.iter().map(|vma| vma.is_device).collect();
        assert_eq!(devices, [true, false, false, true]);
        let left_out: Vec<bool> = smaps.0.iter().map(|vma| vma.is_left_out).collect();
        assert_eq!(left_out, [true, false, false, false]);
        let huge: Vec<bool> = smaps.0.iter().map(|vma| vma.is_huge).collect();
        assert_eq!(huge, [false, false, true, false]);
        let io: Vec<bool> = smaps.0.iter().map(|vma| vma.is_io).collect();
        assert_eq!(io, [true, false, false, false]);
        let lazy: Vec<bool> = smaps.0.iter().map(|vma| vma.is_lazy).collect();
        assert_eq!(lazy, [false, false, true, false]);
        let at = |address| smaps.at(Address::new(address));
        assert_eq!(at(0x5000).unwrap().swapped, 12 << 10);
        assert_eq!(at(0x5000).unwrap().resident, 4 << 10);
        assert_eq!(at(0x5000).unwrap().anonymous, 8 << 10);
        assert_eq!(at(0x8fff).unwrap().swapped, 0);
        assert_eq!(at(0x8fff).unwrap().range, range(0x6000, 0x9000));
        assert_eq!([at(0), at(0x2000), at(0x9000)], [None; 3]);
    }

    #[test]
    fn no_amount_is_too_large() {
        let mut smaps = Smaps::default();
        smaps.line(b"1000-2000 rw-p 00000000 00:00 0");
        smaps.line(b"Swap: 18446744073709551615 kB");
        assert_eq!(smaps.at(Address::new(0x1000)).unwrap().swapped, u64::MAX);
    }
}
