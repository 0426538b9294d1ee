//! A tour of procmemfs: `cargo run --example tour`
//!
//! Starts a small program of its own, mounts its memory on a temporary
//! directory, and lets ordinary tools look at it and change it. Each command is
//! shown as it is run. The exit code is 0 only if all that the tour tells was so.
//!
//! Root needs nothing else for it, a plain user the package `fuse3`.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{SigSet, Signal};
use procmemfs::mount::{Mount, MountConfig, Serving};
use procmemfs::target::mapping::AddressSpace;

/// The argument that makes this program the target instead of the guide.
const BE_THE_TARGET: &str = "--be-the-target";

/// What the target keeps in its heap, and what the tour puts there instead. The
/// first is completed by the target, so that no file on disk holds it.
const SECRET: &str = "the password is swordfish";
const CHANGED: &str = "the password is clownfish";

/// Set by a signal: the tour ends at the next step, and cleans up as always.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    let outcome = match std::env::args().nth(1).as_deref() {
        None => tour(),
        Some(BE_THE_TARGET) => be_the_target(),
        Some(_) => Err(anyhow::anyhow!("takes no arguments")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tour: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn tour() -> Result<()> {
    note_signals()?;
    let mut target = Target::start()?;
    let pid = target.child.id();
    println!("# A program runs as process {pid}. It keeps a password, and tells it when asked:");
    let told = target.ask()?;
    println!("process {pid}: {told}");
    ensure!(told == SECRET, "the target says '{told}', not '{SECRET}'");

    say("Its memory becomes files (procmemfs is run by this program itself):");
    let scratch = Scratch::mount(&format!("write,pid={pid}"))?;
    let outcome = show(&scratch, &mut target);
    // Whatever came of it, nothing stays behind.
    let unmounted = scratch.unmount();
    outcome?;
    unmounted?;
    target.end()?;
    say("All of it held.");
    Ok(())
}

/// The tour proper, while the mount is there.
fn show(scratch: &Scratch, target: &mut Target) -> Result<()> {
    let pid = target.child.id().to_string();
    let mount = Shell::new(&scratch.mountpoint());
    let listed = mount.run("ls")?;
    ensure!(
        listed.lines().any(|name| name == pid),
        "process {pid} is not listed"
    );

    let process = mount.enter(&pid)?;
    let listed = process.run("ls -l")?;
    for wanted in [
        ".rw-p.heap",
        ".rw-p.stack",
        " heap -> ",
        " stack -> ",
        ".r-xp.",
    ] {
        ensure!(
            listed.contains(wanted),
            "no '{wanted}' in the list of mappings"
        );
    }

    say("The password is in the heap, where any tool finds it:");
    let lines = process.run("grep -c swordfish heap")?;
    ensure!(
        lines.trim() == "1",
        "grep counted {} lines, not 1",
        lines.trim()
    );
    let found = process.run(&format!("grep -abo '{SECRET}' heap"))?;
    let offset: u64 = found
        .split(':')
        .next()
        .and_then(|offset| offset.parse().ok())
        .context("grep found no offset")?;
    let dumped = process.run(&if Shell::has("xxd") {
        format!("cat heap | xxd -s {offset} -l 32")
    } else {
        format!("cat heap | od -A x -t x1z -j {offset} -N 32")
    })?;
    ensure!(
        dumped.contains("the password is "),
        "the dump does not show the password"
    );

    say("A write to the file is a write to the memory of the running program:");
    process.run(&format!(
        "printf '{CHANGED}' | dd of=heap bs=1 seek={offset} conv=notrunc status=none"
    ))?;
    let told = target.ask()?;
    println!("process {pid}: {told}");
    ensure!(told == CHANGED, "the target says '{told}', not '{CHANGED}'");

    say("A mapping is copied and compared:");
    let heap = scratch.file("heap");
    process.run(&format!("cp heap {heap}"))?;
    process.run(&format!("cmp heap {heap} && echo identical"))?;

    say("The program's code in memory is that of its file, byte for byte:");
    let code = Code::of(&pid)?;
    let copy = scratch.file("code");
    process.run(&format!("dd if='{}' of={copy} bs=64K", code.mapping))?;
    let compared = process.run(&format!(
        "cmp -n {} -i 0:{} {copy} '{}' && echo identical",
        code.bytes, code.offset, code.file
    ))?;
    ensure!(
        compared.trim() == "identical",
        "the code differs from its file"
    );
    Ok(())
}

/// Leaves SIGINT and its like to a thread that takes note of them. The commands
/// of the tour are not held back: they die of a Ctrl-C, and the tour learns of it.
fn note_signals() -> Result<()> {
    let mut ends = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        ends.add(signal);
    }
    // Before the first thread is started, so that all of them leave the signals to the one below.
    ends.thread_block().context("blocking signals")?;
    std::thread::spawn(move || {
        while ends.wait().is_ok() {
            INTERRUPTED.store(true, Ordering::Relaxed);
        }
    });
    Ok(())
}

fn say(text: &str) {
    println!("\n# {text}");
}

/// A directory in which commands are run, as at a prompt.
///
/// Only these children ever touch the mount: the threads of this process serve it.
struct Shell {
    directory: PathBuf,
}

