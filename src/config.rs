//! Mount options: from the text behind `-o` to a checked [`MountConfig`].

use std::time::Duration;

use thiserror::Error;

use crate::common::pid::ProcessId;
use crate::view::FaultPolicy;

/// What a mount does, all of it checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountConfig {
    /// Whether memory may be written, read only, or whether the mount takes no change at all.
    pub mode: Mode,
    /// Writes pass over a mapping's own protection.
    pub force: bool,
    /// Reads may fault absent pages in.
    pub touch: bool,
    /// Do without `PAGEMAP_SCAN`, as on a kernel before 6.7. No option sets
    /// this: tests do, to see that both ways show the same.
    pub without_scan: bool,
    /// The oldest data that a read may return.
    pub cache_ttl: Duration,
    /// Budget of the page cache, in bytes.
    pub cache_size: u64,
    /// What becomes of unreadable bytes.
    pub faults: FaultPolicy,
    /// The only processes to show; all of them where it is empty.
    pub only: Vec<ProcessId>,
    /// Threads that serve requests.
    pub threads: usize,
    /// Options that every file system takes, as they were given.
    pub generic: Vec<String>,
    /// Whether `rw` was given, which changes nothing: mount(8) gives it to every file system that is not `ro`.
    pub rw: bool,
}

/// What may be changed through a mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// No memory (neither `write` nor `ro` is given).
    #[default]
    Look,
    /// Memory can be written (`write`).
    Write,
    /// Nothing at all (`ro`).
    ReadOnly,
}

impl Default for MountConfig {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            force: false,
            touch: false,
            without_scan: false,
            cache_ttl: Duration::from_millis(100),
            cache_size: 64 << 20,
            faults: FaultPolicy::default(),
            only: Vec::new(),
            threads: default_threads(),
            generic: Vec::new(),
            rw: false,
        }
    }
}

/// An option that cannot be taken, and what would be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OptionError {
    /// Not an option of ours or of mount(8).
    #[error("unknown option '{name}'{}: see procmemfs --help", suggested(.suggestion))]
    Unknown {
        /// The option.
        name: String,
        /// One that looks like it.
        suggestion: Option<&'static str>,
    },
    /// A value is missing or is not of its kind.
    #[error("option {name}={value}: needs {wanted}")]
    Value {
        /// The option.
        name: &'static str,
        /// What was given.
        value: String,
        /// What would be taken.
        wanted: &'static str,
    },
    /// A value where none belongs.
    #[error("option {name} takes no value")]
    NoValue {
        /// The option.
        name: String,
    },
    /// `force` alone.
    #[error("option force needs write: it lets writes pass over a mapping's protection")]
    ForceWithoutWrite,
    /// `write` and `ro`.
    #[error(
        "options write and ro exclude each other: write lets memory be written, ro lets nothing be written"
    )]
    WriteAndReadOnly,
    /// `remount`.
    #[error(
        "option remount: a mount cannot be changed: unmount it, and mount it again with other options"
    )]
    Remount,
}

fn suggested(suggestion: &Option<&'static str>) -> String {
    suggestion.map_or_else(String::new, |name| format!(", did you mean '{name}'?"))
}

/// Options of our own.
const OWN: &[&str] = &[
    "write",
    "rw",
    "ro",
    "cache_ttl",
    "cache_size",
    "fault",
    "force",
    "pid",
    "threads",
    "touch",
];

/// Options of mount(8) that the kernel or the mount helper acts on.
const GENERIC: &[&str] = &[
    "nosuid", "suid", "nodev", "dev", "noexec", "exec", "sync", "async", "dirsync", "atime",
    "noatime",
];

/// Options that only mount(8), `fstab` or a boot manager acts on.
const IGNORED: &[&str] = &[
    "defaults",
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "owner",
    "group",
    "nofail",
    "_netdev",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "diratime",
    "nodiratime",
    "lazytime",
    "nolazytime",
    "silent",
    "loud",
    "mand",
    "nomand",
    "iversion",
    "noiversion",
    "symfollow",
    "nosymfollow",
    "_rnetdev",
];

