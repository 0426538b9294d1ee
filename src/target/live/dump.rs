//! What a core dump says of a live process besides its memory, as far as `/proc` tells.

use std::time::Duration;

use procfs::process::Stat;

use super::pinned::Pinned;
use super::smaps::{RecentSmaps, VmaDetails};
use super::stop::threads;
use super::task::ThreadTicks;
use super::text::field;
use crate::common::error::Result;
use crate::target::{DumpFacts, DumpVma, ProcessStatus, ThreadStatus, ThreadTimes};

/// What the kernel dumps where a process does not say (`MMF_DUMP_FILTER_DEFAULT` in `include/linux/sched/coredump.h`).
const DEFAULT_FILTER: u32 = 0x33;

/// All of it; `arguments` are those of the process.
///
/// # Errors
/// As [`Pinned::open_file`].
pub(super) fn facts(
    pinned: &Pinned,
    stat: &Stat,
    smaps: &RecentSmaps,
    arguments: Vec<u8>,
) -> Result<DumpFacts> {
    let threads = threads(pinned)?.into_iter();
    Ok(DumpFacts {
        process: process_status(pinned, stat, arguments)?,
        // One that has ended meanwhile is none any more.
        threads: threads
            .filter_map(|tid| thread_status(pinned, tid))
            .collect(),
        auxiliary: pinned.contents("auxv")?,
        filter: filter(pinned),
        // Whoever reads the memory next needs it, too.
        vmas: smaps.renewed(pinned)?.vmas().iter().map(dump_vma).collect(),
    })
}

fn process_status(pinned: &Pinned, stat: &Stat, arguments: Vec<u8>) -> Result<ProcessStatus> {
    let status = pinned.contents("status")?;
    // The real one comes first.
    let real = |name: &[u8]| {
        let first = field(&status, name)?.split_ascii_whitespace().next()?;
        first.parse().ok()
    };
    Ok(ProcessStatus {
        pid: pinned.identity().pid.as_pid_t(),
        parent: stat.ppid,
        group: stat.pgrp,
        session: stat.session,
        uid: real(b"Uid:").unwrap_or(0),
        gid: real(b"Gid:").unwrap_or(0),
        state: u8::try_from(stat.state).unwrap_or(b'?'),
        nice: i8::try_from(stat.nice).unwrap_or(0),
        flags: stat.flags.into(),
        command: pinned.line("comm")?,
        arguments,
    })
}

fn thread_status(pinned: &Pinned, tid: i32) -> Option<ThreadStatus> {
    let status = pinned.thread_contents(tid, "status").ok()?;
    let mask = |name: &[u8]| {
        let mask = field(&status, name)?;
        u64::from_str_radix(mask, 16).ok()
    };
    let ticks = ThreadTicks::parse(&pinned.thread_contents(tid, "stat").ok()?)?;
    let time = |ticks: u64| {
        let each = procfs::ticks_per_second().max(1);
        Duration::from_secs(ticks / each)
            + Duration::from_nanos(ticks % each * 1_000_000_000 / each)
    };
    Some(ThreadStatus {
        tid,
        pending: mask(b"SigPnd:").unwrap_or(0),
        blocked: mask(b"SigBlk:").unwrap_or(0),
        times: ThreadTimes {
            user: time(ticks.user),
            system: time(ticks.system),
            children_user: time(ticks.children_user),
            children_system: time(ticks.children_system),
        },
    })
}

/// As the process has it; a kernel may be built without.
fn filter(pinned: &Pinned) -> u32 {
    let text = pinned.line("coredump_filter").unwrap_or_default();
    let text = std::str::from_utf8(&text).unwrap_or_default();
    u32::from_str_radix(text.trim(), 16).unwrap_or(DEFAULT_FILTER)
}

fn dump_vma(vma: &VmaDetails) -> DumpVma {
    DumpVma {
        range: vma.range,
        resident: vma.resident,
        anonymous: vma.anonymous.saturating_add(vma.swapped),
        swapped: vma.swapped,
        is_device: vma.is_io,
        is_huge: vma.is_huge,
        is_left_out: vma.is_left_out,
    }
}
