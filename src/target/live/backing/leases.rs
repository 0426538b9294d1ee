//! Leases on files (fcntl(2), `F_SETLEASE`): opening a leased file breaks the lease, and the signal that
//! tells its holder kills who does not expect it.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::common::aged::Aged;
use crate::common::clock::Clock;
use crate::target::mapping::Device;

/// How long the leases that were seen are believed.
///
/// To read them the kernel waits for all its processors, some ten milliseconds (`percpu_down_write` of
/// `file_rwsem` in `fs/locks.c`). And few leases are seen here at all: one for writing is only given
/// where the file is open once, so its holder shares the open file that is mapped; of a
/// process that has a descriptor of it that one is copied, and nothing is opened.
const LIFETIME: Duration = Duration::from_secs(1);

/// Files, each by its device and inode.
type Files = Vec<(Device, u64)>;

/// Leases that a reader breaks, as they were a moment ago.
#[derive(Debug)]
pub(in crate::target::live) struct Leases {
    clock: Arc<dyn Clock>,
    /// Guards what was read last. It is held while they are read again, so that this is done once; nothing is
    /// locked inside it.
    recent: Mutex<Option<Aged<Files>>>,
}

impl Leases {
    pub(in crate::target::live) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            recent: Mutex::new(None),
        }
    }

    /// Whether somebody holds a lease on the file that opening it for reading would break.
    ///
    /// The kernel shows the leases of all processes of our PID namespace and of those below it
    /// (proc_locks(5)). Where it shows none at all nobody can know, and an open goes ahead.
    pub(super) fn would_break(&self, device: Device, inode: u64) -> bool {
        // Of a file of a stacked file system the one below is opened, too, which has another device.
        let any_device = device.major == 0;
        let is_it =
            |(found, number): &(Device, u64)| *number == inode && (any_device || *found == device);
        let now = self.clock.now();
        let mut recent = self.recent.lock();
        if recent
            .as_ref()
            .is_some_and(|leases| leases.age(now) >= LIFETIME)
        {
            *recent = None;
        }
        let leases = recent.get_or_insert_with(|| Aged::find(&*self.clock, read_leases));
        leases.value().iter().any(is_it)
    }
}

fn read_leases() -> Files {
    let Ok(locks) = File::open("/proc/locks") else {
        return Vec::new();
    };
    let lines = BufReader::with_capacity(1 << 14, locks).split(b'\n');
    let lines = lines.map_while(Result::ok);
    lines.filter_map(|line| lease(&line)).collect()
}

/// The file of a line of `/proc/locks`, if that is a lease that a reader breaks.
///
/// The kernel writes `NUMBER: LEASE STATE TYPE PID MAJOR:MINOR:INODE START END` (`lock_get_status` in
/// `fs/locks.c`). A lease for reading lets others read, unless it is what is left of a broken one.
fn lease(line: &[u8]) -> Option<(Device, u64)> {
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line
        .split_ascii_whitespace()
        .skip(1)
        .skip_while(|word| *word == "->");
    let is_lease = matches!(words.next()?, "LEASE" | "DELEG");
    let (state, kind) = (words.next()?, words.next()?);
    let place = words.nth(1)?;
    if !is_lease || (state == "ACTIVE" && kind == "READ") {
        return None;
    }
    let mut parts = place.splitn(3, ':');
    let mut hex = || u32::from_str_radix(parts.next()?, 16).ok();
    let device = Device {
        major: hex()?,
        minor: hex()?,
    };
    Some((device, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_that_a_reader_breaks_are_found_among_all_locks() {
        let found = |line: &str| lease(line.as_bytes());
        let file = Some((
            Device {
                major: 0xfe,
                minor: 1,
            },
            4711,
        ));
        assert_eq!(
            found("1: LEASE  ACTIVE    WRITE 812 fe:01:4711 0 EOF"),
            file
        );
        assert_eq!(
            found("2: LEASE  BREAKING  READ  812 fe:01:4711 0 EOF"),
            file
        );
        assert_eq!(
            found("3: DELEG  ACTIVE    WRITE 812 fe:01:4711 0 EOF"),
            file
        );
        assert_eq!(
            found("3: -> LEASE  BREAKER    WRITE 812 fe:01:4711 0 EOF"),
            file
        );
        assert_eq!(
            found("4: LEASE  ACTIVE    READ  812 fe:01:4711 0 EOF"),
            None
        );
        assert_eq!(
            found("5: POSIX  ADVISORY  WRITE 812 fe:01:4711 0 EOF"),
            None
        );
        assert_eq!(found("6: FLOCK  ADVISORY  WRITE 812 <none>:0 0 EOF"), None);
        assert_eq!(found(""), None);
    }
}