impl MountConfig {
    /// Reads the values of all `-o`, each a comma-separated list; a later option holds against an earlier one.
    ///
    /// # Errors
    /// The first option that cannot be taken.
    pub fn parse<'a>(lists: impl IntoIterator<Item = &'a str>) -> Result<Self, OptionError> {
        let mut config = Self::default();
        let mut wanted = Wanted::default();
        for option in lists.into_iter().flat_map(|list| list.split(',')) {
            if !option.is_empty() {
                config.take(option, &mut wanted)?;
            }
        }
        config.mode = match (wanted.write, wanted.read_only) {
            (true, true) => return Err(OptionError::WriteAndReadOnly),
            (true, false) => Mode::Write,
            (false, true) => Mode::ReadOnly,
            (false, false) => Mode::Look,
        };
        if config.force && config.mode != Mode::Write {
            return Err(OptionError::ForceWithoutWrite);
        }
        Ok(config)
    }

    fn take(&mut self, option: &str, wanted: &mut Wanted) -> Result<(), OptionError> {
        let (name, value) = match option.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (option, None),
        };
        match name {
            "cache_ttl" => {
                self.cache_ttl = given("cache_ttl", value, "a time such as 100ms, 2s or 0", time)?;
            }
            "cache_size" => {
                self.cache_size = given(
                    "cache_size",
                    value,
                    "a size in bytes such as 64M or 1G",
                    size,
                )?;
            }
            "fault" => self.faults = given("fault", value, "'error' or 'zero'", faults)?,
            "pid" => self.only = given("pid", value, "process numbers such as 12 or 12:345", pids)?,
            "threads" => self.threads = given("threads", value, "a number from 1 to 256", threads)?,
            "fsname" | "subtype" | "max_read" | "context" | "fscontext" | "defcontext"
            | "rootcontext"
                if value.is_some() =>
            {
                self.generic.push(option.to_owned());
            }
            name if is_for_others(name, value) => (),
            "remount" => return Err(OptionError::Remount),
            _ if value.is_some() && is_known(name) => {
                return Err(OptionError::NoValue {
                    name: name.to_owned(),
                });
            }
            "write" => wanted.write = true,
            // As mount(8) has it: the later of the two holds.
            "rw" => (self.rw, wanted.read_only) = (true, false),
            "ro" => wanted.read_only = true,
            "force" => self.force = true,
            "touch" => self.touch = true,
            name if GENERIC.contains(&name) => self.generic.push(name.to_owned()),
            name if IGNORED.contains(&name) => (),
            name => {
                return Err(OptionError::Unknown {
                    name: name.to_owned(),
                    suggestion: similar(name),
                });
            }
        }
        Ok(())
    }
}

/// Which of the options that contradict each other were given.
#[derive(Debug, Default)]
struct Wanted {
    write: bool,
    read_only: bool,
}

/// Options with any value that other programs leave in the list: comments of `fstab`, of systemd and of
/// desktops, and who mounted it and is to unmount it (mount(8)).
fn is_for_others(name: &str, value: Option<&str>) -> bool {
    let has_prefix = ["x-", "X-"].iter().any(|prefix| name.starts_with(prefix));
    has_prefix
        || name == "comment"
        || (value.is_some() && ["user", "uhelper", "helper"].contains(&name))
}

fn is_known(name: &str) -> bool {
    [OWN, GENERIC, IGNORED]
        .iter()
        .any(|names| names.contains(&name))
}

fn given<T>(
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

fn time(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    /// Longer than any mount lasts, and short enough to reckon with.
    const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
    humantime::parse_duration(text)
        .ok()
        .filter(|time| *time <= LONGEST)
}

fn size(text: &str) -> Option<u64> {
    parse_size::Config::new()
        .with_binary()
        .parse_size(text)
        .ok()
}

fn faults(text: &str) -> Option<FaultPolicy> {
    match text {
        "error" => Some(FaultPolicy::Error),
        "zero" => Some(FaultPolicy::Zero),
        _ => None,
    }
}

fn pids(text: &str) -> Option<Vec<ProcessId>> {
    text.split(':').map(ProcessId::parse).collect()
}

fn threads(text: &str) -> Option<usize> {
    text.parse()
        .ok()
        .filter(|threads| (1..=256).contains(threads))
}

/// Some more threads than CPUs: one that waits in a target's memory leaves the others to serve.
fn default_threads() -> usize {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    (2 * cpus).clamp(4, 16)
}

/// The option that differs from `name` by the fewest letters, if it is but a slip.
fn similar(name: &str) -> Option<&'static str> {
    OWN.iter()
        .map(|known| (distance(name, known), *known))
        .filter(|(distance, _)| *distance <= 2)
        .min()
        .map(|(_, known)| known)
        .filter(|_| name.len() > 3)
}

