//! What stands after the `=` of an option.

use std::path::PathBuf;
use std::time::Duration;

use super::{AuditSink, OptionError};
use crate::common::choice::Choice;
use crate::common::pid::ProcessId;
use crate::files::view::FaultPolicy;

/// Longer than any mount lasts, and short enough to reckon with.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// The value of the option `name`, as `read` takes it.
///
/// # Errors
/// Where there is none or `read` does not take it, with what is `wanted`.
pub(super) fn given<T>(
    name: &'static str,
    value: Option<&str>,
    wanted: &'static str,
    read: impl Fn(&str) -> Option<T>,
) -> Result<T, OptionError> {
    value.and_then(read).ok_or_else(|| OptionError::Value {
        name,
        value: value.unwrap_or_default().to_owned(),
        wanted,
    })
}

pub(super) fn time(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    humantime::parse_duration(text)
        .ok()
        .filter(|time| *time <= LONGEST)
}

/// In bytes.
pub(super) fn size(text: &str) -> Option<u64> {
    parse_size::Config::new()
        .with_binary()
        .parse_size(text)
        .ok()
}

pub(super) fn faults(text: &str) -> Option<FaultPolicy> {
    match text {
        "error" => Some(FaultPolicy::Error),
        "zero" => Some(FaultPolicy::Zero),
        _ => None,
    }
}

pub(super) fn choice(text: &str) -> Option<Choice> {
    match text {
        "auto" => Some(Choice::Auto),
        "on" => Some(Choice::On),
        "off" => Some(Choice::Off),
        _ => None,
    }
}

pub(super) fn audit(text: &str) -> Option<AuditSink> {
    match text {
        "stderr" => Some(AuditSink::Stderr),
        "syslog" => Some(AuditSink::Syslog),
        "journald" => Some(AuditSink::Journal),
        _ => None,
    }
}

/// A path that means the same wherever the daemon runs.
pub(super) fn directory(text: &str) -> Option<PathBuf> {
    Some(PathBuf::from(text)).filter(|path| path.is_absolute())
}

pub(super) fn pids(text: &str) -> Option<Vec<ProcessId>> {
    text.split(':').map(ProcessId::parse).collect()
}

pub(super) fn threads(text: &str) -> Option<usize> {
    text.parse()
        .ok()
        .filter(|threads| (1..=256).contains(threads))
}
