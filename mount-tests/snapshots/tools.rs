//! Ordinary tools over the directory of a snapshot: they find nothing to complain about, and what they find is what was there.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;

use super::{file_of, names, take, wait_for_state};
use crate::support::{
    Mount, Program, Target, assert_bytes, eventually, held, of_threads, quote, run, secret, sh,
    tests,
};

tests![
    tools_over_our_target: [
        Need::Tool("tar"), Need::Tool("grep"), Need::Tool("rg"), Need::Tool("rsync"), Need::Tool("yara"),
        Need::Tool("find"), Need::Tool("diff"),
    ],
    tools_over_python: [
        Need::Tool("tar"), Need::Tool("grep"), Need::Tool("rg"), Need::Tool("rsync"), Need::Tool("yara"),
        Need::Tool("find"), Need::Tool("diff"), Need::Tool("python3"), Need::Ptrace,
    ],
    a_secret_is_found_after_the_end: [Need::Tool("grep"), Need::Tool("python3"), Need::Ptrace],
    the_core_has_the_threads_of_that_moment: [Need::Tool("gdb"), Need::Root],
];

/// Archives, copies and searches a snapshot: each tool must end well and without a word on its standard error.
#[track_caller]
fn every_tool_ends_well(mount: &Mount, copy: &Path) {
    let listed = names(copy);
    for hidden in ["mem", "core"] {
        assert!(!listed.contains(&hidden.to_owned()), "{listed:?}");
        assert!(copy.join(hidden).exists(), "{hidden} is found by its name");
    }
    let outside = quote(mount.outside());
    std::fs::write(
        mount.outside().join("rules"),
        "rule absent { strings: $a = \"nobody-holds-that-text-0815\" condition: $a }\n",
    )
    .unwrap();
    let script = format!(
        "set -eu; cd {copy}\n\
         out() {{ mkdir {outside}/$1; echo {outside}/$1; }}\n\
         cp -r --sparse=always . $(out cp)\n\
         tar -c -S -f - . | tar -x -f - -C $(out tar)\n\
         rsync -r -l -S ./ $(out rsync)/\n\
         for copied in cp tar rsync; do diff -r . {outside}/$copied; done\n\
         test $(find . -type f | wc -l) = $(ls -A {outside}/cp | grep -cv -e '^heap$' -e '^stack$')\n\
         find . -type f -exec cat {{}} + > /dev/null\n\
         test $(find . -type f -size +16G | wc -l) = 0\n\
         ! grep -r -e nobody-holds-that-text-081[5] . || exit 9\n\
         ! rg -a --no-ignore --hidden nobody-holds-that-text-081[5] . || exit 9\n\
         test -z \"$(yara -r {outside}/rules .)\"\n",
        copy = quote(copy),
    );
    sh(&script).success().quiet();
    for tool in ["cp", "tar", "rsync"] {
        std::fs::remove_dir_all(mount.outside().join(tool)).unwrap();
    }
}

fn tools_over_our_target() {
    let mut target = Target::new();
    let mount = Mount::new("");
    let copy = take(&mount, target.pid(), "x");
    every_tool_ends_well(&mount, &copy);
    let known = ["private", "noaccess", "memfd", "scratch"]
        .map(|name| (file_of(&copy, &target.region(name)), target.bytes(name)));
    target.kill();
    let archive = mount.outside().join("later");
    let mut cp = Command::new("cp");
    run(cp.args(["-r", "--sparse=always"]).args([&copy, &archive]))
        .success()
        .quiet();
    for (path, bytes) in known {
        let copied = archive.join(path.file_name().unwrap());
        assert_bytes(
            &format!("{copied:?}"),
            &std::fs::read(copied).unwrap(),
            &bytes,
        );
    }
    every_tool_ends_well(&mount, &copy);
    // Sparse files stay sparse.
    let sparse = file_of(&copy, &target.region("sparse_private"));
    assert!(held(&archive.join(sparse.file_name().unwrap())) < 1 << 20);
}

fn tools_over_python() {
    let python = Program::python();
    let mount = Mount::new("");
    let copy = take(&mount, python.pid(), "x");
    every_tool_ends_well(&mount, &copy);
    drop(python);
    every_tool_ends_well(&mount, &copy);
}

/// What a process held when it was copied is found when it has ended.
fn a_secret_is_found_after_the_end() {
    let python = Program::python();
    let mount = Mount::new("");
    let copy = take(&mount, python.pid(), "x");
    drop(python);
    let mut grep = Command::new("grep");
    let found = run(grep.args(["-r", "-l", "-a", "-F", &secret()]).arg(&copy));
    let text = found.success().quiet().text();
    assert!(text.lines().count() >= 1, "{text}");
}

/// The functions of all threads, as gdb tells them.
fn backtraces(gdb: &mut Command) -> BTreeSet<String> {
    gdb.args(["-batch", "-nx", "-ex", "set print thread-events off"]);
    let text = run(gdb.args(["-ex", "thread apply all bt"]))
        .success()
        .text();
    let frames = text
        .lines()
        .filter(|line| line.starts_with('#') || line.starts_with("Thread "));
    // With addresses and without what only a live process has: names of threads.
    frames
        .map(|line| match line.starts_with('T') {
            true => line
                .split("LWP ")
                .nth(1)
                .unwrap_or(line)
                .split(')')
                .next()
                .unwrap()
                .trim_matches('"')
                .split(' ')
                .next()
                .unwrap()
                .to_owned(),
            false => line.to_owned(),
        })
        .collect()
}

/// SEMANTICS: `core` of a snapshot gives a debugger the same threads and stacks as the process itself, also after its end.
fn the_core_has_the_threads_of_that_moment() {
    let mut target = Target::new();
    target.ask("threads 5");
    eventually("all of them wait", || {
        let calls = of_threads(target.pid(), "syscall");
        let futex = format!("{} ", libc::SYS_futex);
        let waiting = calls.iter().filter(|call| call.starts_with(&futex));
        (waiting.count() == 5).then_some(())
    });
    target.signal(Signal::SIGSTOP);
    wait_for_state(target.pid(), 'T');
    let mount = Mount::new("");
    let copy = take(&mount, target.pid(), "x");
    let binary = Target::binary();
    let mut live = Command::new("gdb");
    let live = backtraces(live.arg(&binary).arg("-p").arg(target.pid().to_string()));
    assert!(
        live.iter().filter(|line| line.contains("park")).count() > 0,
        "{live:#?}"
    );
    target.kill();
    let mut core = Command::new("gdb");
    let of_copy = backtraces(core.arg(&binary).arg(copy.join("core")));
    let missing: Vec<_> = live.symmetric_difference(&of_copy).collect();
    assert!(missing.is_empty(), "{missing:#?}");
}
