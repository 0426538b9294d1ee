//! The file by which target and workers agree: words of eight bytes, each written by one of them.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A word of the file; the order is that of `target.c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Word {
    /// The generation that can be opened now; 0 while there is none.
    Ready,
    /// Its process.
    Pid,
    /// How many workers it waits for.
    Workers,
    /// The last generation.
    Rounds,
    /// Not 0 once the last one has ended.
    Done,
    /// Words that were written by a worker whose handle is of another generation.
    Wrong,
    /// The last of them, and whose it was.
    WrongValue,
    WrongGeneration,
    /// Words that were written by a worker whose handle is of the same generation.
    Arrived,
    /// Generations that did not wait any longer.
    Missed,
    /// Where the pages are that are read, the one that is data in every other generation, and those that are written.
    Read,
    Seek,
    Write,
    /// For each worker the last generation that it has opened, or tried to.
    Acks,
}

/// Bytes that are read.
pub(crate) const READ_LEN: usize = 16 * 4096;
/// Bytes that one worker may write for one generation; so much are 32 of them apart.
pub(crate) const SLOT: usize = 2 * 4096;
/// Slots that are written.
pub(crate) const SLOTS: u64 = 32;

/// The file, open.
#[derive(Debug)]
pub(crate) struct Control(File);

impl Control {
    /// Makes the file, for so many workers and generations.
    pub(crate) fn create(path: &Path, workers: u64, rounds: u64) -> io::Result<Self> {
        use std::os::unix::fs::PermissionsExt;
        let options = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)?;
        options.set_len(4096)?;
        options.set_permissions(std::fs::Permissions::from_mode(0o666))?;
        let control = Self(options);
        control.set(Word::Workers, 0, workers)?;
        control.set(Word::Rounds, 0, rounds)?;
        Ok(control)
    }

    /// Opens the file.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(OpenOptions::new().read(true).write(true).open(path)?))
    }

    /// The value of a word.
    pub(crate) fn get(&self, word: Word) -> io::Result<u64> {
        let mut value = [0; 8];
        self.0.read_exact_at(&mut value, word as u64 * 8)?;
        Ok(u64::from_ne_bytes(value))
    }

    /// Sets a word, or one of the words after it.
    pub(crate) fn set(&self, word: Word, index: u64, value: u64) -> io::Result<()> {
        let offset = (word as u64 + index) * 8;
        self.0.write_all_at(&value.to_ne_bytes(), offset)
    }
}
