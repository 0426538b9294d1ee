//! Counters of everything that is asked and done, and their text for `/stats`.

mod errors;
mod histogram;
mod number;
mod operation;
mod reading;
mod text;

use std::sync::OnceLock;
use std::time::Duration;

use nix::errno::Errno;

pub use histogram::Histogram;
pub use number::{Counter, Gauge};
pub use operation::Operation;
pub use reading::{Reading, ReadingError, Times};

use errors::PerErrno;
use operation::PerOperation;

/// Each metric once: its line of help, its name and its type. In the text the name has what Prometheus wants of
/// the type: `_total` after that of a counter, `_seconds` after that of a histogram.
macro_rules! metrics {
    ($(#[doc = $help:literal] $visible:vis $name:ident: $kind:ty,)*) => {
        /// All counters of one mount.
        #[derive(Debug, Default)]
        pub struct Metrics {
            $(#[doc = $help] $visible $name: $kind,)*
        }

        impl Metrics {
            /// The text of `/stats`: Prometheus' exposition format, version 0.0.4.
            ///
            /// Numbers are padded to one width, so that the file's size never changes
            /// and tools that compare `st_size` with what they read are content.
            pub fn render(&self) -> String {
                let mut text = String::with_capacity(32 << 10);
                $(text::family(&mut text, stringify!($name), $help.trim_start(), &self.$name);)*
                text
            }
        }
    };
}

metrics! {
    /// Requests by operation.
    requests: PerOperation<Counter>,
    /// Requests answered with an error.
    errors: PerErrno,
    /// Bytes answered to reads.
    pub read_bytes: Counter,
    /// Bytes taken by writes.
    pub written_bytes: Counter,
    /// Calls of process_vm_readv.
    pub vm_readv_calls: Counter,
    /// Ranges asked of process_vm_readv.
    pub vm_readv_iovecs: Counter,
    /// Reads of a pinned /proc/PID/mem.
    pub mem_reads: Counter,
    /// Writes to a pinned /proc/PID/mem.
    pub mem_writes: Counter,
    /// Readings of /proc/PID/maps.
    pub maps_reads: Counter,
    /// Pages answered from the cache.
    pub cache_hits: Counter,
    /// Pages the cache did not hold.
    pub cache_misses: Counter,
    /// Bytes of memory in the cache.
    pub cache_bytes: Gauge,
    /// Processes that were stopped, for a core or a snapshot.
    pub stops: Counter,
    /// How long they were stopped.
    pub stop_duration: Histogram,
    /// Bytes answered that were read ahead.
    pub ahead_bytes: Counter,
    /// Inodes that the kernel holds.
    pub inodes: Gauge,
    /// Whether requests come over io_uring: 1, or 0 where they come through /dev/fuse.
    pub io_uring: Gauge,
    /// Time from a request to its answer, by operation.
    request_duration: PerOperation<Histogram>,
}

impl Metrics {
    /// How long the text is, in bytes, whatever the numbers are.
    pub fn rendered_length() -> u64 {
        // Whoever lists the root asks for it, and the text takes longer than the listing.
        static LENGTH: OnceLock<u64> = OnceLock::new();
        *LENGTH.get_or_init(|| Self::default().render().len() as u64)
    }

    /// Counts a request.
    pub fn count_request(&self, operation: Operation) {
        self.requests[operation].increment();
    }

    /// Counts an error that a request was answered with.
    pub fn count_error(&self, errno: Errno) {
        self.errors.counter(errno).increment();
    }

    /// Counts how long a request took, from its arrival to its answer.
    pub fn observe(&self, operation: Operation, time: Duration) {
        self.request_duration[operation].observe(time);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn value(text: &str, series: &str) -> String {
        let line = text.lines().find(|line| line.starts_with(series));
        let line = line.unwrap_or_else(|| panic!("no {series} in {text}"));
        line.rsplit(' ').next().unwrap().to_owned()
    }

    #[test]
    fn counts_show_in_the_text() {
        let metrics = Metrics::default();
        metrics.count_request(Operation::Read);
        metrics.count_request(Operation::Read);
        metrics.count_error(Errno::EIO);
        metrics.count_error(Errno::ENODEV);
        metrics.read_bytes.add(5);
        metrics.cache_bytes.set(4096);
        metrics.observe(Operation::Read, Duration::from_millis(3));
        let text = metrics.render();
        for (series, expected) in [
            ("requests_total{operation=\"read\"}", "2"),
            ("requests_total{operation=\"write\"}", "0"),
            ("errors_total{errno=\"EIO\"}", "1"),
            ("errors_total{errno=\"other\"}", "1"),
            ("read_bytes_total", "5"),
            ("cache_bytes", "4096"),
            (
                "request_duration_seconds_bucket{operation=\"read\",le=\"0.002\"}",
                "0",
            ),
            (
                "request_duration_seconds_bucket{operation=\"read\",le=\"0.005\"}",
                "1",
            ),
            (
                "request_duration_seconds_bucket{operation=\"read\",le=\"+Inf\"}",
                "1",
            ),
            (
                "request_duration_seconds_sum{operation=\"read\"}",
                "0.003000000",
            ),
            ("request_duration_seconds_count{operation=\"read\"}", "1"),
            ("request_duration_seconds_count{operation=\"write\"}", "0"),
        ] {
            let found = value(&text, &format!("procmemfs_{series}"));
            assert_eq!(found, expected, "{series}");
        }
    }

    #[test]
    fn each_metric_has_help_and_a_type_before_its_series_and_no_series_comes_twice() {
        let text = Metrics::default().render();
        let mut seen = HashSet::new();
        let mut name = "";
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                name = help.split_once(' ').unwrap().0;
                assert!(help.ends_with('.') && !help.contains("  "), "{line}");
                assert!(text.contains(&format!("\n# TYPE {name} ")), "{line}");
            } else if !line.starts_with("# TYPE ") {
                assert!(line.starts_with(name), "{line} below {name}");
            }
            let series = line.rsplit_once(' ').unwrap().0.trim_end().to_owned();
            assert!(seen.insert(series), "twice: {line}");
        }
    }

    #[test]
    fn the_length_never_changes() {
        let metrics = Metrics::default();
        let before = metrics.render().len();
        assert_eq!(Metrics::rendered_length(), before as u64);
        metrics.read_bytes.add(u64::MAX);
        metrics.cache_bytes.set(u64::MAX);
        metrics.count_request(Operation::Lookup);
        metrics.count_error(Errno::EIO);
        metrics.observe(Operation::Lookup, Duration::from_nanos(u64::MAX));
        assert_eq!(metrics.render().len(), before);
    }
}
