//! Ordinary tools over whole process directories: they find nothing to
//! complain about.

use std::path::Path;
use std::process::Command;

use crate::support::{
    Mount, PAGE, Program, Target, assert_bytes, quote, rounds, run, secret, sh, tests,
};

// Our target has mapped a deleted file that it has closed: a plain user cannot read that.
tests![
    tools_over_tens_of_thousands_of_mappings: [Need::Root, Need::Tool("tar"), Need::Tool("grep")],
    tools_over_our_target: [Need::Root, Need::Tool("tar"), Need::Tool("grep"), Need::Tool("cmp")],
    tools_over_a_busy_target: [Need::Root, Need::Tool("tar"), Need::Tool("grep")],
    tools_over_a_shell: [Need::Tool("tar"), Need::Tool("grep"), Need::Ptrace],
    tools_over_python: [Need::Tool("tar"), Need::Tool("grep"), Need::Tool("python3"), Need::Ptrace],
    tools_over_sleep: [Need::Tool("tar"), Need::Tool("grep"), Need::Tool("diff"), Need::Ptrace],
    tools_over_a_32_bit_program: [Need::Tool("tar"), Need::Tool("grep"), Need::Cc32, Need::Ptrace],
    tools_over_a_writable_mount: [Need::Root, Need::Tool("tar"), Need::Tool("grep")],
    tools_with_direct_reads: [Need::Root, Need::Tool("tar"), Need::Tool("grep")],
    grep_finds_what_is_there_and_nothing_else: [Need::Root, Need::Tool("grep")],
    ripgrep_searches_a_process: [Need::Root, Need::Tool("rg")],
    yara_scans_a_process: [Need::Root, Need::Tool("yara")],
    xxd_shows_the_bytes: [Need::Tool("xxd")],
    cmp_tells_same_from_different: [Need::Tool("cmp")],
];

/// A text that no process holds: it is made anew at run time.
fn absent_text() -> String {
    let number = std::process::id().wrapping_mul(2_654_435_761);
    format!("nobody-holds-{number:x}-{}", "z".repeat(9))
}

/// Archives, copies and searches the directory of `pid`; each tool must end
/// without an error line. Gives the copy.
#[track_caller]
fn every_tool_ends_well(mount: &Mount, pid: u32) -> std::path::PathBuf {
    let point = quote(mount.point());
    sh(&format!("tar cf /dev/null -C {point} {pid}"))
        .success()
        .quiet();
    // GNU tar reads nothing when it writes to /dev/null itself.
    let archive = mount.outside().join(format!("{pid}.tar"));
    sh(&format!(
        "tar cf - -C {point} {pid} | cat > {}",
        quote(&archive)
    ))
    .success()
    .quiet();
    let listed = sh(&format!("tar tf {}", quote(&archive))).success().text();
    let mut archived: Vec<&str> = listed
        .lines()
        .filter_map(|line| line.split_once('/'))
        .map(|(_, name)| name)
        .filter(|name| !name.is_empty())
        .collect();
    archived.sort_unstable();

    let copy = mount.outside().join(format!("{pid}.copy"));
    let mut cp = Command::new("cp");
    run(cp.arg("-r").arg(mount.process(pid)).arg(&copy))
        .success()
        .quiet();
    let names = mount.names(pid);
    assert_eq!(archived, names, "what tar archived");
    for name in &names {
        let original = mount.process(pid).join(name).symlink_metadata().unwrap();
        let copied = copy.join(name).symlink_metadata().unwrap();
        assert_eq!(copied.file_type(), original.file_type(), "kind of {name}");
        if original.is_file() {
            assert_eq!(copied.len(), original.len(), "size of the copy of {name}");
        }
    }

    let mut grep = Command::new("grep");
    grep.args(["-r", "-e", &absent_text()])
        .arg(mount.process(pid));
    // 1: nothing found. 2 would be an error.
    let found = run(&mut grep).code(1).quiet();
    assert!(found.stdout.is_empty());
    sh(&format!(
        "find {point}/{pid} -type f -exec cat {{}} + | wc -c"
    ))
    .success()
    .quiet();
    copy
}

