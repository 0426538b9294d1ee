//! What the command line says of itself: the options of a mount, and examples. Help, manual pages and completions are
//! all made of this.

use clap::Command;

/// What stands after the `=` of an option.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value {
    /// Nothing: the option stands alone.
    No,
    /// Anything of this kind, as the help calls it.
    Kind(&'static str),
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// One of these words, or nothing.
    MaybeOneOf(&'static [&'static str]),
}

/// An option of a mount, as it stands after `-o`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MountOption {
    pub(crate) name: &'static str,
    pub(crate) value: Value,
    /// What it does, and what holds without it.
    pub(crate) about: &'static str,
}

const fn option(name: &'static str, value: Value, about: &'static str) -> MountOption {
    MountOption { name, value, about }
}

/// The options that are ours.
pub(crate) const MOUNT_OPTIONS: &[MountOption] = &[
    option(
        "write",
        Value::No,
        "let memory be written (default: memory can be read only)",
    ),
    option("ro", Value::No, "make the whole mount read-only"),
    option(
        "cache_ttl",
        Value::Kind("TIME"),
        "the oldest data a read may return: 100ms, 2s; 0 sends every read to the process (default: 100ms)",
    ),
    option(
        "cache_size",
        Value::Kind("BYTES"),
        "budget of the page cache: 64M, 1G (default: 64M)",
    ),
    option(
        "fault",
        Value::OneOf(&["error", "zero"]),
        "unreadable bytes end the read, or read as zeros (default: error)",
    ),
    option(
        "force",
        Value::No,
        "write in spite of a mapping's protection (needs write)",
    ),
    option(
        "touch",
        Value::No,
        "let reads fault absent pages in, which changes the target's memory use (default: absent pages are never touched)",
    ),
    option(
        "direct",
        Value::OneOf(&["auto", "on", "off"]),
        "open files past the kernel's page cache, and read ahead here: faster for large reads, slower for small ones (default: auto, by what pays)",
    ),
    option(
        "io_uring",
        Value::OneOf(&["auto", "on", "off"]),
        "serve over io_uring, which takes a fraction of the time for small requests; auto: where root has allowed it (echo Y > /sys/module/fuse/parameters/enable_uring) (default: off)",
    ),
    option(
        "nostop",
        Value::No,
        "stop no process: core/PID has no registers then, and there are no snapshots (default: it is stopped for them, for a core for a millisecond or less)",
    ),
    option(
        "inject",
        Value::No,
        "let snapshots have a thread of the process open a userfaultfd, so that it stands still for milliseconds only (default: it stands still while it is copied)",
    ),
    option(
        "fullcore",
        Value::No,
        "core/PID holds all that can be read (default: what the process's coredump_filter and MADV_DONTDUMP say)",
    ),
    option(
        "allow_other",
        Value::No,
        "let other users in: each may read what the kernel would let them read by themselves (default: the mounter alone)",
    ),
    option(
        "yama",
        Value::OneOf(&["ignore"]),
        "with allow_other, where Yama is on: judge users without it, since it would judge this daemon in their place",
    ),
    option(
        "audit",
        Value::MaybeOneOf(&["stderr", "syslog", "journald"]),
        "log each open and each handle's writes: who, of what, and whether it was granted (alone: where the log goes)",
    ),
    option(
        "pid",
        Value::Kind("PID[:PID...]"),
        "show these processes only (default: all)",
    ),
    option(
        "snap_size",
        Value::Kind("BYTES"),
        "what all snapshots may take together (default: half of the memory)",
    ),
    option(
        "snap_dir",
        Value::Kind("DIR"),
        "keep snapshots in files of this directory (default: in memory)",
    ),
    option(
        "threads",
        Value::Kind("N"),
        "threads that serve requests, 1 to 256 (default: by the CPUs)",
    ),
];

/// The options that every file system takes.
pub(crate) const OTHER_OPTIONS: &str = "nosuid, nodev, noexec, noatime, nosymfollow, fsname=NAME ... as every file system takes them (nosuid and nodev are on); rw is one of these and means nothing, since mount(8) passes it";

/// A command, and what it does.
pub(crate) type Example = (&'static str, &'static str);

/// A first look.
const FIRST_EXAMPLES: &[Example] = &[
    ("procmemfs /mnt", "show all processes below /mnt"),
    ("ls -l /mnt/1234", "the mappings of process 1234"),
    (
        "grep -c secret /mnt/1234/heap",
        "search its heap for a string",
    ),
    (
        "procmemfs -o write,pid=1234 /mnt",
        "one process only, to be written",
    ),
    ("umount /mnt", "(or: fusermount3 -u /mnt)"),
];

/// More of them.
pub(crate) const EXAMPLES: &[Example] = &[
    FIRST_EXAMPLES[0],
    FIRST_EXAMPLES[1],
    FIRST_EXAMPLES[2],
    (
        "dd if=/mnt/1234/stack bs=4K count=1 | xxd",
        "the first page of its stack",
    ),
    (
        "gdb -c /mnt/core/1234",
        "debug a copy of it while it goes on",
    ),
    FIRST_EXAMPLES[3],
    (
        "mkdir /mnt/snap/1234@before",
        "keep a copy of it as it is now (rmdir drops it)",
    ),
    (
        "procmemfs restore /mnt/snap/1234@before 1234",
        "write its memory back",
    ),
    (
        "mount -t fuse.procmemfs none /mnt -o ro",
        "as mount(8) and /etc/fstab have it",
    ),
    FIRST_EXAMPLES[4],
    ("procmemfs map 1234", "draw its memory (--live, --svg FILE)"),
    ("procmemfs stats /mnt", "what the mount is asked for"),
    ("procmemfs doctor", "what keeps it from working here"),
];

