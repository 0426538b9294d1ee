//! The text of `/proc/PID/maps`, byte by byte.
//!
//! The format is that of `show_map_vma` in `fs/proc/task_mmu.c`. Names can hold
//! any byte but NUL; the kernel writes a newline as `\012` and leaves a
//! backslash as it is, so the text is read as bytes and never as UTF-8.

use std::borrow::Cow;

use thiserror::Error;

use super::{AccessibleLength, Device, Mapping, Protection, Recent};
use crate::common::address::{Address, AddressRange};
use crate::target::mapping::Barrier;

/// What the kernel puts after the path of a file that has lost its name.
pub(super) const DELETED: &[u8] = b" (deleted)";

/// Text that is not that of `/proc/PID/maps`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line} of maps: {fault}")]
pub struct MapsError {
    line: usize,
    fault: Fault,
}

impl MapsError {
    pub(super) fn new(line: usize, fault: Fault) -> Self {
        Self { line, fault }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum Fault {
    #[error("no {0}")]
    Missing(&'static str),
    #[error("not a number: {0}")]
    NotANumber(&'static str),
    #[error("the range ends before it starts")]
    Inverted,
    #[error("the range holds no byte")]
    Empty,
    #[error("unknown protection")]
    Protection,
}

/// Reads one line, without its newline. Its object is shared with `recent` ones of the same.
pub(super) fn line(line: &[u8], recent: &mut Recent) -> Result<Mapping, Fault> {
    let mut rest = line;
    let start = hex(
        until(&mut rest, b'-').ok_or(Fault::Missing("start"))?,
        "start",
    )?;
    let end = hex(until(&mut rest, b' ').ok_or(Fault::Missing("end"))?, "end")?;
    let protection = protection(until(&mut rest, b' ').ok_or(Fault::Missing("protection"))?)?;
    let offset = hex(
        until(&mut rest, b' ').ok_or(Fault::Missing("offset"))?,
        "offset",
    )?;
    let major = hex(
        until(&mut rest, b':').ok_or(Fault::Missing("device"))?,
        "device",
    )?;
    let minor = hex(
        until(&mut rest, b' ').ok_or(Fault::Missing("device"))?,
        "device",
    )?;
    let inode = match until(&mut rest, b' ') {
        Some(field) => field,
        None => std::mem::take(&mut rest),
    };
    let inode = decimal(inode, "inode")?;
    let name = &rest[rest.iter().take_while(|byte| **byte == b' ').count()..];

    let device = Device {
        major: u32::try_from(major).map_err(|_| Fault::NotANumber("device"))?,
        minor: u32::try_from(minor).map_err(|_| Fault::NotANumber("device"))?,
    };
    let has_file = inode != 0 || device != Device::default();
    let (name, deleted) = match name.strip_suffix(DELETED) {
        Some(name) if has_file => (name, true),
        _ => (name, false),
    };
    let path = unescaped(name);
    let accessible = if is_kernel_only(&path) {
        AccessibleLength::Nothing(Barrier::Kernel)
    } else if deleted && *path == *b"/secretmem" {
        AccessibleLength::Nothing(Barrier::Secret)
    } else {
        AccessibleLength::Whole
    };
    let range = AddressRange::new(Address::new(start), Address::new(end)).ok_or(Fault::Inverted)?;
    // Two that begin at one address could not be told apart.
    if range.is_empty() {
        return Err(Fault::Empty);
    }
    Ok(Mapping {
        range,
        offset,
        accessible,
        object: recent.object(device, inode, &path, deleted),
        protection,
    })
}

/// `[vvar]`, `[vvar_vclock]`: `VM_PFNMAP`, `[uprobes]`: `VM_IO`, both refused by `get_user_pages`. `[vsyscall]`: no
/// VMA at all.
fn is_kernel_only(path: &[u8]) -> bool {
    path.starts_with(b"[vvar") || path == b"[vsyscall]" || path == b"[uprobes]"
}

/// Takes what stands before `separator` off `rest`, and the separator.
fn until<'a>(rest: &mut &'a [u8], separator: u8) -> Option<&'a [u8]> {
    let at = rest.iter().position(|byte| *byte == separator)?;
    let field = &rest[..at];
    *rest = &rest[at + 1..];
    Some(field)
}

fn hex(digits: &[u8], what: &'static str) -> Result<u64, Fault> {
    number(digits, 16).ok_or(Fault::NotANumber(what))
}

fn decimal(digits: &[u8], what: &'static str) -> Result<u64, Fault> {
    number(digits, 10).ok_or(Fault::NotANumber(what))
}

fn number(digits: &[u8], radix: u32) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, byte| {
        let digit = char::from(*byte).to_digit(radix)?;
        number
            .checked_mul(u64::from(radix))?
            .checked_add(u64::from(digit))
    })
}

fn protection(letters: &[u8]) -> Result<Protection, Fault> {
    let &[read, write, execute, sharing] = letters else {
        return Err(Fault::Protection);
    };
    let flag = |letter: u8, set: u8| match letter {
        _ if letter == set => Ok(true),
        b'-' => Ok(false),
        _ => Err(Fault::Protection),
    };
    Ok(Protection {
        read: flag(read, b'r')?,
        write: flag(write, b'w')?,
        execute: flag(execute, b'x')?,
        shared: match sharing {
            b's' => true,
            b'p' => false,
            _ => return Err(Fault::Protection),
        },
    })
}

