//! The programs in `examples/` that use the library alone.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use crate::support::{
    Footprint, Output, PAGE, Program, Region, SOON, Target, assert_bytes, daemon_binary,
    end_with_us, held, lines_of, run, tests,
};

tests![
    memory_is_read_by_address: [Need::Ptrace],
    page_states_are_told_without_touching_a_page: [Need::Ptrace],
    a_core_file_is_written: [Need::Ptrace, Need::Tool("readelf"), Need::Tool("gdb")],
    what_has_changed_since_a_snapshot_is_told: [Need::Ptrace],
    what_is_wrong_is_one_line: [Need::Ptrace],
];

/// An example, which cargo builds with the tests.
fn example(name: &str) -> Command {
    let dir = daemon_binary().parent().expect("a file has a directory");
    Command::new(dir.join("examples").join(name))
}

#[track_caller]
fn run_example(name: &str, pid: u32, arguments: &[&str]) -> Output {
    let mut command = example(name);
    run(command.arg(pid.to_string()).args(arguments))
}

/// `read_memory` shows the bytes that the target has written there, and its heap without being told where that is.
fn memory_is_read_by_address() {
    let target = Target::new();
    let region = target.region("private");
    let at = region.start + 100;
    let address = format!("0x{at:x}");
    let output = run_example("read_memory", target.pid(), &[&address, "1000"]);
    let text = output.success().quiet().text();
    let mut lines = text.lines();
    let title = lines.next().unwrap_or_default();
    let expected = format!("{} (mount-target): 1000 bytes at {at:012x}", target.pid());
    assert!(title.starts_with(&expected), "{title}");
    let mut bytes = Vec::new();
    for (number, line) in lines.enumerate() {
        let address = format!("{:012x}  ", at + 16 * number);
        let digits = line
            .strip_prefix(&address)
            .expect("lines follow each other");
        let digits = digits.split("  |").next().unwrap().split(' ');
        let digits = digits.filter(|digits| !digits.is_empty());
        bytes.extend(digits.map(|it| u8::from_str_radix(it, 16).unwrap()));
    }
    assert_bytes("private", &bytes, &target.bytes("private")[100..1100]);

    let shell = Program::shell();
    let output = run_example("read_memory", shell.pid(), &[]);
    let text = output.success().quiet().text();
    assert!(
        text.lines().next().unwrap().ends_with(".rw-p.heap"),
        "{text}"
    );
    assert_eq!(text.lines().count(), 1 + 256 / 16, "{text}");
}

/// What a line of `page_states` says of a mapping, in KiB.
#[track_caller]
fn states(text: &str, region: &Region) -> Vec<usize> {
    let start = format!("  {:012x}-", region.start);
    let line = text.lines().find(|line| line.contains(&start));
    let line = line.unwrap_or_else(|| panic!("nothing of {start}:\n{text}"));
    numbers(line)
}

fn numbers(line: &str) -> Vec<usize> {
    let words = line.split_whitespace().take(5);
    words.map(|word| word.parse().unwrap()).collect()
}

/// Memory that was never touched is told from what is there, and the target has as much as before.
fn page_states_are_told_without_touching_a_page() {
    let target = Target::new();
    let before = Footprint::of(target.pid());
    let text = run_example("page_states", target.pid(), &[]);
    let text = text.success().quiet().text();
    assert_eq!(Footprint::of(target.pid()), before);
    let kib = |pages: usize| (pages * PAGE) >> 10;
    let private = target.region("private");
    let small = private.len() >> 10;
    assert_eq!(states(&text, &private), [small, 0, 0, 0, 0], "{text}");
    // The first page and the one in the middle have been written.
    let sparse = states(&text, &target.region("sparse_private"));
    assert_eq!(sparse, [kib(2), 0, kib(1022), 0, 0], "{text}");
    // The same of an object, but for pages that the target has not mapped itself.
    let shared = states(&text, &target.region("sparse_shared"));
    assert_eq!(
        [shared[0] + shared[3], shared[2]],
        [kib(2), kib(1022)],
        "{text}"
    );
    // Two pages of four are of the file; past them there is nothing to be read.
    let past_end = states(&text, &target.region("past_end"));
    assert_eq!(
        [past_end[0] + past_end[3], past_end[4]],
        [kib(2); 2],
        "{text}"
    );
    // The kernel's own page is in memory, and yet nobody's to read.
    let vvar = text.lines().find(|line| line.ends_with(".vvar"));
    assert_eq!(numbers(vvar.unwrap())[..4], [0; 4], "{text}");
    let all = text.lines().last().unwrap();
    let sums = text
        .lines()
        .skip(1)
        .map(numbers)
        .fold([0; 5], |mut sums, line| {
            sums.iter_mut().zip(line).for_each(|(sum, it)| *sum += it);
            sums
        });
    let doubled: Vec<_> = numbers(all).into_iter().map(|sum| 2 * sum).collect();
    assert_eq!(
        sums[..],
        doubled,
        "the last line is the sum of the others: {text}"
    );
}

