//! Keeping a process: snapshots and cores.

use std::path::Path;
use std::process::Command;

use super::{Recipe, recipes, subject};
use crate::support::{Mount, assert_bytes, quote, run, sh};

recipes![
    "Compare two moments" => two_moments_are_compared: [Need::Tool("diff"), Need::Tool("cmp")],
    "A core file for gdb" => gdb_opens_a_core: [Need::Tool("gdb")],
    "Save a process before an upgrade" => a_process_is_saved: [Need::Tool("tar"), Need::Tool("gdb")],
    "Look at a process that is gone" => a_process_that_is_gone_is_looked_at: [Need::Tool("gdb")],
];

/// No snapshot is left.
#[track_caller]
fn nothing_is_left(mount: &Mount) {
    assert_eq!(mount.path("snap").read_dir().unwrap().count(), 0);
}

fn two_moments_are_compared(recipe: Recipe) {
    let (mut subject, mount) = subject("");
    let mut recipe = recipe.on(&mount, subject.pid());
    // Buffers are made by the first answer: they are there in both.
    subject.ask("tick");
    recipe.run().quiet().success();
    subject.ask("tick");
    let text = recipe.run().quiet().success().text();
    let names: Vec<&str> = text
        .lines()
        .filter(|line| line.ends_with(" differ"))
        .collect();
    assert!(
        names.iter().any(|line| line.contains(".rw-p.heap and ")),
        "{text}"
    );
    assert!(!names.iter().any(|line| line.contains(".r-xp.")), "{text}");
    let offset = subject.offset("counter");
    let offset = usize::from_str_radix(offset.trim_start_matches("0x"), 16).unwrap() + 1;
    let words = |line: &str| {
        line.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let expected = [offset.to_string(), "1".into(), "2".into()];
    assert!(
        text.lines().any(|line| words(line) == expected),
        "{expected:?} in {text}"
    );
    nothing_is_left(&mount);
}

/// The stack of the first thread, as gdb tells of a core.
#[track_caller]
fn stack(program: &Path, core: &Path) -> String {
    let mut gdb = Command::new("gdb");
    gdb.args(["-nx", "-batch", "-ex", "bt"])
        .arg(program)
        .arg(core);
    run(&mut gdb).success().text()
}

fn gdb_opens_a_core(recipe: Recipe) {
    let (mut subject, mount) = subject("");
    let mut recipe = recipe.on(&mount, subject.pid());
    let text = recipe.run().success().text();
    assert!(
        text.contains("\nThread 1 ") && text.contains(" in main ("),
        "{text}"
    );
    assert_eq!(subject.ask("say"), "token=swordfish", "it goes on");
    let program = subject.program();
    subject.end();
    let text = stack(&program, &recipe.path("core"));
    assert!(text.contains(" in main ("), "{text}");
}

fn a_process_is_saved(recipe: Recipe) {
    let (mut subject, mount) = subject("");
    let mut recipe = recipe.on(&mount, subject.pid());
    let (start, end) = subject.mapping("[heap]");
    let expected = subject.memory(start, end - start);
    recipe.run().quiet().success();
    nothing_is_left(&mount);
    let (pid, program) = (subject.pid(), subject.program());
    subject.end();
    sh(&format!(
        "cd {} && tar -xf before.tar",
        quote(mount.outside())
    ))
    .success()
    .quiet();
    let saved = recipe.path(&format!("{pid}@before"));
    let heap = std::fs::read(saved.join("heap")).unwrap();
    assert_bytes("the heap", &heap, &expected);
    assert!(saved.join("process").exists(), "so it can be restored");
    let text = stack(&program, &recipe.path("before.core"));
    assert!(text.contains(" in main ("), "{text}");
}

fn a_process_that_is_gone_is_looked_at(recipe: Recipe) {
    let (mut subject, mount) = subject("");
    let program = subject.program();
    let mut recipe = recipe
        .on(&mount, subject.pid())
        .with("/usr/sbin/nginx", program.display().to_string());
    recipe.run().quiet().success();
    let (start, end) = subject.mapping("[heap]");
    subject.end();
    assert!(!mount.process(subject.pid()).exists());
    let text = recipe.run().success().text();
    let heap = format!("@last/{start:012x}-{end:012x}.rw-p.heap\n");
    assert!(
        text.contains(&heap) && text.contains(" in main ("),
        "{text}"
    );
    nothing_is_left(&mount);
}