/// The files of `copy` hold what the target's regions hold.
#[track_caller]
fn copy_is_exact(mount: &Mount, target: &Target, copy: &Path) {
    for name in target.regions().keys().filter(|name| *name != "heap") {
        let path = mount.file(target, name);
        let copied = copy.join(path.file_name().unwrap());
        let bytes = std::fs::read(copied).unwrap();
        assert_bytes(&format!("copy of {name}"), &bytes, &target.bytes(name));
    }
}

/// Our target, with every kind of mapping: `tar`, `cp -r`, `grep -r` and `cat`
/// end well, the copies are exact, and `cmp` agrees.
fn tools_over_our_target() {
    let target = Target::new();
    let mount = Mount::new("");
    let copy = every_tool_ends_well(&mount, target.pid());
    copy_is_exact(&mount, &target, &copy);
    for name in ["private", "noaccess", "memfd", "past_end"] {
        let path = mount.file(&target, name);
        let copied = copy.join(path.file_name().unwrap());
        run(Command::new("cmp").arg(path).arg(copied))
            .success()
            .quiet();
    }
}

/// A target with very many mappings, 65,000 of them in the long form: `tar`, `cp -r` and `grep -r` end well, too.
fn tools_over_tens_of_thousands_of_mappings() {
    let mut target = Target::new();
    target.ask(&format!("many {}", rounds(16_000, 65_000)));
    let mount = Mount::new("");
    let (point, pid) = (quote(mount.point()), target.pid());
    let copy = mount.outside().join("copy");
    let expected = mount.names(pid).len() as u64;
    for (script, lines) in [
        // With itself, the directory.
        (
            format!("tar cf - -C {point} {pid} | tar tf - | wc -l"),
            expected + 1,
        ),
        (
            format!("cp -r {point}/{pid} {0} && ls {0} | wc -l", quote(&copy)),
            expected,
        ),
        (
            format!("grep -rc {} {point}/{pid} | wc -l", absent_text()),
            {
                // Without the two links.
                expected - 2
            },
        ),
    ] {
        let output = sh(&script).success().quiet().text();
        assert_eq!(output.trim(), lines.to_string(), "{script}");
    }
    copy_is_exact(&mount, &target, &copy);
}

/// A target with threads, one of which writes all the time: `tar` does not say
/// that a file changed.
fn tools_over_a_busy_target() {
    let mut target = Target::new();
    target.ask("counter");
    target.ask("threads 8");
    let mount = Mount::new("");
    every_tool_ends_well(&mount, target.pid());
}

/// A shell, in whose memory `grep -r` finds the value of a variable.
fn tools_over_a_shell() {
    let shell = Program::shell();
    let mount = Mount::new("");
    every_tool_ends_well(&mount, shell.pid());
    let mut grep = Command::new("grep");
    grep.args(["-rl", &secret()])
        .arg(mount.process(shell.pid()));
    let found = run(&mut grep).success().quiet().text();
    assert!(found.contains(".heap"), "{found}");
}

/// A Python interpreter, in whose memory `grep -r` finds an object.
fn tools_over_python() {
    let python = Program::python();
    let mount = Mount::new("");
    every_tool_ends_well(&mount, python.pid());
    let mut grep = Command::new("grep");
    grep.args(["-rla", &secret()])
        .arg(mount.process(python.pid()));
    run(&mut grep).success().quiet();
}

/// `sleep`, of which nothing changes: the copy is the process.
fn tools_over_sleep() {
    let sleep = Program::sleep();
    let mount = Mount::new("");
    let copy = every_tool_ends_well(&mount, sleep.pid());
    let mut diff = Command::new("diff");
    diff.args(["-r", "--no-dereference"]).arg(copy);
    run(diff.arg(mount.process(sleep.pid()))).success().quiet();
}

/// A 32-bit program on a 64-bit kernel.
fn tools_over_a_32_bit_program() {
    let mount = Mount::new("");
    let program = Program::bits_32(mount.outside());
    every_tool_ends_well(&mount, program.pid());
}

/// With `write` and `force` reading is as without.
fn tools_over_a_writable_mount() {
    let target = Target::new();
    let mount = Mount::new("write,force");
    let copy = every_tool_ends_well(&mount, target.pid());
    copy_is_exact(&mount, &target, &copy);
}

/// With `cache_ttl=0`, where every read goes to the process, too.
fn tools_with_direct_reads() {
    let target = Target::new();
    let sleep = Program::sleep();
    let mount = Mount::new("cache_ttl=0");
    let copy = every_tool_ends_well(&mount, target.pid());
    copy_is_exact(&mount, &target, &copy);
    every_tool_ends_well(&mount, sleep.pid());
}

