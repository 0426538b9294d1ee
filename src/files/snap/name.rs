//! Names of snapshots: `PID@NAME`, `PID+PID@NAME`.

use std::time::{Duration, SystemTime};

use crate::common::error::{Error, Result};
use crate::target::ProcessId;

/// The longest name (NAME_MAX).
const LONGEST: usize = 255;

/// Processes that are copied together.
const MOST: usize = 64;

/// What is to be copied, and how it is to be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SnapshotName {
    /// The processes, lowest number first, each once: one at least.
    pub(crate) processes: Vec<ProcessId>,
    /// What comes before the `@`, and that.
    pub(super) prefix: String,
    /// What comes after it; empty where it is to be chosen.
    pub(super) name: String,
}

impl SnapshotName {
    /// Reads a name that somebody wants to give.
    ///
    /// # Errors
    /// `SnapshotName`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let (numbers, name) = text.split_once('@').ok_or(Error::SnapshotName)?;
        let is_printable = name.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_printable || text.len() > LONGEST {
            return Err(Error::SnapshotName);
        }
        let processes: Option<Vec<_>> = numbers.split('+').map(ProcessId::parse).collect();
        let mut processes = processes.ok_or(Error::SnapshotName)?;
        processes.sort_unstable();
        processes.dedup();
        if processes.len() > MOST {
            return Err(Error::SnapshotName);
        }
        Ok(Self {
            processes,
            prefix: format!("{numbers}@"),
            name: name.to_owned(),
        })
    }

    /// The whole name; where none was given it is one by time.
    pub(super) fn at(&self, time: SystemTime) -> String {
        match self.name.is_empty() {
            false => format!("{}{}", self.prefix, self.name),
            true => format!("{}{}", self.prefix, by_time(time)),
        }
    }
}

/// A name by time, so that names sort by it: year, month, day, `T`, hour, minute, second, point, milliseconds, in UTC.
fn by_time(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    let whole = Duration::from_millis(since.unwrap_or_default().as_millis() as u64);
    let text = humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + whole).to_string();
    text.chars()
        .filter(|letter| !matches!(letter, '-' | ':' | 'Z'))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(text: &str) -> Result<Vec<u32>> {
        let name = SnapshotName::parse(text)?;
        Ok(name.processes.into_iter().map(ProcessId::get).collect())
    }

    #[test]
    fn names_begin_with_the_processes() {
        assert_eq!(numbers("12@before").unwrap(), [12]);
        assert_eq!(numbers("300+12+300@x").unwrap(), [12, 300]);
        assert_eq!(numbers("12@a@b").unwrap(), [12]);
        for wrong in [
            "",
            "12",
            "@x",
            "x@y",
            "12+@x",
            "+12@x",
            "012@x",
            "0@x",
            "12@a b",
            "12@\u{e9}",
        ] {
            assert_eq!(numbers(wrong), Err(Error::SnapshotName), "{wrong}");
        }
        let long = format!("12@{}", "x".repeat(300));
        assert_eq!(numbers(&long), Err(Error::SnapshotName));
        let many: Vec<String> = (1..=65).map(|pid| pid.to_string()).collect();
        assert_eq!(
            numbers(&format!("{}@x", many.join("+"))),
            Err(Error::SnapshotName)
        );
    }

    #[test]
    fn a_name_that_is_not_given_is_chosen_by_time() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_764_456_123_045);
        let name = |text| SnapshotName::parse(text).unwrap().at(time);
        assert_eq!(name("12@"), "12@20251129T224203.045");
        assert_eq!(name("12+13@"), "12+13@20251129T224203.045");
        assert_eq!(name("12@before"), "12@before");
    }
}
