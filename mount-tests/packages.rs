//! What packages carry beside the program: manual pages, completions, units, and the helper of mount(8).

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::support::{
    MountPoint, built_binary, daemon_binary, daemon_on, daemons_on, eventually, is_mounted, quote,
    run, sh, tests,
};

tests![
    manual_pages_render_without_a_warning: [Need::Tool("man"), Need::Tool("mandoc")],
    each_command_has_a_page_and_is_completed,
    completions_do_complete: [Need::Tool("bash"), Need::Tool("fish"), Need::Tool("zsh")],
    units_are_what_systemd_takes: [Need::Tool("systemd-analyze")],
    mount_finds_its_helper: [Need::Root, Need::Tool("unshare")],
];

/// The files of a package, as whoever makes one has them made.
fn package_files() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let examples = built_binary().parent().unwrap().join("examples");
    let mut make = Command::new(examples.join("package-files"));
    run(make.arg(directory.path())).success().quiet();
    directory
}

/// Words that are commands, or may become some.
const COMMANDS: [&str; 7] = ["mount", "doctor", "map", "restore", "stats", "help", "snap"];

/// The commands that have a help of their own.
fn commands() -> impl Iterator<Item = &'static str> {
    COMMANDS.into_iter().filter(|command| {
        let mut help = Command::new(daemon_binary());
        let text = run(help.args([command, "--help"])).success().text();
        text.contains(&format!("Usage: procmemfs {command} "))
    })
}

/// `man` and `mandoc` find nothing to complain about, and the page tells of all options and signals.
fn manual_pages_render_without_a_warning() {
    let files = package_files();
    let pages = std::fs::read_dir(files.path().join("man")).unwrap();
    let pages: Vec<PathBuf> = pages.map(|page| page.unwrap().path()).collect();
    for page in &pages {
        // A link leads to where the page lies when it is installed.
        if !std::fs::read(page).unwrap().starts_with(b".so ") {
            let mut lint = Command::new("mandoc");
            let output = run(lint.args(["-T", "lint", "-W", "warning"]).arg(page));
            assert_eq!(output.success().text(), "", "{page:?}");
        }
    }
    let mut man = Command::new("man");
    let page = files.path().join("man/procmemfs.1");
    man.env("MANWIDTH", "80")
        .args(["--warnings", "-l"])
        .arg(page);
    let text = run(&mut man).success().quiet().text();
    for word in [
        "cache_ttl=TIME",
        "fuse.procmemfs",
        "SIGTERM",
        "EXAMPLES",
        "yama=ignore",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert!(pages.len() >= 4, "{pages:?}");
}

/// Whatever is added to the command line is told of.
fn each_command_has_a_page_and_is_completed() {
    let files = package_files();
    let commands: Vec<&str> = commands().collect();
    assert!(commands.contains(&"restore"), "{commands:?}");
    let short = run(Command::new(daemon_binary()).arg("-h"))
        .success()
        .text();
    for command in commands {
        let page = format!("man/procmemfs-{command}.1");
        assert!(files.path().join(&page).exists(), "no {page}");
        assert!(short.contains(&format!("\n  {command} ")), "{short}");
        for script in ["bash/procmemfs", "zsh/_procmemfs", "fish/procmemfs.fish"] {
            let script = files.path().join("completions").join(script);
            let text = std::fs::read_to_string(&script).unwrap();
            assert!(text.contains(command), "no {command} in {script:?}");
        }
    }
}

/// Shells read the scripts, and know of commands, flags and mount options by them.
fn completions_do_complete() {
    let files = package_files();
    let script = |name: &str| quote(&files.path().join("completions").join(name));
    let bash = format!(
        "source {}\n\
         compopt() {{ :; }}\n\
         ask() {{ COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); \
         _procmemfs procmemfs \"${{@: -1}}\" \"${{@: -2:1}}\"; echo \"${{COMPREPLY[@]}}\"; }}\n\
         ask procmemfs res\n\
         ask procmemfs -o fault\n\
         ask procmemfs restore --dry\n",
        script("bash/procmemfs")
    );
    let output = run(Command::new("bash").args(["-c", &bash]))
        .success()
        .quiet();
    assert_eq!(
        output.text(),
        "restore\nfault=error fault=zero\n--dry-run\n"
    );
    let fish = format!(
        "source {}; complete -C 'procmemfs res'; complete -C 'procmemfs -o cache_t'; \
         complete -C 'procmemfs restore --dry'",
        script("fish/procmemfs.fish")
    );
    let mut command = Command::new("fish");
    command
        .env("HOME", files.path())
        .args(["--no-config", "-c", &fish]);
    let text = run(&mut command).success().quiet().text();
    let words: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split('\t').next())
        .collect();
    assert_eq!(words, ["restore", "cache_ttl=", "--dry-run"]);
    // zsh completes where somebody types only: here it is asked whether it can read the script.
    let path = files.path().join("completions/zsh/_procmemfs");
    run(Command::new("zsh").args(["-f", "-n"]).arg(path))
        .success()
        .quiet();
}

