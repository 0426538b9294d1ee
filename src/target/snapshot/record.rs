//! What identifies a process that was copied, as text: a file of the snapshot, so that a backup of it has that, too.
//!
//! One fact a line: its name, a blank, its value. Addresses are hex without a prefix.

use std::fmt;

use crate::common::address::{Address, AddressRange};
use crate::target::ThreadRegisters;

/// What a restore must know of the process that was copied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessRecord {
    /// Its number.
    pub pid: u32,
    /// Its command, printable.
    pub command: String,
    /// The path of its program, printable.
    pub executable: String,
    /// The build-id of its program, in hex; `None` where it has none.
    pub build_id: Option<String>,
    /// The identification of the boot (`/proc/sys/kernel/random/boot_id`).
    pub boot: String,
    /// When it started, in clock ticks since the boot.
    pub started: u64,
    /// Where its code and its stack start: each exec lays them out anew.
    pub layout: [u64; 2],
    /// Its threads, in the order of their numbers.
    pub threads: Vec<ThreadPlace>,
    /// What could not be copied.
    pub unreadable: Vec<AddressRange>,
}

/// Where a thread is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ThreadPlace {
    /// Its number.
    pub tid: i32,
    /// Its next instruction.
    pub instruction: u64,
    /// The top of its stack.
    pub stack: u64,
}

impl ThreadPlace {
    /// Where a thread with these registers is; `None` where it has not stopped, or they are not understood.
    pub(crate) fn of(thread: &ThreadRegisters) -> Option<Self> {
        let (instruction, stack) = thread.place()?;
        Some(Self {
            tid: thread.tid,
            instruction,
            stack,
        })
    }
}

/// A line that is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the file 'process' is not understood")]
pub struct RecordError {
    /// Its number, from 1 on.
    pub line: usize,
}

impl ProcessRecord {
    /// The name of its file in the directory of a snapshot.
    pub const FILE: &'static str = "process";

    /// A text of one line, whatever bytes it comes from.
    pub fn printable(bytes: &[u8]) -> String {
        let letters = bytes.iter().map(|byte| match byte {
            b' ' => ' ',
            byte if byte.is_ascii_graphic() => char::from(*byte),
            _ => '_',
        });
        letters.collect()
    }

    /// Reads what [`Display`](fmt::Display) writes; lines of other names are passed over.
    ///
    /// # Errors
    /// The first line that is not understood.
    pub fn parse(text: &str) -> Result<Self, RecordError> {
        let mut record = Self::default();
        for (number, line) in text.lines().enumerate() {
            let (name, value) = line.split_once(' ').unwrap_or((line, ""));
            let error = RecordError { line: number + 1 };
            record.take(name, value).ok_or(error)?;
        }
        Ok(record)
    }

    fn take(&mut self, name: &str, value: &str) -> Option<()> {
        match name {
            "pid" => self.pid = value.parse().ok()?,
            "command" => self.command = value.to_owned(),
            "executable" => self.executable = value.to_owned(),
            "build-id" => self.build_id = Some(build_id(value)?),
            "boot" => self.boot = value.to_owned(),
            "started" => self.started = value.parse().ok()?,
            "code" => self.layout[0] = hex(value)?,
            "stack" => self.layout[1] = hex(value)?,
            "thread" => {
                let mut fields = value.split(' ');
                self.threads.push(ThreadPlace {
                    tid: fields.next()?.parse().ok()?,
                    instruction: hex(fields.next()?)?,
                    stack: hex(fields.next()?)?,
                });
            }
            "unreadable" => {
                let (start, end) = value.split_once('-')?;
                let range = AddressRange::new(Address::new(hex(start)?), Address::new(hex(end)?));
                self.unreadable.push(range?);
            }
            _ => (),
        }
        Some(())
    }
}

fn build_id(text: &str) -> Option<String> {
    let is_hex = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex.then(|| text.to_ascii_lowercase())
}

fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

impl fmt::Display for ProcessRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "pid {}", self.pid)?;
        writeln!(f, "command {}", self.command)?;
        writeln!(f, "executable {}", self.executable)?;
        if let Some(build_id) = &self.build_id {
            writeln!(f, "build-id {build_id}")?;
        }
        writeln!(f, "boot {}", self.boot)?;
        writeln!(f, "started {}", self.started)?;
        writeln!(f, "code {:x}", self.layout[0])?;
        writeln!(f, "stack {:x}", self.layout[1])?;
        for ThreadPlace {
            tid,
            instruction,
            stack,
        } in &self.threads
        {
            writeln!(f, "thread {tid} {instruction:x} {stack:x}")?;
        }
        for range in &self.unreadable {
            let (start, end) = (range.start().get(), range.end().get());
            writeln!(f, "unreadable {start:x}-{end:x}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let range = AddressRange::new(Address::new(0x1000), Address::new(0x3000));
        let record = ProcessRecord {
            pid: 12,
            command: "my prog".to_owned(),
            executable: "/usr/bin/my prog".to_owned(),
            build_id: Some("00a7ff".to_owned()),
            boot: "8f0b-1".to_owned(),
            started: 4711,
            layout: [0x55d0_c0a0_0000, 0x7ffd_1c3e_9000],
            threads: vec![
                ThreadPlace {
                    tid: 12,
                    instruction: 0x55d0_c0a0_0010,
                    stack: 0x7ffd_1c3e_8000,
                },
                ThreadPlace {
                    tid: 13,
                    instruction: 0xffff_ffff_ffff_ffff,
                    stack: 0,
                },
            ],
            unreadable: vec![range.unwrap()],
        };
        let text = record.to_string();
        assert_eq!(ProcessRecord::parse(&text), Ok(record.clone()));
        assert!(
            text.contains("\nthread 12 55d0c0a00010 7ffd1c3e8000\n"),
            "{text}"
        );
        let more = format!("{text}later something\n");
        assert_eq!(ProcessRecord::parse(&more), Ok(record.clone()));
        // As they were written when records had no build-id, and as they are of a program without one.
        let earlier = text.replace("build-id 00a7ff\n", "");
        let without = ProcessRecord {
            build_id: None,
            ..record
        };
        assert_eq!(without.to_string(), earlier);
        assert_eq!(ProcessRecord::parse(&earlier), Ok(without));
        let odd = ProcessRecord::printable(b"/bin/a b\n\xff");
        assert_eq!(odd, "/bin/a b__");
        for (wrong, line) in [
            ("pid x", 1),
            ("pid 1\nthread 1", 2),
            ("unreadable 3-1", 1),
            ("build-id", 1),
            ("build-id 0x12", 1),
        ] {
            assert_eq!(
                ProcessRecord::parse(wrong),
                Err(RecordError { line }),
                "{wrong}"
            );
        }
    }
}
