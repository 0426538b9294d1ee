//! `procmemfs stats`, and the text that a Prometheus server takes.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use crate::support::{
    Mount, MountPoint, Output, PAGE, Target, Terminal, daemon_binary, open, pread_all, python_with,
    run, tests,
};

tests![
    figures_are_those_of_the_interval: [Need::Root],
    figures_are_shown_until_a_key_is_pressed: [Need::Root],
    what_is_no_mount_is_named,
    the_text_is_strictly_that_of_prometheus: [Need::Root],
    the_parser_of_prometheus_takes_the_text: [Need::Root, Need::Python("prometheus_client")],
];

fn stats(mount: &Mount, options: &[&str]) -> Output {
    let mut command = Command::new(daemon_binary());
    run(command.arg("stats").args(options).arg(mount.point()))
}

/// The value after `"name": ` in JSON, within the first object after `within`.
fn number(json: &str, within: &str, name: &str) -> f64 {
    let at = json
        .find(within)
        .unwrap_or_else(|| panic!("no {within}: {json}"));
    let name = format!("\"{name}\": ");
    let found = json[at..]
        .find(&name)
        .unwrap_or_else(|| panic!("no {name}: {json}"));
    let text = &json[at + found + name.len()..];
    let end = text.find([',', '\n', '}']).unwrap();
    text[..end].trim().parse().unwrap()
}

/// SEMANTICS: rates and latencies are those between two readings.
fn figures_are_those_of_the_interval() {
    let mount = Mount::new("cache_ttl=0");
    let target = Target::new();
    let file = open(&mount.file(&target, "scratch"));
    pread_all(&file, 0, 64 * PAGE);
    let text = stats(&mount, &["--interval", "100ms"])
        .success()
        .quiet()
        .text();
    assert!(!text.contains('\x1b'), "{text}");
    for part in [
        "operation",
        "per s",
        "since it was mounted",
        "\nread ",
        "cache ",
        "process_vm_readv",
    ] {
        assert!(text.contains(part), "no {part}: {text}");
    }
    let json = stats(&mount, &["--json", "--interval", "100ms"])
        .success()
        .quiet()
        .text();
    assert!(
        number(&json, "\"read_bytes\"", "total") >= (64 * PAGE) as f64,
        "{json}"
    );
    assert!(
        number(&json, "\"vm_readv_calls\"", "total") >= 1.0,
        "{json}"
    );
    // Nobody has written.
    assert_eq!(number(&json, "\"written_bytes\"", "rate"), 0.0);
    let interval = number(&json, "{", "interval");
    assert!((0.1..20.0).contains(&interval), "{interval}");
}

/// SEMANTICS: a live view is ended by `q`, and leaves the terminal as it was.
fn figures_are_shown_until_a_key_is_pressed() {
    let mount = Mount::new("cache_ttl=0");
    let target = Target::new();
    let mut command = Command::new(daemon_binary());
    command
        .args(["stats", "--interval", "100ms"])
        .arg(mount.point());
    let mut terminal = Terminal::start(&mut command, 110, 40);
    terminal.wait_for("\x1b[?1049h");
    terminal.wait_to_see("requests a second");
    terminal.wait_to_see("q quits");
    // What is asked for meanwhile is seen.
    std::fs::read_link(mount.path("self")).unwrap();
    terminal.wait_to_see("readlink");
    pread_all(&open(&mount.file(&target, "private")), 0, PAGE);
    terminal.press("q");
    assert!(terminal.wait().success(), "{}", terminal.text());
    terminal.is_restored();
}

fn what_is_no_mount_is_named() {
    let point = MountPoint::new();
    let of = |path: &std::path::Path| run(Command::new(daemon_binary()).arg("stats").arg(path));
    let words = ["no mount of procmemfs", point.path().to_str().unwrap()];
    of(point.path()).failure().one_line(&words);
    of(&point.path().join("none"))
        .failure()
        .one_line(&["no mount of procmemfs"]);
    std::fs::write(point.path().join("stats"), "cpu 1 2 3\n").unwrap();
    of(point.path())
        .failure()
        .one_line(&["not that of a mount", "line 1"]);
}

/// What a server is given: counters that have counted, times, errors.
fn used() -> (Mount, String) {
    let mount = Mount::new("cache_ttl=0");
    let target = Target::new();
    pread_all(&open(&mount.file(&target, "private")), 0, PAGE);
    let _ = mount.path("99999999").metadata();
    std::fs::read_dir(mount.point()).unwrap().count();
    let text = std::fs::read_to_string(mount.path("stats")).unwrap();
    (mount, text)
}

/// A series: its name, and its labels in their order.
type Series = (String, BTreeMap<String, String>);

