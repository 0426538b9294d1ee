//! Which processes are in which control group, at one moment.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::target::mapping::sanitized;
use crate::target::{CgroupPath, ProcessId};

/// What is added to the name of a group that is a number, where a process of that number lies beside it.
const SUFFIX: &str = ".cgroup";

/// The paths of a control group.
#[derive(Debug)]
struct Paths {
    /// As it is shown below `by-cgroup`, without a slash before or after it; empty for the root of all groups.
    shown: String,
    /// As the kernel says it: of as many names.
    path: CgroupPath,
}

/// A control group as it is shown, or one that it lies in.
///
/// All that lie on one way share its paths: whoever makes groups decides how deep they lie. Two are equal where they are
/// shown under one path, although their names may differ in bytes that cannot be shown.
#[derive(Clone, Debug)]
pub(super) struct ShownGroup {
    paths: Arc<Paths>,
    /// How much of the shown path is that of this group.
    len: usize,
}

impl PartialEq for ShownGroup {
    fn eq(&self, other: &Self) -> bool {
        self.shown() == other.shown()
    }
}

impl Eq for ShownGroup {}

impl Hash for ShownGroup {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.shown().hash(state);
    }
}

impl ShownGroup {
    /// Its path below `by-cgroup`; empty for the root of all groups.
    pub(super) fn shown(&self) -> &str {
        &self.paths.shown[..self.len]
    }

    /// Its path as the kernel says it.
    pub(super) fn path(&self) -> CgroupPath {
        self.paths.path.first(depth(self.shown()))
    }

    /// The group that it lies in; `None` for those that lie in the root.
    pub(super) fn parent(&self) -> Option<Self> {
        Some(Self {
            paths: Arc::clone(&self.paths),
            len: self.shown().rfind('/')?,
        })
    }
}

/// How many names a shown path has.
pub(super) fn depth(shown: &str) -> usize {
    shown.split('/').filter(|name| !name.is_empty()).count()
}

/// An entry of the directory of a control group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Member {
    Group(ShownGroup),
    Process(ProcessId),
}

/// A group that has processes.
#[derive(Debug)]
struct Populated {
    paths: Arc<Paths>,
    /// Lowest number first.
    processes: Vec<ProcessId>,
}

/// The control groups that have processes, by the paths that they are shown under. No others are held: those that these lie
/// in are found among them.
#[derive(Debug)]
pub(super) struct Groups(Vec<Populated>);

impl Groups {
    /// The groups of these processes.
    pub(super) fn new(processes: impl IntoIterator<Item = (ProcessId, CgroupPath)>) -> Self {
        // In the order of paths: which of two that are shown alike counts depends on no process.
        let mut by_path: BTreeMap<CgroupPath, Vec<ProcessId>> = BTreeMap::new();
        for (pid, path) in processes {
            by_path.entry(path).or_default().push(pid);
        }
        let mut by_shown: BTreeMap<String, (CgroupPath, Vec<ProcessId>)> = BTreeMap::new();
        for (path, processes) in by_path {
            let names: Vec<String> = path.names().map(sanitized).collect();
            let (_, all) = by_shown
                .entry(names.join("/"))
                .or_insert_with(|| (path, Vec::new()));
            all.extend(processes);
        }
        let populated = by_shown.into_iter().map(|(shown, (path, mut processes))| {
            processes.sort_unstable();
            let paths = Arc::new(Paths { shown, path });
            Populated { paths, processes }
        });
        Self(populated.collect())
    }

    /// The processes in the group that is shown under this path, and in none that lies in it.
    fn processes(&self, shown: &str) -> &[ProcessId] {
        let Self(groups) = self;
        let found = groups.binary_search_by(|group| group.paths.shown.as_str().cmp(shown));
        found.map_or(&[], |at| &groups[at].processes)
    }

    /// The groups below the one that is shown under this path.
    fn below(&self, shown: &str) -> &[Populated] {
        let Self(groups) = self;
        let prefix = prefix(shown);
        let start = groups.partition_point(|group| group.paths.shown <= prefix);
        let rest = &groups[start..];
        let end = rest.partition_point(|group| group.paths.shown.starts_with(&prefix));
        &rest[..end]
    }

    /// What is in the group that is shown under this path, by name, groups first; nothing, where it has no processes any more.
    pub(super) fn members(&self, shown: &str) -> Vec<(String, Member)> {
        let from = prefix(shown).len();
        let mut groups: BTreeMap<&str, ShownGroup> = BTreeMap::new();
        for Populated { paths, .. } in self.below(shown) {
            let rest = &paths.shown[from..];
            let name = rest.split_once('/').map_or(rest, |(name, _)| name);
            groups.entry(name).or_insert_with(|| ShownGroup {
                paths: Arc::clone(paths),
                len: from + name.len(),
            });
        }
        let processes = self.processes(shown);
        let groups = groups.into_iter().map(|(name, group)| {
            let suffix = if has(processes, name) { SUFFIX } else { "" };
            (format!("{name}{suffix}"), Member::Group(group))
        });
        let links = processes
            .iter()
            .map(|pid| (pid.to_string(), Member::Process(*pid)));
        groups.chain(links).collect()
    }

    /// What has this name in the group that is shown under this path.
    pub(super) fn member(&self, shown: &str, name: &str) -> Option<Member> {
        let processes = self.processes(shown);
        if has(processes, name) {
            return ProcessId::parse(name).map(Member::Process);
        }
        let renamed = || {
            let name = name.strip_suffix(SUFFIX)?;
            let is_renamed = has(processes, name);
            is_renamed.then(|| self.group(shown, name)).flatten()
        };
        self.group(shown, name).or_else(renamed).map(Member::Group)
    }

