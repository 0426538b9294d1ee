//! What a core file is made of.

use std::sync::Arc;

use nix::errno::Errno;

use crate::common::error::{Error, Result};
use crate::common::room::has_room;
use crate::coredump::{CoreImage, CoreSource, begins_as_elf};
use crate::files::view::CoreFile;
use crate::files::{Context, OpenProcess};
use crate::target::{ProcessInfo, ProcessMemory, ThreadRegisters};

/// Bytes that are needed for a mapping, at most: what `smaps` says of it, its header, its file, twice while they grow.
const OF_MAPPING: usize = 1 << 10;

impl Context {
    /// The core file of a process as it is now, whose memory is read through `memory`. With `stop` the process is stopped for its
    /// registers.
    ///
    /// # Errors
    /// `Ended`, `Replaced`, and why the process cannot be asked.
    pub(super) fn core_file(
        &self,
        info: &Arc<ProcessInfo>,
        process: &OpenProcess,
        memory: Arc<dyn ProcessMemory>,
        stop: bool,
    ) -> Result<CoreFile> {
        let space = self.processes.read_address_space(info)?;
        let mappings = Arc::clone(space.mappings());
        if !has_room(mappings.len() * OF_MAPPING) {
            return Err(Error::system("memory for a core file", Errno::ENOMEM));
        }
        let facts = self.opened.retry(|| process.process().dump_facts())?;
        // Last, so that what was read takes no time of it.
        let threads = match stop {
            true => self.registers(info, process),
            false => Vec::new(),
        };
        let source = CoreSource {
            facts: &facts,
            threads: &threads,
            mappings: &mappings,
            is_full: self.options.full_core,
        };
        let image = CoreImage::new(source, |mapping| begins_as_elf(&*memory, mapping));
        Ok(CoreFile::new(memory, mappings, image))
    }

    /// The registers of the process's threads, for which it is stopped; none where it cannot be, and then the log says why.
    fn registers(&self, info: &ProcessInfo, process: &OpenProcess) -> Vec<ThreadRegisters> {
        let pid = info.identity.pid;
        let warn = |kind, what: String| {
            if let Some(left_out) = self.cores.warnings.admit(kind) {
                log::warn!("core/{pid}: {what}{left_out}");
            }
        };
        if self.options.no_stop {
            warn(
                "nostop",
                "no registers, since the mount has nostop".to_owned(),
            );
            return Vec::new();
        }
        let stopped = match process.process().stop() {
            Ok(stopped) => stopped,
            Err(error) => {
                warn("no stop", format!("no registers: {error}"));
                return Vec::new();
            }
        };
        let threads = stopped.threads().to_vec();
        // It goes on.
        drop(stopped);
        let lacking = threads.iter().filter(|it| it.sets.is_empty()).count();
        if lacking > 0 {
            let all = threads.len();
            warn(
                "in the kernel",
                format!("no registers of {lacking} of {all} threads, which wait in the kernel"),
            );
        }
        threads
    }
}
