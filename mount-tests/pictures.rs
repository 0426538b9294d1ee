//! The pictures of the documents are still those of the program: their scripts are run.

use std::path::Path;
use std::process::Command;

use crate::support::{daemon_binary, run, tests};

tests![
    the_picture_of_the_modules_is_that_of_the_code: [Need::Tool("python3")],
    the_commands_of_the_recording_do_what_it_shows: [
        Need::Root, Need::Tool("python3"), Need::Tool("cc"), Need::Tool("grep"), Need::Tool("xxd"), Need::Tool("gdb")
    ],
];

/// A script of `docs/pictures`.
fn script(name: &str) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut python = Command::new("python3");
    python.arg(root.join("docs/pictures").join(name));
    python
}

/// `docs/modules.svg`, and that no two modules use each other.
fn the_picture_of_the_modules_is_that_of_the_code() {
    run(script("modules.py").arg("--check")).success().quiet();
}

/// `docs/demo.svg`: its commands are run in a mount, and each must show what the picture is about.
fn the_commands_of_the_recording_do_what_it_shows() {
    run(script("demo.py").arg("--check").arg(daemon_binary()))
        .success()
        .quiet();
}
