//! A mount of our own, on a temporary directory.

use std::fs::{DirEntry, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{LazyLock, mpsc};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::abort::Connection;
use super::leftovers::unmount_at_the_end;
use super::run::{current_test, run};
use super::{SOON, Target, eventually, of_threads, rounds};

/// A system call that the daemon's filter does not know kills it, in every test: so the list is complete.
pub(crate) const UNKNOWN_CALLS: (&str, &str) = ("PROCMEMFS_SECCOMP", "kill");

/// The program that was built with the tests.
pub(crate) fn built_binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_procmemfs"))
}

/// The program under test: that which was built with the tests, unless `PROCMEMFS_BINARY` names another one (a release, one of
/// a package, one for musl).
pub(crate) fn daemon_binary() -> &'static Path {
    static BINARY: LazyLock<PathBuf> = LazyLock::new(|| {
        let named = std::env::var_os("PROCMEMFS_BINARY");
        named.map_or_else(|| built_binary().to_owned(), PathBuf::from)
    });
    &BINARY
}

/// The system call that makes threads and processes of the program under test: `clone3` with glibc, `clone` with musl.
pub(crate) fn thread_call() -> &'static str {
    static CALL: LazyLock<&str> = LazyLock::new(|| {
        let program = std::fs::read(daemon_binary()).expect("the program under test");
        // The loader that glibc names in what is linked with it.
        let loader = b"/ld-linux";
        match program.windows(loader.len()).any(|bytes| bytes == loader) {
            true => "clone3",
            false => "clone",
        }
    });
    &CALL
}

/// Whether something is mounted on `point`, alive or dead.
pub(crate) fn is_mounted(point: &Path) -> bool {
    let parent = point.parent().expect("a mount point has a parent");
    match (std::fs::metadata(point), std::fs::metadata(parent)) {
        (Ok(point), Ok(parent)) => point.dev() != parent.dev(),
        (Err(error), _) => error.kind() != std::io::ErrorKind::NotFound,
        (_, Err(error)) => panic!("{parent:?}: {error}"),
    }
}

/// Unmounts what is mounted on `point`, once nobody uses it.
#[track_caller]
pub(crate) fn unmount(point: &Path) {
    // A program that another test is just starting may still have a file of ours.
    eventually("umount", || {
        let output = run(Command::new("umount").arg(point));
        output.status.success().then_some(())
    });
}

/// Detaches what is mounted on `point`, used or dead.
pub(crate) fn unmount_lazily(point: &Path) {
    use nix::mount::{MntFlags, umount2};
    if nix::unistd::geteuid().is_root() {
        let _ = umount2(point, MntFlags::MNT_DETACH);
    } else {
        let _ = Command::new("fusermount3")
            .args(["-u", "-z"])
            .arg(point)
            .status();
    }
}

/// Makes the kernel end a command's process when this process ends.
pub(crate) fn end_with_us(command: &mut Command, signal: Signal) -> &mut Command {
    let end = move || {
        // SAFETY: no pointer is passed.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal as libc::c_int) };
        Ok(())
    };
    // SAFETY: the closure makes one system call and allocates nothing.
    unsafe { command.pre_exec(end) }
}

/// The daemons whose command line names `point`. Other processes' command lines are left alone: to
/// read one can fault pages of it in, and another test may be counting them.
pub(crate) fn daemons_on(point: &Path) -> Vec<u32> {
    let point = point.as_os_str().as_encoded_bytes();
    let pids = std::fs::read_dir("/proc").unwrap();
    pids.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        // Nobody else's command line: one whose process does not answer would be waited for.
        .filter(|pid: &u32| {
            let name = std::fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
            name == b"procmemfs\n"
        })
        .filter(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).any(|word| word == point)
        })
        .collect()
}

/// The one daemon whose command line names `point`.
#[track_caller]
pub(crate) fn daemon_on(point: &Path) -> u32 {
    // Whoever watches the daemon looks like it until it runs its own program.
    eventually("one daemon", || match daemons_on(point)[..] {
        [daemon] => Some(daemon),
        _ => None,
    })
}

/// An empty directory to mount on. Unmounted when dropped.
#[derive(Debug)]
pub(crate) struct MountPoint {
    dir: TempDir,
    point: PathBuf,
}