/// `grep -r` names the mappings that hold a text, and `grep -c` and
/// `grep -obUa` say how often and where.
fn grep_finds_what_is_there_and_nothing_else() {
    let mut target = Target::new();
    let mount = Mount::new("");
    let text = absent_text();
    for name in ["private", "shared", "victim"] {
        let at = target.region(name).start + PAGE - 4;
        target.write(at, text.as_bytes());
    }
    let mut grep = Command::new("grep");
    grep.args(["-rl", &text]).arg(mount.process(target.pid()));
    let output = run(&mut grep).success().quiet().text();
    let mut found: Vec<&str> = output.lines().collect();
    found.sort_unstable();
    let mut expected: Vec<String> = ["private", "shared", "victim"]
        .map(|name| mount.file(&target, name).display().to_string())
        .into();
    // The command itself came through the target's input buffer, as digits:
    // those are not the text.
    expected.sort_unstable();
    assert_eq!(found, expected);
    let mut grep = Command::new("grep");
    grep.args(["-obUa", &text])
        .arg(mount.file(&target, "private"));
    let output = run(&mut grep).success().quiet().text();
    assert_eq!(output.trim(), format!("{}:{text}", PAGE - 4));
}

/// `rg` over a process's directory, hidden and binary files included.
fn ripgrep_searches_a_process() {
    let mut target = Target::new();
    let mount = Mount::new("");
    let text = absent_text();
    let at = target.region("scratch").start + 5_000_000;
    target.write(at, text.as_bytes());
    let mut rg = Command::new("rg");
    rg.args(["-uuu", "-la", &text])
        .arg(mount.process(target.pid()));
    let output = run(&mut rg).success().quiet().text();
    let path = mount.file(&target, "scratch");
    assert_eq!(output.trim(), path.display().to_string());
}

/// `yara -r` finds a string of the process, and has nothing to complain about.
fn yara_scans_a_process() {
    let mut target = Target::new();
    let mount = Mount::new("");
    let text = absent_text();
    // Where malware hides: memory that the process itself cannot read now.
    let region = target.region("victim");
    target.write(region.start + 3 * PAGE, text.as_bytes());
    target.ask(&format!("protect {:x} {} ---", region.start, region.len()));
    let rules = mount.outside().join("rules.yar");
    let rule = format!("rule found {{ strings: $a = \"{text}\" condition: $a }}\n");
    std::fs::write(&rules, rule).unwrap();
    let mut yara = Command::new("yara");
    yara.arg("-r").arg(&rules).arg(mount.process(target.pid()));
    let output = run(&mut yara).success().quiet().text();
    let path = mount.file(&target, "victim");
    assert_eq!(output.trim(), format!("found {}", path.display()));
}

/// `xxd` with `-s` and `-l` shows the bytes at an offset.
fn xxd_shows_the_bytes() {
    let target = Target::new();
    let mount = Mount::new("");
    let expected = target.bytes("private");
    let mut xxd = Command::new("xxd");
    xxd.args(["-s", "4090", "-l", "40", "-p", "-c", "40"])
        .arg(mount.file(&target, "private"));
    let output = run(&mut xxd).success().quiet().text();
    let digits: String = expected[4090..4130]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(output.trim(), digits);
    let output = sh(&format!(
        "xxd {} | wc -l",
        quote(&mount.file(&target, "private"))
    ));
    let lines = output.success().quiet().text();
    assert_eq!(lines.trim(), (expected.len() / 16).to_string());
}

/// `cmp` of a mapping with its bytes succeeds, and names the first byte that
/// differs.
fn cmp_tells_same_from_different() {
    let target = Target::new();
    let mount = Mount::new("");
    let mut bytes = target.bytes("memfd");
    let reference = mount.outside().join("reference");
    let path = mount.file(&target, "memfd");
    std::fs::write(&reference, &bytes).unwrap();
    run(Command::new("cmp").arg(&reference).arg(&path))
        .success()
        .quiet();
    bytes[12345] ^= 1;
    std::fs::write(&reference, &bytes).unwrap();
    let output = run(Command::new("cmp").arg(&reference).arg(&path)).code(1);
    assert!(output.text().contains("12346"), "{}", output.text());
}
