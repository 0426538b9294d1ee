//! Prometheus' exposition format, version 0.0.4.

use std::fmt::{Display, Write as _};

const WRITES: &str = "a String takes whatever is written to it";

/// What Prometheus calls the type of a metric.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }

    /// What names of this type end with; all histograms are of times.
    fn suffix(self) -> &'static str {
        match self {
            Self::Counter => "_total",
            Self::Gauge => "",
            Self::Histogram => "_seconds",
        }
    }
}

/// What has a place in the text.
pub(super) trait Metric {
    const KIND: Kind;

    /// Writes each of its series. Their length does not depend on their values.
    fn write(&self, family: &mut Family<'_>);
}

/// Writes all of one metric, whose name is `procmemfs_`, `name`, and what its type adds.
pub(super) fn family<M: Metric>(text: &mut String, name: &str, help: &str, metric: &M) {
    let name = format!("procmemfs_{name}{}", M::KIND.suffix());
    writeln!(text, "# HELP {name} {help}").expect(WRITES);
    writeln!(text, "# TYPE {name} {}", M::KIND.name()).expect(WRITES);
    metric.write(&mut Family {
        text,
        name,
        labels: String::new(),
    });
}

/// The series of one name.
#[derive(Debug)]
pub(super) struct Family<'a> {
    text: &'a mut String,
    name: String,
    /// Those of all series that are written now, separated by commas.
    labels: String,
}

impl Family<'_> {
    /// Gives all that `write` writes one label more. The value needs no escapes.
    pub(super) fn labelled(
        &mut self,
        label: &str,
        value: impl Display,
        write: impl FnOnce(&mut Self),
    ) {
        let length = self.labels.len();
        let comma = if length == 0 { "" } else { "," };
        write!(self.labels, "{comma}{label}=\"{value}\"").expect(WRITES);
        write(self);
        self.labels.truncate(length);
    }

    pub(super) fn number(&mut self, value: u64) {
        self.sample("", format_args!("{value:>20}"));
    }

    /// How many were at most `bound`.
    pub(super) fn bucket(&mut self, bound: impl Display, count: u64) {
        self.labelled("le", bound, |family| {
            family.sample("_bucket", format_args!("{count:>20}"));
        });
    }

    pub(super) fn count(&mut self, count: u64) {
        self.sample("_count", format_args!("{count:>20}"));
    }

    /// A number of nanoseconds as seconds.
    pub(super) fn sum_of_seconds(&mut self, nanoseconds: u64) {
        const SECOND: u64 = 1_000_000_000;
        let (seconds, rest) = (nanoseconds / SECOND, nanoseconds % SECOND);
        self.sample("_sum", format_args!("{seconds:>11}.{rest:09}"));
    }

    fn sample(&mut self, part: &str, value: impl Display) {
        self.text.push_str(&self.name);
        self.text.push_str(part);
        if !self.labels.is_empty() {
            write!(self.text, "{{{}}}", self.labels).expect(WRITES);
        }
        writeln!(self.text, " {value}").expect(WRITES);
    }
}
