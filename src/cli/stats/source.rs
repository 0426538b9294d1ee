//! The file `stats` of a mount.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use procmemfs::common::metrics::Reading;

use super::figures::Figures;

/// The counters of a mount, as they were read last.
#[derive(Debug)]
pub(super) struct Source {
    path: PathBuf,
    last: Reading,
    at: Instant,
}

impl Source {
    /// Reads them for the first time.
    ///
    /// # Errors
    /// Where it is no mount of this program, or does not answer.
    pub(super) fn open(mountpoint: &Path) -> Result<Self> {
        let path = mountpoint.join("stats");
        let last = read(&path)?;
        Ok(Self {
            path,
            last,
            at: Instant::now(),
        })
    }

    /// Which mount it is.
    pub(super) fn title(&self) -> String {
        let point = self.path.parent().unwrap_or(&self.path);
        format!("procmemfs on {}", point.display())
    }

    /// What has come since the last reading.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(super) fn figures(&mut self) -> Result<Figures> {
        let now = read(&self.path)?;
        let at = Instant::now();
        let figures = Figures::between(&self.last, &now, at - self.at);
        (self.last, self.at) = (now, at);
        Ok(figures)
    }
}

fn read(path: &Path) -> Result<Reading> {
    let point = path.parent().unwrap_or(path).display();
    let text = match std::fs::read_to_string(path) {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            bail!("stats: {point} is no mount of procmemfs: there is no file 'stats' in it")
        }
        text => text.with_context(|| format!("stats: {}", path.display()))?,
    };
    Reading::parse(&text).with_context(|| {
        format!(
            "stats: {} is not that of a mount of procmemfs",
            path.display()
        )
    })
}
