//! Rates and latencies: two readings of the counters of a mount, compared.

use std::time::Duration;

use procmemfs::common::metrics::{Reading, Times};
use serde_json::{Value, json};

/// A number that only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Count {
    /// Since the mount was made.
    pub(super) total: f64,
    /// A second, between the two readings.
    pub(super) rate: f64,
}

/// How long something took, in seconds; `None` where it was not done.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Latency {
    pub(super) mean: Option<f64>,
    /// What half of them took at most.
    pub(super) p50: Option<f64>,
    /// What 99 of 100 took at most.
    pub(super) p99: Option<f64>,
}

/// Requests of one kind.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct OperationFigures {
    pub(super) name: String,
    pub(super) requests: Count,
    /// Of those between the two readings.
    pub(super) now: Latency,
    /// Of all since the mount was made.
    pub(super) ever: Latency,
}

/// Processes that were stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Stops {
    pub(super) count: Count,
    pub(super) ever: Latency,
}

/// All of a mount.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Figures {
    /// Between the two readings.
    pub(super) interval: Duration,
    /// Those that were asked for at least once, most often first.
    pub(super) operations: Vec<OperationFigures>,
    pub(super) requests: Count,
    /// Those that happened at least once.
    pub(super) errors: Vec<(String, Count)>,
    pub(super) read_bytes: Count,
    pub(super) written_bytes: Count,
    pub(super) vm_calls: Count,
    pub(super) vm_ranges: Count,
    pub(super) mem_reads: Count,
    pub(super) maps_reads: Count,
    pub(super) cache_hits: Count,
    pub(super) cache_misses: Count,
    pub(super) cache_bytes: f64,
    pub(super) inodes: f64,
    pub(super) stops: Stops,
}

impl Latency {
    fn of(times: &Times) -> Self {
        Self {
            mean: times.mean(),
            p50: times.quantile(0.5),
            p99: times.quantile(0.99),
        }
    }
}

/// The part of `of` and `others` that is `of`, in percent.
pub(super) fn percent(of: f64, others: f64) -> Option<f64> {
    let all = of + others;
    (all > 0.0).then(|| 100.0 * of / all)
}

impl Figures {
    /// What has become of `old` in `interval`.
    pub(super) fn between(old: &Reading, new: &Reading, interval: Duration) -> Self {
        let seconds = interval.as_secs_f64().max(f64::MIN_POSITIVE);
        // Another daemon on the same mount point counts from 0.
        let count = |before: f64, now: f64| Count {
            total: now,
            rate: (now - before).max(0.0) / seconds,
        };
        let sum = |name: &str| count(old.sum(name), new.sum(name));
        let by_label = |name: &str, label: &str| {
            let before = old.by_label(name, label);
            let now = new.by_label(name, label).into_iter();
            let counts = now.map(move |(value, now)| {
                let found = before.iter().find(|(known, _)| *known == value);
                let before = found.map_or(0.0, |(_, before)| *before);
                (value, count(before, now))
            });
            counts
                .filter(|(_, count)| count.total > 0.0)
                .collect::<Vec<_>>()
        };
        let operation = |(name, requests): (String, Count)| {
            let label = Some(("operation", name.as_str()));
            let times = |reading: &Reading| reading.times("request_duration_seconds", label);
            let ever = times(new);
            OperationFigures {
                now: Latency::of(&ever.clone().since(&times(old))),
                ever: Latency::of(&ever),
                requests,
                name,
            }
        };
        let operations = by_label("requests_total", "operation").into_iter();
        let mut operations: Vec<_> = operations.map(operation).collect();
        operations.sort_by(|one, other| other.requests.total.total_cmp(&one.requests.total));
        Self {
            interval,
            operations,
            requests: sum("requests_total"),
            errors: by_label("errors_total", "errno"),
            read_bytes: sum("read_bytes_total"),
            written_bytes: sum("written_bytes_total"),
            vm_calls: sum("vm_readv_calls_total"),
            vm_ranges: sum("vm_readv_iovecs_total"),
            mem_reads: sum("mem_reads_total"),
            maps_reads: sum("maps_reads_total"),
            cache_hits: sum("cache_hits_total"),
            cache_misses: sum("cache_misses_total"),
            cache_bytes: new.sum("cache_bytes"),
            inodes: new.sum("inodes"),
            stops: Stops {
                count: sum("stops_total"),
                ever: Latency::of(&new.times("stop_duration_seconds", None)),
            },
        }
    }

