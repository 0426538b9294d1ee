//! `procmemfs map`: a picture of a process, and what differs between two copies of one.

use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{
    Footprint, Mount, Output, PAGE, Region, Target, Terminal, daemon_binary, eventually, held,
    quote, run, sh, tests,
};

tests![
    a_picture_says_where_each_page_is: [Need::Root],
    a_picture_changes_nothing: [Need::Root],
    the_biggest_come_first_and_plain_text_has_no_colour: [Need::Root],
    a_terminal_has_colour: [Need::Root],
    a_picture_is_an_svg_file: [Need::Root, Need::Tool("python3")],
    what_differs_between_two_snapshots_is_told_by_page: [Need::Ptrace, Need::Tool("cp")],
    a_live_picture_is_ended_by_a_key: [Need::Root],
    a_live_picture_ends_with_its_process_and_by_a_signal: [Need::Root],
    a_plain_user_sees_their_own_processes: [Need::PlainUser],
    wrong_arguments_of_map_are_one_line,
];

fn map(arguments: &[&str]) -> Output {
    run(Command::new(daemon_binary()).arg("map").args(arguments))
}

/// The numbers of a mapping, in bytes, by their names.
fn numbers(json: &str, region: &Region) -> Vec<(String, u64)> {
    let start = format!("\"start\": \"{:012x}\"", region.start);
    let at = json.find(&start);
    let at = at.unwrap_or_else(|| panic!("no mapping {start}: {json}"));
    let begin = json[..at].rfind('{').unwrap();
    let end = at + json[at..].find('}').unwrap();
    let lines = json[begin..end].lines().filter_map(|line| {
        let (name, value) = line.trim().trim_end_matches(',').split_once(": ")?;
        Some((name.trim_matches('"').to_owned(), value.parse().ok()?))
    });
    lines.collect()
}

#[track_caller]
fn expect(json: &str, region: &Region, expected: &[(&str, usize)]) {
    let found = numbers(json, region);
    for (name, pages) in expected {
        let number = found.iter().find(|(known, _)| known == name);
        let number = number.map(|(_, number)| *number);
        let bytes = (pages * PAGE) as u64;
        assert_eq!(number, Some(bytes), "{name} of {region:x?}: {found:?}");
    }
}

/// SEMANTICS: a picture says of each mapping where its pages are.
fn a_picture_says_where_each_page_is() {
    let mut target = Target::new();
    let len = 64 * PAGE;
    // In the object, and not in the page table; in both; and nowhere.
    let shared = Region::parse(&target.ask(&format!("object odd {len}"))).unwrap();
    target.ask(&format!(
        "put odd {:x} {} {}",
        shared.start,
        8 * PAGE,
        4 * PAGE
    ));
    target.ask(&format!("fill {:x} {PAGE}", shared.start + 30 * PAGE));
    let file = target.dir().join("three.bin");
    std::fs::write(&file, vec![b'x'; 3 * PAGE]).unwrap();
    let file = target.map("three", file.to_str().unwrap(), 5 * PAGE, "private r");
    let json = map(&["--json", &target.pid().to_string()])
        .success()
        .quiet()
        .text();
    let private = target.region("private");
    expect(
        &json,
        &private,
        &[
            ("resident", private.len() / PAGE),
            ("size", private.len() / PAGE),
        ],
    );
    let sparse = target.region("sparse_private");
    expect(
        &json,
        &sparse,
        &[
            ("resident", 2),
            ("zero", sparse.len() / PAGE - 2),
            ("absent", 0),
        ],
    );
    expect(
        &json,
        &shared,
        &[("resident", 1), ("absent", 4), ("zero", 59), ("swapped", 0)],
    );
    expect(
        &json,
        &file,
        &[
            ("resident", 0),
            ("absent", 3),
            ("unreadable", 2),
            ("size", 5),
        ],
    );
    // The same as the kernel counts it.
    let total = json[json.find("\"totals\"").unwrap()..]
        .find("\"resident\": ")
        .map(|at| {
            let at = json.find("\"totals\"").unwrap() + at + "\"resident\": ".len();
            let digits = json[at..].bytes().take_while(u8::is_ascii_digit).count();
            json[at..at + digits].parse::<u64>().unwrap()
        });
    let kernel = Footprint::of(target.pid()).pages * 1024;
    // The kernel does not count pages of its own that are mapped (vdso), nor the page of zeros.
    let more = total.unwrap().abs_diff(kernel);
    assert!(more <= 4 * PAGE as u64, "{total:?} and {kernel}");
}

