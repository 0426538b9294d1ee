//! Watching and changing memory.

use super::{Recipe, Subject, mount_of, recipes, subject};
use crate::support::{SOON, daemon_binary};

recipes![
    "Watch a value" => a_value_is_watched: [],
    "Change a value" => values_are_changed: [Need::Tool("dd")],
    "Inject a fault" => a_fault_is_noticed: [Need::Tool("python3")],
    "Let two programs exchange data" => two_programs_exchange_data: [Need::Tool("python3")],
];

/// Where cargo has put the examples that were built with these tests.
fn examples() -> String {
    let dir = daemon_binary().parent().expect("a file has a directory");
    dir.to_str().expect("a path that a script names").to_owned()
}

fn a_value_is_watched(recipe: Recipe) {
    let (mut subject, mount) = subject("");
    let mut recipe = recipe
        .on(&mount, subject.pid())
        .with("target/release", examples())
        .with("0x2a0", subject.offset("counter"));
    let watching = std::thread::spawn(move || recipe.run());
    let deadline = std::time::Instant::now() + SOON;
    // It goes on after the third line, too: the program that prints them learns by the next one that nobody reads on.
    while !watching.is_finished() && std::time::Instant::now() < deadline {
        subject.ask("tick");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let output = watching.join().expect("the recipe ends").quiet().success();
    let text = output.text();
    let values: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split("  ").nth(1))
        .collect();
    let [first, second, third] = values[..] else {
        panic!("not three lines: {text}");
    };
    let mut last: u64 = first.parse().unwrap();
    for change in [second, third] {
        let (before, after) = change.split_once(" -> ").expect("BEFORE -> AFTER");
        assert_eq!(before, last.to_string(), "{text}");
        let after = after.parse().unwrap();
        assert!(after > last, "{text}");
        last = after;
    }
}

fn values_are_changed(recipe: Recipe) {
    let (mut subject, mount) = subject("write");
    let mut recipe = recipe
        .on(&mount, subject.pid())
        .with("target/release", examples())
        .with("0x2a0", subject.offset("counter"));
    let text = recipe.run().quiet().success().text();
    assert!(text.trim_end().ends_with(": patched"), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert_eq!(subject.ask("say"), "token=clownfish");
    assert_eq!(subject.ask("tick"), "43", "42 was written");
}

fn a_fault_is_noticed(recipe: Recipe) {
    let (mut subject, mount) = subject("write");
    let mut recipe = recipe
        .on(&mount, subject.pid())
        .with("0x3a0", subject.offset("table"));
    assert_eq!(subject.ask("check"), "the checksum is right");
    let table = subject.address("table");
    let mut expected = subject.memory(table, 256);
    recipe.run().quiet().success();
    expected[0] ^= 1;
    assert_eq!(subject.memory(table, 256), expected);
    assert_eq!(subject.ask("check"), "the checksum is WRONG");
}

fn two_programs_exchange_data(recipe: Recipe) {
    let mut subject = Subject::serving();
    let mount = mount_of(&[subject.pid()], "write,cache_ttl=0");
    let mut recipe = recipe
        .on(&mount, subject.pid())
        .with("0x348", subject.offset("question"));
    let answer = recipe.run().quiet().success().text();
    assert_eq!(answer, "HELLO\n");
    assert_eq!(subject.ask("mail"), "HELLO");
}
