//! Finding something: by `grep`, by scanners, by size.

use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;

use super::{Recipe, Subject, mount_of, recipes, subject};
use crate::support::{Mount, assert_bytes, end_with_us, eventually};

recipes![
    "Find a string in all processes of a user" =>
        strings_of_a_user_are_found: [Need::Root, Need::Tool("setpriv"), Need::Tool("find")],
    "What holds the memory" => du_says_what_holds_the_memory: [Need::Tool("du")],
    "Dump the data of one library" => data_of_a_library_are_dumped: [Need::Tool("xxd")],
    "Scan a process with YARA" => yara_scans_processes: [Need::Tool("yara")],
    "Scan a process with ClamAV" => clamav_scans_a_process: [Need::Tool("clamscan")],
    "Scan a snapshot that has large holes" => a_snapshot_with_a_hole_is_scanned: [Need::Tool("yara")],
    "Recover text from an editor that hangs" =>
        text_that_was_not_saved_is_recovered: [Need::Tool("vim.tiny"), Need::Tool("strings")],
];

/// A user who has a name, and the number.
const USER: (&str, u32) = ("nobody", 65_534);

fn strings_of_a_user_are_found(recipe: Recipe) {
    let (theirs, ours) = (Subject::of_user(USER.1), Subject::new());
    let mount = mount_of(&[theirs.pid(), ours.pid()], "");
    let mut recipe = recipe.on(&mount, 0).with("alice", USER.0);
    let found = recipe.run().quiet().success().text();
    let (start, end) = theirs.mapping("[heap]");
    let heap = mount.mapping(theirs.pid(), start, end);
    assert_eq!(found.trim(), heap.to_str().unwrap());
}

fn du_says_what_holds_the_memory(recipe: Recipe) {
    let (mut large, small) = (Subject::new(), Subject::new());
    large.ask("grow");
    let mount = mount_of(&[large.pid(), small.pid()], "");
    let mut recipe = recipe.on(&mount, large.pid());
    let text = recipe.run().quiet().success().text();
    let lines: Vec<&str> = text.lines().collect();
    let directory = mount.process(large.pid()).display().to_string();
    assert!(lines[0].ends_with(&directory), "{text}");
    assert_eq!(lines.last(), Some(&lines[0]), "{text}");
    let largest = lines[lines.len() - 2];
    let is_ours = largest.starts_with("33M\t") || largest.starts_with("32M\t");
    assert!(is_ours && largest.ends_with(".rw-p.anon"), "{text}");

    let text = recipe.run().quiet().success().text();
    let all: Vec<&str> = text.lines().collect();
    assert_eq!(all.len(), 2, "{text}");
    let small = mount.process(small.pid()).display().to_string();
    assert!(all[0].ends_with(&small), "{text}");
    assert_eq!(all[1], lines[0]);
}

fn data_of_a_library_are_dumped(recipe: Recipe) {
    let (subject, mount) = subject("");
    let mut recipe = recipe.on(&mount, subject.pid());
    let shown = recipe.run().quiet().success().text();
    assert!(shown.starts_with("00000000: "), "{shown}");
    let (start, end) = subject.mapping("rw-p libc.so.6");
    let expected = subject.memory(start, end - start);
    let copied = std::fs::read(recipe.path("libc.data")).unwrap();
    assert_bytes("libc.data", &copied, &expected);
}

/// The file of the heap.
#[track_caller]
fn heap(mount: &Mount, subject: &Subject) -> String {
    let (start, end) = subject.mapping("[heap]");
    let path = mount.mapping(subject.pid(), start, end);
    path.display().to_string()
}

const RULES: &str = "rule secret { strings: $text = \"token=swordfish\" condition: $text }\n";

