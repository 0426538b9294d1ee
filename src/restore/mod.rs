//! Writing the memory of a snapshot, or of a backup of one, back into the process that it was taken of.
//!
//! Memory alone: registers, files and what the kernel knows of the process stay as they are. So it is done only where all threads
//! are where they were, and where the process has the same mappings; else nothing is written.

mod pages;

#[cfg(test)]
mod tests;

use thiserror::Error;

use crate::backup::{Backup, BackupError};
use crate::common::error::Error as MemoryError;
use crate::target::mapping::AddressSpace;
use crate::target::snapshot::{ProcessRecord, ThreadPlace};
use crate::target::{Process, ProcessMemory, Stopped, WriteMode, build_id};

use pages::{Undo, differences};

/// What is to be restored, and how.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Only says what would be written.
    pub dry_run: bool,
    /// Shared memory, too: other processes, and files, see it.
    pub shared: bool,
}

/// What became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Bytes that were compared.
    pub compared: u64,
    /// Bytes that differed, and were written unless it was a dry run.
    pub written: u64,
    /// Mappings that some of them are in.
    pub mappings: usize,
    /// What was left as it is, and why: a line each.
    pub left: Vec<String>,
}

/// Why nothing was restored.
#[derive(Debug, Error)]
pub enum RestoreError {
    /// What the backup says cannot be understood.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// It is of another process, or of another program of it.
    #[error("process {pid} is not the one that was copied: {what}; nothing was written")]
    OtherProcess {
        /// Which one.
        pid: u32,
        /// What differs.
        what: String,
    },
    /// The mappings are not those that were copied.
    #[error(
        "the mappings of process {pid} are not those that were copied: {what}; nothing was written"
    )]
    OtherLayout {
        /// Which one.
        pid: u32,
        /// What differs.
        what: String,
    },
    /// Threads are somewhere else, and their stacks would not fit.
    #[error(
        "threads of process {pid} are not where they were: {what}; try again when it waits in the same place; nothing was written"
    )]
    OtherPlace {
        /// Which one.
        pid: u32,
        /// What differs.
        what: String,
    },
    /// The process cannot be read, stopped or written.
    #[error("{0}; nothing was written")]
    Process(#[source] MemoryError),
    /// A write failed, and what had been written before was taken back.
    #[error("{0}: what had been written was taken back")]
    TakenBack(#[source] MemoryError),
    /// A write failed, and so did taking back.
    #[error(
        "{0}, and what had been written could not be taken back: the process holds a mixture of both"
    )]
    Mixture(#[source] MemoryError),
}

