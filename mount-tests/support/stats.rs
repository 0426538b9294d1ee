//! The counters of a mount.

use std::collections::BTreeMap;

use super::Mount;

/// One reading of `stats`.
#[derive(Debug, Clone)]
pub(crate) struct Stats(BTreeMap<String, u64>);

impl Stats {
    /// Reads the counters, and fails on a line that is not Prometheus text.
    #[track_caller]
    pub(crate) fn of(mount: &Mount) -> Self {
        let path = mount.path("stats");
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        Self::parse(&text).unwrap_or_else(|line| panic!("not Prometheus text: {line:?}"))
    }

    /// Parses Prometheus text; gives the line that is none.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut values = BTreeMap::new();
        for line in text.lines() {
            if line.is_empty() || line.starts_with("# HELP ") || line.starts_with("# TYPE ") {
                continue;
            }
            // Any number of blanks may stand between a series and its value.
            let parsed = line.rsplit_once([' ', '\t']).and_then(|(name, value)| {
                let (name, value): (_, f64) = (name.trim_end(), value.parse().ok()?);
                is_series(name).then(|| (name.to_string(), value as u64))
            });
            let (name, value) = parsed.ok_or_else(|| line.to_string())?;
            if values.insert(name, value).is_some() {
                return Err(format!("{line} (twice)"));
            }
        }
        Ok(Self(values))
    }

    /// The value of `procmemfs_NAME`; a series with labels that nothing
    /// counted yet may be absent and is 0.
    #[track_caller]
    pub(crate) fn get(&self, name: &str) -> u64 {
        let full = format!("procmemfs_{name}");
        match self.0.get(&full) {
            Some(value) => *value,
            None if name.contains('{') => 0,
            None => panic!("no counter {full} in {:#?}", self.0),
        }
    }

    /// How much a counter grew since `before`.
    #[track_caller]
    pub(crate) fn since(&self, before: &Self, name: &str) -> u64 {
        let (old, new) = (before.get(name), self.get(name));
        assert!(old <= new, "{name} fell from {old} to {new}");
        new - old
    }

    /// All names, with their labels.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// Whether `text` is `name` or `name{label="value",...}`.
fn is_series(text: &str) -> bool {
    let is_name = |name: &str| {
        !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':')
    };
    let Some((name, labels)) = text.split_once('{') else {
        return is_name(text);
    };
    let Some(labels) = labels.strip_suffix('}') else {
        return false;
    };
    let is_label = |label: &str| {
        label.split_once('=').is_some_and(|(name, value)| {
            is_name(name) && value.len() >= 2 && value.starts_with('"') && value.ends_with('"')
        })
    };
    is_name(name) && labels.split(',').all(is_label)
}