/// Columns of a terminal.
const WIDTH: usize = 80;

/// What `-h` shows after the flags: a terminal of 24 lines has room for all of it.
pub(super) fn short(commands: &[Command]) -> String {
    format!(
        "{}\n{}",
        commands_text(commands),
        examples_text(FIRST_EXAMPLES)
    )
}

/// What `--help` shows there.
pub(super) fn long(commands: &[Command]) -> String {
    let mut text = String::from("Mount options (after -o):\n");
    for option in MOUNT_OPTIONS {
        text += &entry(&option.heading(), 19, option.about);
    }
    text += &entry("others", 19, OTHER_OPTIONS);
    format!(
        "{text}\n{}\n{}",
        commands_text(commands),
        examples_text(EXAMPLES)
    )
}

fn commands_text(commands: &[Command]) -> String {
    let mut text = String::from("Commands (procmemfs COMMAND --help tells more):\n");
    for command in commands {
        let about = command
            .get_about()
            .map(ToString::to_string)
            .unwrap_or_default();
        text += &entry(command.get_name(), 10, &about);
    }
    text
}

fn examples_text(examples: &[Example]) -> String {
    let mut text = String::from("Examples:\n");
    for (command, about) in examples {
        text += &entry(command, 34, about);
    }
    // Whoever prints it ends the line.
    text.truncate(text.trim_end().len());
    text
}

impl MountOption {
    /// The option as it is written, its value by its kind.
    pub(crate) fn heading(&self) -> String {
        let name = self.name;
        match self.value {
            Value::No => name.to_owned(),
            Value::Kind(kind) => format!("{name}={kind}"),
            Value::OneOf(words) => format!("{name}={}", words.join("|")),
            Value::MaybeOneOf(words) => format!("{name}[={}]", words.join("|")),
        }
    }
}

/// A line: two spaces, the heading, and from `column` on what is said of it, in as many lines as that takes.
fn entry(heading: &str, column: usize, about: &str) -> String {
    let indent = " ".repeat(column + 2);
    let mut text = format!("  {heading:column$}");
    if heading.len() >= column {
        text = format!("  {heading}\n{indent}");
    }
    let mut used = column + 2;
    for (number, word) in about.split(' ').enumerate() {
        let space = usize::from(number > 0);
        if used + space + word.len() > WIDTH {
            text += &format!("\n{indent}");
            used = column + 2;
        } else if space > 0 {
            text.push(' ');
            used += 1;
        }
        text += word;
        used += word.len();
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use procmemfs::mount::MountConfig;

    use super::*;

    /// The option with a value that it takes.
    fn given(option: &MountOption) -> Vec<String> {
        let name = option.name;
        let with = |value: &&str| format!("{name}={value}");
        match option.value {
            Value::No => vec![name.to_owned()],
            Value::Kind(kind) => {
                let value = match kind {
                    "TIME" => "1s",
                    "BYTES" => "1M",
                    "PID[:PID...]" => "1:2",
                    "DIR" => "/tmp",
                    "N" => "3",
                    other => panic!("what is {other}?"),
                };
                vec![with(&value)]
            }
            Value::OneOf(words) => words.iter().map(with).collect(),
            Value::MaybeOneOf(words) => {
                let all = words.iter().map(with);
                all.chain([name.to_owned()]).collect()
            }
        }
    }

    #[test]
    fn each_option_is_one_that_a_mount_takes() {
        for option in MOUNT_OPTIONS {
            for text in given(option) {
                let others = ["", "write,", "allow_other,"];
                let taken = others
                    .iter()
                    .any(|other| MountConfig::parse([format!("{other}{text}").as_str()]).is_ok());
                assert!(taken, "{text}");
            }
        }
    }

    #[test]
    fn each_option_that_a_mount_takes_is_told() {
        let known: Vec<&str> = MOUNT_OPTIONS.iter().map(|option| option.name).collect();
        // Refused, without effect, and what mount(8) passes.
        let silent = ["allow_root", "default_permissions", "rw"];
        for name in MountConfig::options() {
            assert!(known.contains(name) ^ silent.contains(name), "{name}");
        }
    }

    #[test]
    fn lines_end_where_a_terminal_does() {
        for text in [short(&[]), long(&[])] {
            for line in text.lines() {
                assert!(line.len() <= WIDTH, "{line}");
                assert_eq!(line, line.trim_end());
            }
        }
        assert_eq!(entry("a", 4, "b c"), "  a   b c\n");
        assert_eq!(entry("abcd", 4, "b c"), "  abcd\n      b c\n");
        let long = entry("a", 4, &"word ".repeat(20));
        assert_eq!(long.lines().next().map(str::len), Some(75 + 6 - 1));
        assert!(
            long.lines()
                .nth(1)
                .is_some_and(|line| line.starts_with("      word"))
        );
    }
}
