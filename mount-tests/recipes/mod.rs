//! The shell blocks of docs/RECIPES.md, each run as it stands there.
//!
//! A test takes its block by the heading above it. In it the names of the page stand for those of the test: `/mnt`
//! for its mount point, `1234` for its process, and what the test says of others with [`Recipe::with`].

mod change;
mod find;
mod keep;
mod read;
mod subject;

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Mount, Need, Output, Test, daemon_binary, run};
use subject::Subject;

const PAGE: &str = include_str!("../../docs/RECIPES.md");

/// Lists the tests of a module, each with the heading whose blocks it runs.
macro_rules! recipes {
    ($($heading:literal => $name:ident: [$($need:expr),* $(,)?]),* $(,)?) => {
        /// The headings that the tests of this module are of.
        pub(super) const HEADINGS: &[&str] = &[$($heading),*];

        /// The tests of this module.
        pub(super) fn tests() -> Vec<$crate::support::Test> {
            use $crate::support::{Need, Test};
            vec![$(Test::new(
                concat!(module_path!(), "::", stringify!($name)),
                &[Need::Fuse, Need::Tool("bash"), Need::Tool("cc"), Need::Ptrace, $($need),*],
                || $name($crate::recipes::Recipe::of($heading)),
            )),*]
        }
    };
}
use recipes;

/// The tests of all these modules.
pub(crate) fn tests() -> Vec<Test> {
    let every_block = Test::new(
        concat!(module_path!(), "::every_block_has_a_test"),
        &[] as &[Need],
        every_block_has_a_test,
    );
    [change::tests(), find::tests(), keep::tests(), read::tests()]
        .into_iter()
        .flatten()
        .chain([every_block])
        .collect()
}

/// Each heading with a block has one test, each test has a heading with a block, and all blocks are of the shell.
/// That a test runs all blocks of its heading is seen to by [`Recipe`].
fn every_block_has_a_test() {
    let tested = [
        change::HEADINGS,
        find::HEADINGS,
        keep::HEADINGS,
        read::HEADINGS,
    ]
    .concat();
    let mut count: BTreeMap<&str, i32> = BTreeMap::new();
    for heading in tested {
        *count.entry(heading).or_default() += 1;
    }
    let blocks = blocks(PAGE);
    let headings: BTreeMap<&str, i32> = blocks.keys().map(|heading| (*heading, 1)).collect();
    assert_eq!(count, headings, "headings with tests, and headings");
    let fences = PAGE.lines().filter(|line| line.contains("```")).count();
    let known: usize = blocks.values().map(VecDeque::len).sum();
    assert_eq!(fences, 2 * known, "fences of blocks that no test takes");
}

/// The shell blocks of a page by their headings.
fn blocks(page: &str) -> BTreeMap<&str, VecDeque<String>> {
    let mut blocks: BTreeMap<&str, VecDeque<String>> = BTreeMap::new();
    let (mut heading, mut block) = ("", None::<String>);
    for line in page.lines() {
        match (&mut block, line) {
            (None, "```sh") => block = Some(String::new()),
            (None, _) => heading = line.strip_prefix("## ").unwrap_or(heading),
            (Some(_), "```") => blocks.entry(heading).or_default().extend(block.take()),
            (Some(text), _) => *text += &format!("{line}\n"),
        }
    }
    blocks
}

/// The blocks of one heading, which are run one after another.
#[derive(Debug)]
struct Recipe {
    heading: &'static str,
    blocks: VecDeque<String>,
    words: Vec<(&'static str, String)>,
    directory: PathBuf,
}

impl Recipe {
    /// The recipe of this heading.
    #[track_caller]
    fn of(heading: &'static str) -> Self {
        let blocks = blocks(PAGE).remove(heading);
        Self {
            heading,
            blocks: blocks.unwrap_or_else(|| panic!("no block below {heading:?}")),
            words: Vec::new(),
            directory: PathBuf::new(),
        }
    }

    /// On this mount and process, in the directory beside the mount point.
    fn on(mut self, mount: &Mount, pid: u32) -> Self {
        self.directory = mount.outside().to_owned();
        let point = mount.point().to_str().expect("made by the test");
        self.words.push(("/mnt", point.to_owned()));
        self.words.push(("1234", pid.to_string()));
        self
    }

    /// With another word in the place of one that the recipe has.
    #[track_caller]
    fn with(mut self, word: &'static str, other: impl Into<String>) -> Self {
        let has_it = self.blocks.iter().any(|block| block.contains(word));
        assert!(has_it, "no {word:?} below {:?}", self.heading);
        self.words.push((word, other.into()));
        self
    }

    /// A file that the recipe has made, or is to find.
    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Runs the next block, as if it were pasted.
    #[track_caller]
    fn run(&mut self) -> Output {
        let block = self.blocks.pop_front();
        let block = block.unwrap_or_else(|| panic!("no other block below {:?}", self.heading));
        let script = replaced(&block, &self.words);
        let own = daemon_binary().parent().map(Path::to_owned);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = own.into_iter().chain(std::env::split_paths(&path));
        let mut bash = Command::new("bash");
        bash.env("PATH", std::env::join_paths(path).unwrap());
        run(bash.args(["-c", &script]).current_dir(&self.directory))
    }
}

impl Drop for Recipe {
    fn drop(&mut self) {
        let left = !self.blocks.is_empty() && !std::thread::panicking();
        assert!(!left, "blocks below {:?} that were not run", self.heading);
    }
}

/// A text with other words. What takes the place of one is not looked at again.
fn replaced(text: &str, words: &[(&str, String)]) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let word = words.iter().find(|(word, _)| rest.starts_with(word));
        let taken = match word {
            Some((word, other)) => {
                result += other;
                word.len()
            }
            None => {
                result.push(first);
                first.len_utf8()
            }
        };
        rest = &rest[taken..];
    }
    result
}

/// A mount of one process, and that process.
fn subject(options: &str) -> (Subject, Mount) {
    let subject = Subject::new();
    let mount = mount_of(&[subject.pid()], options);
    (subject, mount)
}

/// A mount that shows these processes alone, so that a recipe for all of them meets no other test's.
fn mount_of(pids: &[u32], options: &str) -> Mount {
    let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
    let comma = if options.is_empty() { "" } else { "," };
    Mount::new(&format!("pid={}{comma}{options}", pids.join(":")))
}
