//! Control groups of our own, of either version: for memory, one that is frozen, and such as tell processes apart.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A group whose members may use so much memory and no more. Removed when
/// dropped, and its members with it put back.
#[derive(Debug)]
pub(crate) struct MemoryGroup {
    parent: PathBuf,
    dir: PathBuf,
    /// The file that counts what the group uses.
    usage: &'static str,
}

impl MemoryGroup {
    /// A group that holds `limit` bytes.
    pub(crate) fn new(limit: u64) -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        let parent = match unified {
            true => PathBuf::from("/sys/fs/cgroup"),
            false => PathBuf::from("/sys/fs/cgroup/memory"),
        };
        if unified {
            fs::write(parent.join("cgroup.subtree_control"), "+memory")?;
        }
        if !parent.join("cgroup.procs").exists() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = parent.join(format!("procmemfs-test-{}-{number}", std::process::id()));
        fs::create_dir(&dir)?;
        let (max, usage) = match unified {
            true => ("memory.max", "memory.current"),
            false => ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        };
        let group = Self { parent, dir, usage };
        fs::write(group.dir.join(max), limit.to_string())?;
        Ok(group)
    }

    /// Puts a process into the group.
    pub(crate) fn add(&self, pid: u32) -> io::Result<()> {
        fs::write(self.dir.join("cgroup.procs"), pid.to_string())
    }

    /// Bytes that the group uses.
    pub(crate) fn usage(&self) -> u64 {
        let text = fs::read_to_string(self.dir.join(self.usage)).unwrap();
        text.trim().parse().unwrap()
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        remove(&self.dir, &self.parent);
    }
}

/// Removes a group, and puts its members back.
fn remove(dir: &Path, parent: &Path) {
    let members = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    for pid in members.lines() {
        let _ = fs::write(parent.join("cgroup.procs"), pid);
    }
    // A process that has just ended is counted for a moment.
    for _ in 0..1000 {
        if fs::remove_dir(dir).is_ok() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    eprintln!("{dir:?} stays behind");
}

/// A group (version 2) whose one member does not run. It goes on when this is dropped.
#[derive(Debug)]
pub(crate) struct FrozenGroup {
    parent: PathBuf,
    dir: PathBuf,
}

impl FrozenGroup {
    /// Where groups of version 2 are, if they are there and can be made.
    pub(crate) fn root() -> Option<PathBuf> {
        let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(PathBuf::from);
        let is_writable = |root: &PathBuf| {
            let probe = root.join(format!("procmemfs-probe-{}", std::process::id()));
            fs::create_dir(&probe).is_ok_and(|()| {
                let is_frozen = probe.join("cgroup.freeze").exists();
                fs::remove_dir(&probe).is_ok() && is_frozen
            })
        };
        roots.into_iter().find(is_writable)
    }

    /// Freezes a process, and waits until it is.
    pub(crate) fn new(pid: u32) -> io::Result<Self> {
        let parent = Self::root().ok_or(io::ErrorKind::NotFound)?;
        let dir = parent.join(format!("procmemfs-frozen-{pid}"));
        fs::create_dir(&dir)?;
        let group = Self { parent, dir };
        fs::write(group.dir.join("cgroup.procs"), pid.to_string())?;
        fs::write(group.dir.join("cgroup.freeze"), "1")?;
        super::eventually("the group is frozen", || {
            let events = fs::read_to_string(group.dir.join("cgroup.events")).ok()?;
            events.contains("frozen 1").then_some(())
        });
        Ok(group)
    }
}

impl Drop for FrozenGroup {
    fn drop(&mut self) {
        let _ = fs::write(self.dir.join("cgroup.freeze"), "0");
        remove(&self.dir, &self.parent);
    }
}

/// A group that tells processes apart, and limits nothing. Removed when dropped, and its members with it put back.
#[derive(Debug)]
pub(crate) struct ProcessGroup {
    /// Where the root of all groups is mounted.
    root: PathBuf,
    path: PathBuf,
}

impl ProcessGroup {
    /// A new group, of the unified hierarchy, where that is mounted.
    pub(crate) fn new() -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let top = Path::new("/sys/fs/cgroup");
        let hierarchies = ["", "unified", "systemd", "memory", "pids"].map(|name| top.join(name));
        let root = hierarchies
            .into_iter()
            .find(|root| root.join("cgroup.procs").exists())
            .ok_or(io::ErrorKind::NotFound)?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = format!("procmemfs-test-{}-{number}.slice", std::process::id());
        fs::create_dir(root.join(&path))?;
        let path = path.into();
        Ok(Self { root, path })
    }

    /// A new group in this one.
    pub(crate) fn inside(&self, name: &str) -> Self {
        let (root, path) = (self.root.clone(), self.path.join(name));
        fs::create_dir(root.join(&path)).unwrap();
        Self { root, path }
    }

    /// Its path from the root of all groups on.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The file that takes the numbers of processes.
    pub(crate) fn procs(&self) -> PathBuf {
        self.root.join(&self.path).join("cgroup.procs")
    }

    /// Puts a process into the group.
    #[track_caller]
    pub(crate) fn add(&self, pid: u32) {
        fs::write(self.procs(), pid.to_string()).unwrap();
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        remove(&self.root.join(&self.path), &self.root);
    }
}