    /// For programs: rates are a second, times are seconds.
    pub(super) fn json(&self) -> Value {
        let count = |count: Count| json!({ "total": count.total as u64, "rate": count.rate });
        let latency = |latency: Latency| json!({ "mean": latency.mean, "p50": latency.p50, "p99": latency.p99 });
        let operations = self.operations.iter().map(|operation| {
            json!({
                "operation": operation.name,
                "requests": count(operation.requests),
                "seconds": latency(operation.now),
                "seconds_since_mount": latency(operation.ever),
            })
        });
        let errors = self.errors.iter();
        let errors: serde_json::Map<_, _> = errors
            .map(|(errno, errors)| (errno.clone(), count(*errors)))
            .collect();
        json!({
            "interval": self.interval.as_secs_f64(),
            "requests": count(self.requests),
            "operations": operations.collect::<Vec<Value>>(),
            "errors": errors,
            "read_bytes": count(self.read_bytes),
            "written_bytes": count(self.written_bytes),
            "vm_readv_calls": count(self.vm_calls),
            "vm_readv_iovecs": count(self.vm_ranges),
            "mem_reads": count(self.mem_reads),
            "maps_reads": count(self.maps_reads),
            "cache_hits": count(self.cache_hits),
            "cache_misses": count(self.cache_misses),
            "cache_bytes": self.cache_bytes as u64,
            "inodes": self.inodes as u64,
            "stops": count(self.stops.count),
            "stop_seconds": latency(self.stops.ever),
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use nix::errno::Errno;
    use procmemfs::common::metrics::{Metrics, Operation};

    use super::*;

    /// A mount that has answered reads for a long time, and twenty more, slower ones in two seconds.
    pub(crate) fn example() -> Figures {
        let metrics = Metrics::default();
        let read = |count: u64, time| {
            for _ in 0..count {
                metrics.count_request(Operation::Read);
                metrics.observe(Operation::Read, time);
            }
        };
        read(100, Duration::from_micros(15));
        metrics.count_request(Operation::Open);
        metrics.count_error(Errno::EIO);
        metrics.cache_hits.add(90);
        let old = Reading::parse(&metrics.render()).unwrap();
        read(20, Duration::from_millis(4));
        metrics.read_bytes.add(8 << 20);
        metrics.vm_readv_calls.add(4);
        metrics.vm_readv_iovecs.add(10);
        metrics.cache_misses.add(10);
        metrics.cache_bytes.set(1 << 20);
        let new = Reading::parse(&metrics.render()).unwrap();
        Figures::between(&old, &new, Duration::from_secs(2))
    }

    /// SEMANTICS: rates and latencies are those between two readings.
    #[test]
    fn rates_and_latencies_are_those_between_two_readings() {
        let figures = example();
        let names: Vec<&str> = figures
            .operations
            .iter()
            .map(|one| one.name.as_str())
            .collect();
        assert_eq!(names, ["read", "open"]);
        let read = &figures.operations[0];
        assert_eq!(
            read.requests,
            Count {
                total: 120.0,
                rate: 10.0
            }
        );
        // All of them lie in the bucket from 2 to 5 ms.
        let p50 = read.now.p50.unwrap();
        assert!((0.002..=0.005).contains(&p50), "{p50}");
        assert!((read.now.mean.unwrap() - 0.004).abs() < 1e-9);
        let ever = read.ever.p50.unwrap();
        assert!((10e-6..=20e-6).contains(&ever), "{ever}");
        let open = &figures.operations[1];
        assert_eq!((open.now, open.requests.rate), (Latency::default(), 0.0));
        assert_eq!(
            figures.errors,
            [(
                "EIO".to_owned(),
                Count {
                    total: 1.0,
                    rate: 0.0
                }
            )]
        );
        assert_eq!(figures.read_bytes.rate, f64::from(4 << 20));
        assert_eq!(
            percent(figures.cache_hits.total, figures.cache_misses.total),
            Some(90.0)
        );
    }

    #[test]
    fn a_mount_that_begins_anew_has_no_negative_rates() {
        let reading = |bytes| {
            let metrics = Metrics::default();
            metrics.read_bytes.add(bytes);
            Reading::parse(&metrics.render()).unwrap()
        };
        let figures = Figures::between(&reading(100), &reading(5), Duration::from_secs(1));
        assert_eq!(
            figures.read_bytes,
            Count {
                total: 5.0,
                rate: 0.0
            }
        );
    }

    #[test]
    fn programs_get_all_of_it() {
        let value = example().json();
        assert_eq!(value["requests"]["total"], 121);
        assert_eq!(value["operations"][0]["requests"]["rate"], 10.0);
        assert_eq!(value["operations"][1]["seconds"]["mean"], Value::Null);
        assert_eq!(value["errors"]["EIO"]["total"], 1);
        assert_eq!(value["cache_bytes"], 1 << 20);
    }
}