/// SEMANTICS: a picture changes nothing.
fn a_picture_changes_nothing() {
    let mut target = Target::new();
    let gib = 1 << 30;
    let object = Region::parse(&target.ask(&format!("object big {gib}"))).unwrap();
    target.ask(&format!("fill {:x} {PAGE}", object.start + 1000 * PAGE));
    let Region { start, end } = object;
    let object = format!("/proc/{}/map_files/{start:x}-{end:x}", target.pid());
    let (before, size) = (Footprint::of(target.pid()), held(object.as_ref()));
    let pid = target.pid().to_string();
    let svg = target.dir().join("x.svg");
    map(&[&pid]).success().quiet();
    map(&["--json", &pid]).success().quiet();
    map(&["--svg", svg.to_str().unwrap(), &pid])
        .success()
        .quiet();
    assert_eq!(Footprint::of(target.pid()), before);
    assert_eq!(
        held(object.as_ref()),
        size,
        "bytes that the object takes up"
    );
}

fn the_biggest_come_first_and_plain_text_has_no_colour() {
    let mut target = Target::new();
    let large = Region::parse(&target.ask(&format!("shared {}", 32 << 20))).unwrap();
    target.ask(&format!("fill {:x} {}", large.start, 24 << 20));
    let pid = target.pid().to_string();
    let text = map(&[&pid]).success().quiet().text();
    assert!(!text.contains('\x1b'), "{text}");
    assert!(
        text.starts_with(&format!("process {pid} (mount-target): ")),
        "{text}"
    );
    let rows: Vec<&str> = text.lines().skip(3).collect();
    let name = format!("{:012x}-{:012x}.rw-s.", large.start, large.end);
    assert!(rows[0].contains(&name), "{text}");
    assert!(
        rows[0].contains("########################........  "),
        "{text}"
    );
    assert!(
        rows[0].starts_with("    32M      24M        0     8.0M        0  "),
        "{text}"
    );
    let few = map(&["--top", "2", &pid]).success().text();
    assert_eq!(few.lines().count(), 3 + 2 + 1, "{few}");
    let sorted = map(&["--sort", "address", "--top", "0", &pid])
        .success()
        .text();
    let names: Vec<&str> = sorted
        .lines()
        .skip(3)
        .filter_map(|line| line.split(' ').next_back())
        .collect();
    assert!(names.is_sorted() && names.len() > 20, "{sorted}");
}

fn a_terminal_has_colour() {
    let target = Target::new();
    let pid = target.pid().to_string();
    for (columns, is_wide) in [(160, true), (80, false)] {
        let mut command = Command::new(daemon_binary());
        let mut terminal = Terminal::start(command.args(["map", &pid]), columns, 24);
        assert!(terminal.wait().success());
        terminal.wait_for("more (--top 0 shows all)");
        let text = terminal.text();
        assert!(text.contains("\x1b[") && text.contains('█'), "{text}");
        let name = format!("{:012x}-", target.region("private").start);
        assert_eq!(text.contains(&name), is_wide, "{text}");
        assert!(!text.contains("\x1b[?1049h"), "{text}");
    }
}