/// Turns the kernel's `\012` back into a newline, the one byte it escapes here.
fn unescaped(name: &[u8]) -> Cow<'_, [u8]> {
    const NEWLINE: &[u8] = b"\\012";
    if !name.contains(&b'\\') {
        return name.into();
    }
    let mut path = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some(byte) = rest.first() {
        if let Some(after) = rest.strip_prefix(NEWLINE) {
            path.push(b'\n');
            rest = after;
        } else {
            path.push(*byte);
            rest = &rest[1..];
        }
    }
    path.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fuzzing::written;
    use crate::target::mapping::AddressSpace;

    fn line(line: &[u8]) -> Result<Mapping, Fault> {
        super::line(line, &mut Recent::default())
    }

    prop_compose! {
        fn any_mapping()(
            start in 0_u64..1 << 47,
            len in 1_u64..1 << 40,
            flags in any::<[bool; 4]>(),
            offset in any::<u64>(),
            major in 0_u32..1 << 12,
            minor in 0_u32..1 << 20,
            inode in any::<u64>(),
            name in proptest::collection::vec(1_u8..=255, 0..300),
            deleted in any::<bool>(),
        ) -> Mapping {
            let mut path = name;
            if !path.is_empty() {
                path[0] = b'/';
            }
            // `\012` in a name cannot be told from a newline, and a name that
            // ends in " (deleted)" is told from a deleted one by the backend.
            path.retain(|byte| *byte != b'\\' && *byte != b')');
            let deleted = deleted && (inode != 0 || (major, minor) != (0, 0)) && !path.is_empty();
            Mapping {
                range: AddressRange::new(Address::new(start), Address::new(start + len)).unwrap(),
                protection: Protection {
                    read: flags[0],
                    write: flags[1],
                    execute: flags[2],
                    shared: flags[3],
                },
                offset,
                object: Recent::default().object(Device { major, minor }, inode, &path, deleted),
                accessible: AccessibleLength::Whole,
            }
        }
    }

    proptest! {
        #[test]
        fn what_the_kernel_writes_is_read_back(mapping in any_mapping()) {
            prop_assert_eq!(line(&written(&mapping)), Ok(mapping));
        }

        #[test]
        fn no_text_makes_it_panic(text in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = AddressSpace::parse(&text);
        }

        #[test]
        fn no_damaged_line_makes_it_panic(
            mapping in any_mapping(),
            at in any::<proptest::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let mut text = written(&mapping);
            let at = at.index(text.len());
            text[at] = byte;
            let _ = AddressSpace::parse(&text);
        }
    }

    #[test]
    fn a_line_without_a_name_may_end_after_the_inode() {
        let mapping = line(b"1000-2000 ---p 00000000 00:00 0").unwrap();
        assert!(mapping.path().is_empty());
        assert!(!mapping.has_file());
    }

    #[test]
    fn the_first_segment_of_sysv_shared_memory_has_a_file() {
        let mapping = line(b"1000-2000 rw-s 0 00:01 0    /SYSV00000000 (deleted)").unwrap();
        assert!(mapping.has_file() && mapping.is_deleted());
        assert_eq!(mapping.path(), b"/SYSV00000000");
    }

    #[test]
    fn names_keep_their_bytes() {
        let newline = line(b"1000-2000 rw-s 0 00:01 9    /memfd:a\\012b (deleted)").unwrap();
        assert_eq!(newline.path(), b"/memfd:a\nb");
        assert!(newline.is_deleted());
        let bytes = line(b"1000-2000 rw-p 0 fe:00 9    /tmp/\xff\xfe x").unwrap();
        assert_eq!(bytes.path(), b"/tmp/\xff\xfe x");
    }

    #[test]
    fn a_live_file_named_deleted_gets_its_name_back() {
        let mut mapping = line(b"1000-2000 rw-p 0 fe:00 9    /tmp/x (deleted)").unwrap();
        mapping.undelete();
        assert_eq!(mapping.path(), b"/tmp/x (deleted)");
        assert!(!mapping.is_deleted());
    }

    #[test]
    fn errors_name_the_line() {
        let error = AddressSpace::parse(b"1000-2000 rw-p 0 00:00 0\nnonsense\n").unwrap_err();
        assert!(error.to_string().starts_with("line 2 of maps:"), "{error}");
        assert_eq!(line(b"2000-1000 rw-p 0 00:00 0"), Err(Fault::Inverted));
        assert_eq!(line(b"1000-1000 rw-p 0 00:00 0"), Err(Fault::Empty));
        assert_eq!(line(b"1000-2000 rwqp 0 00:00 0"), Err(Fault::Protection));
    }

    #[test]
    fn pages_of_the_kernel_hold_nothing() {
        for name in ["[vvar]", "[vvar_vclock]", "[vsyscall]", "[uprobes]"] {
            let mapping = line(format!("1000-2000 r--p 0 00:00 0   {name}").as_bytes()).unwrap();
            assert_eq!(
                mapping.accessible_length(),
                AccessibleLength::Nothing(Barrier::Kernel)
            );
        }
        let vdso = line(b"1000-2000 r-xp 0 00:00 0   [vdso]").unwrap();
        assert_eq!(vdso.accessible_length(), AccessibleLength::Whole);
    }
}
