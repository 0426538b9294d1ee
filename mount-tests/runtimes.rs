//! Programs that reserve tera- and gibibytes: tools go over their directories
//! in a time that their resident memory sets.

use std::process::Command;
use std::time::Duration;

use crate::support::{Footprint, Mount, Output, Program, held, quote, run, secret, tests, timed};

tests![
    an_address_sanitizer_program: [
        Need::Asan, Need::Ptrace, Need::Tool("du"), Need::Tool("tar"), Need::Tool("grep"),
    ],
    a_java_virtual_machine: [
        Need::Tool("java"), Need::Tool("javac"), Need::Ptrace, Need::Tool("tar"), Need::Tool("grep"),
    ],
    a_node_program: [Need::Tool("node"), Need::Ptrace, Need::Tool("tar"), Need::Tool("grep")],
];

/// A tool's time: proportional to what the process holds, and generous.
fn limit(resident: u64) -> Duration {
    Duration::from_secs(10) + Duration::from_millis(100 * (resident >> 20))
}

/// `du` shows what the process holds, `grep -r`, `tar` and `cp -r` go over its
/// directory and find nothing to complain about, and it holds no more then.
fn every_tool_ends_soon(what: &str, program: &Program) {
    program.stop();
    let pid = program.pid();
    let before = Footprint::of(pid);
    let resident = before.rss * 1024;
    let limit = limit(resident);
    let mount = Mount::new("");
    let dir = mount.process(pid);
    let quiet = |output: Output| output.success().quiet();

    let mut du = Command::new("du");
    du.args(["-s", "-k"]).arg(&dir);
    let text = quiet(timed(&format!("du -s of {what}"), limit, &mut du)).text();
    let shown: u64 = text.split_whitespace().next().unwrap().parse().unwrap();
    eprintln!("{what}: RSS {} KiB, du -s {shown} KiB", before.rss);
    assert!(
        shown.abs_diff(before.rss) * 20 <= before.rss,
        "du -s shows {shown} KiB, RSS is {} KiB",
        before.rss
    );

    let mut grep = Command::new("grep");
    grep.args(["-rl", &secret()]).arg(&dir);
    let found = quiet(timed(&format!("grep -r over {what}"), limit, &mut grep)).text();
    assert!(found.lines().count() > 0, "{found}");

    // Not to /dev/null, for which tar does not read at all.
    let script = format!("tar -Scf - -C {} {pid} | wc -c", quote(mount.point()));
    let mut tar = Command::new("sh");
    let text = quiet(timed(
        &format!("tar -S of {what}"),
        limit,
        tar.args(["-c", &script]),
    ))
    .text();
    let archived: u64 = text.trim().parse().unwrap();
    assert!(archived > resident / 2, "{archived} bytes of {resident}");

    let copy = mount.outside().join("copy");
    let mut cp = Command::new("cp");
    cp.args(["-r", "--sparse=auto"]).arg(&dir).arg(&copy);
    quiet(timed(&format!("cp -r of {what}"), limit, &mut cp));
    same_files(&dir, &copy);
    assert_eq!(Footprint::of(pid), before, "{what}");
}

/// A copy has every file with its size, and takes up no more than the files
/// themselves hold or their files.
fn same_files(dir: &std::path::Path, copy: &std::path::Path) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let name = entry.unwrap().file_name();
        let (one, other) = (dir.join(&name), copy.join(&name));
        let (size, copied) = (
            one.metadata().unwrap().len(),
            other.metadata().unwrap().len(),
        );
        assert_eq!(size, copied, "size of {name:?}");
        if size > 1 << 30 {
            let (held, on_disk) = (held(&one), held(&other));
            assert!(
                on_disk <= held + (held >> 4) + (1 << 20),
                "{name:?}: {held}, {on_disk}"
            );
        }
    }
    let script = format!(
        "cd {} && for f in *; do test -L $f || test $(stat -c %s $f) -gt 100000000 || cmp $f {}/$f || exit 1; done",
        quote(copy),
        quote(dir)
    );
    run(Command::new("sh").args(["-c", &script]))
        .success()
        .quiet();
}

/// AddressSanitizer's shadow of 20 TiB is a hole.
fn an_address_sanitizer_program() {
    let dir = tempfile::tempdir().unwrap();
    every_tool_ends_soon("an ASan program", &Program::asan(dir.path()));
}

/// So is what a Java virtual machine reserves.
fn a_java_virtual_machine() {
    let dir = tempfile::tempdir().unwrap();
    every_tool_ends_soon("a JVM", &Program::java(dir.path()));
}

/// And what Node.js does.
fn a_node_program() {
    every_tool_ends_soon("Node.js", &Program::node());
}