/// The picture is well-formed XML and has a row for each mapping.
fn a_picture_is_an_svg_file() {
    let target = Target::new();
    let path = target.dir().join("picture.svg");
    let pid = target.pid().to_string();
    let arguments = ["--svg", path.to_str().unwrap(), "--top", "0", &pid];
    let output = map(&arguments).success().quiet();
    assert_eq!(output.text(), "");
    let script = "import sys, xml.etree.ElementTree as e
root = e.parse(sys.argv[1]).getroot()
assert root.tag == '{http://www.w3.org/2000/svg}svg', root.tag
print('\\n'.join(t.text.strip() for t in root.iter('{http://www.w3.org/2000/svg}text')))";
    let mut python = Command::new("python3");
    let texts = run(python.args(["-c", script]).arg(&path)).success().text();
    let name = format!(
        "{:012x}-{:012x}.",
        target.region("private").start,
        target.region("private").end
    );
    assert!(texts.contains(&name), "{texts}");
    assert!(texts.contains("mount-target (process"), "{texts}");
    let none = target.dir().join("none/x.svg");
    map(&["--svg", none.to_str().unwrap(), &pid])
        .failure()
        .one_line(&["x.svg", "no such"]);
}

/// SEMANTICS: pages of two copies are the same, changed, come or gone.
fn what_differs_between_two_snapshots_is_told_by_page() {
    let mount = Mount::new("");
    let mut target = Target::new();
    let take = |name: &str| {
        let path = mount.path(format!("snap/{}@{name}", target.pid()));
        std::fs::create_dir(&path).unwrap();
        path
    };
    let old = take("a");
    let victim = target.region("victim");
    for page in [1, 3] {
        target.write(victim.start + page * PAGE + 7, &[0xa5; 9]);
    }
    let came = Region::parse(&target.ask(&format!("shared {}", 16 * PAGE))).unwrap();
    let went = target.region("scratch");
    target.ask(&format!("unmap {:x} {}", went.start, went.len()));
    let new = mount.path(format!("snap/{}@b", target.pid()));
    std::fs::create_dir(&new).unwrap();
    let copy = mount.outside().join("a");
    sh(&format!(
        "cp -r --sparse=always {} {}",
        quote(&old),
        quote(&copy)
    ))
    .success();
    for old in [&old, &copy] {
        let both = [old.to_str().unwrap(), new.to_str().unwrap()];
        let text = map(&["--diff", both[0], both[1]]).success().quiet().text();
        let row = |region: &Region| {
            let name = format!("  {:012x}-{:012x}.", region.start, region.end);
            let line = text.lines().find(|line| line.contains(&name));
            let line = line.unwrap_or_else(|| panic!("no {name}: {text}"));
            let numbers = line.split_whitespace().take(5);
            numbers
                .map(|number| number.parse().unwrap())
                .collect::<Vec<usize>>()
        };
        assert_eq!(
            row(&victim),
            [victim.len() / PAGE - 2, 2, 0, 0, 0],
            "{text}"
        );
        assert_eq!(row(&came), [0, 0, 16, 0, 0], "{text}");
        assert_eq!(row(&went), [0, 0, 0, went.len() / PAGE, 0], "{text}");
        assert!(text.contains("which are the same"), "{text}");
        let json = map(&["--json", "--diff", both[0], both[1]])
            .success()
            .text();
        assert!(json.contains("\"unit\": \"pages of 4096 bytes\""), "{json}");
    }
    let same = map(&["--diff", new.to_str().unwrap(), new.to_str().unwrap()])
        .success()
        .text();
    assert!(same.contains("mappings are the same"), "{same}");
    let none = mount.outside().to_str().unwrap();
    map(&["--diff", none, none])
        .failure()
        .one_line(&["no snapshot of a process"]);
}

fn live(arguments: &[&str]) -> Terminal {
    let mut command = Command::new(daemon_binary());
    command
        .args(["map", "--live", "--interval", "100ms"])
        .args(arguments);
    Terminal::start(&mut command, 140, 40)
}

