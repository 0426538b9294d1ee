//! Shows where the bytes of each mapping of a live process are, through the library, and touches none of them.
//!
//! ```text
//! page_states PID
//! ```
//!
//! A line for each mapping, in KiB: in memory and mapped by the process; in swap; zeros that take no memory; in the file or the
//! shared memory object, where this process has not mapped them; and what nobody can read. The last line is the sum.
//!
//! ```text
//! $ cargo run --release --example page_states -- 1234
//!    resident     swapped        zero        file  unreadable  mapping
//!         108           0          24           0           0  55d0c0a00000-55d0c0a21000.rw-p.heap
//! ```

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use procmemfs::common::address::AddressRange;
use procmemfs::common::clock::SystemClock;
use procmemfs::target::live::{LiveSource, SourceOptions};
use procmemfs::target::mapping::Mapping;
use procmemfs::target::page_state::PageState;
use procmemfs::target::{ProcessId, ProcessMemory, ProcessSource};

const USAGE: &str = "usage: page_states PID";

/// Extents that are asked for in one go: the process decides how many there are.
const AT_MOST: usize = 1024;

/// The columns.
const STATES: [(&str, PageState); 5] = [
    ("resident", PageState::Resident),
    ("swapped", PageState::Swapped),
    ("zero", PageState::Zero),
    ("file", PageState::File),
    ("unreadable", PageState::Unreadable),
];

/// Bytes in each of the states.
type Bytes = [u64; STATES.len()];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("page_states: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [pid] = arguments.as_slice() else {
        bail!("{USAGE}");
    };
    let pid = ProcessId::parse(pid).with_context(|| format!("'{pid}' is no PID; {USAGE}"))?;

    let clock = Arc::new(SystemClock::new());
    let source = LiveSource::new(SourceOptions::default(), clock, Arc::default())?;
    let process = source.open(&source.describe(pid)?.identity)?;
    let memory = process.memory()?;
    let space = process.address_space()?;

    let mut out = std::io::stdout().lock();
    let titles = STATES.map(|(title, _)| format!("{title:>12}"));
    writeln!(out, "{}  mapping", titles.concat())?;
    let mut all = Bytes::default();
    for mapping in space.mappings() {
        let bytes = count(&*memory, mapping)?;
        for (sum, bytes) in all.iter_mut().zip(bytes) {
            *sum += bytes;
        }
        writeln!(out, "{}  {}", line(bytes), mapping.file_name())?;
    }
    writeln!(out, "{}  all", line(all))?;
    Ok(out.flush()?)
}

/// How many bytes of a mapping are in each of the states.
fn count(memory: &dyn ProcessMemory, mapping: &Mapping) -> Result<Bytes> {
    let mut bytes = Bytes::default();
    // Page tables may well hold pages of what nobody can read all the same: the kernel's own, or a device's.
    let accessible = mapping.range().truncated(mapping.size()).to_pages();
    let unreadable = STATES.map(|(_, state)| u64::from(state == PageState::Unreadable));
    for (bytes, factor) in bytes.iter_mut().zip(unreadable) {
        *bytes = factor * (mapping.range().len() - accessible.len());
    }
    let mut at = accessible.start();
    while let Some(rest) = AddressRange::new(at, accessible.end())
        && !rest.is_empty()
    {
        for extent in memory.extents(mapping, rest, AT_MOST)? {
            let column = STATES.iter().position(|(_, state)| *state == extent.state);
            bytes[column.context("a state without a column")?] += extent.range.len();
            at = extent.range.end();
        }
        // They get on each time, or an error says why not; a loop that relies on that alone might never end.
        if at == rest.start() {
            bail!("the kernel says nothing of {rest}");
        }
    }
    Ok(bytes)
}

fn line(bytes: Bytes) -> String {
    bytes.map(|bytes| format!("{:>12}", bytes >> 10)).concat()
}