/// Reads a line as the format has it (`exposition_formats.md` of Prometheus), names of labels and escapes included.
fn sample(line: &str) -> Option<(Series, f64)> {
    let is_name = |name: &str| {
        let mut bytes = name.bytes();
        let is_start = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_' || byte == b':';
        bytes.next().is_some_and(is_start)
            && bytes.all(|byte| is_start(byte) || byte.is_ascii_digit())
    };
    let (series, value) = line.rsplit_once(' ')?;
    let value = match value {
        "+Inf" => f64::INFINITY,
        value
            if value
                .bytes()
                .all(|byte| byte.is_ascii_digit() || b"+-.e".contains(&byte)) =>
        {
            value.parse().ok()?
        }
        _ => return None,
    };
    let series = series.trim_end();
    let (name, mut rest) = series
        .split_once('{')
        .map_or((series, ""), |(name, rest)| (name, rest));
    let mut labels = BTreeMap::new();
    if !rest.is_empty() {
        rest = rest.strip_suffix('}')?;
        for pair in rest.split(',') {
            let (label, value) = pair.split_once('=')?;
            let value = value.strip_prefix('"')?.strip_suffix('"')?;
            let is_plain = !value.contains(['"', '\\', '\n']);
            if !is_plain
                || !is_name(label)
                || labels.insert(label.to_owned(), value.to_owned()).is_some()
            {
                return None;
            }
        }
    }
    is_name(name).then(|| ((name.to_owned(), labels), value))
}

/// SEMANTICS: `stats` is what a Prometheus server takes: each family with its help and its type before all of its series,
/// all of them together; no series twice; histograms whose buckets are cumulative and end with the count.
fn the_text_is_strictly_that_of_prometheus() {
    let (_mount, text) = used();
    assert!(text.ends_with('\n') && text.is_ascii(), "{text}");
    let mut families: BTreeMap<String, String> = BTreeMap::new();
    let mut helped = BTreeSet::new();
    let mut seen: BTreeSet<Series> = BTreeSet::new();
    let mut family = String::new();
    // By family and the other labels: bounds and counts, the sum, the count.
    let mut buckets: BTreeMap<Series, Vec<(f64, f64)>> = BTreeMap::new();
    let mut ends: BTreeMap<Series, BTreeMap<&str, f64>> = BTreeMap::new();
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            assert!(!help.is_empty() && helped.insert(name.to_owned()), "{line}");
            name.clone_into(&mut family);
            continue;
        }
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(name, family, "{line}");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(
                families.insert(name.to_owned(), kind.to_owned()).is_none(),
                "{line}"
            );
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            continue;
        }
        let ((name, mut labels), value) = sample(line).unwrap_or_else(|| panic!("{line:?}"));
        let kind = families
            .get(&family)
            .unwrap_or_else(|| panic!("{line} has no type"));
        assert!(value >= 0.0 && value.is_finite(), "{line}");
        assert!(seen.insert((name.clone(), labels.clone())), "twice: {line}");
        if kind != "histogram" {
            assert_eq!(name, family, "{line}");
            continue;
        }
        let part = name
            .strip_prefix(family.as_str())
            .unwrap_or_else(|| panic!("{line} in {family}"));
        let bound = labels.remove("le");
        let series = (family.clone(), labels);
        match (part, bound) {
            ("_bucket", Some(bound)) => {
                let bound = bound.parse().unwrap_or_else(|_| panic!("{line}"));
                buckets.entry(series).or_default().push((bound, value));
            }
            ("_sum", None) => {
                ends.entry(series).or_default().insert("sum", value);
            }
            ("_count", None) => {
                ends.entry(series).or_default().insert("count", value);
            }
            _ => panic!("{line} is no part of a histogram"),
        }
    }
    assert_eq!(helped.len(), families.len());
    assert!(families.values().any(|kind| kind == "histogram"));
    assert_eq!(buckets.len(), ends.len());
    let mut counted = 0.0;
    for (series, buckets) in &buckets {
        assert!(
            buckets.windows(2).all(|pair| pair[0].0 < pair[1].0),
            "bounds of {series:?}"
        );
        assert!(
            buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1),
            "counts of {series:?}"
        );
        let (bound, all) = *buckets.last().unwrap();
        assert!(bound.is_infinite(), "{series:?} ends with {bound}");
        assert_eq!(ends[series]["count"], all, "{series:?}");
        // The sum is read last: one more may have come by then.
        assert!(all == 0.0 || ends[series]["sum"] > 0.0, "{series:?}");
        counted += all;
    }
    assert!(counted > 0.0, "nothing was counted: {text}");
}

/// The parser of Prometheus' own library for Python reads all of it.
fn the_parser_of_prometheus_takes_the_text() {
    let (mount, text) = used();
    let path = mount.outside().join("stats.prom");
    std::fs::write(&path, &text).unwrap();
    let script = "import sys
from prometheus_client.parser import text_string_to_metric_families as parse
for family in parse(open(sys.argv[1]).read()):
    print(family.name, family.type, len(family.samples))";
    let mut python = Command::new(python_with("prometheus_client").unwrap());
    let told = run(python.args(["-c", script]).arg(&path))
        .success()
        .quiet()
        .text();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let mut samples = 0;
    let mut lines = told.lines();
    for kind in types {
        let (name, kind) = kind.split_once(' ').unwrap();
        let line = lines.next().unwrap_or_else(|| panic!("no {name}: {told}"));
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(
            words[..2],
            [name.trim_end_matches("_total"), kind],
            "{told}"
        );
        samples += words[2].parse::<usize>().unwrap();
    }
    assert_eq!(lines.next(), None);
    assert_eq!(
        samples,
        text.lines().filter(|line| !line.starts_with('#')).count()
    );
}
