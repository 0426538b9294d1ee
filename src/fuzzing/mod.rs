//! What the fuzzer (`fuzz/`) drives: for each input from outside a function that takes any bytes, and panics where a
//! property does not hold. See `docs/TESTING.md`.
//!
//! `cargo test` runs them over the corpus, without a fuzzer.

mod maps;
mod names;
mod options;
mod page_states;
mod proc_text;
mod requests;
mod transport;
mod world;

#[cfg(test)]
pub(crate) use maps::written;

/// A function that takes any bytes.
type Target = fn(&[u8]);

/// All of them, by the names of their corpora.
pub const TARGETS: &[(&str, Target)] = &[
    ("maps", maps::check),
    ("mountinfo", proc_text::check_mountinfo),
    ("names", names::check),
    ("options", options::check),
    ("page_states", page_states::check),
    ("pagemap", crate::target::live::parsers::check_pagemap),
    ("requests", requests::check),
    ("smaps", proc_text::check_smaps),
    ("stat", proc_text::check_stat),
    ("transport", transport::check),
];

/// Runs the function of this name.
///
/// # Panics
/// Where a property does not hold, and where there is no such function.
pub fn run(name: &str, data: &[u8]) {
    let (_, check) = TARGETS
        .iter()
        .find(|(known, _)| *known == name)
        .expect("a name of the table");
    check(data);
}

/// Whether an error is one clear line.
fn is_one_line(text: &str) -> bool {
    !text.is_empty() && !text.contains(|letter: char| letter.is_control())
}

/// Whether it can be a name in a directory of the mount.
fn is_plain_name(name: &str) -> bool {
    (1..=crate::target::mapping::MAX_NAME).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'/')
        && name != "."
        && name != ".."
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Each input of the corpus, those that a fuzzer has found something with included.
    #[test]
    fn every_property_holds_for_the_corpus() {
        let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        for (name, check) in TARGETS {
            let inputs = std::fs::read_dir(corpora.join(name)).unwrap();
            let mut paths: Vec<_> = inputs.map(|input| input.unwrap().path()).collect();
            paths.sort();
            assert!(paths.len() > 3, "{name} has a corpus");
            for path in paths {
                println!("{}", path.display());
                check(&std::fs::read(&path).unwrap());
            }
        }
    }
}
