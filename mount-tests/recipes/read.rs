//! Reading memory with Python.

use super::{Recipe, recipes, subject};
use crate::support::python_with;

recipes![
    "Read structures with Python" => python_reads_structures: [Need::Tool("python3")],
    "Read a core with Python" => python_reads_a_core: [Need::Python("elftools")],
];

fn python_reads_structures(recipe: Recipe) {
    let (subject, mount) = subject("");
    let mut recipe = recipe
        .on(&mount, subject.pid())
        .with("0x2c8", subject.offset("records"));
    let text = recipe.run().quiet().success().text();
    let records = "1 0.5 -1.0 point 1\n2 1.5 -2.0 point 2\n";
    assert_eq!(text, format!("{records}True\n[0.5, -1.0]\n"));
}

fn python_reads_a_core(recipe: Recipe) {
    let (subject, mount) = subject("");
    let python = python_with("elftools").expect("a need of this test");
    let mut recipe = recipe
        .on(&mount, subject.pid())
        .with("python3", python.display().to_string());
    let text = recipe.run().quiet().success().text();
    let lines: Vec<&str> = text.lines().collect();
    let address = subject.address("text") + "token=".len();
    assert_eq!(lines[0], format!("{address:#x}"), "{text}");
    let program = subject.program().display().to_string();
    assert!(lines.contains(&program.as_str()), "{text}");
    assert!(
        lines.iter().any(|name| name.ends_with("/libc.so.6")),
        "{text}"
    );
}
