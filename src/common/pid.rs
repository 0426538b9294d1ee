//! Process numbers.

use std::fmt;

/// A process's number: that of its thread group, greater than zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId(u32);

impl ProcessId {
    /// The number as a process's, or `None` where the kernel gives out no such number.
    pub fn new(raw: u32) -> Option<Self> {
        (raw > 0 && i32::try_from(raw).is_ok()).then_some(Self(raw))
    }

    /// Reads a directory name: decimal digits without a leading zero.
    pub fn parse(name: &str) -> Option<Self> {
        let plain = name.bytes().all(|byte| byte.is_ascii_digit()) && !name.starts_with('0');
        if plain {
            Self::new(name.parse().ok()?)
        } else {
            None
        }
    }

    /// The raw number.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The raw number, signed as `pid_t` is.
    pub const fn as_pid_t(self) -> i32 {
        self.0.cast_signed()
    }
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directory_names_are_plain_numbers() {
        assert_eq!(ProcessId::parse("1234").map(ProcessId::get), Some(1234));
        for name in [
            "",
            "0",
            "01",
            "-1",
            "+1",
            "1a",
            "4294967296",
            "2147483648",
            "١",
        ] {
            assert_eq!(ProcessId::parse(name), None, "{name}");
        }
    }
}