impl MountPoint {
    /// A new directory.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // So that a plain user reaches the mount point.
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let point = dir.path().join("mnt");
        std::fs::create_dir(&point).unwrap();
        unmount_at_the_end(&point);
        Self { dir, point }
    }

    /// The mount point.
    pub(crate) fn path(&self) -> &Path {
        &self.point
    }

    /// A directory beside the mount point, for files of the test.
    pub(crate) fn outside(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for MountPoint {
    fn drop(&mut self) {
        // Two at most: one over the other.
        for _ in 0..2 {
            if is_mounted(&self.point) {
                unmount_lazily(&self.point);
            }
        }
        // One in a mount namespace of its own is not reached by that.
        for daemon in daemons_on(&self.point) {
            let _ = kill(Pid::from_raw(daemon as i32), Signal::SIGTERM);
        }
    }
}

/// A mounted daemon in the foreground. Unmounts when dropped.
#[derive(Debug)]
pub(crate) struct Mount {
    point: MountPoint,
    daemon: Child,
    ended: Option<ExitStatus>,
    connection: Option<Connection>,
    watchdog: Option<mpsc::Sender<()>>,
}

/// How long a mount may exist before its test is taken to hang, in seconds; the long form of tests takes longer.
fn longest() -> Duration {
    Duration::from_secs(rounds(900, 4 * 3600))
}

/// Kills the daemon once it is older than any test, so that whoever waits for
/// it gets an error. Ends when the sender is dropped.
fn watch(daemon: u32, connection: Option<Connection>) -> mpsc::Sender<()> {
    let (sender, receiver) = mpsc::channel();
    let name = current_test();
    std::thread::spawn(move || {
        let hangs = Err(mpsc::RecvTimeoutError::Timeout);
        if receiver.recv_timeout(longest()) == hangs {
            eprintln!("[{name}] hangs: killing its daemon {daemon}");
            let _ = kill(Pid::from_raw(daemon as i32), Signal::SIGKILL);
            if let Some(connection) = connection {
                connection.abort();
            }
        }
    });
    sender
}

impl Mount {
    /// Mounts with `-o options`, or without `-o` where they are empty.
    #[track_caller]
    pub(crate) fn new(options: &str) -> Self {
        let mut command = Command::new(daemon_binary());
        if !options.is_empty() {
            command.args(["-o", options]);
        }
        Self::start(command)
    }

    /// Mounts with a command of which only the mount point is missing.
    #[track_caller]
    pub(crate) fn start(mut command: Command) -> Self {
        let point = MountPoint::new();
        let log = File::create(point.outside().join("log")).unwrap();
        // Where a test fails by a request that was given up, its log says what that waited for.
        if !command.get_args().any(|argument| argument == "-d") {
            let filter = "info,fuser=warn,procmemfs::server::admission=debug";
            command.env("RUST_LOG", filter);
        }
        command
            .env(UNKNOWN_CALLS.0, UNKNOWN_CALLS.1)
            .arg("-f")
            .arg(point.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        end_with_us(&mut command, Signal::SIGTERM);
        let daemon = command.spawn().unwrap();
        let watchdog = Some(watch(daemon.id(), None));
        let mut mount = Self {
            point,
            daemon,
            ended: None,
            connection: None,
            watchdog,
        };
        eventually("the mount", || {
            if let Some(status) = mount.daemon.try_wait().unwrap() {
                mount.ended = Some(status);
                panic!("the daemon ended with {status}: {}", mount.log());
            }
            is_mounted(mount.point()).then_some(())
        });
        mount.connection = Connection::of(mount.point());
        mount.watchdog = Some(watch(mount.daemon.id(), mount.connection));
        mount
    }

    /// The mount point.
    pub(crate) fn point(&self) -> &Path {
        self.point.path()
    }

    /// A directory beside the mount point, for files of the test.
    pub(crate) fn outside(&self) -> &Path {
        self.point.outside()
    }

    /// A path below the mount point.
    pub(crate) fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.point().join(relative)
    }

    /// The directory of a process.
    pub(crate) fn process(&self, pid: u32) -> PathBuf {
        self.path(pid.to_string())
    }

    /// The names in a process's directory.
    #[track_caller]
    pub(crate) fn names(&self, pid: u32) -> Vec<String> {
        let names = self.listing(pid);
        names.unwrap_or_else(|error| panic!("listing of {pid}: {error}"))
    }

    /// The same, of a process that may end meanwhile.
    pub(crate) fn listing(&self, pid: u32) -> io::Result<Vec<String>> {
        let entries = std::fs::read_dir(self.process(pid))?;
        let name = |entry: io::Result<DirEntry>| Ok(entry?.file_name().into_string().unwrap());
        let mut names = entries.map(name).collect::<io::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }

    /// The file of the mapping that begins at `start` and ends at `end`.
    #[track_caller]
    pub(crate) fn mapping(&self, pid: u32, start: usize, end: usize) -> PathBuf {
        let prefix = format!("{start:012x}-{end:012x}.");
        let names = self.names(pid);
        let name = names
            .iter()
            .find(|name| name.starts_with(&prefix))
            .unwrap_or_else(|| panic!("no {prefix}* among {names:#?}"));
        self.process(pid).join(name)
    }

    /// The file of one of the target's regions.
    #[track_caller]
    pub(crate) fn file(&self, target: &Target, region: &str) -> PathBuf {
        let region = target.region(region);
        self.mapping(target.pid(), region.start, region.end)
    }

    /// What the daemon wrote to its standard error.
    pub(crate) fn log(&self) -> String {
        let bytes = std::fs::read(self.outside().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Sends the daemon a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        assert!(self.ended.is_none(), "the daemon has ended already");
        kill(Pid::from_raw(self.daemon.id() as i32), signal).unwrap();
    }

    /// The process id of the daemon.
    pub(crate) fn daemon(&self) -> u32 {
        self.daemon.id()
    }

    /// How many threads the daemon has, but for those of its rings: what the kernel was given for requests over io_uring it
    /// never gives back, and each needs its thread.
    #[track_caller]
    pub(crate) fn threads(&self) -> usize {
        let names = of_threads(self.daemon(), "comm");
        let others = names.iter().filter(|name| !name.starts_with("ring-"));
        others.count()
    }

    /// Kills the process that would take away the mount of a killed daemon.
    #[track_caller]
    pub(crate) fn kill_supervisor(&self) {
        let is_child = |pid: &u32| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
            let parent = format!("PPid:\t{}", self.daemon());
            status.is_ok_and(|status| status.lines().any(|line| line == parent))
        };
        let supervisor = eventually("the supervisor", || {
            let pids = std::fs::read_dir("/proc").unwrap();
            pids.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
                .find(is_child)
        });
        kill(Pid::from_raw(supervisor as i32), Signal::SIGKILL).unwrap();
    }

    /// Waits until the daemon has ended.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        if let Some(status) = self.ended {
            return status;
        }
        let daemon = &mut self.daemon;
        let status = eventually("the daemon's end", || daemon.try_wait().unwrap());
        self.ended = Some(status);
        self.watchdog = None;
        status
    }

    /// Waits for at most `limit`; true if the daemon has ended.
    fn ended_within(&mut self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while self.ended.is_none() && Instant::now() < deadline {
            self.ended = self.daemon.try_wait().unwrap_or(None);
            std::thread::sleep(Duration::from_millis(2));
        }
        self.ended.is_some()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            eprintln!("[{}] daemon's log:\n{}", current_test(), tail.join("\n"));
        }
        self.watchdog = None;
        let name = current_test();
        if self.ended.is_none() {
            let _ = kill(Pid::from_raw(self.daemon.id() as i32), Signal::SIGTERM);
            if !self.ended_within(SOON) {
                eprintln!("[{name}] the daemon ignored SIGTERM; killing it");
                unmount_lazily(self.point());
                let _ = self.daemon.kill();
                if !self.ended_within(SOON) {
                    eprintln!("[{name}] the daemon waits for itself; aborting its connection");
                    if let Some(connection) = self.connection {
                        connection.abort();
                    }
                }
                let _ = self.daemon.wait();
            }
        }
        if is_mounted(self.point()) {
            eprintln!("[{name}] the daemon left {:?} mounted", self.point());
        }
    }
}