/// What `x` of gdb shows of a core file at an address.
#[track_caller]
fn examined(core: &Path, at: usize, len: usize) -> Vec<u8> {
    let mut gdb = Command::new("gdb");
    gdb.args([
        "-q",
        "-nx",
        "-batch",
        "-iex",
        "set debuginfod enabled off",
        "-c",
    ]);
    gdb.arg(core).args(["-ex", &format!("x/{len}xb {at:#x}")]);
    let text = run(&mut gdb).success().text();
    let lines = text.lines().filter_map(|line| line.split_once(":\t"));
    let bytes = lines.flat_map(|(_, bytes)| bytes.split('\t'));
    let bytes = bytes.filter_map(|byte| byte.strip_prefix("0x"));
    bytes
        .map(|it| u8::from_str_radix(it, 16).unwrap())
        .collect()
}

/// `write_core` writes a sparse core file, in which debuggers find memory and registers; and never over a file.
fn a_core_file_is_written() {
    let target = Target::new();
    let core: PathBuf = target.dir().join("core");
    let path = core.to_str().unwrap();
    let output = run_example("write_core", target.pid(), &[path]);
    let said = output.success().quiet().text();
    assert!(
        said.starts_with(&format!("{path}: ")) && said.contains(" data"),
        "{said}"
    );

    let readelf = |option: &str| run(Command::new("readelf").args([option, path]));
    let header = readelf("-h").success().quiet().text();
    assert!(header.contains("CORE (Core file)"), "{header}");
    let notes = readelf("-n").success().quiet().text();
    for note in [
        "NT_PRSTATUS",
        "NT_PRPSINFO",
        "NT_AUXV",
        "NT_FILE",
        "NT_FPREGSET",
    ] {
        assert!(notes.contains(note), "no {note}:\n{notes}");
    }
    let private = target.region("private");
    let expected = &target.bytes("private")[200..456];
    assert_bytes("gdb", &examined(&core, private.start + 200, 256), expected);

    let size = core.metadata().unwrap().len();
    let sparse = target.region("sparse_private").len() as u64;
    assert!(held(&core) + sparse / 2 < size, "{} of {size}", held(&core));

    let words = [path, "file exists"];
    run_example("write_core", target.pid(), &[path])
        .code(1)
        .one_line(&words);
    assert_eq!(core.metadata().unwrap().len(), size, "it was left alone");
}

/// `snapshot` tells the pages that were written after it has copied the process, and no others of that memory.
fn what_has_changed_since_a_snapshot_is_told() {
    let mut target = Target::new();
    let mut command = example("snapshot");
    command.arg(target.pid().to_string());
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    end_with_us(&mut command, Signal::SIGKILL);
    let mut child = command.spawn().unwrap();
    let lines = lines_of(child.stdout.take().unwrap());
    let line = || lines.recv_timeout(SOON).ok();
    let said = line().unwrap_or_default();
    assert!(
        said.ends_with("copied at one moment; Enter compares"),
        "{said}"
    );

    let (private, sparse) = (target.region("private"), target.region("sparse_private"));
    target.write(private.start + 3 * PAGE - 4, b"in two pages");
    target.write(sparse.start + 700 * PAGE, b"a page that was not there");
    drop(child.stdin.take());
    let told: Vec<String> = std::iter::from_fn(line).collect();
    let changed = |region: &Region| {
        let start = format!("  {:012x}-", region.start);
        let line = told.iter().find(|line| line.contains(&start));
        line.map(|line| line.split_whitespace().next().unwrap().to_owned())
    };
    assert_eq!(changed(&private).as_deref(), Some("2"), "{told:#?}");
    assert_eq!(changed(&sparse).as_deref(), Some("1"), "{told:#?}");
    assert_eq!(changed(&target.region("sparse_shared")), None, "{told:#?}");
    assert!(child.wait().unwrap().success());
}

/// Wrong arguments, processes that are none, and addresses where nothing is: one line, and exit code 1.
fn what_is_wrong_is_one_line() {
    for name in ["read_memory", "page_states", "write_core", "snapshot"] {
        let usage = format!("usage: {name} PID");
        run(&mut example(name)).code(1).one_line(&[&usage]);
        let more = ["1", "2", "3", "4", "5"];
        run(example(name).args(more)).code(1).one_line(&[&usage]);
    }
    let (ours, file) = (std::process::id(), "/no-directory/core");
    for (name, arguments, word) in [
        ("read_memory", ["x", ""], "'x' is no pid"),
        ("page_states", ["x", ""], "'x' is no pid"),
        ("write_core", ["x", file], "'x' is no pid"),
        ("snapshot", ["x", ""], "'x' is no pid"),
        // The largest number that a process can have is below 2^22.
        ("read_memory", ["4194305", ""], "no process 4194305"),
        ("page_states", ["4194305", ""], "no process 4194305"),
        ("write_core", ["4194305", file], "no process 4194305"),
        ("snapshot", ["4194305", ""], "no process 4194305"),
        (
            "read_memory",
            [&ours.to_string(), "1"],
            "nothing is mapped at 000000000001",
        ),
        (
            "read_memory",
            [&ours.to_string(), "hex"],
            "'hex' is no hexadecimal address",
        ),
    ] {
        let arguments = arguments.iter().filter(|it| !it.is_empty());
        run(example(name).args(arguments)).code(1).one_line(&[word]);
    }
}
