//! Work that may be held up without an end, on a thread of its own, which is left behind then.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use super::sync::atomic::{AtomicU64, Ordering};
use super::sync::thread;

/// Has a thread do `work`, and waits until it is done. `None` where it did not get on for `longest`: `work` adds to the number that it is given
/// at each step that it has made. So it is where `work` panics.
///
/// # Errors
/// Where the system has no thread left.
pub fn attended<T: Send + 'static>(
    longest: Duration,
    work: impl FnOnce(&AtomicU64) -> T + Send + 'static,
) -> io::Result<Option<T>> {
    let (done, answer) = channel();
    let steps = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&steps);
    thread::Builder::new()
        .name("look".to_owned())
        .spawn(move || {
            // Where nobody waits any more nobody is to be told.
            let _ = done.send(work(&counted));
        })?;
    let mut before = 0;
    loop {
        match answer.recv_timeout(longest) {
            Ok(answer) => return Ok(Some(answer)),
            Err(RecvTimeoutError::Timeout) if steps.load(Ordering::Relaxed) > before => {
                before = steps.load(Ordering::Relaxed);
            }
            Err(_) => return Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn work_that_is_done_is_answered_and_a_panic_is_none() {
        let longest = Duration::from_secs(600);
        assert_eq!(attended(longest, |_| 5).unwrap(), Some(5));
        let fails = attended(longest, |_| -> u32 { panic!("a defect") });
        assert_eq!(fails.unwrap(), None);
    }

    #[test]
    fn work_that_is_held_up_is_left_behind() {
        let (_held, hold) = channel::<()>();
        let held_up = attended(Duration::from_millis(5), move |_| hold.recv().is_err());
        assert_eq!(held_up.unwrap(), None);
    }

    #[test]
    fn work_that_gets_on_is_waited_for_anew() {
        let longest = Duration::from_millis(200);
        let (_held, hold) = channel::<()>();
        let begun = Instant::now();
        let held_up = attended(longest, move |steps| {
            steps.fetch_add(1, Ordering::Relaxed);
            hold.recv().is_err()
        });
        assert_eq!(held_up.unwrap(), None);
        assert!(begun.elapsed() >= 2 * longest, "one step, and then none");
    }
}
