//! Memory that can be had now, without harm to others and within the limits of the daemon's own control groups
//! (`Documentation/admin-guide/cgroup-v2.rst`, `cgroup-v1/memory.rst`).

use std::path::{Path, PathBuf};

use super::text::field;

/// The part of all memory that is left to others: a twentieth.
const LEFT_TO_OTHERS: u64 = 20;

/// A version of control groups.
struct Version {
    /// Where it is mounted.
    root: &'static str,
    /// What the line of `/proc/self/cgroup` has between the first `:` and the path.
    controller: &'static str,
    limit: &'static str,
    usage: &'static str,
    /// The field of `memory.stat` that tells how much of that is files which can be dropped at once.
    inactive: &'static str,
}

/// As systemd and container hosts mount them.
const VERSIONS: [Version; 2] = [
    Version {
        root: "/sys/fs/cgroup",
        controller: "",
        limit: "memory.max",
        usage: "memory.current",
        inactive: "inactive_file",
    },
    Version {
        root: "/sys/fs/cgroup/memory",
        controller: "memory",
        limit: "memory.limit_in_bytes",
        usage: "memory.usage_in_bytes",
        inactive: "total_inactive_file",
    },
];

/// All memory there is, in bytes.
pub(super) fn total() -> Option<u64> {
    of_system(b"MemTotal:")
}

/// What the kernel thinks can be used without swapping, less what is left to others, and no more than the control groups of this
/// program let it have.
pub(super) fn available() -> Option<u64> {
    let reserve = total()? / LEFT_TO_OTHERS;
    let free = of_system(b"MemAvailable:")?.saturating_sub(reserve);
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = VERSIONS
        .iter()
        .filter_map(|version| version.left(Path::new(version.root), &own));
    Some(limits.fold(free, u64::min))
}

/// A field of `/proc/meminfo`, in bytes.
fn of_system(name: &[u8]) -> Option<u64> {
    let text = std::fs::read("/proc/meminfo").ok()?;
    let kib = field(&text, name)?
        .strip_suffix(" kB")?
        .trim()
        .parse::<u64>();
    kib.ok()?.checked_mul(1024)
}

impl Version {
    /// What the tightest of the groups has left that `/proc/self/cgroup` names; `None` where none has a limit.
    fn left(&self, root: &Path, own: &str) -> Option<u64> {
        let path = own.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            let is_it = controllers.split(',').any(|name| name == self.controller);
            is_it.then_some(path)
        })?;
        let path: PathBuf = root.join(path.trim_start_matches('/'));
        let groups = path.ancestors().take_while(|group| group.starts_with(root));
        groups.filter_map(|group| self.left_in(group)).min()
    }

    /// What a group has left of its limit.
    fn left_in(&self, group: &Path) -> Option<u64> {
        let text = |name: &str| std::fs::read_to_string(group.join(name)).ok();
        let number = |name: &str| text(name)?.trim().parse::<u64>().ok();
        let (limit, usage) = (number(self.limit)?, number(self.usage)?);
        let stat = text("memory.stat").unwrap_or_default();
        let inactive = stat.lines().find_map(|line| {
            let value = line.strip_prefix(self.inactive)?.strip_prefix(' ')?;
            value.parse::<u64>().ok()
        });
        let used = usage.saturating_sub(inactive.unwrap_or(0));
        Some(limit.saturating_sub(used))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_memory_and_not_all_of_it_is_taken() {
        let (total, available) = (total().unwrap(), available().unwrap());
        assert!(available < total, "{available} of {total}");
    }

    #[test]
    fn the_tightest_group_counts() {
        let root = tempfile::tempdir().unwrap();
        let group = |path: &str, max: &str, current: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(&path).unwrap();
            std::fs::write(path.join("memory.max"), max).unwrap();
            std::fs::write(path.join("memory.current"), current).unwrap();
        };
        let left = |own: &str| VERSIONS[0].left(root.path(), own);
        group("a", "1000\n", "400\n");
        group("a/b", "max\n", "300\n");
        group("a/b/c", "500\n", "100\n");
        assert_eq!(left("1:name=systemd:/x\n0::/a/b\n"), Some(600));
        assert_eq!(left("0::/a/b/c\n"), Some(400));
        group("a/b/c", "500\n", "600\n");
        assert_eq!(left("0::/a/b/c\n"), Some(0));
        std::fs::write(
            root.path().join("a/b/c/memory.stat"),
            "anon 1\ninactive_file 350\n",
        )
        .unwrap();
        assert_eq!(left("0::/a/b/c\n"), Some(250), "files can be dropped");
        std::fs::write(root.path().join("a/memory.limit_in_bytes"), "90\n").unwrap();
        std::fs::write(root.path().join("a/memory.usage_in_bytes"), "50\n").unwrap();
        let older = VERSIONS[1].left(root.path(), "9:cpu,memory:/a\n0::/\n");
        assert_eq!(older, Some(40), "the first version");
        for none in ["", "0::/\n", "0::/elsewhere\n", "1:memory:/a\n"] {
            assert_eq!(left(none), None, "{none:?}");
        }
    }
}
