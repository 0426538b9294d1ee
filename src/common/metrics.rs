//! Counters of everything that is asked and done, and their text for `/stats`.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `amount`.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// The sum so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Sets the number.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! operations {
    ($($(#[$doc:meta])* $variant:ident => $name:literal,)*) => {
        /// A request of the kernel's.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Operation {
            $($(#[$doc])* $variant,)*
        }

        impl Operation {
            /// All of them, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name in `/stats` and in the log.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

operations! {
    /// A name is looked up.
    Lookup => "lookup",
    /// Attributes are asked for.
    GetAttributes => "getattr",
    /// Attributes are to be changed.
    SetAttributes => "setattr",
    /// A symbolic link is read.
    ReadLink => "readlink",
    /// A file is opened.
    Open => "open",
    /// Bytes are read.
    Read => "read",
    /// Bytes are written.
    Write => "write",
    /// Data or a hole is looked for.
    Seek => "lseek",
    /// An extended attribute, or their names, are asked for.
    ExtendedAttribute => "getxattr",
    /// A directory is opened.
    OpenDirectory => "opendir",
    /// Names are listed.
    ReadDirectory => "readdir",
    /// A right is asked for.
    Access => "access",
    /// Something that never succeeds here (create, rename, link, remove).
    Refused => "refused",
}

/// Errnos that are counted on their own; any other counts as `other`.
const ERRNOS: &[Errno] = &[
    Errno::EACCES,
    Errno::EBADF,
    Errno::EINVAL,
    Errno::EIO,
    Errno::EISDIR,
    Errno::EMFILE,
    Errno::ENOENT,
    Errno::ENOSPC,
    Errno::ENOTDIR,
    Errno::EPERM,
    Errno::EROFS,
    Errno::ESRCH,
    Errno::ESTALE,
    Errno::ETIMEDOUT,
];

/// All counters of one mount.
#[derive(Debug, Default)]
pub struct Metrics {
    requests: [Counter; Operation::ALL.len()],
    errors: [Counter; ERRNOS.len()],
    other_errors: Counter,
    /// Bytes answered to reads.
    pub read_bytes: Counter,
    /// Bytes taken by writes.
    pub written_bytes: Counter,
    /// Calls of `process_vm_readv`.
    pub vm_readv_calls: Counter,
    /// Remote ranges given to them.
    pub vm_readv_iovecs: Counter,
    /// Calls of `process_vm_writev`.
    pub vm_writev_calls: Counter,
    /// Remote ranges given to them.
    pub vm_writev_iovecs: Counter,
    /// Reads of a pinned `/proc/PID/mem`.
    pub mem_reads: Counter,
    /// Writes to a pinned `/proc/PID/mem`.
    pub mem_writes: Counter,
    /// Readings of `/proc/PID/maps`.
    pub maps_reads: Counter,
    /// Pages answered from the cache.
    pub cache_hits: Counter,
    /// Pages that the cache did not hold.
    pub cache_misses: Counter,
    /// Bytes of memory that the cache holds.
    pub cache_bytes: Gauge,
}

impl Metrics {
    /// Counts a request.
    pub fn count_request(&self, operation: Operation) {
        self.requests[operation as usize].increment();
    }

    /// Counts an error that a request was answered with.
    pub fn count_error(&self, errno: Errno) {
        match ERRNOS.iter().position(|known| *known == errno) {
            Some(index) => self.errors[index].increment(),
            None => self.other_errors.increment(),
        }
    }

    /// The text of `/stats`: Prometheus' exposition format, version 0.0.4.
    ///
    /// Numbers are padded to one width, so that the file's size never changes
    /// and tools that compare `st_size` with what they read are content.
    pub fn render(&self) -> String {
        let mut text = String::with_capacity(8192);
        let requests = Operation::ALL.iter().map(|operation| {
            let label = format!("{{operation=\"{}\"}}", operation.name());
            (label, self.requests[*operation as usize].get())
        });
        family(
            &mut text,
            "requests_total",
            "counter",
            "Requests by operation.",
            requests,
        );
        let errors = ERRNOS
            .iter()
            .zip(&self.errors)
            .map(|(errno, counter)| (format!("{errno:?}"), counter.get()))
            .chain([("other".to_owned(), self.other_errors.get())])
            .map(|(errno, count)| (format!("{{errno=\"{errno}\"}}"), count));
        family(
            &mut text,
            "errors_total",
            "counter",
            "Requests answered with an error.",
            errors,
        );

        let counters: [(&str, &str, &Counter); 11] = [
            (
                "read_bytes_total",
                "Bytes answered to reads.",
                &self.read_bytes,
            ),
            (
                "written_bytes_total",
                "Bytes taken by writes.",
                &self.written_bytes,
            ),
            (
                "vm_readv_calls_total",
                "Calls of process_vm_readv.",
                &self.vm_readv_calls,
            ),
            (
                "vm_readv_iovecs_total",
                "Ranges asked of process_vm_readv.",
                &self.vm_readv_iovecs,
            ),
            (
                "vm_writev_calls_total",
                "Calls of process_vm_writev.",
                &self.vm_writev_calls,
            ),
            (
                "vm_writev_iovecs_total",
                "Ranges given to process_vm_writev.",
                &self.vm_writev_iovecs,
            ),
            (
                "mem_reads_total",
                "Reads of a pinned /proc/PID/mem.",
                &self.mem_reads,
            ),
            (
                "mem_writes_total",
                "Writes to a pinned /proc/PID/mem.",
                &self.mem_writes,
            ),
            (
                "maps_reads_total",
                "Readings of /proc/PID/maps.",
                &self.maps_reads,
            ),
            (
                "cache_hits_total",
                "Pages answered from the cache.",
                &self.cache_hits,
            ),
            (
                "cache_misses_total",
                "Pages the cache did not hold.",
                &self.cache_misses,
            ),
        ];
        for (name, help, counter) in counters {
            family(
                &mut text,
                name,
                "counter",
                help,
                [(String::new(), counter.get())],
            );
        }
        let cache_bytes = [(String::new(), self.cache_bytes.get())];
        family(
            &mut text,
            "cache_bytes",
            "gauge",
            "Bytes of memory in the cache.",
            cache_bytes,
        );
        text
    }
}

fn family(
    text: &mut String,
    name: &str,
    kind: &str,
    help: &str,
    samples: impl IntoIterator<Item = (String, u64)>,
) {
    const WRITES: &str = "a String takes whatever is written to it";
    writeln!(text, "# HELP procmemfs_{name} {help}").expect(WRITES);
    writeln!(text, "# TYPE procmemfs_{name} {kind}").expect(WRITES);
    for (labels, value) in samples {
        writeln!(text, "procmemfs_{name}{labels} {value:>20}").expect(WRITES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_show_in_the_text() {
        let metrics = Metrics::default();
        metrics.count_request(Operation::Read);
        metrics.count_request(Operation::Read);
        metrics.count_error(Errno::EIO);
        metrics.count_error(Errno::ENODEV);
        metrics.read_bytes.add(5);
        let text = metrics.render();
        let value = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            line.rsplit(' ').next().unwrap().to_owned()
        };
        assert_eq!(value("procmemfs_requests_total{operation=\"read\"}"), "2");
        assert_eq!(value("procmemfs_requests_total{operation=\"write\"}"), "0");
        assert_eq!(value("procmemfs_errors_total{errno=\"EIO\"}"), "1");
        assert_eq!(value("procmemfs_errors_total{errno=\"other\"}"), "1");
        assert_eq!(value("procmemfs_read_bytes_total"), "5");
    }

    #[test]
    fn the_length_never_changes() {
        let metrics = Metrics::default();
        let before = metrics.render().len();
        metrics.read_bytes.add(u64::MAX);
        metrics.count_request(Operation::Lookup);
        assert_eq!(metrics.render().len(), before);
    }
}
