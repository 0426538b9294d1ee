//! Manual pages.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

use crate::File;
use crate::cli::help::{EXAMPLES, MOUNT_OPTIONS, MountOption, OTHER_OPTIONS, Value};

/// The name of the manual, which stands in the middle of the first line.
const MANUAL: &str = "procmemfs Manual";

/// A page for the program and one for each of its commands; and other names under which the first is looked for.
///
/// # Errors
/// Where `SOURCE_DATE_EPOCH` is no number.
pub(crate) fn pages(definition: &Command) -> Result<Vec<File>> {
    let date = date()?;
    let mut command = definition.clone();
    command.build();
    let mut pages = vec![("man/procmemfs.1".to_owned(), program(&command, &date))];
    for subcommand in command.get_subcommands() {
        let mut page = page(subcommand, &date);
        page.text(&subcommand_notes(subcommand));
        page.section("SEE ALSO");
        page.line([bold("procmemfs"), roman("(1)")]);
        let name = format!("man/procmemfs-{}.1", subcommand.get_name());
        pages.push((name, page.finish()));
    }
    for name in ["procmemfs-mount.1", "mount.fuse.procmemfs.8"] {
        pages.push((format!("man/{name}"), b".so man1/procmemfs.1\n".to_vec()));
    }
    Ok(pages)
}

/// The day that stands below each page: today, or what whoever builds the same again sets
/// (<https://reproducible-builds.org/specs/source-date-epoch>).
fn date() -> Result<String> {
    let time = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(seconds) => {
            let seconds = seconds.parse().context("SOURCE_DATE_EPOCH")?;
            SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
        }
        Err(_) => SystemTime::now(),
    };
    let time = humantime::format_rfc3339(time).to_string();
    let day = time.split('T').next();
    Ok(day.unwrap_or_default().to_owned())
}

/// What stands below the arguments in the help.
fn subcommand_notes(command: &Command) -> String {
    let notes = command.get_after_long_help().or(command.get_after_help());
    notes.map(ToString::to_string).unwrap_or_default()
}

/// The page of the program.
fn program(command: &Command, date: &str) -> Vec<u8> {
    let mut page = page(command, date);
    page.section("MOUNT OPTIONS");
    page.paragraph(
        "They stand after -o, several of them with commas between, or each after an -o of its own. Of two that set the same the later one holds.",
    );
    for option in MOUNT_OPTIONS {
        page.entry(heading(option), option.about);
    }
    page.entry([bold("others")], OTHER_OPTIONS);
    page.section("COMMANDS");
    page.paragraph(
        "A word that is a command and stands alone is no mount point: write ./restore for a directory of that name. The command mount may be left out.",
    );
    for subcommand in command.get_subcommands() {
        let name = format!("procmemfs-{}", subcommand.get_name());
        let about = subcommand.get_about().map(ToString::to_string);
        page.entry([bold(name), roman("(1)")], &about.unwrap_or_default());
    }
    page.section("FILES BELOW THE MOUNT POINT");
    for (path, about) in TREE {
        page.entry([italic(*path)], about);
    }
    page.section("EXAMPLES");
    for (line, about) in EXAMPLES {
        page.entry([bold(*line)], about);
    }
    for (title, text) in SECTIONS {
        page.section(title);
        page.text(text);
    }
    page.section("SEE ALSO");
    page.line(
        SEE_ALSO
            .iter()
            .enumerate()
            .flat_map(|(number, (name, section))| {
                let comma = if number > 0 { ", " } else { "" };
                [roman(comma), bold(*name), roman(format!("({section})"))]
            }),
    );
    page.finish()
}

const TREE: &[(&str, &str)] = &[
    (
        "PID/START-END.PERMS.LABEL",
        "A mapping of a process: an offset in the file is an address less START. Its size is that of the mapping, du(1) shows the memory held.",
    ),
    ("PID/heap, PID/stack", "Links to such files."),
    (
        "by-name/NAME/PID",
        "Links to processes by the names of their commands.",
    ),
    (
        "mem/PID",
        "The whole address space as one sparse file: an offset is an address.",
    ),
    ("core/PID", "An ELF core file, made while it is read."),
    (
        "snap/PID@NAME",
        "A copy of one moment: mkdir(1) takes it, rmdir(1) drops it.",
    ),
    ("self", "A link to the process that looks."),
    ("stats", "Counters, in the text format of Prometheus."),
];

