//! Copies a live process at one moment, through the library, and tells what of it has changed since.
//!
//! ```text
//! snapshot PID
//! ```
//!
//! All threads of the process stand still until everything is copied, and go on. Once Enter is pressed (or the input ends)
//! each mapping is compared with the process as it is then: a line for each in which pages differ.
//!
//! ```text
//! $ cargo run --release --example snapshot -- 1234
//! 1234 (nginx): 9912320 bytes copied at one moment; Enter compares
//!
//!  pages changed  mapping
//!              3  55d0c0a00000-55d0c0a21000.rw-p.heap
//!              1  7ffd1c3e9000-7ffd1c40a000.rw-p.stack
//! ```

use std::io::{BufRead, Write};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use procmemfs::common::address::{AddressRange, PAGE_SIZE};
use procmemfs::common::clock::{Clock, SystemClock};
use procmemfs::common::error::Error;
use procmemfs::target::live::{LiveSource, LiveStores, SourceOptions};
use procmemfs::target::mapping::Mapping;
use procmemfs::target::snapshot::{Budget, Capture, Subject, Watch};
use procmemfs::target::{ProcessId, ProcessMemory, ProcessSource, ReadSegment, for_each_extent};

const USAGE: &str = "usage: snapshot PID";

/// What is compared at a time, in bytes.
const CHUNK: u64 = 1 << 20;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("snapshot: {error:#}");
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

    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let source = LiveSource::new(SourceOptions::default(), Arc::clone(&clock), Arc::default())?;
    let info = Arc::new(source.describe(pid)?);
    let process = source.open(&info.identity)?;
    let memory = process.memory()?;
    // Pages go into memory that belongs to this program; no more than that of half the machine.
    let stores = LiveStores::new(None)?;
    let budget = Arc::new(Budget::new(stores.default_budget()));
    let capture = Capture {
        subjects: vec![Subject {
            info: Arc::clone(&info),
            process,
            memory: Arc::clone(&memory),
            earlier: None,
        }],
        waiting_thread: 0,
        boot: source.boot(),
        stores: Arc::new(stores),
        budget: Arc::clone(&budget),
        tracks_writes: false,
        clock,
    };
    let [frozen] = &capture.take(&Watch::default())?[..] else {
        bail!("one process was asked for");
    };
    let mut out = std::io::stdout().lock();
    let command = String::from_utf8_lossy(&info.command);
    let copied = budget.taken();
    writeln!(
        out,
        "{pid} ({command}): {copied} bytes copied at one moment; Enter compares"
    )?;
    out.flush()?;

    std::io::stdin().lock().read_line(&mut String::new())?;
    writeln!(out, "{:>14}  mapping", "pages changed")?;
    for mapping in frozen.mappings.iter() {
        let changed = changed_pages(&*frozen.memory, &*memory, mapping)?;
        if changed > 0 {
            writeln!(out, "{changed:>14}  {}", mapping.file_name())?;
        }
    }
    Ok(out.flush()?)
}

/// How many pages of a mapping differ; those count, too, that can be read on one side only.
fn changed_pages(
    before: &dyn ProcessMemory,
    now: &dyn ProcessMemory,
    mapping: &Mapping,
) -> Result<u64> {
    let accessible = mapping.range().truncated(mapping.size());
    // What is zeros on both sides is passed over, whatever its length.
    let mut data = data_of(before, mapping, accessible)?;
    data.extend(data_of(now, mapping, accessible)?);
    data.sort_by_key(|range| range.start());
    let mut changed = 0;
    let mut done = accessible.start();
    for range in data {
        // Parts that both sides have are compared once.
        let mut at = range.start().max(done);
        while at < range.end() {
            let part = AddressRange::new(at, range.end()).unwrap_or_default();
            let part = part.truncated(CHUNK);
            changed += compare(before, now, mapping, part)?;
            at = part.end();
        }
        done = done.max(range.end());
    }
    Ok(changed)
}

/// How many pages of a part differ.
fn compare(
    before: &dyn ProcessMemory,
    now: &dyn ProcessMemory,
    mapping: &Mapping,
    part: AddressRange,
) -> Result<u64> {
    match (bytes(before, mapping, part)?, bytes(now, mapping, part)?) {
        (Some(before), Some(now)) => {
            let page = PAGE_SIZE as usize;
            let pages = before.chunks(page).zip(now.chunks(page));
            Ok(pages.filter(|(before, now)| before != now).count() as u64)
        }
        (None, None) if part.len() <= PAGE_SIZE => Ok(0),
        _ if part.len() <= PAGE_SIZE => Ok(1),
        // One of its pages cannot be read: which one?
        _ => {
            let half = part.truncated(part.len().div_ceil(2)).to_pages();
            let half = half.intersection(part);
            let rest = AddressRange::new(half.end(), part.end()).unwrap_or_default();
            Ok(compare(before, now, mapping, half)? + compare(before, now, mapping, rest)?)
        }
    }
}

/// Where a mapping has data.
fn data_of(
    memory: &dyn ProcessMemory,
    mapping: &Mapping,
    range: AddressRange,
) -> Result<Vec<AddressRange>> {
    let (mut data, mut end) = (Vec::new(), range.start());
    for_each_extent(memory, mapping, range, |extent| {
        data.extend(extent.state.is_data().then_some(extent.range));
        end = extent.range.end();
        Ok(())
    })?;
    ensure!(end == range.end(), "the kernel says nothing");
    Ok(data)
}

/// The bytes of a range; `None` where not all of them can be read.
fn bytes(
    memory: &dyn ProcessMemory,
    mapping: &Mapping,
    range: AddressRange,
) -> Result<Option<Vec<u8>>> {
    let mut bytes = vec![0; usize::try_from(range.len())?];
    let wanted = bytes.len();
    let segment = ReadSegment {
        address: range.start(),
        buffer: &mut bytes,
        mapping,
    };
    match memory.read(&mut [segment]) {
        Ok(got) => Ok((got == wanted).then_some(bytes)),
        Err(Error::Unreachable(_) | Error::Unknown(..)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