/// `systemd-analyze verify` finds nothing in the units, once they name a program that is there.
fn units_are_what_systemd_takes() {
    let directory = tempfile::tempdir().unwrap();
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/systemd");
    let daemon = daemon_binary().to_str().unwrap();
    for (name, verified) in [
        ("procmemfs.service", "procmemfs.service"),
        ("procmemfs@.service", "procmemfs@mnt-a\\x20b.service"),
    ] {
        let unit = std::fs::read_to_string(units.join(name)).unwrap();
        assert!(
            unit.contains("\nExecStart=/usr/bin/procmemfs -f "),
            "{unit}"
        );
        let unit = unit.replace("/usr/bin/procmemfs", daemon);
        std::fs::write(directory.path().join(name), unit).unwrap();
        let mut verify = Command::new("systemd-analyze");
        verify.args(["--man=no", "--recursive-errors=no", "verify"]);
        run(verify.arg(directory.path().join(verified)))
            .success()
            .quiet();
    }
}

/// As `mount.fuse.procmemfs` in `/sbin` it is what mount(8) calls, with any source, without a `procmemfs` in `PATH`, from a line of
/// `fstab`, and for a dry run, which mounts nothing. `nosuid` and `nodev` stay on, and `ps` shows the program's name.
fn mount_finds_its_helper() {
    let point = MountPoint::new();
    let fstab = point.outside().join("fstab");
    let line = format!(
        "restore {} fuse.procmemfs noauto,nofail,cache_ttl=1s 0 0\n",
        point.path().display()
    );
    std::fs::write(&fstab, line).unwrap();
    let script = format!(
        "set -e\n\
         mkdir {layers}\n\
         mount -t tmpfs none {layers}\n\
         mkdir {layers}/upper {layers}/work\n\
         sbin=$(realpath /sbin)\n\
         mount -t overlay -o lowerdir=$sbin,upperdir={layers}/upper,workdir={layers}/work none $sbin\n\
         cp {daemon} {layers}/procmemfs\n\
         ln -s {layers}/procmemfs /sbin/mount.fuse.procmemfs\n\
         shown() {{ grep ' {bare} fuse.procmemfs ' /proc/self/mounts; }}\n\
         mount -f -t fuse.procmemfs none {point} -o ro\n\
         if shown; then exit 3; fi\n\
         if mount -f -t fuse.procmemfs none {point} -o nonsense 2>/dev/null; then exit 4; fi\n\
         mount -t fuse.procmemfs help {point} -o ro,noexec\n\
         shown\n\
         umount {point}\n\
         mount --fstab {fstab} {point}\n\
         shown\n\
         umount {point}\n",
        layers = quote(&point.outside().join("layers")),
        daemon = quote(daemon_binary()),
        bare = point.path().display(),
        point = quote(point.path()),
        fstab = quote(&fstab),
    );
    let mut unshare = Command::new("unshare");
    let output = run(unshare.args(["-m", "sh", "-c", &script]))
        .success()
        .quiet();
    let text = output.text();
    let lines: Vec<&str> = text.lines().collect();
    let [first, second] = lines.as_slice() else {
        panic!("{text}");
    };
    assert!(first.contains(" ro,nosuid,nodev,noexec,"), "{first}");
    assert!(second.contains(" rw,nosuid,nodev,"), "{second}");
    eventually("the daemon has ended", || {
        daemons_on(point.path()).is_empty().then_some(())
    });
    assert!(!is_mounted(point.path()));
    // Called by that name, it reads its arguments as such a helper.
    let link = point.outside().join("mount.fuse.procmemfs");
    std::os::unix::fs::symlink(daemon_binary(), &link).unwrap();
    let calls = format!(
        "{} none {} -N /proc/1/ns/mnt",
        quote(&link),
        quote(point.path())
    );
    sh(&calls).failure().one_line(&["--namespace", "nsenter"]);
    run(Command::new(&link).arg("none").arg(point.path()))
        .success()
        .quiet();
    daemon_on(point.path());
    sh(&format!("umount {}", quote(point.path()))).success();
}
