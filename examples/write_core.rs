//! Writes an ELF core file of a live process, through the library and without a mount.
//!
//! ```text
//! write_core PID FILE
//! ```
//!
//! The process is stopped for the registers of its threads only, for a fraction of a millisecond, and goes on while its memory
//! is copied. FILE must not exist; it is sparse: memory that the process has never touched takes no room in it.
//!
//! ```text
//! $ cargo run --release --example write_core -- 1234 nginx.core
//! nginx.core: 5 of 5 threads, 312 mappings, 141860864 bytes, 9912320 of them data
//! $ gdb -c nginx.core /usr/sbin/nginx
//! ```

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use procmemfs::common::clock::SystemClock;
use procmemfs::common::error::Error;
use procmemfs::coredump::{CoreImage, CoreSource, begins_as_elf};
use procmemfs::target::live::{LiveSource, SourceOptions};
use procmemfs::target::mapping::Mapping;
use procmemfs::target::{ProcessId, ProcessSource};
use procmemfs::view::{CoreFile, Seek};

const USAGE: &str = "usage: write_core PID FILE";

/// What is copied at a time.
const CHUNK: usize = 1 << 20;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("write_core: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [pid, path] = arguments.as_slice() else {
        bail!("{USAGE}");
    };
    let pid = ProcessId::parse(pid).with_context(|| format!("'{pid}' is no PID; {USAGE}"))?;

    let clock = Arc::new(SystemClock::new());
    let source = LiveSource::new(SourceOptions::default(), clock, Arc::default())?;
    let process = source.open(&source.describe(pid)?.identity)?;
    let memory = process.memory()?;
    let space = process.address_space()?;
    let mappings: Arc<[Arc<Mapping>]> = space.into_mappings().into_iter().map(Arc::new).collect();
    let facts = process.dump_facts()?;
    // It stands still until what `stop` gives is dropped, at the end of this statement.
    let threads = process.stop()?.threads().to_vec();
    let image = CoreImage::new(
        CoreSource {
            facts: &facts,
            threads: &threads,
            mappings: &mappings,
            is_full: false,
        },
        |mapping| begins_as_elf(&*memory, mapping),
    );
    let core = CoreFile::new(memory, Arc::clone(&mappings), image);

    // Whatever the process may keep secret is in it: for nobody else to read.
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let file = options.open(path).with_context(|| path.clone())?;
    let data = match copy(&core, &file) {
        Ok(data) => data,
        Err(error) => {
            // Half a core is taken for a whole one.
            let _ = std::fs::remove_file(Path::new(path));
            return Err(error.context(path.clone()));
        }
    };
    // Threads that wait in the kernel have no registers to show.
    let with_registers = threads.iter().filter(|it| !it.sets.is_empty()).count();
    println!(
        "{path}: {with_registers} of {} threads, {} mappings, {} bytes, {data} of them data",
        facts.threads.len(),
        mappings.len(),
        core.image().size()
    );
    Ok(())
}

/// Copies the data of a core into an empty file, and leaves holes where it has holes; returns how many bytes that were.
fn copy(core: &CoreFile, file: &File) -> Result<u64> {
    let mut chunk = vec![0; CHUNK];
    let (mut at, mut data) = (0, 0);
    loop {
        at = match core.seek(at, Seek::Data) {
            Ok(start) => start,
            Err(Error::NoMoreData) => break,
            Err(error) => return Err(error.into()),
        };
        let end = core.seek(at, Seek::Hole)?;
        while at < end {
            let len = usize::try_from(end - at).map_or(CHUNK, |left| left.min(CHUNK));
            let got = core.read_at(at, &mut chunk[..len])?;
            file.write_all_at(&chunk[..got], at)?;
            at += got as u64;
            data += got as u64;
        }
    }
    file.set_len(core.image().size())?;
    Ok(data)
}
