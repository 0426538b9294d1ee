//! Leases on files (fcntl(2), `F_SETLEASE`): opening a leased file breaks the lease, and the signal that
//! tells its holder kills who does not expect it.

use std::fs::File;
use std::io::{BufRead, BufReader};

use crate::mapping::Device;

/// Whether somebody holds a lease on the file that opening it for reading would break.
///
/// The kernel shows the leases of all processes of our PID namespace and of those below it
/// (proc_locks(5)). Where it shows none at all nobody can know, and an open goes ahead.
pub(super) fn would_break(device: Device, inode: u64, any_device: bool) -> bool {
    let Ok(locks) = File::open("/proc/locks") else {
        return false;
    };
    let wanted = |line: &[u8]| {
        lease(line)
            .is_some_and(|(found, number)| number == inode && (any_device || found == device))
    };
    let lines = BufReader::with_capacity(1 << 14, locks).split(b'\n');
    lines.map_while(Result::ok).any(|line| wanted(&line))
}

/// The file of a line of `/proc/locks`, if that is a lease that a reader breaks.
///
/// The kernel writes `NUMBER: LEASE STATE TYPE PID MAJOR:MINOR:INODE START END` (`lock_get_status` in
/// `fs/locks.c`). A lease for reading bears with readers, unless it is what is left of a broken one.
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
