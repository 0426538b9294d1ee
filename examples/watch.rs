//! Watches a value of a running program through a procmemfs mount.
//!
//! ```text
//! watch MOUNTPOINT/PID/MAPPING OFFSET [TYPE]
//! ```
//!
//! Prints the value at OFFSET (decimal, or hex with `0x`) of the file, and then
//! each change of it with its time, until the program ends. TYPE is one of `i8`
//! `i16` `i32` (the default) `i64` `u8` `u16` `u32` `u64` `f32` `f64`.
//!
//! ```text
//! $ cargo run --release --example watch -- /mnt/1234/heap 0x2a0 u64
//! 2026-03-01T12:00:00.000Z  41
//! 2026-03-01T12:00:01.203Z  41 -> 42
//! ```
//!
//! A value that changes and changes back within a tenth of a second, or within
//! the mount's `cache_ttl` where that is longer, is not seen.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;

const USAGE: &str =
    "usage: watch MOUNTPOINT/PID/MAPPING OFFSET [i8|i16|i32|i64|u8|u16|u32|u64|f32|f64]";

/// Time between two looks. A mount with the default freshness bound has nothing newer to show sooner.
const INTERVAL: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("watch: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (path, offset, kind) = match arguments.as_slice() {
        [path, offset] => (path, offset, "i32"),
        [path, offset, kind] => (path, offset, kind.as_str()),
        _ => bail!("{USAGE}"),
    };
    let kind = Kind::named(kind).with_context(|| format!("no type '{kind}'; {USAGE}"))?;
    let offset =
        parse_offset(offset).with_context(|| format!("'{offset}' is not an offset; {USAGE}"))?;
    let file = File::open(path).with_context(|| path.clone())?;
    match watch(&file, offset, kind) {
        // Nobody reads the output any more (`| head`).
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            bail!(
                "{path}: ends before {} bytes at offset {offset}",
                kind.size()
            )
        }
        outcome => outcome.with_context(|| format!("{path} at offset {offset}")),
    }
}

fn watch(file: &File, offset: u64, kind: Kind) -> io::Result<()> {
    let mut last = kind.read(file, offset)?;
    report(&last)?;
    loop {
        std::thread::sleep(INTERVAL);
        match kind.read(file, offset) {
            Ok(value) if value == last => (),
            Ok(value) => {
                report(&format!("{last} -> {value}"))?;
                last = value;
            }
            // What was to be watched is over: that is no failure.
            Err(error) => match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::ESRCH) => return report("the process has ended"),
                Some(Errno::ESTALE) => return report("the process runs another program now"),
                _ => return Err(error),
            },
        }
    }
}

fn report(text: &str) -> io::Result<()> {
    let now = humantime::format_rfc3339_millis(SystemTime::now());
    writeln!(io::stdout(), "{now}  {text}")
}

fn parse_offset(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// The kinds of values, and how their bytes become text.
macro_rules! kinds {
    ($($variant:ident: $type:ty),* $(,)?) => {
        #[derive(Clone, Copy)]
        enum Kind {
            $($variant),*
        }

        impl Kind {
            fn named(name: &str) -> Option<Self> {
                match name {
                    $(stringify!($type) => Some(Self::$variant),)*
                    _ => None,
                }
            }

            fn size(self) -> usize {
                match self {
                    $(Self::$variant => size_of::<$type>()),*
                }
            }

            fn read(self, file: &File, offset: u64) -> io::Result<String> {
                match self {
                    $(Self::$variant => {
                        let mut bytes = [0; size_of::<$type>()];
                        file.read_exact_at(&mut bytes, offset)?;
                        Ok(<$type>::from_ne_bytes(bytes).to_string())
                    })*
                }
            }
        }
    };
}

kinds! {
    I8: i8, I16: i16, I32: i32, I64: i64,
    U8: u8, U16: u16, U32: u32, U64: u64,
    F32: f32, F64: f64,
}