/// SEMANTICS: a live view is ended by `q`, and leaves the terminal as it was.
fn a_live_picture_is_ended_by_a_key() {
    let mut target = Target::new();
    let pid = target.pid().to_string();
    for key in ["q", "\x1b", "\x03"] {
        let mut terminal = live(&[&pid]);
        terminal.wait_for("\x1b[?1049h");
        terminal.wait_to_see("sorted by held");
        terminal.wait_to_see(&format!("process {pid} (mount-target)"));
        if key == "q" {
            terminal.press("s");
            terminal.wait_to_see("sorted by size");
            // What comes later is seen.
            let new = Region::parse(&target.ask(&format!("shared {}", 64 << 20))).unwrap();
            terminal.wait_to_see(&format!("{:012x}-{:012x}", new.start, new.end));
        }
        terminal.press(key);
        assert!(terminal.wait().success(), "{key:?}: {}", terminal.text());
        terminal.is_restored();
    }
}

fn a_live_picture_ends_with_its_process_and_by_a_signal() {
    let mut target = Target::new();
    let pid = target.pid().to_string();
    let mut terminal = live(&[&pid]);
    terminal.wait_to_see("sorted by held");
    // A new program of the same process is the one that is seen then.
    target.exec(2);
    let new = Region::parse(&target.ask(&format!("shared {}", 512 << 20))).unwrap();
    terminal.press("s");
    terminal.wait_to_see(&format!("{:012x}-", new.start));
    let mut other = live(&[&pid]);
    other.wait_to_see("sorted by held");
    kill(Pid::from_raw(other.pid() as i32), Signal::SIGTERM).unwrap();
    assert!(other.wait().success());
    other.is_restored();
    target.end();
    assert!(!terminal.wait().success());
    terminal.is_restored();
    terminal.wait_for(&format!("procmemfs: process {pid} has ended"));
    // Without a terminal there is no live view.
    let own = std::process::id().to_string();
    map(&["--live", &own])
        .failure()
        .one_line(&["--live needs a terminal"]);
}

/// SEMANTICS: whoever may not read a process gets no picture of it.
fn a_plain_user_sees_their_own_processes() {
    let (theirs, roots) = (Target::of_user(12345), Target::new());
    let binary = theirs.dir().join("procmemfs");
    std::fs::copy(daemon_binary(), &binary).unwrap();
    let as_user = |pid: u32| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=12345", "--regid=12345", "--clear-groups"]);
        command
            .arg(&binary)
            .args(["map", "--top", "0", &pid.to_string()]);
        eventually("a program that can be run", || {
            // Another test's fork may still hold it open for writing.
            let output = run(&mut command);
            (!output.stderr.contains("Text file busy")).then_some(output)
        })
    };
    let text = as_user(theirs.pid()).success().quiet().text();
    let name = format!("{:012x}-", theirs.region("private").start);
    assert!(text.contains(&name), "{text}");
    as_user(roots.pid())
        .failure()
        .one_line(&["may not be read", "CAP_SYS_PTRACE"]);
}

fn wrong_arguments_of_map_are_one_line() {
    map(&["many"])
        .failure()
        .one_line(&["'many'", "no process number"]);
    // Beyond the largest number that there can be (proc_sys_kernel(5)).
    map(&["4194305"])
        .failure()
        .one_line(&["no process 4194305"]);
    // A thread of the kernel has no memory. In a container there is none.
    if std::fs::read_to_string("/proc/2/comm").is_ok_and(|name| name == "kthreadd\n") {
        map(&["2"])
            .failure()
            .one_line(&["no process 2 with memory"]);
    }
    map(&["--sort", "colour", "1"])
        .failure()
        .complains(&["colour", "resident"]);
    map(&["--interval", "1", "1"])
        .failure()
        .complains(&["a time has a unit"]);
    map(&["--diff", "a"]).failure().complains(&["--diff"]);
    map(&["--diff", "/nonexistent", "/"])
        .failure()
        .one_line(&["/nonexistent", "no such"]);
    let help = map(&["--help"]).success().text();
    assert!(
        help.contains("--svg") && help.contains("resident"),
        "{help}"
    );
}
