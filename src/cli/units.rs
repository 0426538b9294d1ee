//! Numbers as people read and write them.

use anyhow::{Result, bail};
use procmemfs::target::ProcessId;

/// A number of bytes in at most five letters, as `ls -h` shows it: K, M, G, T are powers of 1024.
pub(super) fn bytes(bytes: u64) -> String {
    if bytes < 1024 {
        return bytes.to_string();
    }
    let mut unit: u128 = 1024;
    for letter in ["K", "M", "G", "T", "P"] {
        let rounded = |parts: u128| (u128::from(bytes) * parts + unit / 2) / unit;
        if rounded(10) < 100 {
            return format!("{}.{}{letter}", rounded(10) / 10, rounded(10) % 10);
        }
        if rounded(1) < 1024 {
            return format!("{}{letter}", rounded(1));
        }
        unit *= 1024;
    }
    format!("{}E", (u128::from(bytes) + unit / 2) / unit)
}

/// A number of things a second, or of things: no more digits than can be read at a glance.
pub(super) fn number(number: f64) -> String {
    match number {
        number if number <= 0.0 => "0".to_owned(),
        number if number < 9.95 => format!("{number:.1}"),
        number if number < 999_999.5 => format!("{number:.0}"),
        number if number < 999_999_500.0 => format!("{:.1}m", number / 1e6),
        number => format!("{:.1}bn", number / 1e9),
    }
}

/// A time that is given in seconds; `-` for none.
pub(super) fn time(seconds: Option<f64>) -> String {
    let Some(seconds) = seconds else {
        return "-".to_owned();
    };
    let (value, unit) = match seconds {
        seconds if seconds < 999.5e-6 => (seconds * 1e6, "us"),
        seconds if seconds < 999.5e-3 => (seconds * 1e3, "ms"),
        seconds => (seconds, "s"),
    };
    match value < 9.95 {
        true => format!("{value:.1} {unit}"),
        false => format!("{value:.0} {unit}"),
    }
}

/// The process that a command is given.
///
/// # Errors
/// Where that is no number of a process.
pub(super) fn process_number(command: &str, text: &str) -> Result<ProcessId> {
    match ProcessId::parse(text) {
        Some(pid) => Ok(pid),
        None => bail!("{command}: '{text}' is no process number"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_take_five_letters_at_most() {
        let table = [
            (0, "0"),
            (1023, "1023"),
            (1024, "1.0K"),
            (4096, "4.0K"),
            (10 << 10, "10K"),
            ((1 << 20) - 1, "1.0M"),
            (1_048_000, "1023K"),
            (1536 << 20, "1.5G"),
            (20 << 40, "20T"),
            (u64::MAX, "16E"),
        ];
        for (number, expected) in table {
            assert_eq!(bytes(number), expected, "{number}");
        }
    }

    #[test]
    fn numbers_and_times_are_short() {
        let numbers = [0.0, -1.0, 0.04, 1.25, 9.96, 1234.4, 2.5e6, 3e9].map(number);
        assert_eq!(
            numbers,
            ["0", "0", "0.0", "1.2", "10", "1234", "2.5m", "3.0bn"]
        );
        let times = [0.0, 5e-6, 0.0004, 0.0021, 0.5, 12.0].map(|seconds| time(Some(seconds)));
        assert_eq!(
            times,
            ["0.0 us", "5.0 us", "400 us", "2.1 ms", "500 ms", "12 s"]
        );
        assert_eq!(time(None), "-");
    }
}
