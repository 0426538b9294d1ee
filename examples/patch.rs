//! Replaces a string in the memory of a running program through a procmemfs mount.
//!
//! ```text
//! patch [-n] MOUNTPOINT/PID OLD NEW
//! ```
//!
//! Looks for OLD in all private writable memory of the process, replaces each
//! occurrence by NEW, which must have the same length in bytes, and reads it
//! back. `-n` only shows where OLD is. The mount needs `-o write` to be patched.
//!
//! ```text
//! $ cargo run --release --example patch -- /mnt/1234 swordfish clownfish
//! 55d0c0a00000-55d0c0a21000.rw-p.heap at 0x2a0 (55d0c0a002a0): patched
//! ```
//!
//! Shared memory is left alone: there may be a file, which would be changed
//! on disk. Exits with 1 where OLD is nowhere, or where a patch did not hold.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;

const USAGE: &str = "usage: patch [-n] MOUNTPOINT/PID OLD NEW";

/// Bytes that are searched at a time: the largest request of the mount.
const WINDOW: usize = 1 << 20;

/// What is skipped where bytes cannot be read.
const PAGE: u64 = 4096;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("patch: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (patched, rest) = match arguments.as_slice() {
        [flag, rest @ ..] if flag == "-n" => (false, rest),
        rest => (true, rest),
    };
    let [process, old, new] = rest else {
        bail!("{USAGE}");
    };
    ensure!(!old.is_empty(), "OLD is empty; {USAGE}");
    ensure!(
        old.len() == new.len(),
        "NEW has {} bytes and OLD has {}: only a string of the same length fits",
        new.len(),
        old.len()
    );
    let process = Path::new(process);
    let mut found = 0;
    for name in writable_mappings(process)? {
        let path = process.join(&name);
        let file = OpenOptions::new().read(true).write(patched).open(&path);
        let file = match file {
            Ok(file) => file,
            // Unmapped since it was listed.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            // The name of the file says that its own process may write there.
            Err(error)
                if [ErrorKind::PermissionDenied, ErrorKind::ReadOnlyFilesystem]
                    .contains(&error.kind()) =>
            {
                bail!(
                    "{}: memory cannot be written through this mount: mount it with -o write ({error})",
                    process.display()
                )
            }
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        for offset in
            occurrences(&file, old.as_bytes()).with_context(|| path.display().to_string())?
        {
            let outcome = if patched {
                patch(&file, offset, old.as_bytes(), new.as_bytes())
                    .with_context(|| format!("{} at {offset:#x}", path.display()))?
            } else {
                Outcome::Found
            };
            found += usize::from(!matches!(outcome, Outcome::Moved));
            report(&name, offset, &outcome)?;
        }
    }
    ensure!(
        found > 0,
        "'{old}' is not in the private writable memory of {}",
        process.display()
    );
    Ok(())
}

/// What became of one occurrence.
enum Outcome {
    Found,
    Patched,
    Moved,
}

fn report(mapping: &str, offset: u64, outcome: &Outcome) -> Result<()> {
    let start = mapping.split('-').next().unwrap_or_default();
    let address = u64::from_str_radix(start, 16).unwrap_or_default() + offset;
    let outcome = match outcome {
        Outcome::Found => "found",
        Outcome::Patched => "patched",
        Outcome::Moved => "has changed meanwhile, left alone",
    };
    let line = writeln!(
        io::stdout(),
        "{mapping} at {offset:#x} ({address:012x}): {outcome}"
    );
    line.context("standard output")
}

/// The names of the mappings that are private and writable, by address.
fn writable_mappings(process: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(process).with_context(|| process.display().to_string())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        // START-END.PERMS.LABEL; the links `heap` and `stack` have no dot.
        let protection = name.split('.').nth(1).unwrap_or_default();
        if let [_, b'w', _, b'p'] = protection.as_bytes() {
            names.push(name);
        }
    }
    ensure!(
        !names.is_empty(),
        "{}: no writable memory here: give a process directory of a procmemfs mount",
        process.display()
    );
    names.sort_unstable();
    Ok(names)
}

/// Where `wanted` starts in the file, unreadable pages apart.
fn occurrences(file: &File, wanted: &[u8]) -> io::Result<Vec<u64>> {
    let size = file.metadata()?.len();
    let mut window = vec![0; WINDOW + wanted.len() - 1];
    let mut found = Vec::new();
    let mut start = 0;
    while start < size {
        let got = match read_some(file, &mut window, start) {
            Ok(0) => break,
            Ok(got) => got,
            Err(error) if error.raw_os_error() == Some(Errno::EIO as i32) => {
                start = (start / PAGE + 1) * PAGE;
                continue;
            }
            Err(error) => return Err(error),
        };
        let mut from = 0;
        while let Some(at) = position(&window[from..got], wanted) {
            found.push(start + (from + at) as u64);
            // Occurrences do not overlap: each is replaced as a whole.
            from += at + wanted.len();
        }
        // What could be the start of another one is looked at again, with what follows.
        let done = got.saturating_sub(wanted.len() - 1).max(from);
        start += if done == 0 { got } else { done } as u64;
    }
    Ok(found)
}

/// Fills the buffer as far as the file can be read from `offset` on.
fn read_some(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match file.read_at(&mut buffer[got..], offset + got as u64) {
            Ok(0) => break,
            Ok(more) => got += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => (),
            // The bytes before it count; the next call starts with the error.
            Err(_) if got > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}

/// Where `wanted` starts in `bytes`, by way of its first byte.
fn position(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    let last = bytes.len().checked_sub(wanted.len())?;
    let mut from = 0;
    while from <= last {
        let at = from
            + bytes[from..=last]
                .iter()
                .position(|byte| *byte == wanted[0])?;
        if bytes[at..].starts_with(wanted) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

/// Replaces one occurrence, if it is still there, and reads it back.
fn patch(file: &File, offset: u64, old: &[u8], new: &[u8]) -> Result<Outcome> {
    let mut now = vec![0; old.len()];
    file.read_exact_at(&mut now, offset)?;
    if now != old {
        return Ok(Outcome::Moved);
    }
    file.write_all_at(new, offset)?;
    file.read_exact_at(&mut now, offset)?;
    ensure!(
        now == new,
        "was written, but reads as before: does the program change it itself?"
    );
    Ok(Outcome::Patched)
}
