//! Reading the text of `/stats`: numbers, rates and latencies for whoever looks at them.

use thiserror::Error;

/// A line that is not of Prometheus' exposition format, as this program writes it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line} is no sample of a metric: {text}")]
pub struct ReadingError {
    /// Its number, from 1 on.
    pub line: usize,
    /// What it says.
    pub text: String,
}

/// One value of one series.
#[derive(Clone, Debug, PartialEq)]
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Sample {
    fn label(&self, name: &str) -> Option<&str> {
        let found = self.labels.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Reads a line, which is no comment.
    fn parse(line: &str) -> Option<Self> {
        let (series, value) = line.rsplit_once(' ')?;
        let series = series.trim_end();
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}')?),
            None => (series, ""),
        };
        // No value that this program writes has a comma or a quote in it.
        let pairs = labels.split(',').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| {
            let (name, value) = pair.split_once('=')?;
            let value = value.strip_prefix('"')?.strip_suffix('"')?;
            Some((name.to_owned(), value.to_owned()))
        });
        Some(Self {
            name: (!name.is_empty()).then(|| name.to_owned())?,
            labels: pairs.collect::<Option<_>>()?,
            value: value.trim().parse().ok()?,
        })
    }
}

/// All that `/stats` said at one moment. Names are those of the text without `procmemfs_`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading(Vec<Sample>);

impl Reading {
    /// Reads the text.
    ///
    /// # Errors
    /// The first line that is not understood.
    pub fn parse(text: &str) -> Result<Self, ReadingError> {
        let mut samples = Vec::new();
        for (index, line) in text.lines().enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let error = || ReadingError {
                line: index + 1,
                text: line.chars().take(80).collect(),
            };
            let mut sample = Sample::parse(line).ok_or_else(error)?;
            let name = sample.name.strip_prefix("procmemfs_").ok_or_else(error)?;
            sample.name = name.to_owned();
            samples.push(sample);
        }
        Ok(Self(samples))
    }

    /// The sum of all series of this name.
    pub fn sum(&self, name: &str) -> f64 {
        let found = self.0.iter().filter(|sample| sample.name == name);
        found.map(|sample| sample.value).sum()
    }

    /// Each value of `label` that series of this name have, with the value of the series, in the order of the text.
    pub fn by_label(&self, name: &str, label: &str) -> Vec<(String, f64)> {
        let found = self.0.iter().filter(|sample| sample.name == name);
        let found =
            found.filter_map(|sample| Some((sample.label(label)?.to_owned(), sample.value)));
        found.collect()
    }

    /// The times that were counted under `name`, of the series that have this label where one is given.
    pub fn times(&self, name: &str, label: Option<(&str, &str)>) -> Times {
        let is_wanted =
            |sample: &&Sample| label.is_none_or(|(name, value)| sample.label(name) == Some(value));
        let mut times = Times::default();
        for sample in self.0.iter().filter(is_wanted) {
            match sample.name.strip_prefix(name) {
                Some("_bucket") => {
                    let bound = sample.label("le").and_then(|bound| bound.parse().ok());
                    times
                        .buckets
                        .push((bound.unwrap_or(f64::INFINITY), sample.value));
                }
                Some("_sum") => times.sum = sample.value,
                Some("_count") => times.count = sample.value,
                _ => (),
            }
        }
        times
    }
}

/// How often something took how long.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Times {
    /// The longest time of each bucket, in seconds, and how many took no longer.
    buckets: Vec<(f64, f64)>,
    /// In seconds.
    sum: f64,
    count: f64,
}

impl Times {
    /// Those that were counted after `earlier`.
    #[must_use]
    pub fn since(mut self, earlier: &Self) -> Self {
        for (bucket, before) in self.buckets.iter_mut().zip(&earlier.buckets) {
            bucket.1 -= before.1;
        }
        self.sum -= earlier.sum;
        self.count -= earlier.count;
        self
    }

    /// How many.
    pub fn count(&self) -> f64 {
        self.count
    }

    /// The mean, in seconds; `None` where there are none.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0.0).then(|| self.sum / self.count)
    }

    /// The time, in seconds, that this part of them (0 to 1) took at most, as `histogram_quantile` of Prometheus estimates it:
    /// times lie evenly in their bucket, and in the last one, which has no bound, they are its lower end.
    pub fn quantile(&self, part: f64) -> Option<f64> {
        let total = self.buckets.last()?.1;
        if total <= 0.0 {
            return None;
        }
        let rank = part * total;
        let (mut lower, mut below) = (0.0, 0.0);
        for (bound, upto) in &self.buckets {
            if *upto >= rank && *upto > below {
                let is_last = bound.is_infinite();
                let within = (rank - below) / (upto - below);
                return Some(if is_last {
                    lower
                } else {
                    lower + (bound - lower) * within
                });
            }
            (lower, below) = (*bound, *upto);
        }
        Some(lower)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nix::errno::Errno;

    use super::*;
    use crate::common::metrics::{Metrics, Operation};

    #[test]
    fn what_is_written_is_read() {
        let metrics = Metrics::default();
        for _ in 0..3 {
            metrics.count_request(Operation::Read);
        }
        metrics.count_request(Operation::Open);
        metrics.count_error(Errno::EIO);
        metrics.read_bytes.add(5_000_000);
        metrics.observe(Operation::Read, Duration::from_millis(3));
        let reading = Reading::parse(&metrics.render()).unwrap();
        assert_eq!(reading.sum("requests_total"), 4.0);
        assert_eq!(reading.sum("read_bytes_total"), 5e6);
        assert_eq!(reading.sum("none"), 0.0);
        let errors = reading.by_label("errors_total", "errno");
        assert!(errors.contains(&("EIO".to_owned(), 1.0)), "{errors:?}");
        assert_eq!(
            reading.by_label("requests_total", "operation").len(),
            Operation::ALL.len()
        );
        let times = |operation| {
            let label = Some(("operation", operation));
            reading.times("request_duration_seconds", label)
        };
        assert_eq!(times("read").count(), 1.0);
        assert_eq!(times("read").mean(), Some(0.003));
        assert_eq!(times("open").mean(), None);
        assert_eq!(times("open").quantile(0.5), None);
    }

    #[test]
    fn quantiles_lie_within_their_bucket() {
        let times = Times {
            buckets: vec![
                (0.001, 10.0),
                (0.002, 10.0),
                (0.005, 20.0),
                (f64::INFINITY, 21.0),
            ],
            sum: 1.0,
            count: 21.0,
        };
        for (part, expected) in [
            (0.0, 0.0),
            (10.0 / 21.0, 0.001),
            (15.0 / 21.0, 0.0035),
            (1.0, 0.005),
        ] {
            let found = times.quantile(part).unwrap();
            assert!((found - expected).abs() < 1e-9, "{part}: {found}");
        }
        let none = times.clone().since(&times);
        assert_eq!(
            (none.quantile(0.5), none.mean(), none.count()),
            (None, None, 0.0)
        );
    }

    #[test]
    fn what_is_no_sample_is_named_with_its_line() {
        for text in [
            "hello",
            "procmemfs_a{b} 1",
            "procmemfs_a x",
            "other_a 1",
            "{a=\"b\"} 1",
        ] {
            let error = Reading::parse(&format!("# HELP x y\n{text}\n")).unwrap_err();
            assert_eq!(error.line, 2, "{text}");
        }
    }
}
