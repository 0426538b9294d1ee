//! Defects that show in one request, and must not take a thread from all others.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Does `work`, and returns whether it came to its end; a panic is logged, and goes no further.
///
/// What `work` has begun stays as it is: locks are given back, and whatever it owned is dropped.
pub(crate) fn contained(work: impl FnOnce()) -> bool {
    let end = catch_unwind(AssertUnwindSafe(work));
    if end.is_err() {
        log::error!("a defect of procmemfs showed in a request; please report it");
    }
    end.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_goes_no_further() {
        assert!(contained(|| ()));
        assert!(!contained(|| panic!("a defect")));
    }
}
