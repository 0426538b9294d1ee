//! Mount options: from the text after `-o` to a checked [`MountConfig`].

mod error;
mod foreign;
mod generic;
mod list;
mod value;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use nix::mount::MsFlags;

pub use error::OptionError;
pub use generic::GenericOptions;

use value::given;

use crate::common::choice::Choice;
use crate::common::pid::ProcessId;
use crate::files::view::FaultPolicy;
use crate::target::live::Feature;

/// What a mount does, all of it checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountConfig {
    /// Whether memory may be written, read only, or whether the mount takes no change at all.
    pub mode: Mode,
    /// Writes pass over a mapping's own protection.
    pub force: bool,
    /// Others than the mounter may enter, each judged by their own credentials.
    pub allow_other: bool,
    /// That also where Yama judges this daemon in their place.
    pub ignore_yama: bool,
    /// Reads may fault absent pages in.
    pub touch: bool,
    /// What to do without although the kernel has it, as on another one. No option sets
    /// this: tests do, to see that all ways show the same.
    pub without: Vec<Feature>,
    /// The oldest data that a read may return.
    pub cache_ttl: Duration,
    /// Budget of the page cache, in bytes.
    pub cache_size: u64,
    /// No process is ever stopped: core files have no registers.
    pub no_stop: bool,
    /// A process that is copied may be made to open a `userfaultfd`, so that it stands still for a shorter time.
    pub inject: bool,
    /// Core files hold all that can be read, whatever the process wants.
    pub full_core: bool,
    /// Bytes that all snapshots may take together; what suits the system where it is `None`.
    pub snap_size: Option<u64>,
    /// Where snapshots keep their pages; in memory where it is `None`.
    pub snap_dir: Option<PathBuf>,
    /// What becomes of unreadable bytes.
    pub faults: FaultPolicy,
    /// The only processes to show; all of them where it is empty.
    pub only: Vec<ProcessId>,
    /// Threads that serve requests: those of one processor where they come over io_uring.
    pub threads: usize,
    /// Whether requests come over io_uring.
    pub io_uring: Choice,
    /// Whether files are opened past the kernel's page cache.
    pub direct: Choice,
    /// Where a line for each open and for each handle's writes goes; none where it is `None`.
    pub audit: Option<AuditSink>,
    /// Options that every file system takes.
    pub generic: GenericOptions,
    /// Whether `rw` was given, which changes nothing: mount(8) gives it to every file system that is not `ro`.
    pub rw: bool,
}

/// Where the audit trail goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuditSink {
    /// Where all of the log goes.
    #[default]
    Log,
    /// The standard error.
    Stderr,
    /// The system's log (syslog(3)).
    Syslog,
    /// The journal of systemd, each field by itself.
    Journal,
}

/// What may be written through a mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Memory cannot be written (neither `write` nor `ro` is given).
    #[default]
    NoWrite,
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
            allow_other: false,
            ignore_yama: false,
            touch: false,
            no_stop: false,
            inject: false,
            full_core: false,
            snap_size: None,
            snap_dir: None,
            without: Vec::new(),
            cache_ttl: Duration::from_millis(100),
            cache_size: 64 << 20,
            faults: FaultPolicy::default(),
            only: Vec::new(),
            threads: default_threads(),
            // While the daemon is stopped (SIGSTOP, a frozen cgroup) whoever waits for it could not be killed.
            io_uring: Choice::Off,
            direct: Choice::default(),
            audit: None,
            generic: GenericOptions::default(),
            rw: false,
        }
    }
}

/// Options of our own.
const OWN: &[&str] = &[
    "allow_other",
    "allow_root",
    "audit",
    "default_permissions",
    "direct",
    "write",
    "rw",
    "ro",
    "cache_ttl",
    "cache_size",
    "fault",
    "force",
    "fullcore",
    "inject",
    "io_uring",
    "nostop",
    "pid",
    "snap_dir",
    "snap_size",
    "threads",
    "touch",
    "yama",
];