/// Sections whose text has paragraphs, and indented lines that stay as they are.
const SECTIONS: &[(&str, &str)] = &[
    (
        "MOUNTING WITH MOUNT(8) AND FSTAB(5)",
        "The type is fuse.procmemfs, the source any word, and memory can be written only where write is among the options. \
         A line of /etc/fstab:\n\n\
         \x20   none /mnt/processes fuse.procmemfs noauto,nofail,allow_other 0 0\n\n\
         The program reads its arguments as a helper of mount(8) does where it is called mount.fuse.procmemfs; a link of that \
         name in /sbin is used before mount.fuse3(8), which gives dev and suid to what it mounts.",
    ),
    (
        "RUNNING AS A SERVICE",
        "With -f it stays in the foreground and tells its service manager when the mount answers and when it ends, where \
         NOTIFY_SOCKET is set (sd_notify(3)). The units of the package:\n\n\
         \x20   systemctl start procmemfs                                     # on /run/procmemfs\n\
         \x20   systemctl start procmemfs@$(systemd-escape -p /mnt/processes) # anywhere else\n\n\
         Their options stand in /etc/default/procmemfs, as OPTIONS=allow_other,audit.",
    ),
    (
        "SIGNALS",
        "SIGTERM, SIGINT and SIGHUP unmount and end the program; whoever has a file open gets errors then.",
    ),
    (
        "ENVIRONMENT",
        "NOTIFY_SOCKET: the socket of the service manager, see above.\n\n\
         RUST_LOG: what is logged with -f or -d, as error, warn, info or debug.\n\n\
         PROCMEMFS_OPTIONS: mount options for every mount, which those of the command override. \
         PROCMEMFS_SECCOMP: what becomes of system calls that the program has no use for. They are refused; kill ends the program, \
         and off installs no filter.",
    ),
    (
        "EXIT STATUS",
        "0 after the mount answers, or with -f after it was unmounted; 1 where it could not be mounted, after one line that says why; \
         2 where the arguments are none.",
    ),
];

const SEE_ALSO: &[(&str, u8)] = &[
    ("fusermount3", 1),
    ("gdb", 1),
    ("fuse", 4),
    ("proc", 5),
    ("fstab", 5),
    ("mount", 8),
];

/// The option in bold, and the kind of its value in italics.
fn heading(option: &MountOption) -> Vec<Inline> {
    match option.value {
        Value::Kind(kind) => vec![bold(format!("{}=", option.name)), italic(kind)],
        _ => vec![bold(option.heading())],
    }
}

/// The sections that say what the arguments are.
fn page(command: &Command, date: &str) -> Page {
    let man = Man::new(command.clone())
        .date(date)
        .source(format!("procmemfs {}", env!("CARGO_PKG_VERSION")))
        .manual(MANUAL);
    let mut bytes = Vec::new();
    let write = |bytes: &mut Vec<u8>| {
        man.render_title(bytes)?;
        man.render_name_section(bytes)?;
        man.render_synopsis_section(bytes)?;
        man.render_description_section(bytes)?;
        man.render_options_section(bytes)
    };
    write(&mut bytes).expect("a vector takes all bytes");
    Page {
        bytes,
        rest: Roff::new(),
        is_at_title: false,
    }
}

/// A page in the making.
struct Page {
    bytes: Vec<u8>,
    rest: Roff,
    /// Whether the last line is a title, after which a paragraph needs no macro.
    is_at_title: bool,
}

impl Page {
    fn section(&mut self, title: &str) {
        self.rest.control("SH", [title]);
        self.is_at_title = true;
    }

    fn new_paragraph(&mut self) {
        if !std::mem::take(&mut self.is_at_title) {
            self.rest.control("PP", []);
        }
    }

    fn line(&mut self, words: impl IntoIterator<Item = Inline>) {
        let words: Vec<Inline> = words.into_iter().collect();
        self.rest.text(words);
    }

    fn paragraph(&mut self, text: &str) {
        self.new_paragraph();
        self.line([roman(text)]);
    }

    fn entry(&mut self, heading: impl IntoIterator<Item = Inline>, about: &str) {
        self.is_at_title = false;
        self.rest.control("TP", []);
        self.line(heading);
        self.line([roman(about)]);
    }

    /// Blocks with empty lines between. Lines that are indented stay as they are, and a line before them that is but
    /// a word and a colon is the title of a section.
    fn text(&mut self, text: &str) {
        for block in text.split("\n\n").filter(|block| !block.is_empty()) {
            let (block, title) = match block.split_once(":\n  ") {
                Some((title, _)) if !title.contains([' ', '\n']) => {
                    (&block[title.len() + 2..], Some(title.to_uppercase()))
                }
                _ => (block, None),
            };
            if let Some(title) = &title {
                self.section(title);
            }
            if !block.starts_with("  ") {
                self.paragraph(&block.replace('\n', " "));
                continue;
            }
            self.new_paragraph();
            self.rest.control("RS", ["4"]).control("nf", []);
            for line in block.lines() {
                self.line([roman(line.trim_start())]);
            }
            self.rest.control("fi", []).control("RE", []);
        }
    }

    fn finish(self) -> Vec<u8> {
        let mut bytes = self.bytes;
        bytes.extend(self.rest.render().into_bytes());
        // `clap_mangen` leaves an empty line between two line breaks before the values of an option, and mandoc warns of both.
        let text = String::from_utf8_lossy(&bytes);
        text.replace("\n.br\n\n.br\n", "\n.sp\n").into_bytes()
    }
}
