//! Reads memory of a live process through the library, without a mount.
//!
//! ```text
//! read_memory PID [ADDRESS [LENGTH]]
//! ```
//!
//! Shows LENGTH bytes (256) from ADDRESS on (hexadecimal; the start of the heap), as far as the mapping reaches that
//! holds it. Neither is the process stopped, nor is a page of it faulted in.
//!
//! ```text
//! $ cargo run --release --example read_memory -- 1234 55d0c0a002a0 32
//! 1234 (nginx): 32 bytes at 55d0c0a002a0, of 55d0c0a00000-55d0c0a21000.rw-p.heap
//! 55d0c0a002a0  74 68 65 20 70 61 73 73 77 6f 72 64 20 69 73 20  |the password is |
//! 55d0c0a002b0  73 77 6f 72 64 66 69 73 68 00 00 00 00 00 00 00  |swordfish.......|
//! ```

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use procmemfs::common::address::Address;
use procmemfs::common::clock::SystemClock;
use procmemfs::target::live::{LiveSource, SourceOptions};
use procmemfs::target::{ProcessId, ProcessSource, ReadSegment};

const USAGE: &str = "usage: read_memory PID [ADDRESS [LENGTH]]";

/// The most that is shown: more is better read in pieces.
const MOST: usize = 16 << 20;

/// Bytes of a line.
const LINE: usize = 16;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("read_memory: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (pid, address, length) = match arguments.as_slice() {
        [pid] => (pid, None, 256),
        [pid, address] => (pid, Some(parse_address(address)?), 256),
        [pid, address, length] => {
            let address = parse_address(address)?;
            (pid, Some(address), parse_length(length)?)
        }
        _ => bail!("{USAGE}"),
    };
    let pid = ProcessId::parse(pid).with_context(|| format!("'{pid}' is no PID; {USAGE}"))?;

    let clock = Arc::new(SystemClock::new());
    let source = LiveSource::new(SourceOptions::default(), clock, Arc::default())?;
    let info = source.describe(pid)?;
    // From here on it is this program of this process that is read, or nothing.
    let process = source.open(&info.identity)?;
    let memory = process.memory()?;
    let space = process.address_space()?;

    let mapping = match address {
        None => space
            .heap()
            .context("it has no heap: give an ADDRESS of /proc/PID/maps")?,
        Some(address) => space
            .mappings()
            .iter()
            .find(|mapping| mapping.range().contains(address))
            .with_context(|| format!("nothing is mapped at {address}"))?,
    };
    let start = address.unwrap_or(mapping.range().start());
    // What can be accessed may end before the mapping does: with its file.
    let end = mapping.range().start().plus(mapping.size());
    let length = length.min(usize::try_from(end.since(start)).unwrap_or(length));
    ensure!(
        length > 0,
        "nobody can read {}: it is the kernel's own, a device's, or past the end of its file",
        mapping.file_name()
    );
    let mut bytes = vec![0; length];
    let got = memory.read(&mut [ReadSegment {
        address: start,
        buffer: &mut bytes,
        mapping,
    }])?;

    let mut out = std::io::stdout().lock();
    let command = String::from_utf8_lossy(&info.command);
    writeln!(
        out,
        "{pid} ({command}): {got} bytes at {start}, of {}",
        mapping.file_name()
    )?;
    for (number, line) in bytes[..got].chunks(LINE).enumerate() {
        let at = start.plus((number * LINE) as u64);
        let digits: String = line.iter().map(|byte| format!(" {byte:02x}")).collect();
        let text: String = line.iter().copied().map(printable).collect();
        writeln!(out, "{at} {digits:<48}  |{text}|")?;
    }
    out.flush()?;
    ensure!(got == length, "the bytes from there on cannot be read");
    Ok(())
}

fn parse_address(text: &str) -> Result<Address> {
    let digits = text.trim_start_matches("0x");
    let address = u64::from_str_radix(digits, 16);
    let address = address.with_context(|| format!("'{text}' is no hexadecimal address; {USAGE}"));
    address.map(Address::new)
}

fn parse_length(text: &str) -> Result<usize> {
    match text.parse() {
        Ok(length @ 1..=MOST) => Ok(length),
        _ => bail!("'{text}' is no LENGTH from 1 to {MOST}; {USAGE}"),
    }
}

fn printable(byte: u8) -> char {
    match byte {
        b' '..=b'~' => byte.into(),
        _ => '.',
    }
}