fn yara_scans_processes(recipe: Recipe) {
    let subjects = [Subject::new(), Subject::new()];
    let mount = mount_of(&[subjects[0].pid(), subjects[1].pid()], "");
    let mut recipe = recipe.on(&mount, subjects[0].pid());
    std::fs::write(recipe.path("rules.yar"), RULES).unwrap();
    let heaps = [0, 1].map(|which| heap(&mount, &subjects[which]));
    let found = recipe.run().quiet().success().text();
    let at = subjects[0].offset("text");
    let expected = format!("secret {}\n{at}:$text: token=swordfish\n", heaps[0]);
    assert_eq!(found, expected);

    let found = recipe.run().quiet().success().text();
    let mut found: Vec<&str> = found.lines().collect();
    let mut expected = heaps.map(|heap| format!("secret {heap}"));
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

fn clamav_scans_a_process(recipe: Recipe) {
    let (subject, mount) = subject("");
    let mut recipe = recipe.on(&mount, subject.pid());
    let digits: String = "token=swordfish"
        .bytes()
        .map(|b| format!("{b:02x}"))
        .collect();
    let signature = format!("Recipe.Secret:0:*:{digits}\n");
    std::fs::write(recipe.path("rules.ndb"), signature).unwrap();
    // 1: something was found. 2 would be an error.
    let found = recipe.run().quiet().code(1).text();
    let heap = heap(&mount, &subject);
    assert_eq!(found, format!("{heap}: Recipe.Secret.UNOFFICIAL FOUND\n"));
}

/// A TiB of it was never touched: to read all of that takes minutes.
fn a_snapshot_with_a_hole_is_scanned(recipe: Recipe) {
    let (mut subject, mount) = subject("");
    let start = subject.ask("reserve");
    let start = usize::from_str_radix(start.trim_start_matches("0x"), 16).unwrap();
    let mut recipe = recipe.on(&mount, subject.pid());
    std::fs::write(recipe.path("rules.yar"), RULES).unwrap();
    let found = recipe.run().quiet().success().text();
    let middle = start + (1 << 39);
    let part = format!("/extents/{middle:012x}-{:012x}.rw-p.anon\n", middle + 4096);
    assert!(found.contains(&part), "no {part} in {found}");
    assert_eq!(found.lines().count(), 2, "{found}");
    assert_eq!(mount.path("snap").read_dir().unwrap().count(), 0);
}

/// An editor with text that was typed. Killed when dropped.
struct Editor {
    child: Child,
}

impl Drop for Editor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lines as they are typed.
const LINES: [&str; 3] = [
    "Dear diary,",
    "today I have written a chapter.",
    "It is not saved.",
];

fn text_that_was_not_saved_is_recovered(recipe: Recipe) {
    use std::io::Write;
    let dir = tempfile::tempdir().unwrap();
    let mut vim = Command::new("vim.tiny");
    vim.args(["-u", "NONE", "-n", "--not-a-term", "diary.txt"])
        .current_dir(dir.path())
        .env("TERM", "xterm")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let child = end_with_us(&mut vim, Signal::SIGKILL).spawn().unwrap();
    let mut editor = Editor { child };
    let pid = editor.child.id();
    let input = editor.child.stdin.as_mut().expect("piped");
    write!(input, "i{}\r", LINES.join("\r")).unwrap();
    let mount = mount_of(&[pid], "");
    let [first, second, third] = LINES;
    let kept = format!("{third}\0{second}\0{first}\0");
    eventually("vim has taken in what was typed", || {
        let heap = std::fs::read(mount.path(format!("{pid}/heap"))).ok()?;
        heap.windows(kept.len())
            .any(|bytes| bytes == kept.as_bytes())
            .then_some(())
    });
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), Signal::SIGSTOP).unwrap();
    eventually("it is stopped", || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        status.contains("State:\tT").then_some(())
    });
    let mut recipe = recipe.on(&mount, pid);
    recipe.run().quiet().success();
    let recovered = std::fs::read_to_string(recipe.path("recovered.txt")).unwrap();
    let lines: Vec<&str> = recovered.lines().collect();
    let last_first = lines
        .windows(3)
        .any(|found| found == [third, second, first]);
    assert!(last_first, "{recovered}");
    assert_eq!(dir.path().read_dir().unwrap().count(), 0, "saved");
}
