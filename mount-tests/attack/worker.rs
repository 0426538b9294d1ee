//! One who reads or writes generations of the target through a mount, and checks each byte.
//!
//! Used by the tests, and by the program of the target: only a process of its own can be another user.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

use super::control::{Control, READ_LEN, SLOT, SLOTS, Word};

/// What a worker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Duty {
    /// Reads through a handle on the file of the mapping, also after the target has gone on.
    Mapping,
    /// The same with `mem/PID`.
    Space,
    /// Asks such handles for data.
    Seek,
    /// Opens the path for each read.
    Path,
    /// Writes through a handle on the file of the mapping.
    Write,
    /// The same with `mem/PID`.
    WriteSpace,
}

impl Duty {
    /// All of them.
    pub(crate) const ALL: [Self; 6] = [
        Self::Mapping,
        Self::Space,
        Self::Seek,
        Self::Path,
        Self::Write,
        Self::WriteSpace,
    ];

    fn writes(self) -> bool {
        matches!(self, Self::Write | Self::WriteSpace)
    }

    fn is_of_space(self) -> bool {
        matches!(self, Self::Space | Self::WriteSpace)
    }
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Handles that were of a generation for certain.
    pub(crate) handles: u64,
    /// Reads, seeks and writes that the mount answered, and bytes that were read or written.
    pub(crate) answers: u64,
    pub(crate) bytes: u64,
    /// Those of them that were begun after the target had gone on.
    pub(crate) late: u64,
    /// Errors of handles and of opening, by errno.
    pub(crate) refused: BTreeMap<i32, u64>,
    pub(crate) unopened: BTreeMap<i32, u64>,
    /// Bytes, or answers of seeks, of another generation.
    pub(crate) wrong: u64,
    /// The first of them.
    pub(crate) example: String,
}

impl Tally {
    /// Adds another one.
    pub(crate) fn add(&mut self, other: &Self) {
        self.handles += other.handles;
        self.answers += other.answers;
        self.bytes += other.bytes;
        self.late += other.late;
        self.wrong += other.wrong;
        for (errno, count) in &other.refused {
            *self.refused.entry(*errno).or_default() += count;
        }
        for (errno, count) in &other.unopened {
            *self.unopened.entry(*errno).or_default() += count;
        }
        if self.example.is_empty() {
            self.example.clone_from(&other.example);
        }
    }

    fn wrong(&mut self, count: u64, example: impl FnOnce() -> String) {
        self.wrong += count;
        if self.example.is_empty() {
            self.example = example();
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            handles,
            answers,
            bytes,
            late,
            wrong,
            ..
        } = self;
        write!(
            f,
            "handles={handles} answers={answers} bytes={bytes} late={late} wrong={wrong}"
        )?;
        for (errno, count) in &self.refused {
            write!(f, " refused:{errno}={count}")?;
        }
        for (errno, count) in &self.unopened {
            write!(f, " unopened:{errno}={count}")?;
        }
        write!(f, " example={}", self.example)
    }
}

impl Tally {
    /// Takes in what [`Display`](fmt::Display) shows.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let mut tally = Self::default();
        let (numbers, example) = line.split_once(" example=")?;
        tally.example = example.to_string();
        for word in numbers.split(' ') {
            let (name, value) = word.split_once('=')?;
            let value = value.parse().ok()?;
            match name.split_once(':') {
                None => match name {
                    "handles" => tally.handles = value,
                    "answers" => tally.answers = value,
                    "bytes" => tally.bytes = value,
                    "late" => tally.late = value,
                    "wrong" => tally.wrong = value,
                    _ => return None,
                },
                Some((kind, errno)) => {
                    let errno = errno.parse().ok()?;
                    let map = match kind {
                        "refused" => &mut tally.refused,
                        "unopened" => &mut tally.unopened,
                        _ => return None,
                    };
                    map.insert(errno, value);
                }
            }
        }
        Some(tally)
    }
}

/// One who does a duty on a mount.
#[derive(Debug)]
pub(crate) struct Worker {
    control: Control,
    mount: PathBuf,
    duty: Duty,
    /// Which of all workers it is.
    index: u64,
    /// The name of the mapping's file, as it was last.
    name: Option<(String, u64)>,
    /// Whether every other generation is none of its business: those of root (`setuid`).
    is_plain_user: bool,
    tally: Tally,
    turn: u64,
}

/// A handle that is of a generation, and where in the file the address is that is read or written.
#[derive(Debug)]
struct Handle {
    file: File,
    generation: u64,
    offset: u64,
}

/// How long nothing may happen.
const LONGEST_SILENCE: Duration = Duration::from_secs(60);

/// How long a handle is asked after its generation has gone before that is an error.
const LONGEST_LATE: Duration = Duration::from_secs(20);

/// Answers of a handle after its generation has gone that are enough: what is kept lives for a while. Each
/// sixteenth is asked until it gives an error.
const LATE_ANSWERS: u64 = 16;

/// Paths that are opened in each generation.
const PATHS: u64 = 8;

