//! How much of each mapping can be accessed: where its file ends, and what is a device.

use std::collections::HashMap;

use nix::errno::Errno;
use rustix::fs::{FileType, Statx};

use super::backing::{
    MapFiles, file_type, is_dev_zero, is_older_than_mappings, is_stacked_at, path_in_root, status,
};
use super::pinned::Pinned;
use super::shortage::found;
use super::smaps::Smaps;
use crate::common::address::AddressRange;
use crate::target::ProcessId;
use crate::target::mapping::{AccessibleLength, AddressSpace, Barrier, Device, Mapping};

/// Completes mappings with what `maps` does not say.
///
/// A file is asked for its size once, however many mappings it has.
///
/// # Errors
/// As [`found`].
pub(super) fn complete(
    pinned: &Pinned,
    space: &mut AddressSpace,
    own_device: Option<Device>,
) -> Result<(), Errno> {
    let task = pinned.task().number();
    let mut files = Files::default();
    let links = MapFiles::of(pinned)?;
    let mut suspects = Vec::new();
    for mapping in space.mappings_mut() {
        // What its name alone tells stays so.
        if mapping.accessible_length() != AccessibleLength::Whole {
            continue;
        }
        if !mapping.has_file() {
            if mapping.is_special() && !mapping.is_vdso() {
                suspects.push(mapping.range());
            }
            continue;
        }
        // Not even the file's status: asking this mount for it could wait for itself.
        if own_device.is_some_and(|device| mapping.is_on(device)) {
            mapping.set_accessible_length(AccessibleLength::OwnMount);
            continue;
        }
        let file = files.status(mapping, || status_of_file(&links, task, mapping))?;
        // Only a file that still has a name, or one that cannot be asked, may be named "(deleted)".
        let may_live = file.as_ref().is_none_or(|file| file.stx_nlink > 0);
        if may_live && mapping.is_deleted() && is_live(task, mapping)? {
            mapping.undelete();
        }
        if let Some(file) = &file
            && let Some(left) = left_of_file(mapping, file)
            // Where another file may be mapped than the one that was asked, its end is not known.
            && (is_older_than_mappings(file, pinned) || !is_stacked(&links, task, mapping)?)
        {
            mapping.set_accessible_length(AccessibleLength::UpTo(left));
        }
        if is_suspect(mapping, file.as_ref()) {
            suspects.push(mapping.range());
        }
    }
    if !suspects.is_empty() {
        exclude_devices(pinned, space, &suspects)?;
    }
    Ok(())
}

/// The path, too: device and inode alone are those of several files where the device is none of a driver's (SysV segments of two
/// namespaces, subvolumes of btrfs).
type Key = (Device, u64, Vec<u8>);

/// The files of one address space, each with its status.
#[derive(Default)]
struct Files {
    all: HashMap<Key, Option<Statx>>,
    /// That of the last mapping: a file mostly has several, one after another.
    last: Option<(Key, Option<Statx>)>,
}

impl Files {
    /// The status of the file of a mapping, which `ask` finds out where it is not known yet.
    fn status(
        &mut self,
        mapping: &Mapping,
        ask: impl FnOnce() -> Result<Option<Statx>, Errno>,
    ) -> Result<Option<Statx>, Errno> {
        if let Some(((device, inode, path), status)) = &self.last
            && (*device, *inode) == (mapping.device(), mapping.inode())
            && path == mapping.path()
        {
            return Ok(*status);
        }
        let key = (mapping.device(), mapping.inode(), mapping.path().to_vec());
        if let Some((former, status)) = self.last.take() {
            self.all.insert(former, status);
        }
        let status = match self.all.get(&key) {
            Some(status) => *status,
            None => ask()?,
        };
        self.last = Some((key, status));
        Ok(status)
    }
}

/// How many bytes of the mapping lie before the end of its file, where that ends before the mapping does.
fn left_of_file(mapping: &Mapping, file: &Statx) -> Option<u64> {
    if file_type(file) != FileType::RegularFile || is_special(mapping) {
        return None;
    }
    // What lies past the end of the file in its last page is zeros that can be read.
    let pages_end = file
        .stx_size
        .next_multiple_of(crate::common::address::PAGE_SIZE);
    let left = pages_end.saturating_sub(mapping.offset());
    (left < mapping.range().len()).then_some(left)
}

/// Files of `/proc`, `/sys` and unnamed inodes say nothing by their size.
fn is_special(mapping: &Mapping) -> bool {
    let path = mapping.path();
    !path.starts_with(b"/")
        || [&b"/proc/"[..], b"/sys/"]
            .iter()
            .any(|root| path.starts_with(root))
}

