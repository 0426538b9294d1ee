//! Backups of snapshots with the tools that people have, as docs/BACKUP.md tells.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Mount, PAGE, Target, assert_bytes, daemon_binary, quote, run, sh, tests};

tests![
    cp_backs_a_snapshot_up: [Need::Root, Need::Tool("cp")],
    tar_and_zstd_back_a_snapshot_up: [Need::Root, Need::Tool("tar"), Need::Tool("zstd")],
    rsync_backs_a_snapshot_up: [Need::Root, Need::Tool("rsync")],
    borg_stores_what_has_changed_alone: [Need::Root, Need::Tool("borg")],
    restic_stores_what_has_changed_alone: [Need::Root, Need::Tool("restic")],
    yara_scans_a_frozen_copy: [Need::Root, Need::Tool("yara")],
];

/// A target, of which a snapshot was taken, and a place for backups.
struct Bench {
    mount: Mount,
    target: Target,
    snapshot: PathBuf,
    backup: PathBuf,
}

impl Bench {
    fn new() -> Self {
        let mount = Mount::new("");
        let target = Target::new();
        let backup = mount.outside().join("backup");
        std::fs::create_dir(&backup).unwrap();
        let snapshot = mount.path(format!("snap/{}@monday", target.pid()));
        std::fs::create_dir(&snapshot).unwrap();
        Self {
            mount,
            target,
            snapshot,
            backup,
        }
    }

    /// Changes some pages, and takes another snapshot.
    fn tuesday(&mut self) -> PathBuf {
        let at = self.target.region("victim").start + PAGE;
        self.target.write(at, b"changed on tuesday");
        let snapshot = self
            .mount
            .path(format!("snap/{}@tuesday", self.target.pid()));
        std::fs::create_dir(&snapshot).unwrap();
        snapshot
    }

    /// Runs a line in the directory of the backups, and fails unless it ends well.
    fn sh(&self, script: &str) -> String {
        sh(&format!("cd {} && {script}", quote(&self.backup)))
            .success()
            .text()
    }

    /// Fails unless a copy has all files of the snapshot, byte for byte, and can be restored.
    fn check(&self, copy: &Path) {
        let names = |directory: &Path| {
            let entries = std::fs::read_dir(directory).unwrap();
            let names = entries.map(|entry| entry.unwrap().file_name());
            let mut names: Vec<_> = names.collect();
            names.sort();
            names
        };
        assert_eq!(names(copy), names(&self.snapshot));
        for name in names(copy) {
            let path = self.snapshot.join(&name);
            if path.symlink_metadata().unwrap().is_file() {
                let expected = std::fs::read(&path).unwrap();
                assert_bytes(
                    &format!("{name:?}"),
                    &std::fs::read(copy.join(&name)).unwrap(),
                    &expected,
                );
            }
        }
        let mut restore = Command::new(daemon_binary());
        restore
            .args(["restore", "--dry-run"])
            .arg(copy)
            .arg(self.target.pid().to_string());
        let told = run(&mut restore).success().text();
        assert!(told.contains("would be written"), "{told}");
    }
}

fn cp_backs_a_snapshot_up() {
    let bench = Bench::new();
    let from = quote(&bench.snapshot);
    let told = bench.sh(&format!("cp -r --sparse=always {from} . 2>&1"));
    assert_eq!(told, "");
    bench.check(&bench.backup.join(bench.snapshot.file_name().unwrap()));
}

fn tar_and_zstd_back_a_snapshot_up() {
    let bench = Bench::new();
    let (directory, name) = (
        quote(bench.snapshot.parent().unwrap()),
        bench.snapshot.file_name(),
    );
    let name = name.unwrap().to_str().unwrap();
    let told = bench.sh(&format!(
        "{{ tar -C {directory} -cS {name} | zstd -q > a.tar.zst; }} 2>&1"
    ));
    assert_eq!(told, "");
    bench.sh("zstd -qdc a.tar.zst | tar -xSf -");
    bench.check(&bench.backup.join(name));
}