impl MountConfig {
    /// Names of the options that are our own; those that every file system takes, or mount(8) leaves in the list, are not
    /// among them.
    pub fn options() -> &'static [&'static str] {
        OWN
    }

    /// Reads the values of all `-o`, each a comma-separated list; a later option overrides an earlier one.
    ///
    /// # Errors
    /// The first option that cannot be taken.
    pub fn parse<'a>(lists: impl IntoIterator<Item = &'a str>) -> Result<Self, OptionError> {
        let mut config = Self::default();
        let mut wanted = Wanted::default();
        for list in lists {
            for option in list::split(list)? {
                let (name, value) = match option.split_once('=') {
                    Some((name, value)) => (name, Some(value)),
                    None => (option, None),
                };
                config.take(name, value, &mut wanted)?;
            }
        }
        config.mode = match (wanted.write, wanted.read_only) {
            (true, true) => return Err(OptionError::WriteAndReadOnly),
            (true, false) => Mode::Write,
            (false, true) => Mode::ReadOnly,
            (false, false) => Mode::NoWrite,
        };
        if config.ignore_yama && !config.allow_other {
            return Err(OptionError::YamaWithoutOthers);
        }
        if config.force && config.mode != Mode::Write {
            return Err(OptionError::ForceWithoutWrite);
        }
        Ok(config)
    }

    fn take(
        &mut self,
        name: &str,
        value: Option<&str>,
        wanted: &mut Wanted,
    ) -> Result<(), OptionError> {
        match name {
            "cache_ttl" => {
                let wanted = "a time such as 100ms, 2s or 0";
                self.cache_ttl = given("cache_ttl", value, wanted, value::time)?;
            }
            "cache_size" => {
                let wanted = "a size in bytes such as 64M or 1G";
                self.cache_size = given("cache_size", value, wanted, value::size)?;
            }
            "snap_size" => {
                let wanted = "a size in bytes such as 512M or 4G";
                self.snap_size = Some(given("snap_size", value, wanted, value::size)?);
            }
            "snap_dir" => {
                let wanted = "the absolute path of a directory";
                self.snap_dir = Some(given("snap_dir", value, wanted, value::directory)?);
            }
            "fault" => {
                self.faults = given("fault", value, "'error' or 'zero'", value::faults)?;
            }
            "pid" => {
                let wanted = "process numbers such as 12 or 12:345";
                self.only = given("pid", value, wanted, value::pids)?;
            }
            "threads" => {
                self.threads = given("threads", value, "a number from 1 to 256", value::threads)?;
            }
            "direct" => {
                let wanted = "'auto', 'on' or 'off'";
                self.direct = given("direct", value, wanted, value::choice)?;
            }
            "io_uring" => {
                let wanted = "'auto', 'on', 'off' or no value, which is as 'auto'";
                self.io_uring = match value {
                    None => Choice::Auto,
                    Some(_) => given("io_uring", value, wanted, value::choice)?,
                };
            }
            "audit" => {
                let wanted = "'stderr', 'syslog', 'journald' or no value";
                self.audit = Some(match value {
                    None => AuditSink::Log,
                    Some(_) => given("audit", value, wanted, value::audit)?,
                });
            }
            "yama" => {
                given("yama", value, "'ignore'", |text| {
                    (text == "ignore").then_some(())
                })?;
                self.ignore_yama = true;
            }
            name if foreign::is_remark(name, value) => (),
            "remount" => return Err(OptionError::Remount),
            name if self.generic.take(name, value)? => (),
            name if value.is_some() && (OWN.contains(&name) || foreign::is_word(name)) => {
                return Err(OptionError::NoValue {
                    name: name.to_owned(),
                });
            }
            "write" => wanted.write = true,
            "allow_other" => self.allow_other = true,
            // As it is with `allow_other`; without that nobody else enters.
            "default_permissions" => (),
            "allow_root" => return Err(OptionError::AllowRoot),
            // As mount(8) has it: the later of the two holds.
            "rw" => (self.rw, wanted.read_only) = (true, false),
            "ro" => wanted.read_only = true,
            "force" => self.force = true,
            "touch" => self.touch = true,
            "nostop" => self.no_stop = true,
            "inject" => self.inject = true,
            "fullcore" => self.full_core = true,
            name if foreign::is_word(name) => (),
            name => {
                return Err(OptionError::Unknown {
                    name: name.to_owned(),
                    suggestion: error::similar(name, OWN),
                });
            }
        }
        Ok(())
    }

    /// The flags of mount(2).
    pub(crate) fn flags(&self) -> MsFlags {
        let mut flags = self.generic.flags();
        flags.set(MsFlags::MS_RDONLY, self.mode == Mode::ReadOnly);
        flags
    }

    /// What the kernel's file system is told beside. Where others may enter it checks owners and modes itself, before we are asked.
    pub(super) fn kernel(&self) -> impl Iterator<Item = String> {
        let others = ["allow_other", "default_permissions"];
        let others = others.into_iter().filter(|_| self.allow_other);
        others.map(str::to_owned).chain(self.generic.kernel())
    }

    /// What `fusermount3 -o` is given.
    pub(crate) fn for_helper(&self) -> String {
        let mut list = self.generic.for_helper();
        if self.mode == Mode::ReadOnly {
            list.push_str(",ro");
        }
        if self.allow_other {
            list.push_str(",allow_other,default_permissions");
        }
        list
    }
}

/// Which of the options that contradict each other were given.
#[derive(Debug, Default)]
struct Wanted {
    write: bool,
    read_only: bool,
}

/// Some more threads than CPUs: one that waits in a target's memory leaves the others to serve.
fn default_threads() -> usize {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    (2 * cpus).clamp(4, 16)
}