/// Levenshtein's distance.
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.bytes().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, b) in other.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(list: &str) -> Result<MountConfig, OptionError> {
        MountConfig::parse([list])
    }

    #[test]
    fn nothing_given_is_the_documented_default() {
        let config = parse("").unwrap();
        assert_eq!(config.mode, Mode::Look);
        assert_eq!(config.cache_ttl, Duration::from_millis(100));
        assert_eq!(config.cache_size, 64 << 20);
        assert_eq!(config.faults, FaultPolicy::Error);
        assert!(config.only.is_empty());
        assert!(config.threads >= 4);
    }

    #[test]
    fn options_are_read() {
        let config = MountConfig::parse([
            "write,force,touch,cache_ttl=2s,cache_size=1G",
            "fault=zero,pid=12:345,threads=3,nosuid,fsname=x,x-systemd.automount,defaults",
        ])
        .unwrap();
        assert_eq!(config.mode, Mode::Write);
        assert!(config.force && config.touch);
        assert_eq!(config.cache_ttl, Duration::from_secs(2));
        assert_eq!(config.cache_size, 1 << 30);
        assert_eq!(config.faults, FaultPolicy::Zero);
        assert_eq!(
            config.only.iter().map(|pid| pid.get()).collect::<Vec<_>>(),
            [12, 345]
        );
        assert_eq!(config.threads, 3);
        assert_eq!(config.generic, ["nosuid", "fsname=x"]);
        assert_eq!(parse("cache_ttl=0").unwrap().cache_ttl, Duration::ZERO);
        assert_eq!(parse("cache_size=0").unwrap().cache_size, 0);
    }

    #[test]
    fn rw_means_nothing_and_the_later_of_ro_and_rw_holds() {
        let table = [
            (vec!["rw"], Mode::Look),
            (vec!["rw,write"], Mode::Write),
            (vec!["write", "rw"], Mode::Write),
            (vec!["write,write"], Mode::Write),
            (vec!["ro"], Mode::ReadOnly),
            (vec!["rw,ro"], Mode::ReadOnly),
            (vec!["ro", "rw"], Mode::Look),
            (vec!["ro,rw,write"], Mode::Write),
            (vec!["defaults,nofail"], Mode::Look),
        ];
        for (lists, mode) in table {
            let config = MountConfig::parse(lists.iter().copied()).unwrap();
            assert_eq!(config.mode, mode, "{lists:?}");
            let names_rw = lists.iter().any(|list| list.split(',').any(|o| o == "rw"));
            assert_eq!(config.rw, names_rw, "{lists:?}");
        }
    }

    /// What mount(8), mount.fuse3, systemd and desktops add of their own accord.
    #[test]
    fn options_that_come_along_are_taken() {
        for list in [
            "rw,dev,suid",
            "rw,nosuid,nodev,noexec,user=alice",
            "rw,user,noauto,nofail,_netdev,x-systemd.automount,x-systemd.idle-timeout=5m",
            "rw,relatime,x-gvfs-show,comment=mine,uhelper=udisks2,helper=x,X-mount.mkdir=0755",
            "rw,nosymfollow,silent,lazytime",
        ] {
            assert_eq!(parse(list).unwrap().mode, Mode::Look, "{list}");
        }
    }

    #[test]
    fn a_bad_option_is_named_with_what_would_be_taken() {
        let table = [
            (
                "cache_tll=1s",
                "unknown option 'cache_tll', did you mean 'cache_ttl'?: see procmemfs --help",
            ),
            (
                "nonsense",
                "unknown option 'nonsense': see procmemfs --help",
            ),
            (
                "cache_ttl",
                "option cache_ttl=: needs a time such as 100ms, 2s or 0",
            ),
            (
                "cache_ttl=5",
                "option cache_ttl=5: needs a time such as 100ms, 2s or 0",
            ),
            (
                "cache_size=lots",
                "option cache_size=lots: needs a size in bytes such as 64M or 1G",
            ),
            (
                "fault=ignore",
                "option fault=ignore: needs 'error' or 'zero'",
            ),
            (
                "pid=1:x",
                "option pid=1:x: needs process numbers such as 12 or 12:345",
            ),
            (
                "pid=",
                "option pid=: needs process numbers such as 12 or 12:345",
            ),
            (
                "threads=0",
                "option threads=0: needs a number from 1 to 256",
            ),
            ("rw=1", "option rw takes no value"),
            ("write=1", "option write takes no value"),
            (
                "wirte",
                "unknown option 'wirte', did you mean 'write'?: see procmemfs --help",
            ),
            (
                "force",
                "option force needs write: it lets writes pass over a mapping's protection",
            ),
            (
                "rw,force",
                "option force needs write: it lets writes pass over a mapping's protection",
            ),
            (
                "ro,write",
                "options write and ro exclude each other: write lets memory be written, ro lets nothing be written",
            ),
            (
                "remount,rw",
                "option remount: a mount cannot be changed: unmount it, and mount it again with other options",
            ),
        ];
        for (list, message) in table {
            assert_eq!(parse(list).unwrap_err().to_string(), message, "{list}");
        }
    }
}
