//! Mount options.

use nix::mount::MsFlags;

use super::is_one_line;
use crate::mount::MountConfig;

/// A refusal is one line; what is taken is what `fusermount3` makes of what it is given.
pub(super) fn check(data: &[u8]) {
    // No argument of a program holds a NUL; here it parts one `-o` from the next.
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let config = match MountConfig::parse(text.split('\0')) {
        Ok(config) => config,
        Err(error) => {
            let error = error.to_string();
            return assert!(is_one_line(&error), "{error:?}");
        }
    };
    let list = config.for_helper();
    let told: Vec<String> = config.generic.kernel().collect();
    // The helper knows no quotes: it parts what they hold, and refuses it. So does the kernel without SELinux.
    if told.iter().any(|option| option.contains(',')) {
        return;
    }
    let helper = Helper::read(&list);
    assert_eq!(helper.subtype.as_deref(), Some("procmemfs"), "{list}");
    assert_eq!(
        helper.source.as_deref(),
        Some(config.generic.source()),
        "{list}"
    );
    assert_eq!(helper.flags, config.flags(), "{list}");
    assert_eq!(helper.others, told, "{list}");
}

/// What `do_mount` of `util/fusermount.c` in libfuse makes of its options.
#[derive(Debug)]
struct Helper {
    subtype: Option<String>,
    source: Option<String>,
    flags: MsFlags,
    /// What it hands on to the kernel or refuses.
    others: Vec<String>,
}

impl Helper {
    fn read(list: &str) -> Self {
        let mut helper = Self {
            subtype: None,
            source: None,
            flags: MsFlags::empty(),
            others: Vec::new(),
        };
        let mut rest = list;
        while !rest.is_empty() {
            let escapes = rest.starts_with("fsname=") || rest.starts_with("subtype=");
            let end = option_end(rest, escapes);
            helper.take(&rest[..end]);
            rest = rest.get(end + 1..).unwrap_or_default();
        }
        helper
    }

    fn take(&mut self, option: &str) {
        if let Some(source) = option.strip_prefix("fsname=") {
            self.source = Some(plain(source));
        } else if let Some(subtype) = option.strip_prefix("subtype=") {
            self.subtype = Some(plain(subtype));
        } else if let Some((_, flag)) = FLAGS.iter().find(|(name, _)| *name == option) {
            self.flags |= *flag;
        } else {
            self.others.push(option.to_owned());
        }
    }
}

/// `mount_flags` of the same file, as far as they are set; `nosymfollow` is newer.
const FLAGS: &[(&str, MsFlags)] = &[
    ("ro", MsFlags::MS_RDONLY),
    ("nosuid", MsFlags::MS_NOSUID),
    ("nodev", MsFlags::MS_NODEV),
    ("noexec", MsFlags::MS_NOEXEC),
    ("sync", MsFlags::MS_SYNCHRONOUS),
    ("noatime", MsFlags::MS_NOATIME),
    ("dirsync", MsFlags::MS_DIRSYNC),
    ("nosymfollow", MsFlags::from_bits_retain(256)),
];

/// Where the first option of a list ends.
fn option_end(list: &str, escapes: bool) -> usize {
    let bytes = list.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if escapes && at + 1 < bytes.len() => at += 2,
            b',' => return at,
            _ => at += 1,
        }
    }
    at
}

/// `get_string_opt` of the same file.
fn plain(value: &str) -> String {
    let mut plain = String::new();
    let mut letters = value.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => plain.extend(letters.next()),
            letter => plain.push(letter),
        }
    }
    plain
}
