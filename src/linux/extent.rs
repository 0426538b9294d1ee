//! How much of each mapping can hold bytes: where its file ends, and what is a device.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use rustix::fs::{FileType, Statx};

use super::backing::{MapFiles, is_dev_zero, path_in_root, status};
use super::pinned::Pinned;
use crate::mapping::{AddressSpace, Barrier, Device, Extent, Mapping};
use crate::process::ProcessId;

/// Completes mappings with what `maps` does not say.
///
/// A file is asked for its size once, however many mappings it has.
pub(super) fn complete(pinned: &Pinned, space: &mut AddressSpace, own_device: Option<Device>) {
    let pid = pinned.identity().pid;
    // The path, too: device and inode alone are those of several files where the device is none of
    // a driver's (SysV segments of two namespaces, subvolumes of btrfs).
    let mut files: HashMap<(Device, u64, Vec<u8>), Option<Statx>> = HashMap::new();
    let links = MapFiles::of(pinned);
    let mut suspects = false;
    for mapping in space.mappings_mut() {
        if !mapping.has_file() {
            continue;
        }
        // Asking this mount of one of its own files could wait for itself.
        if own_device.is_some_and(|device| mapping.is_on(device)) {
            continue;
        }
        // What is barred by its name stays so.
        if mapping.extent() != Extent::Whole {
            continue;
        }
        let key = (mapping.device(), mapping.inode(), mapping.path().to_vec());
        let file = match files.entry(key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(vacant) => vacant.insert(status_of_file(&links, pid, mapping)),
        };
        // Only a file that still has a name, or one that cannot be asked, may be named "(deleted)".
        let may_live = file.as_ref().is_none_or(|file| file.stx_nlink > 0);
        if may_live && mapping.is_deleted() && is_live(pid, mapping) {
            mapping.undelete();
        }
        if let Some(file) = file {
            mapping.set_extent(extent(mapping, file));
        }
        suspects |= is_suspect(mapping, file.as_ref());
    }
    if suspects {
        bar_devices(pinned, space);
    }
}

fn extent(mapping: &Mapping, file: &Statx) -> Extent {
    match FileType::from_raw_mode(u32::from(file.stx_mode)) {
        FileType::CharacterDevice if !is_dev_zero(file) => Extent::Nothing(Barrier::Device),
        FileType::RegularFile if !is_special(mapping) => {
            let pages_end = file.stx_size.next_multiple_of(crate::address::PAGE_SIZE);
            match pages_end.saturating_sub(mapping.offset()) {
                // What lies behind the end of the file in its last page is zeros that can be read.
                left if left < mapping.range().len() => Extent::UpTo(left),
                _ => Extent::Whole,
            }
        }
        _ => Extent::Whole,
    }
}

/// Files of `/proc`, `/sys` and unnamed inodes say nothing by their size.
fn is_special(mapping: &Mapping) -> bool {
    let path = mapping.path();
    !path.starts_with(b"/")
        || [&b"/proc/"[..], b"/sys/"]
            .iter()
            .any(|root| path.starts_with(root))
}

/// Whether a driver may be behind the mapping, which only its `VmFlags` tell.
fn is_suspect(mapping: &Mapping, file: Option<&Statx>) -> bool {
    let is_regular =
        |file: &Statx| FileType::from_raw_mode(u32::from(file.stx_mode)) == FileType::RegularFile;
    if file.is_some_and(is_regular) && !is_special(mapping) {
        return false;
    }
    mapping.extent() == Extent::Whole
        && (is_special(mapping) || mapping.path().starts_with(b"/dev/"))
}

/// Bars mappings of device memory (`io`: `VM_IO`, `pf`: `VM_PFNMAP`; `fs/proc/task_mmu.c`).
///
/// `smaps` visits every page table of the process, so only a process with suspects pays for it.
fn bar_devices(pinned: &Pinned, space: &mut AddressSpace) {
    let mut devices = Devices::default();
    let read = pinned.lines("smaps", |line| {
        devices.line(line);
        Ok(())
    });
    if read.is_err() {
        return;
    }
    for mapping in space.mappings_mut() {
        if devices.starts.contains(&mapping.range().start().get()) {
            mapping.set_extent(Extent::Nothing(Barrier::Device));
        }
    }
}

/// Where the mappings with `io` or `pf` start, by the lines of `smaps`.
#[derive(Debug, Default)]
struct Devices {
    starts: Vec<u64>,
    /// Where the one starts that the next lines are about.
    start: Option<u64>,
}

impl Devices {
    fn line(&mut self, line: &[u8]) {
        if let Some(flags) = line.strip_prefix(b"VmFlags:") {
            let is_device = flags
                .split(|byte| *byte == b' ')
                .any(|flag| flag == b"io" || flag == b"pf");
            self.starts.extend(self.start.take().filter(|_| is_device));
        } else if let Some(dash) = line.iter().take(17).position(|byte| *byte == b'-') {
            self.start = std::str::from_utf8(&line[..dash])
                .ok()
                .and_then(|digits| u64::from_str_radix(digits, 16).ok())
                .or(self.start);
        }
    }
}

/// The file behind a mapping: by its own link, or as a plain user by its path, if that still leads there.
fn status_of_file(links: &MapFiles, pid: ProcessId, mapping: &Mapping) -> Option<Statx> {
    links.status(mapping.range()).or_else(|| {
        let by_path = status(&path_in_root(pid, mapping.path()))?;
        (!mapping.is_deleted() && by_path.stx_ino == mapping.inode()).then_some(by_path)
    })
}

/// Whether a path that ends in ` (deleted)` is a file that is just named so.
fn is_live(pid: ProcessId, mapping: &Mapping) -> bool {
    let mut path = mapping.path().to_vec();
    path.extend_from_slice(b" (deleted)");
    status(&path_in_root(pid, &path)).is_some_and(|file| file.stx_ino == mapping.inode())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_told_by_their_flags() {
        let smaps = b"\
1000-2000 rw-s 00000000 00:05 9    /dev/dri/card0\n\
Size:                  4 kB\n\
VmFlags: rd wr sh mr mw me ms pf io de dd sd\n\
5000-6000 rw-p 00000000 00:00 0\n\
Rss:                   4 kB\n\
VmFlags: rd wr mr mw me ac sd\n\
7ffff000-80000000 rw-s 00000000 00:05 9    anon_inode:[x]\n\
VmFlags: rd pf\n";
        let mut devices = Devices::default();
        for line in smaps.split(|byte| *byte == b'\n') {
            devices.line(line);
        }
        assert_eq!(devices.starts, [0x1000, 0x7fff_f000]);
    }

    fn mapping(line: &[u8]) -> Mapping {
        AddressSpace::parse(line).unwrap().mappings()[0].clone()
    }

    #[test]
    fn drivers_are_suspects_and_files_are_not() {
        assert!(is_suspect(
            &mapping(b"1000-2000 rw-s 0 00:05 9   /dev/dri/card0"),
            None
        ));
        assert!(is_suspect(
            &mapping(b"1000-2000 rw-s 0 00:05 9   anon_inode:[io_uring]"),
            None
        ));
        assert!(is_suspect(
            &mapping(b"1000-2000 rw-s 0 00:05 9   /sys/bus/pci/devices/x/resource0"),
            None
        ));
        assert!(!is_suspect(
            &mapping(b"1000-2000 rw-s 0 00:05 9   /usr/lib/libc.so.6"),
            None
        ));
    }
}
