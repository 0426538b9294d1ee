//! The directory of a snapshot, or a copy of it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use thiserror::Error;

use crate::common::address::{Address, AddressRange};
use crate::target::mapping::{AddressSpace, Mapping};
use crate::target::snapshot::{ProcessRecord, RecordError};

/// Why a directory is no copy of a process.
#[derive(Debug, Error)]
pub enum BackupError {
    /// It cannot be read.
    #[error("{0}: {1}")]
    Unreadable(PathBuf, #[source] io::Error),
    /// It has no record.
    #[error(
        "{0}: no snapshot of a process, nor a copy of one: there is no file 'process' in it (that of several processes has a directory for each)"
    )]
    NoRecord(PathBuf),
    /// The record cannot be understood.
    #[error("{0}: {1}")]
    BadRecord(PathBuf, #[source] RecordError),
}

/// A copy of the memory of a process.
#[derive(Debug)]
pub struct Backup {
    record: ProcessRecord,
    /// Lowest address first.
    mappings: Vec<SavedMapping>,
}

/// The file of a mapping.
#[derive(Debug)]
pub struct SavedMapping {
    name: String,
    range: AddressRange,
    is_shared: bool,
    len: u64,
    file: File,
}

impl Backup {
    /// Opens a directory.
    ///
    /// # Errors
    /// Where it is no copy of a process.
    pub fn open(directory: &Path) -> Result<Self, BackupError> {
        let unreadable = |path: &Path| {
            let path = path.to_owned();
            move |error| BackupError::Unreadable(path, error)
        };
        let entries = std::fs::read_dir(directory).map_err(unreadable(directory))?;
        let path = directory.join(ProcessRecord::FILE);
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(BackupError::NoRecord(directory.to_owned()));
            }
            text => text.map_err(unreadable(&path))?,
        };
        let record = ProcessRecord::parse(&text)
            .map_err(|error| BackupError::BadRecord(directory.to_owned(), error))?;
        let mut mappings = Vec::new();
        for entry in entries {
            let entry = entry.map_err(unreadable(directory))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some((range, is_shared)) = parse_name(&name) else {
                continue;
            };
            let path = entry.path();
            let file = File::open(&path).map_err(unreadable(&path))?;
            let len = file.metadata().map_err(unreadable(&path))?.len();
            mappings.push(SavedMapping {
                name,
                range,
                is_shared,
                len,
                file,
            });
        }
        mappings.sort_by_key(|saved| saved.range.start());
        Ok(Self { record, mappings })
    }

    /// What identifies the process.
    pub fn record(&self) -> &ProcessRecord {
        &self.record
    }

    /// Names of the mappings, lowest address first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.mappings.iter().map(SavedMapping::name)
    }

    /// The mappings, lowest address first.
    pub(crate) fn mappings(&self) -> impl Iterator<Item = &SavedMapping> {
        self.mappings.iter()
    }

    /// Bytes of all of them, or of those that are not shared.
    pub(crate) fn total(&self, shared: bool) -> u64 {
        let wanted = self
            .mappings
            .iter()
            .filter(|saved| shared || !saved.is_shared);
        wanted.map(|saved| saved.len).sum()
    }
}

impl SavedMapping {
    /// The name of its file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the mapping lies in the process.
    pub(crate) fn range(&self) -> AddressRange {
        self.range
    }

    /// The part of it that its file holds, in whole pages; the mapping may go on past the end of what it shows.
    pub(crate) fn held(&self) -> AddressRange {
        self.range.truncated(self.len).to_pages()
    }

    /// The mapping of `space` that it is of.
    pub(crate) fn mapping_in<'a>(&self, space: &'a AddressSpace) -> Option<&'a Mapping> {
        let mappings = space.mappings();
        let start = self.range.start();
        let at = mappings.binary_search_by_key(&start, |mapping| mapping.range().start());
        at.ok().map(|at| &mappings[at])
    }

    /// Fills `buffer` with the bytes from `offset` on; zeros past the end of the file.
    ///
    /// # Errors
    /// The file system's refusal.
    pub(crate) fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            match self.file.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => {
                    buffer[done..].fill(0);
                    break;
                }
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Where the next data start, from `offset` on; the end of the file where there are none, and `offset` where the file
    /// system cannot tell.
    pub(crate) fn next_data(&self, offset: u64) -> u64 {
        let position = i64::try_from(offset).unwrap_or(i64::MAX);
        match lseek(&self.file, position, Whence::SeekData) {
            Ok(found) => u64::try_from(found).unwrap_or(offset),
            Err(Errno::ENXIO) => self.len,
            Err(_) => offset,
        }
    }
}

/// Where the mapping of this file lies, and whether it is shared.
fn parse_name(name: &str) -> Option<(AddressRange, bool)> {
    let (range, rest) = name.split_once('.')?;
    let (start, end) = range.split_once('-')?;
    let hex = |digits| u64::from_str_radix(digits, 16).ok().map(Address::new);
    let protection = rest.get(..4)?.as_bytes();
    let is_shared = match protection[3] {
        b's' => true,
        b'p' => false,
        _ => return None,
    };
    Some((AddressRange::new(hex(start)?, hex(end)?)?, is_shared))
}
