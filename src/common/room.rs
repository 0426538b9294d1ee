//! Room for what is large and soon gone.

/// Bytes from which on something is large.
const LARGE: usize = 64 << 10;

/// Bytes that an allocator never takes from the heap that it shares out, but maps by themselves (glibc:
/// `DEFAULT_MMAP_THRESHOLD_MAX`, 32 MiB; musl: 128 KiB): they take memory as they are touched, and it goes
/// back at once. Whatever is smaller can be kept for later by each thread that once needed it, and is kept
/// where anything that was allocated after it still lives.
///
/// What is plain bytes is mapped outright (`cache::pages::slab`); a `Vec` takes its memory from the allocator alone.
const MAPPED: usize = 33 << 20;

/// Moves what has become large to where only what is filled takes memory, if the system has room for that.
pub(crate) fn make_room<T>(vector: &mut Vec<T>) {
    let bytes = |elements| elements * size_of::<T>();
    if bytes(vector.len()) >= LARGE && bytes(vector.capacity()) < MAPPED {
        let _ = vector.try_reserve_exact(MAPPED.div_ceil(size_of::<T>()) - vector.len());
    }
}

/// Whether the allocator has so many bytes now: for what cannot be told later that it has not.
pub(crate) fn has_room(bytes: usize) -> bool {
    let mut probe = Vec::<u8>::new();
    let is_there = probe.try_reserve_exact(bytes).is_ok();
    // Else the compiler may do without it.
    std::hint::black_box(&mut probe);
    is_there
}

/// Whether the system maps memory for one thread more: Rust ends the program where a thread that runs already gets none for
/// its stack of signals.
pub(crate) fn has_room_for_a_thread() -> bool {
    memmap2::MmapMut::map_anon(MAPPED).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_so_much_and_no_more() {
        assert!(has_room(LARGE) && has_room_for_a_thread());
        assert!(!has_room(isize::MAX as usize));
    }

    #[test]
    fn what_is_large_is_mapped_by_itself() {
        let mut numbers = vec![1_u64; LARGE / 8 - 1];
        make_room(&mut numbers);
        assert!(numbers.capacity() * 8 < MAPPED);
        numbers.push(2);
        make_room(&mut numbers);
        let room = numbers.capacity();
        assert!(room * 8 >= MAPPED);
        assert_eq!(numbers[LARGE / 8 - 2..], [1, 2]);
        make_room(&mut numbers);
        assert_eq!(numbers.capacity(), room, "once");
    }
}