fn rsync_backs_a_snapshot_up() {
    let mut bench = Bench::new();
    let from = quote(&bench.snapshot);
    assert_eq!(bench.sh(&format!("rsync -aS {from}/ copy/ 2>&1")), "");
    bench.check(&bench.backup.join("copy"));
    let tuesday = bench.tuesday();
    // By checksum: what is the same is not sent again.
    let sent = bench.sh(&format!(
        "rsync -aSc --itemize-changes {}/ copy/",
        quote(&tuesday)
    ));
    let files = sent.lines().filter(|line| line.starts_with(">f")).count();
    let all = std::fs::read_dir(&tuesday).unwrap().count();
    assert!(files > 0 && files * 2 < all, "{files} of {all}: {sent}");
}

/// A number in the JSON that a tool has printed.
fn number(json: &str, name: &str) -> u64 {
    let after = json.split(&format!("\"{name}\":")).nth(1);
    let after = after.unwrap_or_else(|| panic!("no {name} in {json}"));
    let digits: String = after
        .trim_start()
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    digits.parse().unwrap()
}

/// SEMANTICS: a backup of a second snapshot stores what has changed.
fn borg_stores_what_has_changed_alone() {
    let mut bench = Bench::new();
    let environment = format!(
        "export HOME={} BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes;",
        quote(&bench.backup)
    );
    let create = |bench: &Bench, name: &str, from: &Path| {
        let options = "--sparse --files-cache=disabled --json";
        let from = quote(from);
        bench.sh(&format!(
            "{environment} borg create {options} repo::{name} {from}"
        ))
    };
    bench.sh(&format!("{environment} borg init --encryption=none repo"));
    let first = create(&bench, "monday", &bench.snapshot);
    let tuesday = bench.tuesday();
    let second = create(&bench, "tuesday", &tuesday);
    let size = |json: &str| number(json, "deduplicated_size");
    assert!(
        size(&second) * 5 < size(&first),
        "{} of {}",
        size(&second),
        size(&first)
    );
    bench.sh(&format!(
        "{environment} mkdir out && cd out && borg extract --sparse ../repo::monday"
    ));
    let inside = bench.snapshot.strip_prefix("/").unwrap();
    bench.check(&bench.backup.join("out").join(inside));
}

/// SEMANTICS: a backup of a second snapshot stores what has changed.
fn restic_stores_what_has_changed_alone() {
    let mut bench = Bench::new();
    let environment = format!("export HOME={} RESTIC_PASSWORD=test;", quote(&bench.backup));
    let backup = |bench: &Bench, from: &Path| {
        let from = quote(from);
        let options = "--repo repo --json --host web1";
        bench.sh(&format!("{environment} restic backup {options} {from}"))
    };
    bench.sh(&format!("{environment} restic init --repo repo"));
    let first = backup(&bench, &bench.snapshot);
    let tuesday = bench.tuesday();
    let second = backup(&bench, &tuesday);
    let added = |json: &str| number(json, "data_added");
    assert!(
        added(&second) * 5 < added(&first),
        "{} of {}",
        added(&second),
        added(&first)
    );
    let id = bench.sh(&format!(
        "{environment} restic snapshots --repo repo --json"
    ));
    let id = id.split("\"short_id\":\"").nth(1).unwrap()[..8].to_owned();
    bench.sh(&format!(
        "{environment} restic restore {id} --repo repo --target out"
    ));
    let inside = bench.snapshot.strip_prefix("/").unwrap();
    bench.check(&bench.backup.join("out").join(inside));
}

fn yara_scans_a_frozen_copy() {
    let bench = Bench::new();
    let rules = bench.backup.join("rules.yar");
    std::fs::write(
        &rules,
        "rule elf { strings: $a = { 7f 45 4c 46 } condition: $a }\n",
    )
    .unwrap();
    let (rules, scan) = (quote(&rules), quote(&bench.snapshot));
    let found = bench.sh(&format!("yara -rN {rules} {scan} 2>&1 && rmdir {scan}"));
    assert!(found.lines().count() > 0, "{found}");
    assert!(
        found.lines().all(|line| line.starts_with("elf ")),
        "{found}"
    );
}