/// How often it is looked whether there is another generation.
const PAUSE: Duration = Duration::from_micros(50);

impl Worker {
    /// A worker with this duty on this mount.
    pub(crate) fn new(control: Control, mount: &Path, duty: Duty, index: u64) -> Self {
        Self {
            control,
            mount: mount.to_path_buf(),
            duty,
            index,
            name: None,
            is_plain_user: false,
            tally: Tally::default(),
            turn: index,
        }
    }

    /// It may not have anything of a generation with an even number.
    pub(crate) fn of_plain_user(mut self) -> Self {
        self.is_plain_user = true;
        self
    }

    fn may_have(&self, generation: u64) -> bool {
        !self.is_plain_user || generation % 2 == 1
    }

    /// Does its duty until the target has ended.
    ///
    /// # Errors
    /// Of the control file; `TimedOut` where nothing happens any more, or a handle gives no error.
    pub(crate) fn run(mut self) -> io::Result<Tally> {
        let mut last = 0;
        let mut silent = Instant::now();
        while self.control.get(Word::Done)? == 0 {
            let generation = self.control.get(Word::Ready)?;
            if generation == 0 || generation == last {
                if silent.elapsed() > LONGEST_SILENCE {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "nothing happens"));
                }
                std::thread::sleep(PAUSE);
                continue;
            }
            silent = Instant::now();
            last = generation;
            match self.duty {
                Duty::Path => self.read_paths(generation)?,
                _ => self.hold(generation)?,
            }
        }
        Ok(self.tally)
    }

    fn ack(&self, generation: u64) -> io::Result<()> {
        self.control.set(Word::Acks, self.index, generation)
    }

    /// Opens a handle while the generation is there, and uses it until that fails.
    fn hold(&mut self, generation: u64) -> io::Result<()> {
        let opened = self.open_address(self.address()?);
        let is_certain = self.control.get(Word::Ready)? == generation;
        self.ack(generation)?;
        let (file, offset) = match opened {
            Ok(opened) => opened,
            Err(error) => return self.not_opened(&error),
        };
        if !is_certain {
            return Ok(());
        }
        if !self.may_have(generation) {
            self.tally
                .wrong(1, || format!("a handle of root's program {generation}"));
        }
        self.tally.handles += 1;
        let handle = Handle {
            file,
            generation,
            offset,
        };
        let mut late_since = None;
        let mut left = match generation % 16 {
            0 => u64::MAX,
            _ => LATE_ANSWERS,
        };
        while left > 0 {
            let is_late = self.control.get(Word::Ready)? != generation;
            let result = match self.duty {
                Duty::Write | Duty::WriteSpace => self.write(&handle),
                Duty::Seek => self.seek(&handle),
                _ => self.read(&handle),
            };
            match result {
                Ok(bytes) => {
                    self.tally.answers += 1;
                    self.tally.bytes += bytes as u64;
                    self.tally.late += u64::from(is_late);
                    left -= u64::from(is_late);
                }
                Err(error) => {
                    let errno = error.raw_os_error().unwrap_or(0);
                    *self.tally.refused.entry(errno).or_default() += 1;
                    return Ok(());
                }
            }
            if is_late && late_since.get_or_insert_with(Instant::now).elapsed() > LONGEST_LATE {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "a handle gives no error",
                ));
            }
        }
        Ok(())
    }

    fn not_opened(&mut self, error: &io::Error) -> io::Result<()> {
        let errno = error.raw_os_error().unwrap_or(0);
        *self.tally.unopened.entry(errno).or_default() += 1;
        Ok(())
    }

    fn address(&self) -> io::Result<u64> {
        self.control.get(match self.duty {
            Duty::Seek => Word::Seek,
            duty if duty.writes() => Word::Write,
            _ => Word::Read,
        })
    }

    /// Opens the file that has the address, and says where in it that is.
    fn open_address(&mut self, address: u64) -> io::Result<(File, u64)> {
        let pid = self.control.get(Word::Pid)?;
        let mut options = OpenOptions::new();
        options.read(true).write(self.duty.writes());
        // By turns past what the kernel has cached, to what the daemon has.
        if self.turn % 4 >= 2 {
            options.custom_flags(nix::libc::O_DIRECT);
        }
        // Both kinds of file, by turns.
        if self.duty.is_of_space() || self.duty == Duty::Seek && self.turn % 2 == 1 {
            self.turn += 1;
            let file = options.open(self.mount.join(format!("mem/{pid}")))?;
            return Ok((file, address));
        }
        self.turn += 1;
        let directory = self.mount.join(pid.to_string());
        if let Some((name, start)) = &self.name {
            match options.open(directory.join(name)) {
                Err(error) if error.raw_os_error() == Some(nix::libc::ENOENT) => (),
                opened => return opened.map(|file| (file, address - start)),
            }
        }
        for entry in std::fs::read_dir(&directory)? {
            let Ok(name) = entry?.file_name().into_string() else {
                continue;
            };
            let range = name
                .split('.')
                .next()
                .and_then(|range| range.split_once('-'));
            let Some((start, end)) = range else { continue };
            let number = |digits| u64::from_str_radix(digits, 16).unwrap_or(0);
            let (start, end) = (number(start), number(end));
            if (start..end).contains(&address) {
                let file = options.open(directory.join(&name))?;
                self.name = Some((name, start));
                return Ok((file, address - start));
            }
        }
        Err(Errno::ENOENT.into())
    }

    /// Reads a part: each word of it is the number of the generation.
    fn read(&mut self, handle: &Handle) -> io::Result<usize> {
        self.turn += 1;
        let len = [8, 4096, READ_LEN / 2, READ_LEN][self.turn as usize % 4];
        let at = (self.turn as usize * 4096) % (READ_LEN - len + 8) / 8 * 8;
        let mut bytes = vec![0xa5; len];
        let read = handle.file.read_at(&mut bytes, handle.offset + at as u64)?;
        let expected = handle.generation;
        let wrong = words(&bytes[..read])
            .filter(|word| *word != expected)
            .count();
        // Fewer bytes than were asked for: the next page gave an error, and so will the next read.
        if wrong > 0 || read == 0 {
            let first = words(&bytes[..read]).find(|word| *word != expected);
            let duty = self.duty;
            self.tally.wrong((wrong * 8).max(1) as u64, || {
                format!("{duty:?}: {read} of {len} bytes at {at}, {first:?} and not {expected}")
            });
        }
        Ok(read)
    }

    /// Asks for data where a page is data in each other generation.
    fn seek(&mut self, handle: &Handle) -> io::Result<usize> {
        let at = handle.offset as i64;
        let is_data = match lseek(handle.file.as_fd(), at, Whence::SeekData) {
            Ok(found) => found == at,
            // No more data in the file: `ENXIO`.
            Err(Errno::ENXIO) => false,
            Err(errno) => return Err(errno.into()),
        };
        if is_data != handle.generation.is_multiple_of(2) {
            let generation = handle.generation;
            self.tally.wrong(1, || {
                format!("Seek: of {generation} it says data: {is_data}")
            });
        }
        Ok(0)
    }

    /// Writes the generation of the handle where no other worker does, and not in the next three generations.
    fn write(&mut self, handle: &Handle) -> io::Result<usize> {
        self.turn += 1;
        let len = if self.turn.is_multiple_of(2) { 8 } else { 4096 };
        let value = handle.generation << 16 | self.index << 8 | 0x5a;
        let bytes = value.to_ne_bytes().repeat(len / 8);
        let slot = (self.index * 4 + handle.generation % 4) % SLOTS;
        let at = handle.offset + slot * SLOT as u64 + (self.turn % 512) * 8;
        handle.file.write_at(&bytes, at)
    }

    /// Opens the path again and again: each time all bytes are of one program, that of now or one after it.
    fn read_paths(&mut self, generation: u64) -> io::Result<()> {
        for turn in 0..PATHS {
            let before = self.control.get(Word::Ready)?;
            let address = self.address()?;
            let opened = self.open_address(address);
            if turn == 0 {
                self.ack(generation)?;
            }
            let (file, offset) = match opened {
                Ok(opened) => opened,
                Err(error) => {
                    self.not_opened(&error)?;
                    continue;
                }
            };
            if before == generation {
                self.tally.handles += 1;
            }
            let mut bytes = vec![0xa5; READ_LEN];
            let read = match file.read_at(&mut bytes, offset) {
                Ok(read) => read,
                Err(error) => {
                    *self
                        .tally
                        .refused
                        .entry(error.raw_os_error().unwrap_or(0))
                        .or_default() += 1;
                    continue;
                }
            };
            let after = self.control.get(Word::Ready)?;
            self.tally.answers += 1;
            self.tally.bytes += read as u64;
            self.tally.late += u64::from(after != generation);
            self.check_path(&bytes[..read], before, after);
        }
        Ok(())
    }

    fn check_path(&mut self, bytes: &[u8], before: u64, after: u64) {
        // Zeros are those of a program that has yet to fill them.
        let value = words(bytes).find(|word| *word != 0);
        let others = words(bytes)
            .filter(|word| *word != 0 && Some(*word) != value)
            .count() as u64;
        let is_old = before != 0 && value.is_some_and(|value| value < before);
        let is_blank = before != 0 && before == after && words(bytes).any(|word| word == 0);
        let is_other = before != 0 && before == after && value != Some(before);
        let is_denied = value.is_some_and(|value| !self.may_have(value));
        if is_denied || others > 0 || is_old || is_blank || is_other || bytes.is_empty() {
            let read = bytes.len();
            self.tally.wrong((others * 8).max(1), || {
                format!(
                    "Path: {read} bytes of {value:?}, {others} words of others; \
                     it was {before} before and {after} after (old {is_old}, blank {is_blank}, of root {is_denied})"
                )
            });
        }
    }
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u64> {
    let (words, _) = bytes.as_chunks::<8>();
    words.iter().map(|word| u64::from_ne_bytes(*word))
}
