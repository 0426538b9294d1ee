//! Where a thread goes on with what others wait for.
//!
//! A thread that has served a request may do what waits meanwhile, and wait for a target itself. Whatever it still keeps of its own
//! request has to go before that: an answer that it was about to give is nobody's else.

use std::cell::RefCell;

thread_local! {
    static FIRST: RefCell<Option<Box<dyn Fn()>>> = const { RefCell::new(None) };
}

/// Has this thread do something before it goes on with the work of others, each time.
pub(crate) fn first(what: impl Fn() + 'static) {
    FIRST.set(Some(Box::new(what)));
}

/// Is called by a thread that is about to do the work of others, which may take for ever.
pub(crate) fn begins() {
    FIRST.with_borrow(|what| {
        if let Some(what) = what {
            what();
        }
    });
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;

    #[test]
    fn what_was_kept_goes_first_each_time() {
        let times = Rc::new(Cell::new(0));
        begins();
        let counted = Rc::clone(&times);
        first(move || counted.set(counted.get() + 1));
        assert_eq!(times.get(), 0);
        begins();
        begins();
        assert_eq!(times.get(), 2);
    }
}
