//! Copying while a process still runs, so that it stands still for what it writes meanwhile only.

use super::capture::{Subject, mappings};
use super::copy::copy;
use super::layout::Prepared;
use super::watch::Watch;
use crate::common::error::{Error, Result};
use crate::target::WriteTracker;

/// Copies the private memory of a process into what is prepared, after a first short stop from which on its writes are tracked;
/// `None` where that is not possible, and then all is copied while it stands still.
///
/// # Errors
/// `Interrupted`, `Unstoppable`, and what the memory says.
pub(super) fn precopy(
    subject: &Subject,
    prepared: &mut Prepared,
    waiting_thread: i32,
    watch: &Watch,
) -> Result<Option<Box<dyn WriteTracker>>> {
    let pid = subject.info.identity.pid;
    watch.advance()?;
    // Why it cannot be stopped is told when it is tried again.
    let Ok(stopped) = subject.process.stop() else {
        return Ok(None);
    };
    // A thread that is in the kernel may be about to write.
    if !stopped.stands_still(waiting_thread) {
        return Ok(None);
    }
    let mappings = mappings(&*subject.process)?;
    let (ranges, targets) = prepared.private(&mappings);
    if ranges.is_empty() {
        return Ok(None);
    }
    let tracked = stopped.track_writes(&mappings, &ranges, &|| watch.advance());
    drop(stopped);
    let tracker = match tracked {
        Err(Error::Untracked(_, why)) => {
            log::info!("{pid}: it stands still while it is copied, in spite of -o inject: {why}");
            return Ok(None);
        }
        tracked => tracked?,
    };
    let unreadable = copy(&*subject.memory, targets, watch)?;
    prepared.set_copied(unreadable);
    Ok(Some(tracker))
}
