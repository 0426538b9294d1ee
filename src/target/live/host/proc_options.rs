//! How `/proc` is mounted (proc(5)).

/// How `/proc` is mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProcOptions {
    /// What is hidden from who may not trace a process: a word, or a number before Linux 5.8.
    pub(crate) hidepid: Option<String>,
    /// Whether it shows processes alone (`subset=pid`).
    pub(crate) shows_processes_alone: bool,
    /// Whether nothing in it can be written, `mem` included.
    pub(crate) is_read_only: bool,
}

impl ProcOptions {
    /// Of the mount that lies on top of `/proc`, by the text of `mountinfo` (proc_pid_mountinfo(5)); `None` where that is no
    /// `/proc`.
    pub(super) fn parse(mountinfo: &[u8]) -> Option<Self> {
        let mut lines = mountinfo.rsplit(|byte| *byte == b'\n');
        let line = lines.find(|line| {
            let point = line.split(|byte| *byte == b' ').nth(4);
            point == Some(b"/proc")
        })?;
        let line = String::from_utf8_lossy(line);
        let (mount, of_file_system) = line.split_once(" - ")?;
        let mut of_file_system = of_file_system.split(' ');
        if of_file_system.next() != Some("proc") {
            return None;
        }
        let own = of_file_system.nth(1)?;
        let has = |options: &str, wanted| options.split(',').any(|option| option == wanted);
        let hidepid = own.split(',').find_map(|it| it.strip_prefix("hidepid="));
        Some(Self {
            hidepid: hidepid
                .filter(|value| !["0", "off"].contains(value))
                .map(str::to_owned),
            shows_processes_alone: has(own, "subset=pid"),
            is_read_only: has(own, "ro") || has(mount.split(' ').nth(5)?, "ro"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "22 27 0:21 / /proc rw,relatime shared:2 - proc proc rw\n";

    #[test]
    fn options_are_those_of_the_mount_on_top() {
        let parse = |text: &str| ProcOptions::parse(text.as_bytes());
        assert_eq!(parse(PLAIN), Some(ProcOptions::default()));
        let table = [
            ("ro,relatime - proc proc rw", None, false, true),
            (
                "rw - proc none rw,gid=5,hidepid=invisible",
                Some("invisible"),
                false,
                false,
            ),
            (
                "rw master:1 - proc proc rw,hidepid=2,subset=pid",
                Some("2"),
                true,
                false,
            ),
            ("rw - proc proc ro,hidepid=0", None, false, true),
        ];
        for (rest, hidepid, shows_processes_alone, is_read_only) in table {
            let text = format!(
                "{PLAIN}30 22 0:40 / /proc {rest}\n31 30 0:5 /x /proc/sys ro - proc proc ro\n"
            );
            let expected = ProcOptions {
                hidepid: hidepid.map(str::to_owned),
                shows_processes_alone,
                is_read_only,
            };
            assert_eq!(parse(&text), Some(expected), "{rest}");
        }
        assert_eq!(parse(""), None);
        assert_eq!(
            parse(&format!("{PLAIN}9 1 0:5 / /proc rw - tmpfs none rw\n")),
            None
        );
    }
}
