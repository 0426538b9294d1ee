//! Options of every file system, as mount(2) and as `fusermount3` take them.

use linux_raw_sys::general::MS_NOSYMFOLLOW;
use nix::mount::MsFlags;

use super::OptionError;
use super::value::given;
use crate::target::live::SUBTYPE;

/// Since Linux 5.10; `nix` has no name for it.
const NOSYMFOLLOW: MsFlags = MsFlags::from_bits_retain(MS_NOSYMFOLLOW as _);

/// Each flag: what sets it, which is also its name for the helper, and what unsets it.
const FLAGS: &[(MsFlags, &str, Option<&str>)] = &[
    (MsFlags::MS_NOSUID, "nosuid", Some("suid")),
    (MsFlags::MS_NODEV, "nodev", Some("dev")),
    (MsFlags::MS_NOEXEC, "noexec", Some("exec")),
    (MsFlags::MS_SYNCHRONOUS, "sync", Some("async")),
    (MsFlags::MS_DIRSYNC, "dirsync", None),
    (MsFlags::MS_NOATIME, "noatime", Some("atime")),
    (NOSYMFOLLOW, "nosymfollow", Some("symfollow")),
];

/// Security contexts that SELinux gives a mount (mount(8)).
const CONTEXTS: [&str; 4] = ["context", "fscontext", "defcontext", "rootcontext"];

/// What every file system is mounted with. Of two options that contradict each other the later one holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenericOptions {
    source: String,
    flags: MsFlags,
    /// In bytes.
    max_read: Option<u32>,
    /// Name and label; the quotes are for the kernel, which knows the rule, too.
    contexts: Vec<(&'static str, String)>,
}

impl Default for GenericOptions {
    /// Nothing that lies in memory is to be a device or to grant rights, unless that is asked for.
    fn default() -> Self {
        Self {
            source: SUBTYPE.to_owned(),
            flags: MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
            max_read: None,
            contexts: Vec::new(),
        }
    }
}

impl GenericOptions {
    /// Takes an option, and tells whether it is one of these.
    ///
    /// # Errors
    /// Where it is, and its value is none.
    pub(super) fn take(&mut self, name: &str, value: Option<&str>) -> Result<bool, OptionError> {
        if let Some((flag, on)) = flag(name) {
            if value.is_some() {
                return Err(OptionError::NoValue {
                    name: name.to_owned(),
                });
            }
            self.flags.set(flag, on);
            return Ok(true);
        }
        if let Some(name) = CONTEXTS.into_iter().find(|known| *known == name) {
            let label = given(name, value, "a security context", owned)?;
            self.contexts.retain(|(other, _)| *other != name);
            self.contexts.push((name, label));
            return Ok(true);
        }
        match name {
            "fsname" => self.source = given("fsname", value, "a name", owned)?,
            // There is one type after `fuse.`, whatever fstab calls it.
            "subtype" => drop(given("subtype", value, "a name", owned)?),
            "max_read" => {
                let wanted = "a number of bytes such as 131072";
                self.max_read = Some(given("max_read", value, wanted, |text| text.parse().ok())?);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The largest read that was asked for, in bytes.
    pub(in crate::mount) fn max_read(&self) -> Option<u32> {
        self.max_read
    }

    /// What is shown as the mount's source.
    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// The flags of mount(2).
    pub(in crate::mount) fn flags(&self) -> MsFlags {
        self.flags
    }

    /// What the kernel's file system and its security modules are told beside.
    pub(crate) fn kernel(&self) -> impl Iterator<Item = String> {
        let max_read = self.max_read.map(|bytes| format!("max_read={bytes}"));
        let contexts = self.contexts.iter();
        max_read
            .into_iter()
            .chain(contexts.map(|(name, label)| format!("{name}={label}")))
    }

    /// All of it as one list for `fusermount3 -o`.
    pub(in crate::mount) fn for_helper(&self) -> String {
        // It takes a backslash to mean the letter that follows (`get_string_opt` in `util/fusermount.c`).
        let source = self.source.replace('\\', r"\\").replace(',', r"\,");
        let mut list = format!("subtype={SUBTYPE},fsname={source}");
        let flags = FLAGS
            .iter()
            .filter(|(flag, ..)| self.flags.contains(*flag))
            .map(|(_, name, _)| (*name).to_owned());
        for option in flags.chain(self.kernel()) {
            list.push(',');
            list.push_str(&option);
        }
        list
    }
}

/// The flag that `name` changes, and whether it sets it.
fn flag(name: &str) -> Option<(MsFlags, bool)> {
    FLAGS.iter().find_map(|(flag, set, unset)| {
        let on = *set == name;
        (on || *unset == Some(name)).then_some((*flag, on))
    })
}

fn owned(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::MountConfig;
    use super::*;

    fn options(list: &str) -> GenericOptions {
        MountConfig::parse([list]).unwrap().generic
    }

    #[test]
    fn the_kernel_and_the_helper_are_told_the_same() {
        let table = [
            ("", "nosuid,nodev"),
            ("rw,dev,suid", ""),
            ("noexec,noatime", "nosuid,nodev,noexec,noatime"),
            ("suid,nosuid,noexec,exec,dev", "nosuid"),
            (
                "max_read=65536,sync,dirsync,async",
                "nosuid,nodev,dirsync,max_read=65536",
            ),
            ("max_read=1,max_read=2", "nosuid,nodev,max_read=2"),
            ("subtype=other", "nosuid,nodev"),
            ("nosymfollow", "nosuid,nodev,nosymfollow"),
            ("nosymfollow,symfollow", "nosuid,nodev"),
            ("symfollow,nosymfollow,dev", "nosuid,nosymfollow"),
            (
                "context=a,rootcontext=b,context=c",
                "nosuid,nodev,rootcontext=b,context=c",
            ),
        ];
        for (list, expected) in table {
            let options = options(list);
            let mut said = options.for_helper();
            let rest = said.split_off("subtype=procmemfs,fsname=procmemfs".len());
            assert_eq!(rest.trim_start_matches(','), expected, "{list}");
            let told: Vec<&str> = expected.split(',').collect();
            for (flag, name, _) in FLAGS {
                let is_set = options.flags().contains(*flag);
                assert_eq!(is_set, told.contains(name), "{name} of {list}");
            }
            for option in options.kernel() {
                assert!(told.contains(&option.as_str()), "{option} of {list}");
            }
        }
    }

    #[test]
    fn categories_of_a_context_reach_the_kernel_with_their_quotes() {
        let list = "context=\"system_u:object_r:fuse_t:s0:c127,c456\",noexec";
        let options = options(list);
        let told: Vec<String> = options.kernel().collect();
        assert_eq!(told, ["context=\"system_u:object_r:fuse_t:s0:c127,c456\""]);
        assert!(options.flags().contains(MsFlags::MS_NOEXEC));
    }

    #[test]
    fn the_source_is_any_text() {
        for (list, source, told) in [
            ("fsname=a_name", "a_name", "a_name"),
            ("fsname=a,fsname=b=c", "b=c", "b=c"),
            ("fsname=a\\b", "a\\b", r"a\\b"),
            ("fsname=\"a,b\"", "\"a,b\"", r#""a\,b""#),
        ] {
            let options = options(list);
            assert_eq!(options.source(), source, "{list}");
            let expected = format!("subtype=procmemfs,fsname={told},nosuid,nodev");
            assert_eq!(options.for_helper(), expected, "{list}");
        }
    }
}