/// Whether a driver may have made the mapping, which only its `VmFlags` tell: of all that is not known to be a file
/// or `/dev/zero`.
fn is_suspect(mapping: &Mapping, file: Option<&Statx>) -> bool {
    let is_harmless = file.is_some_and(|file| match file_type(file) {
        FileType::RegularFile => !is_special(mapping),
        FileType::CharacterDevice => is_dev_zero(file),
        _ => false,
    });
    !is_harmless && mapping.accessible_length() == AccessibleLength::Whole
}

/// Excludes mappings of device memory. Where the kernel does not say what is one, all that may be one is excluded.
fn exclude_devices(
    pinned: &Pinned,
    space: &mut AddressSpace,
    suspects: &[AddressRange],
) -> Result<(), Errno> {
    let smaps = found(Smaps::read(pinned))?;
    let is_device = |range: AddressRange| match &smaps {
        // What is not there any more has no bytes.
        Some(smaps) => smaps.at(range.start()).is_none_or(|vma| vma.is_device),
        None => true,
    };
    let mut suspects = suspects.iter().copied().peekable();
    for mapping in space.mappings_mut() {
        if suspects.next_if_eq(&mapping.range()).is_some() && is_device(mapping.range()) {
            mapping.set_accessible_length(AccessibleLength::Nothing(Barrier::Device));
        }
    }
    Ok(())
}

/// The file of a mapping: by its own link, or as a plain user by its path, if that still leads there.
fn status_of_file(
    links: &MapFiles,
    task: ProcessId,
    mapping: &Mapping,
) -> Result<Option<Statx>, Errno> {
    let by_link = links.status(mapping.range())?;
    if by_link.is_some() || mapping.is_deleted() {
        return Ok(by_link);
    }
    let by_path = status(&path_in_root(task, mapping.path()))?;
    Ok(by_path.filter(|file| file.stx_ino == mapping.inode()))
}

/// Whether the file is one of overlayfs, where another may be mapped than the one that opens under its name.
fn is_stacked(links: &MapFiles, task: ProcessId, mapping: &Mapping) -> Result<bool, Errno> {
    match links.is_stacked(mapping.range())? {
        Some(is_stacked) => Ok(is_stacked),
        None => is_stacked_at(&path_in_root(task, mapping.path())),
    }
}

/// Whether a path that ends in ` (deleted)` is a file that is just named so.
fn is_live(task: ProcessId, mapping: &Mapping) -> Result<bool, Errno> {
    let mut path = mapping.path().to_vec();
    path.extend_from_slice(b" (deleted)");
    let file = status(&path_in_root(task, &path))?;
    Ok(file.is_some_and(|file| file.stx_ino == mapping.inode()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(line: &[u8]) -> Mapping {
        AddressSpace::parse(line).unwrap().mappings()[0].clone()
    }

    #[test]
    fn drivers_are_suspects_and_files_are_not() {
        let status_of = |path: &str| status(std::path::Path::new(path)).unwrap().unwrap();
        let (file, device, zero) = (
            status_of("/proc/self/exe"),
            status_of("/dev/null"),
            status_of("/dev/zero"),
        );
        let is_suspect = |path: &str, file: Option<&Statx>| {
            let line = format!("1000-2000 rw-s 0 00:05 9   {path}");
            super::is_suspect(&mapping(line.as_bytes()), file)
        };
        assert!(is_suspect("/dev/dri/card0", Some(&device)));
        assert!(is_suspect("/container/card0", Some(&device)));
        assert!(is_suspect("anon_inode:[io_uring]", Some(&file)));
        assert!(is_suspect("/sys/bus/pci/devices/x/resource0", Some(&file)));
        assert!(is_suspect("/usr/lib/libc.so.6", None), "it may be anything");
        assert!(!is_suspect("/usr/lib/libc.so.6", Some(&file)));
        assert!(!is_suspect("/dev/zero", Some(&zero)));
    }

    #[test]
    fn only_a_file_that_ends_earlier_cuts_its_mapping() {
        let file = status(std::path::Path::new("/proc/self/exe"))
            .unwrap()
            .unwrap();
        let mapping = |len: u64| {
            let line = format!("1000-{:x} r--p 00001000 00:05 9 /bin/x", 0x1000 + len);
            self::mapping(line.as_bytes())
        };
        let pages = file.stx_size.next_multiple_of(0x1000) - 0x1000;
        assert_eq!(left_of_file(&mapping(pages), &file), None);
        assert_eq!(left_of_file(&mapping(pages + 0x1000), &file), Some(pages));
    }
}
