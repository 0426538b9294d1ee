//! Entries of `/proc/PID/pagemap`: what the kernel's page table says of one page.
//!
//! `PAGEMAP_SCAN` calls each entry that is neither empty nor present `PAGE_IS_SWAPPED`. Few of them need to
//! be in swap: markers of `userfaultfd` write protection stand where there never was a page, others stand for
//! poison and guard pages. The entries themselves tell them apart. See
//! `Documentation/admin-guide/mm/pagemap.rst`, `fs/proc/task_mmu.c` and `include/linux/swapops.h`.

use super::EntryState;

/// A page is in memory.
const PRESENT: u64 = 1 << 63;
/// The entry is neither empty nor present.
const NOT_PRESENT: u64 = 1 << 62;
/// `MADV_GUARD_INSTALL` (since Linux 6.15).
const GUARD: u64 = 1 << 58;
/// `userfaultfd` write protection.
const WRITE_PROTECTED: u64 = 1 << 57;
/// The page frame number; of an entry that is not present its type and offset. Zeros without `CAP_SYS_ADMIN`.
const FRAME: u64 = (1 << 55) - 1;

/// Bits of the type of an entry that is not present (`MAX_SWAPFILES_SHIFT`).
const TYPE_BITS: u32 = 5;
/// Types from here on are none of a swap area: there are eight of other kinds, if the kernel has them all
/// (`MAX_SWAPFILES`), and nobody has as many swap areas as remain.
const FIRST_SPECIAL: u64 = 23;
/// The last type is that of markers, which hold flags where others hold the number of a page frame.
const MARKER: u64 = 31;
/// All flags of markers; no page of a process has so low a number.
const MARKER_FLAGS: u64 = 0b111;
/// `PTE_MARKER_POISONED`, `PTE_MARKER_GUARD`.
const UNREADABLE_MARKERS: u64 = 0b110;

/// The state that `entry` shows, `None` where no page is there.
///
/// `is_poisoned` says of a page frame whether its memory is broken (`hwpoison`).
pub(super) fn state(entry: u64, is_poisoned: impl Fn(u64) -> bool) -> Option<EntryState> {
    if entry & PRESENT != 0 {
        return Some(EntryState::Present);
    }
    if entry & GUARD != 0 {
        return Some(EntryState::Unreadable);
    }
    if entry & NOT_PRESENT == 0 {
        return None;
    }
    let frame = entry & FRAME;
    let (kind, offset) = (frame & ((1 << TYPE_BITS) - 1), frame >> TYPE_BITS);
    if frame == 0 {
        // Hidden from us. Only what is write-protected can be the marker of a page that never was.
        return Some(match entry & WRITE_PROTECTED {
            0 => EntryState::Swapped,
            _ => EntryState::MaybeSwapped,
        });
    }
    match kind {
        MARKER if offset <= MARKER_FLAGS => {
            (offset & UNREADABLE_MARKERS != 0).then_some(EntryState::Unreadable)
        }
        FIRST_SPECIAL.. if is_poisoned(offset) => Some(EntryState::Unreadable),
        // In swap; or on its way to another place (migration), or in a device that hands it back to who reads it.
        _ => Some(EntryState::Swapped),
    }
}

/// The frame of a page that is in memory, if it is shown to us.
pub(super) fn frame(entry: u64) -> Option<u64> {
    let frame = entry & FRAME;
    (entry & PRESENT != 0 && frame != 0).then_some(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn not_present(kind: u64, offset: u64) -> u64 {
        NOT_PRESENT | kind | offset << TYPE_BITS
    }

    /// SEMANTICS: markers are not swap.
    #[test]
    fn markers_are_told_from_swap() {
        let of = |entry| state(entry, |frame| frame == 0x666);
        assert_eq!(of(0), None);
        assert_eq!(of(PRESENT | 0x1234), Some(EntryState::Present));
        assert_eq!(of(PRESENT), Some(EntryState::Present), "without frames");
        assert_eq!(of(not_present(0, 1)), Some(EntryState::Swapped));
        assert_eq!(of(not_present(22, 99)), Some(EntryState::Swapped));
        let write_protection = not_present(31, 1) | WRITE_PROTECTED;
        assert_eq!(of(write_protection), None);
        assert_eq!(
            of(not_present(31, 2)),
            Some(EntryState::Unreadable),
            "poison"
        );
        assert_eq!(
            of(not_present(31, 3)),
            Some(EntryState::Unreadable),
            "poison, protected"
        );
        assert_eq!(
            of(not_present(31, 4)),
            Some(EntryState::Unreadable),
            "guard"
        );
        assert_eq!(
            of(not_present(26, 0x1234)),
            Some(EntryState::Swapped),
            "migration"
        );
        assert_eq!(
            of(not_present(31, 0x1234)),
            Some(EntryState::Swapped),
            "a kernel without markers"
        );
        assert_eq!(
            of(not_present(24, 0x666)),
            Some(EntryState::Unreadable),
            "broken memory"
        );
        assert_eq!(
            of(not_present(3, 0x666)),
            Some(EntryState::Swapped),
            "an offset in swap"
        );
    }

    /// SEMANTICS: markers are not swap.
    #[test]
    fn who_sees_no_frames_is_told_less() {
        let of = |entry| state(entry, |_| unreachable!("no frame is known"));
        assert_eq!(of(NOT_PRESENT), Some(EntryState::Swapped));
        assert_eq!(
            of(NOT_PRESENT | WRITE_PROTECTED),
            Some(EntryState::MaybeSwapped)
        );
        assert_eq!(of(NOT_PRESENT | GUARD), Some(EntryState::Unreadable));
        assert_eq!(of(WRITE_PROTECTED), None, "a huge page's marker");
    }
}