    /// The group whose shown path ends in this name.
    fn group(&self, above: &str, name: &str) -> Option<ShownGroup> {
        // The name of one in another one is none.
        if name.is_empty() || name.contains('/') {
            return None;
        }
        let shown = format!("{}{name}", prefix(above));
        let Self(groups) = self;
        let itself = groups.binary_search_by(|group| group.paths.shown.cmp(&shown));
        let group = match itself {
            Ok(at) => &groups[at],
            Err(_) => self.below(&shown).first()?,
        };
        Some(ShownGroup {
            paths: Arc::clone(&group.paths),
            len: shown.len(),
        })
    }
}

/// What the shown paths of all groups below this one begin with.
fn prefix(shown: &str) -> String {
    match shown {
        "" => String::new(),
        shown => format!("{shown}/"),
    }
}

fn has(processes: &[ProcessId], name: &str) -> bool {
    ProcessId::parse(name).is_some_and(|pid| processes.binary_search(&pid).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(processes: &[(u32, &[u8])]) -> Groups {
        let processes = processes.iter().map(|(pid, path)| {
            let mut text = b"0::".to_vec();
            text.extend_from_slice(path);
            (ProcessId::new(*pid).unwrap(), CgroupPath::parse(&text))
        });
        Groups::new(processes)
    }

    fn names(groups: &Groups, shown: &str) -> Vec<String> {
        let members = groups.members(shown);
        for (name, member) in &members {
            assert_eq!(
                groups.member(shown, name).as_ref(),
                Some(member),
                "{name} in {shown}"
            );
        }
        members.into_iter().map(|(name, _)| name).collect()
    }

    fn group(groups: &Groups, shown: &str, name: &str) -> ShownGroup {
        match groups.member(shown, name) {
            Some(Member::Group(group)) => group,
            other => panic!("{name} in {shown}: {other:?}"),
        }
    }

    /// SEMANTICS: directories mirror the groups that have processes.
    #[test]
    fn groups_lie_where_their_paths_say() {
        let groups = groups(&[
            (9, b"/system.slice/nginx.service"),
            (1, b"/init.scope"),
            (7, b"/system.slice/nginx.service"),
            (3, b"/"),
            (2, b"/system.slice"),
            // Sorts between that one and those in it.
            (4, b"/system.slice-x/a"),
        ]);
        let top = ["init.scope", "system.slice", "system.slice-x", "3"];
        assert_eq!(names(&groups, ""), top);
        assert_eq!(names(&groups, "system.slice"), ["nginx.service", "2"]);
        assert_eq!(names(&groups, "system.slice/nginx.service"), ["7", "9"]);
        assert_eq!(names(&groups, "user.slice"), [""; 0]);
        for (shown, name) in [
            ("", "7"),
            ("", "nginx.service"),
            ("", "system.slice/nginx.service"),
            ("system.slice", "9"),
            ("", ""),
            ("", "03"),
        ] {
            assert_eq!(groups.member(shown, name), None, "{name} in {shown}");
        }
        let nginx = group(&groups, "system.slice", "nginx.service");
        assert_eq!(nginx.path().as_bytes(), b"/system.slice/nginx.service");
        let above = nginx.parent().unwrap();
        assert_eq!(above, group(&groups, "", "system.slice"));
        assert_eq!(above.path().as_bytes(), b"/system.slice");
        assert_eq!(above.parent(), None);
    }

    /// SEMANTICS: names of groups are printable, as all others are.
    #[test]
    fn names_become_printable_and_groups_that_look_alike_are_one() {
        let groups = groups(&[
            (1, b"/a b/x"),
            (2, b"/a\xffb/y"),
            (3, b"/../../init.scope"),
            (4, br"/dev-a\x2db.swap"),
        ]);
        assert_eq!(names(&groups, ""), ["__", "a_b", r"dev-a\x2db.swap"]);
        assert_eq!(names(&groups, "a_b"), ["x", "y"]);
        assert_eq!(
            group(&groups, "", "a_b").path().as_bytes(),
            b"/a b",
            "the first of both"
        );
        assert_eq!(names(&groups, "__/__/init.scope"), ["3"]);
        let outside = group(&groups, "__/__", "init.scope");
        assert_eq!(outside.path().as_bytes(), b"/../../init.scope");
    }

    /// SEMANTICS: a group that is a number, beside the process of that number.
    #[test]
    fn a_group_whose_name_is_a_process_beside_it_is_renamed() {
        let groups = groups(&[(101, b"/lxc"), (8, b"/lxc/101"), (9, b"/lxc/102")]);
        assert_eq!(names(&groups, "lxc"), ["101.cgroup", "102", "101"]);
        assert_eq!(names(&groups, "lxc/101"), ["8"]);
        assert_eq!(groups.member("lxc", "102.cgroup"), None);
        let renamed = group(&groups, "lxc", "101.cgroup");
        assert_eq!(renamed.path().as_bytes(), b"/lxc/101");
    }

    /// A path of the kernel's has 4096 bytes at most, and so about 2048 names.
    #[test]
    fn the_deepest_path_is_shown() {
        let path = b"/a".repeat(2047);
        let groups = groups(&[(1, &path)]);
        let mut shown = String::new();
        let mut all = Vec::new();
        while let Some((_, Member::Group(group))) = groups.members(&shown).into_iter().next() {
            shown = group.shown().to_owned();
            all.push(group);
            assert_eq!(depth(&shown), all.len());
        }
        assert_eq!(all.len(), 2047);
        assert_eq!(names(&groups, &shown), ["1"]);
        let is_shared = |group: &ShownGroup| Arc::ptr_eq(&group.paths, &all[0].paths);
        assert!(
            all.iter().all(is_shared),
            "whoever holds all of them holds one path"
        );
    }
}
