//! Names of mappings in the tree: `START-END.PERMS.LABEL`.

use super::Mapping;

/// Length of the longest file name, in bytes (`NAME_MAX`).
pub const MAX_NAME: usize = 255;

const DELETED: &str = ".deleted";

impl Mapping {
    /// The mapping's file name: printable ASCII without `/` and white space, at most [`MAX_NAME`] bytes.
    pub fn file_name(&self) -> String {
        let mut name = format!("{}.{}.", self.range(), self.protection());
        let deleted = if self.is_deleted() { DELETED } else { "" };
        let label = sanitized(self.label());
        name.push_str(&label[..label.len().min(MAX_NAME - name.len() - deleted.len())]);
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

/// `bytes` with `_` for each that is not printable ASCII, white space or `/`; never empty, `.` or `..`.
pub fn sanitized(bytes: &[u8]) -> String {
    let name: String = bytes
        .iter()
        .map(|byte| match byte {
            b'/' => '_',
            byte if byte.is_ascii_graphic() => char::from(*byte),
            _ => '_',
        })
        .collect();
    match name.as_str() {
        "" | "." => "_".to_owned(),
        ".." => "__".to_owned(),
        _ => name,
    }
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
