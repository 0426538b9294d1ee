//! The text of `/proc/PID/maps`.

use super::{is_one_line, is_plain_name};
use crate::target::mapping::{AddressSpace, Mapping};

/// What is read of `text` is sorted and disjoint, has names that are told apart, and is read back as
/// it is where the kernel writes it.
pub(super) fn check(text: &[u8]) {
    let space = match AddressSpace::parse(text) {
        Ok(space) => space,
        Err(error) => return assert!(is_one_line(&error.to_string()), "{error}"),
    };
    let mappings = space.mappings();
    for pair in mappings.windows(2) {
        let (one, next) = (pair[0].range(), pair[1].range());
        assert!(one.end() <= next.start(), "{one} {next}");
        assert_ne!(pair[0].file_name(), pair[1].file_name());
    }
    for mapping in mappings {
        let range = mapping.range();
        assert!(!range.is_empty(), "a mapping holds a byte");
        assert!(mapping.size() <= range.len());
        assert_eq!(space.starting_at(range.start()), Some(mapping));
        let name = mapping.file_name();
        assert!(is_plain_name(&name), "{name}");
        assert!(name.starts_with(&range.to_string()), "{name}");
        assert_eq!(name.ends_with(".deleted"), ends_deleted(mapping), "{name}");
    }
    assert_eq!(space.heap(), mappings.iter().find(|of| of.is_heap()));
    assert_eq!(space.stack(), mappings.iter().rfind(|of| of.is_stack()));
    let lines: Vec<Vec<u8>> = mappings.iter().map(written).collect();
    assert_eq!(AddressSpace::parse(&lines.join(&b'\n')), Ok(space));
}

/// Whether the name ends so: since the file is deleted, or since it is called so.
fn ends_deleted(mapping: &Mapping) -> bool {
    let path = mapping.path();
    let shown = path.strip_suffix(b"]").filter(|_| path.starts_with(b"["));
    mapping.is_deleted() || shown.unwrap_or(path).ends_with(b".deleted")
}

/// The line of a mapping, without its newline: `show_map_vma` in `fs/proc/task_mmu.c`.
pub(crate) fn written(mapping: &Mapping) -> Vec<u8> {
    const NAME_COLUMN: usize = 73;

    let (range, device) = (mapping.range(), mapping.device());
    let mut line = format!(
        "{:08x}-{:08x} {} {:08x} {:02x}:{:02x} {} ",
        range.start().get(),
        range.end().get(),
        mapping.protection(),
        mapping.offset(),
        device.major,
        device.minor,
        mapping.inode()
    )
    .into_bytes();
    if !mapping.path().is_empty() {
        line.resize(line.len().max(NAME_COLUMN), b' ');
        for byte in mapping.link_text() {
            match byte {
                b'\n' => line.extend_from_slice(b"\\012"),
                _ => line.push(byte),
            }
        }
    }
    line
}
