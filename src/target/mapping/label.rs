//! Names of mappings in the tree: `START-END.PERMS.LABEL`.

use super::Mapping;
use crate::common::address::Address;

/// Length of the longest file name, in bytes (`NAME_MAX`).
pub const MAX_NAME: usize = 255;

const DELETED: &str = ".deleted";

impl Mapping {
    /// The mapping's file name: printable ASCII without `/` and white space, at most [`MAX_NAME`] bytes.
    pub fn file_name(&self) -> String {
        // By hand, since a listing makes very many.
        let deleted = if self.is_deleted() { DELETED } else { "" };
        let label = self.label();
        let mut name = String::with_capacity(MAX_START + label.len() + deleted.len());
        push_address(&mut name, self.range().start());
        name.push('-');
        push_address(&mut name, self.range().end());
        name.push('.');
        name.extend(self.protection().letters());
        name.push('.');
        let room = MAX_NAME - name.len() - deleted.len();
        push_sanitized(&mut name, &label[..label.len().min(room)]);
        name.push_str(deleted);
        name
    }

    /// The last part of the path, or the kernel's name without its brackets, or `anon`.
    fn label(&self) -> &[u8] {
        let path = self.path();
        let kernel = path
            .strip_prefix(b"[")
            .and_then(|rest| rest.strip_suffix(b"]"));
        let label = match kernel {
            Some(name) => name,
            None => path.rsplit(|byte| *byte == b'/').next().unwrap_or_default(),
        };
        if label.is_empty() { b"anon" } else { label }
    }
}

/// What stands before the label, at most: two addresses of 16 digits, the protection, and what separates them.
const MAX_START: usize = 2 * 16 + 4 + 3;

/// An address as it is displayed.
fn push_address(name: &mut String, address: Address) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";

    let address = address.get();
    // Twelve digits, or as many as there are.
    let digits = (16 - address.leading_zeros() / 4).max(12);
    for at in (0..digits).rev() {
        let digit = address >> (4 * at) & 0xf;
        name.push(char::from(DIGITS[digit as usize]));
    }
}

fn push_sanitized(name: &mut String, bytes: &[u8]) {
    match bytes {
        b"" | b"." => name.push('_'),
        b".." => name.push_str("__"),
        _ => name.extend(bytes.iter().map(|byte| match byte {
            b'/' => '_',
            byte if byte.is_ascii_graphic() => char::from(*byte),
            _ => '_',
        })),
    }
}

/// `bytes` with `_` for each that is not printable ASCII, white space or `/`; never empty, `.` or `..`.
pub fn sanitized(bytes: &[u8]) -> String {
    let mut name = String::with_capacity(bytes.len().max(1));
    push_sanitized(&mut name, bytes);
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::mapping::AddressSpace;

    fn name_of(path: &[u8]) -> String {
        let mut line = b"7f0000001000-7f0000002000 rw-p 00000000 fe:00 9 ".to_vec();
        line.extend_from_slice(path);
        AddressSpace::parse(&line).unwrap().mappings()[0].file_name()
    }

    #[test]
    fn addresses_are_those_that_are_displayed() {
        for address in [
            0,
            1,
            0xf,
            0xfff_ffff_ffff,
            0x1000_0000_0000,
            1 << 48,
            u64::MAX,
        ] {
            let address = Address::new(address);
            let mut name = String::new();
            push_address(&mut name, address);
            assert_eq!(name, address.to_string());
        }
    }

    /// SEMANTICS: names of mappings.
    #[test]
    fn names_are_as_designed() {
        const START: &str = "7f0000001000-7f0000002000.rw-p.";
        let table: [(&[u8], &str); 9] = [
            (b"", "anon"),
            (b"[heap]", "heap"),
            (b"[anon:my name]", "anon:my_name"),
            (b"/usr/lib/libc.so.6", "libc.so.6"),
            (b"/tmp/gone (deleted)", "gone.deleted"),
            (b"/memfd:a\\012b (deleted)", "memfd:a_b.deleted"),
            (b"/tmp/\xff\xfe\x7f", "___"),
            (b"anon_inode:[perf_event]", "anon_inode:[perf_event]"),
            (b"/SYSV000004d2 (deleted)", "SYSV000004d2.deleted"),
        ];
        for (path, label) in table {
            assert_eq!(name_of(path), format!("{START}{label}"));
        }
    }

    #[test]
    fn long_names_are_cut_and_stay_deleted() {
        let mut path = b"/tmp/".to_vec();
        path.resize(305, b'x');
        assert_eq!(name_of(&path).len(), MAX_NAME);
        path.extend_from_slice(b" (deleted)");
        let name = name_of(&path);
        assert_eq!(name.len(), MAX_NAME);
        assert!(name.ends_with("x.deleted"));
    }

    #[test]
    fn no_name_is_a_directory_entry_of_its_own() {
        assert_eq!(sanitized(b"."), "_");
        assert_eq!(sanitized(b".."), "__");
        assert_eq!(sanitized(b""), "_");
        assert_eq!(sanitized(b"a/b c\n"), "a_b_c_");
    }
}
