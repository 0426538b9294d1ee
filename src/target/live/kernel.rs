//! What the kernel as a whole says, so that single processes need not be asked.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The slabs that hold every `userfaultfd` of the system (`fs/userfaultfd.c`); for root alone. That cache
/// has a constructor, so it is never merged with another one.
const USERFAULT_SLABS: &str = "/sys/kernel/slab/userfaultfd_ctx_cache/slabs";

/// Whether some process may have a `userfaultfd`: yes, where that is not known.
pub(super) fn may_have_userfaultfd() -> bool {
    static SLABS: OnceLock<Option<File>> = OnceLock::new();
    let Some(file) = SLABS.get_or_init(|| File::open(USERFAULT_SLABS).ok()) else {
        return true;
    };
    let mut text = [0; 2];
    // "0", or a number and where these slabs are: "1 N0=1".
    match file.read_at(&mut text, 0) {
        Ok(2) => text != *b"0\n",
        _ => true,
    }
}

/// When the system started, by the clocks of today, in time since the epoch; `None` where they contradict each other.
pub(super) fn boot_time() -> Option<Duration> {
    let time = |clock| {
        let time = clock_gettime(clock);
        let seconds = u64::try_from(time.tv_sec).ok()?;
        Some(Duration::new(seconds, u32::try_from(time.tv_nsec).ok()?))
    };
    time(ClockId::Realtime)?.checked_sub(time(ClockId::Boottime)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_started_before_now() {
        let now = std::time::SystemTime::now();
        let now = now.duration_since(std::time::UNIX_EPOCH).unwrap();
        assert!(boot_time().unwrap() < now);
    }
}
