//! Copying while a process still runs, so that it stands still for what it writes meanwhile only.

use std::sync::Arc;

use super::capture::Subject;
use super::copy::copy;
use super::layout::Prepared;
use super::watch::Watch;
use crate::common::error::{Error, Result};
use crate::target::WriteTracker;
use crate::target::mapping::Mapping;

/// Copies the private memory of a process into what is prepared, after a first short stop from which on its writes are tracked;
/// `None` where that is not possible, and then all is copied while it stands still.
///
/// # Errors
/// `Interrupted`, and what the memory says.
pub(super) fn precopy(
    subject: &Subject,
    mappings: &[Arc<Mapping>],
    prepared: &mut Prepared,
    waiting_thread: i32,
    watch: &Watch,
) -> Result<Option<Box<dyn WriteTracker>>> {
    let pid = subject.info.identity.pid;
    watch.advance()?;
    let (ranges, targets) = prepared.private();
    if ranges.is_empty() {
        return Ok(None);
    }
    // It goes on at the end of this statement.
    let tracked = subject.process.stop().and_then(|stopped| {
        match stopped.stands_still(waiting_thread) {
            true => stopped.track_writes(mappings, &ranges),
            // A thread that is in the kernel may be about to write.
            false => Err(Error::Unstoppable(pid)),
        }
    });
    let tracker = match tracked {
        Ok(tracker) => tracker,
        // With a line of its own, or that is tried again and told of then.
        Err(Error::Untracked(_, why)) => {
            log::info!("{pid}: it stands still while it is copied, in spite of -o inject: {why}");
            return Ok(None);
        }
        Err(error) => {
            log::debug!("{pid}: it stands still while it is copied: {error}");
            return Ok(None);
        }
    };
    let unreadable = copy(&*subject.memory, targets, watch)?;
    prepared.set_copied(unreadable);
    Ok(Some(tracker))
}
