//! Where the log goes, and the audit trail.

use anyhow::{Context, Result, ensure};
use log::{Level, LevelFilter, Log, Metadata, Record};
use procmemfs::mount::{AUDIT, AuditSink};
use syslog::{BasicLogger, Facility, Formatter3164};
use systemd_journal_logger::JournalLog;

type Sink = Box<dyn Log>;

/// Sends the audit trail one way, and all else another.
struct Router {
    general: Sink,
    /// Whether the sink itself leaves out what is not wanted.
    has_filter: bool,
    /// `None` where both go the same way.
    audit: Option<Sink>,
}

impl Router {
    fn sink(&self, target: &str) -> &dyn Log {
        match &self.audit {
            Some(audit) if target == AUDIT => &**audit,
            _ => &*self.general,
        }
    }
}

impl Log for Router {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.sink(metadata.target()).enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.has_filter && is_noise(record) {
            return;
        }
        self.sink(record.target()).log(record);
    }

    fn flush(&self) {
        self.general.flush();
        if let Some(audit) = &self.audit {
            audit.flush();
        }
    }
}

/// Where the audit trail goes: to a log that is there.
pub(super) struct Audit(Option<AuditSink>);

impl Audit {
    /// Checks that the log is there before anything is mounted: who asks for an audit trail is to have one.
    ///
    /// # Errors
    /// Where it is not.
    pub(super) fn check(wanted: Option<AuditSink>, foreground: bool) -> Result<Self> {
        let stderr_is_lost = wanted == Some(AuditSink::Stderr) && !foreground;
        ensure!(
            !stderr_is_lost,
            "option audit=stderr needs -f: in the background there is no standard error"
        );
        let audit = Self(wanted);
        audit.open()?;
        Ok(audit)
    }

    /// Opens the log; `None` where it is that of all else.
    fn open(&self) -> Result<Option<Sink>> {
        Ok(match self.0 {
            None | Some(AuditSink::Log) => None,
            Some(AuditSink::Stderr) => Some(Box::new(stderr("info").build())),
            Some(AuditSink::Syslog) => Some(system_log(Facility::LOG_AUTHPRIV).context(
                "option audit=syslog: there is no /dev/log: start a syslog daemon, or choose audit=stderr",
            )?),
            Some(AuditSink::Journal) => Some(journal().context(
                "option audit=journald: there is no journal: choose audit=syslog or audit=stderr",
            )?),
        })
    }
}

/// To the terminal: what fails, each kind of failure once a minute, or with `debug` all there is to tell.
pub(super) fn to_stderr(debug: bool, audit: &Audit) {
    // `fuser` tells at the level of info what we tell better, and each answer that nobody waits for any more, since who asked
    // was killed: that would let any user fill the log.
    let filter = if debug {
        "debug"
    } else {
        "info,fuser=warn,fuser::reply=off"
    };
    let wanted = std::env::var("RUST_LOG");
    let mut general = stderr(wanted.as_deref().unwrap_or(filter));
    // Whatever RUST_LOG says: who asks for an audit trail has all of it.
    general.filter_module(AUDIT, LevelFilter::Info);
    let general = general.build();
    let level = general.filter();
    install(Box::new(general), true, audit, level);
}

/// A daemon has no terminal: it tells the journal, or else the system's log, if there is one.
pub(super) fn to_system(audit: &Audit) {
    let general = match journal() {
        Ok(journal) => journal,
        Err(_) => system_log(Facility::LOG_DAEMON).unwrap_or_else(|_| Box::new(log::logger())),
    };
    install(general, false, audit, LevelFilter::Info);
    // Its standard error leads nowhere.
    std::panic::set_hook(Box::new(|info| log::error!("{info}")));
}

/// What `fuser` has to tell but for warnings, as on the terminal.
fn is_noise(record: &Record<'_>) -> bool {
    let target = record.target();
    target.starts_with("fuser") && (record.level() > Level::Warn || target == "fuser::reply")
}

fn install(general: Sink, has_filter: bool, audit: &Audit, level: LevelFilter) {
    // It was there a moment ago.
    let audit = audit.open().unwrap_or_default();
    let router = Router {
        general,
        has_filter,
        audit,
    };
    // There is none yet.
    if log::set_boxed_logger(Box::new(router)).is_ok() {
        log::set_max_level(level.max(LevelFilter::Info));
    }
}

fn stderr(filter: &str) -> env_logger::Builder {
    let mut builder = env_logger::Builder::new();
    builder.parse_filters(filter);
    builder
}

/// The journal of systemd, each field by itself.
///
/// # Errors
/// Where there is none.
fn journal() -> std::io::Result<Sink> {
    let journal = JournalLog::new()?;
    Ok(Box::new(
        journal.with_syslog_identifier("procmemfs".to_owned()),
    ))
}

/// The system's log.
///
/// # Errors
/// Where there is none.
fn system_log(facility: Facility) -> std::result::Result<Sink, syslog::Error> {
    let formatter = Formatter3164 {
        facility,
        hostname: None,
        process: "procmemfs".to_owned(),
        pid: std::process::id(),
    };
    let logger = syslog::unix(formatter)?;
    Ok(Box::new(BasicLogger::new(logger)))
}
