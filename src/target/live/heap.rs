//! The heap of this program.

/// Gives the system back what was freed and is kept for later (malloc_trim(3)). glibc does so by itself at the end of a heap
/// alone, and something that lives on always lies there.
pub(crate) fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no pointer is passed, and memory in use is left alone.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}