/// Writes back what differs in `process` from `backup`. `progress` is told how many bytes of how many were compared.
///
/// # Errors
/// Nothing was written then, unless the error says so.
pub fn restore(
    backup: &Backup,
    process: &dyn Process,
    boot: &str,
    options: Options,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Report, RestoreError> {
    let pid = process.identity().pid.get();
    check_process(backup.record(), process, boot)?;
    let memory = process.memory().map_err(RestoreError::Process)?;
    let stopped = process.stop().map_err(RestoreError::Process)?;
    let space = process.address_space().map_err(RestoreError::Process)?;
    check_layout(backup, &space, pid)?;
    check_places(&backup.record().threads, &*stopped, pid)?;
    let mut report = Report::default();
    let mut undo = Undo::default();
    let total = backup.total(options.shared);
    let record = backup.record();
    for saved in backup.mappings() {
        let Some(mapping) = saved.mapping_in(&space) else {
            continue;
        };
        let protection = mapping.protection();
        if mapping.size() == 0 || (protection.shared && !protection.write) {
            // It shows a file, or nothing.
            continue;
        }
        if protection.shared && !options.shared {
            report.left.push(format!(
                "{}: shared memory (--shared restores it)",
                saved.name()
            ));
            continue;
        }
        let found = differences(&*memory, mapping, saved, &record.unreadable, |done| {
            progress(report.compared + done, total);
        });
        let found = found.map_err(|error| taken_back(&*memory, &undo, error))?;
        report.compared += found.compared;
        report.left.extend(found.left);
        if found.runs.is_empty() {
            continue;
        }
        report.mappings += 1;
        for run in found.runs {
            report.written += run.new.len() as u64;
            if options.dry_run {
                continue;
            }
            let written = memory.write(run.address, &run.new, WriteMode::Force);
            let is_whole = written == Ok(run.new.len());
            undo.add(run.address, run.old);
            if !is_whole {
                let error = written
                    .err()
                    .unwrap_or(MemoryError::Unreachable(run.address));
                return Err(taken_back(&*memory, &undo, error));
            }
        }
    }
    progress(total, total);
    Ok(report)
}

/// Takes back what was written, and says what went wrong.
fn taken_back(memory: &dyn ProcessMemory, undo: &Undo, error: MemoryError) -> RestoreError {
    match undo.take_back(memory) {
        _ if undo.is_empty() => RestoreError::Process(error),
        Ok(()) => RestoreError::TakenBack(error),
        Err(_) => RestoreError::Mixture(error),
    }
}

fn check_process(
    record: &ProcessRecord,
    process: &dyn Process,
    boot: &str,
) -> Result<(), RestoreError> {
    let identity = process.identity();
    let pid = identity.pid.get();
    let other = |what: String| Err(RestoreError::OtherProcess { pid, what });
    if record.pid != pid {
        return other(format!("that was {} ({})", record.pid, record.command));
    }
    if record.boot != boot {
        return other("the machine was started anew since".to_owned());
    }
    if record.started != identity.start_time {
        return other("it started at another time".to_owned());
    }
    if record.layout != identity.layout {
        return other("it runs another program since".to_owned());
    }
    let executable = process.executable().map_err(RestoreError::Process)?;
    let executable = ProcessRecord::printable(&executable);
    if executable != record.executable {
        return other(format!(
            "its program is {executable}, and was {}",
            record.executable
        ));
    }
    // A program need not have one, and earlier records have none.
    let Some(recorded) = &record.build_id else {
        return Ok(());
    };
    match current_build_id(process).map_err(RestoreError::Process)? {
        Some(current) if current == *recorded => Ok(()),
        Some(current) => other(format!(
            "the build-id of its program is {current}, and was {recorded}"
        )),
        None => other(format!(
            "its program has no build-id that can be read, and had {recorded}"
        )),
    }
}

fn current_build_id(process: &dyn Process) -> Result<Option<String>, MemoryError> {
    let memory = process.memory()?;
    let auxiliary = process.dump_facts()?.auxiliary;
    let space = process.address_space()?;
    Ok(build_id(&*memory, space.mappings(), &auxiliary))
}

fn check_layout(backup: &Backup, space: &AddressSpace, pid: u32) -> Result<(), RestoreError> {
    let other = |what: String| Err(RestoreError::OtherLayout { pid, what });
    let mut saved = backup.names().peekable();
    for mapping in space.mappings() {
        let name = mapping.file_name();
        match saved.next_if(|saved| **saved == *name) {
            Some(_) => (),
            None => {
                return match saved.next() {
                    Some(missing) if *missing < *name => other(format!("{missing} is gone")),
                    _ => other(format!("{name} is new")),
                };
            }
        }
    }
    match saved.next() {
        Some(missing) => other(format!("{missing} is gone")),
        None => Ok(()),
    }
}

fn check_places(
    saved: &[ThreadPlace],
    stopped: &dyn Stopped,
    pid: u32,
) -> Result<(), RestoreError> {
    let other = |what: String| Err(RestoreError::OtherPlace { pid, what });
    let now: Vec<_> = stopped
        .threads()
        .iter()
        .map(|thread| (thread.tid, ThreadPlace::of(thread)))
        .collect();
    for thread in saved {
        match now.iter().find(|(tid, _)| *tid == thread.tid) {
            None => return other(format!("thread {} has ended", thread.tid)),
            Some((_, Some(place))) if place == thread => (),
            Some((_, None)) => {
                return other(format!("thread {} does not stop", thread.tid));
            }
            Some((_, Some(place))) => {
                let at = |place: &ThreadPlace| {
                    format!("{:x} (stack {:x})", place.instruction, place.stack)
                };
                return other(format!(
                    "thread {} was at {} and is at {}",
                    thread.tid,
                    at(thread),
                    at(place)
                ));
            }
        }
    }
    match now
        .iter()
        .find(|(tid, _)| saved.iter().all(|thread| thread.tid != *tid))
    {
        Some((tid, _)) => other(format!("thread {tid} was started since")),
        None => Ok(()),
    }
}
