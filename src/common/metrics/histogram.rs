//! How long something took.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::text::{Family, Kind, Metric};

const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000 * MICROSECOND;
const SECOND: u64 = 1_000 * MILLISECOND;

/// The longest time of each bucket but the last, in nanoseconds: from a request that finds all in a
/// cache to the deadline of the slowest.
const BOUNDS: [u64; 18] = [
    5 * MICROSECOND,
    10 * MICROSECOND,
    20 * MICROSECOND,
    50 * MICROSECOND,
    100 * MICROSECOND,
    200 * MICROSECOND,
    500 * MICROSECOND,
    MILLISECOND,
    2 * MILLISECOND,
    5 * MILLISECOND,
    10 * MILLISECOND,
    20 * MILLISECOND,
    50 * MILLISECOND,
    100 * MILLISECOND,
    200 * MILLISECOND,
    500 * MILLISECOND,
    SECOND,
    2 * SECOND,
];

/// Times, counted in buckets. One costs two additions: what Prometheus wants summed up is summed up
/// where it is shown.
#[derive(Debug, Default)]
pub struct Histogram {
    /// How many fell into each bucket and into no smaller one; the last has no bound.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    /// In nanoseconds: enough for 584 years of waiting.
    sum: AtomicU64,
}

impl Histogram {
    /// Counts one time.
    pub fn observe(&self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|bound| *bound < nanoseconds);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(nanoseconds, Ordering::Relaxed);
    }
}

impl Metric for Histogram {
    const KIND: Kind = Kind::Histogram;

    fn write(&self, family: &mut Family<'_>) {
        let mut count: u64 = 0;
        for (index, bucket) in self.buckets.iter().enumerate() {
            count = count.wrapping_add(bucket.load(Ordering::Relaxed));
            match BOUNDS.get(index) {
                Some(bound) => family.bucket(*bound as f64 / SECOND as f64, count),
                None => family.bucket("+Inf", count),
            }
        }
        // The same number as that of the last bucket, also while others count.
        family.sum_of_seconds(self.sum.load(Ordering::Relaxed));
        family.count(count);
    }
}

#[cfg(test)]
mod tests {
    use super::super::text::family;
    use super::*;

    fn text(histogram: &Histogram) -> String {
        let mut text = String::new();
        family(&mut text, "request_duration", "Help.", histogram);
        text
    }

    fn value<'a>(text: &'a str, series: &str) -> &'a str {
        text.lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))
            .unwrap_or_else(|| panic!("no {series} in {text}"))
            .trim_start()
    }

    #[test]
    fn a_time_is_counted_from_the_first_bucket_that_holds_it() {
        let times = [
            (Duration::ZERO, "0.000005"),
            (Duration::from_micros(5), "0.000005"),
            (Duration::from_nanos(5_001), "0.00001"),
            (Duration::from_micros(300), "0.0005"),
            (Duration::from_secs(2), "2"),
            (Duration::from_nanos(2_000_000_001), "+Inf"),
            (Duration::MAX, "+Inf"),
        ];
        for (time, first) in times {
            let histogram = Histogram::default();
            histogram.observe(time);
            let text = text(&histogram);
            let mut seen = false;
            for line in text.lines().filter(|line| line.contains("_bucket")) {
                seen |= line.contains(&format!("{{le=\"{first}\"}}"));
                let expected = if seen { " 1" } else { " 0" };
                assert!(line.ends_with(expected), "{time:?}: {line}");
            }
            assert!(seen, "no bucket {first}: {text}");
            assert_eq!(
                value(&text, "procmemfs_request_duration_seconds_count"),
                "1"
            );
        }
    }

    #[test]
    fn times_are_summed_up_in_seconds() {
        let histogram = Histogram::default();
        let sum = |histogram| {
            let text = text(histogram);
            value(&text, "procmemfs_request_duration_seconds_sum").to_owned()
        };
        assert_eq!(sum(&histogram), "0.000000000");
        histogram.observe(Duration::from_nanos(7));
        histogram.observe(Duration::from_millis(1_500));
        assert_eq!(sum(&histogram), "1.500000007");
        let full = Histogram::default();
        full.observe(Duration::from_nanos(u64::MAX));
        assert_eq!(sum(&full), "18446744073.709551615");
        assert_eq!(text(&full).len(), text(&histogram).len());
    }
}