impl Shell {
    fn new(directory: &Path) -> Self {
        println!("$ cd {}", directory.display());
        Self {
            directory: directory.to_path_buf(),
        }
    }

    fn enter(&self, name: &str) -> Result<Self> {
        println!("$ cd {name}");
        Ok(Self {
            directory: self.directory.join(name),
        })
    }

    /// Shows a command and its output; an error where it fails or complains.
    fn run(&self, command: &str) -> Result<String> {
        ensure!(!INTERRUPTED.load(Ordering::Relaxed), "interrupted");
        println!("$ {command}");
        // A mount that does not answer must not hold up the tour for ever.
        let output = Command::new("timeout")
            .args(["60", "sh", "-c", command])
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .env("LC_ALL", "C")
            .output()
            .context("running a shell")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        print!("{text}{complaint}");
        let first = complaint.lines().next().unwrap_or("nothing said");
        ensure!(
            output.status.success(),
            "'{command}' failed ({}): {first}",
            output.status
        );
        // dd reports to standard error even when all is well.
        ensure!(
            complaint.is_empty() || command.starts_with("dd "),
            "'{command}' complained: {first}"
        );
        Ok(text)
    }

    fn has(tool: &str) -> bool {
        std::env::var_os("PATH")
            .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(tool).is_file()))
    }
}

/// A temporary directory with the mount and room for copies.
struct Scratch {
    serving: Serving,
    directory: tempfile::TempDir,
}

impl Scratch {
    fn mount(options: &str) -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("procmemfs-tour-")
            .tempdir()
            .context("making a temporary directory")?;
        let mountpoint = directory.path().join("mnt");
        std::fs::create_dir(&mountpoint)?;
        println!("$ procmemfs -o {options} {}", mountpoint.display());
        let config = MountConfig::parse([options])?;
        let serving = Mount::new(&config, &mountpoint)?
            .start()
            .context("starting threads")?;
        Ok(Self { serving, directory })
    }

    fn mountpoint(&self) -> PathBuf {
        self.directory.path().join("mnt")
    }

    fn file(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    fn unmount(self) -> Result<()> {
        let mountpoint = self.mountpoint();
        say("And it goes without a trace:");
        println!("$ umount {}", mountpoint.display());
        if let Err(error) = self.serving.unmount() {
            // What is still mounted must not be taken for files to be removed.
            let kept = self.directory.keep();
            bail!("{} stays mounted: {error}", kept.display());
        }
        let left = std::fs::read_dir(&mountpoint)?.count();
        ensure!(
            left == 0,
            "{} is not empty after unmounting",
            mountpoint.display()
        );
        self.directory
            .close()
            .context("removing the temporary directory")
    }
}

/// Where the target's code lies in memory and on disk.
struct Code {
    mapping: String,
    file: String,
    /// Where the mapping starts in the file.
    offset: u64,
    bytes: u64,
}

impl Code {
    fn of(pid: &str) -> Result<Self> {
        let program = std::env::current_exe()?;
        let file = program
            .to_str()
            .context("this program's path is not UTF-8")?;
        let maps = std::fs::read(format!("/proc/{pid}/maps"))?;
        let space = AddressSpace::parse(&maps)?;
        let code = space
            .mappings()
            .iter()
            .find(|mapping| mapping.protection().execute && mapping.path() == file.as_bytes())
            .context("the target has no code")?;
        Ok(Self {
            mapping: code.file_name(),
            file: file.to_owned(),
            offset: code.offset(),
            bytes: code.size(),
        })
    }
}

/// The program that the tour looks at. Dropping it ends it.
struct Target {
    child: Child,
    // Taken when the target is to end: it does so when this closes.
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Target {
    fn start() -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(BE_THE_TARGET)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the target")?;
        let input = child.stdin.take();
        let output = child.stdout.take().context("the target has no output")?;
        Ok(Self {
            child,
            input,
            output: BufReader::new(output),
        })
    }

    /// Lets the target say what its memory holds.
    fn ask(&mut self) -> Result<String> {
        let input = self.input.as_mut().context("the target has ended")?;
        input.write_all(b"\n").context("the target has ended")?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        ensure!(!line.is_empty(), "the target has ended");
        Ok(line.trim_end().to_owned())
    }

    fn end(mut self) -> Result<()> {
        self.input = None;
        let status = self.child.wait()?;
        ensure!(status.success(), "the target ended with {status}");
        Ok(())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // Both do nothing where it has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The target: holds a secret, and tells it for each line that it reads.
fn be_the_target() -> Result<()> {
    // Standard input closes when the guide ends; this is for a guide that is killed meanwhile.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    // Atomics, for the compiler must not believe that nobody else changes them.
    let secret: Vec<AtomicU8> = "the password is "
        .bytes()
        .chain("hsifdrows".bytes().rev())
        .map(AtomicU8::new)
        .collect();
    // Neither copy of it passes through a buffer on the heap: the tour finds it there once.
    let mut line = [b'\n'; SECRET.len() + 1];
    let mut asked = [0; 1];
    while nix::unistd::read(std::io::stdin(), &mut asked)? == 1 {
        for (to, from) in line.iter_mut().zip(&secret) {
            *to = from.load(Ordering::Relaxed);
        }
        nix::unistd::write(std::io::stdout(), &line)?;
    }
    Ok(())
}
