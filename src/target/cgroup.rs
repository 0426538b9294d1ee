//! Control groups: what `/proc/PID/cgroup` says, and which container that is.

/// The path of a process's control group, in its own bytes, as cgroups(7) has it: from the root of the reader's cgroup
/// namespace on, so that the groups of processes outside of that begin with `..`.
///
/// The root itself is `/`. Ordered as bytes are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CgroupPath(Vec<u8>);

/// What the kernel adds to the path of a group of the unified hierarchy that was removed (`proc_cgroup_show` in
/// `kernel/cgroup/cgroup.c`).
const DELETED: &[u8] = b" (deleted)";

/// Digits of the identifier that Docker, containerd, CRI-O and Podman give a container.
const ID_DIGITS: usize = 64;

impl CgroupPath {
    /// The root of all groups.
    pub fn root() -> Self {
        Self(b"/".to_vec())
    }

    /// The group that a text of `/proc/PID/cgroup` shows; the root, where it shows no other.
    ///
    /// A line is `HIERARCHY:CONTROLLERS:PATH`. Hierarchies can have different groups (version 1, and both versions together):
    /// that one is taken in which the process is elsewhere than in the root, the unified one first, then those that exist to
    /// tell processes apart (`name=systemd`), and then those of controllers. What the root's namespace lies in tells least.
    pub fn parse(text: &[u8]) -> Self {
        let lines = text.split(|byte| *byte == b'\n');
        let groups = lines.filter_map(|line| {
            let mut fields = line.splitn(3, |byte| *byte == b':');
            let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            let path = match controllers {
                b"" => path.strip_suffix(DELETED).unwrap_or(path),
                _ => path,
            };
            let is_outside = path
                .split(|byte| *byte == b'/')
                .skip(1)
                .all(|name| name == b"..");
            let rank = (is_outside, rank(controllers));
            (path.starts_with(b"/") && path != b"/").then_some((rank, path))
        });
        // The first of those that are equal.
        let best = groups.min_by_key(|(rank, _)| *rank);
        best.map_or_else(Self::root, |(_, path)| Self(path.to_vec()))
    }

    /// The names on the way to it; none for the root.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.0
            .split(|byte| *byte == b'/')
            .filter(|name| !name.is_empty())
    }

    /// The group of the first `names` names.
    pub fn first(&self, names: usize) -> Self {
        if names == 0 {
            return Self::root();
        }
        let mut path = Vec::new();
        for name in self.names().take(names) {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        Self(path)
    }

    /// The path as the kernel says it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The container whose group it is or lies in, the innermost one: the identifier that Docker, containerd, CRI-O or Podman
    /// has for it, or the name of a container of LXC or of a machine of systemd.
    pub fn container(&self) -> Option<Vec<u8>> {
        let mut above: &[u8] = b"";
        let mut innermost = None;
        for name in self.names() {
            innermost = container(above, name).or(innermost);
            above = name;
        }
        innermost
    }
}

/// Which hierarchy tells best what a process belongs to: the lowest rank.
fn rank(controllers: &[u8]) -> u8 {
    match controllers {
        b"" => 0,
        b"name=systemd" => 1,
        named if named.starts_with(b"name=") => 2,
        b"memory" => 3,
        b"pids" => 4,
        _ => 5,
    }
}

/// The container that a group of this name in the group `above` is.
fn container(above: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    let scope = name.strip_suffix(b".scope").unwrap_or(name);
    // `docker-ID.scope`, `cri-containerd-ID.scope`, `libpod-ID.scope`; `system.slice:crio:ID`; or `ID` alone, below `docker` or
    // the group of a pod.
    if let Some(from) = scope.len().checked_sub(ID_DIGITS) {
        let (runtime, id) = scope.split_at(from);
        let is_id = id.iter().all(u8::is_ascii_hexdigit);
        let is_whole = runtime.is_empty() || runtime.ends_with(b"-") || runtime.ends_with(b":");
        // The monitor of a container is no part of it.
        if is_id && is_whole && !runtime.ends_with(b"conmon-") {
            return Some(id.to_vec());
        }
    }
    if let Some(lxc) = name.strip_prefix(b"lxc.payload.") {
        return Some(lxc.to_vec());
    }
    if matches!(above, b"lxc" | b"lxc.payload") {
        return Some(name.to_vec());
    }
    if let Some(machine) = scope.strip_prefix(b"machine-") {
        return (scope.len() < name.len()).then(|| unescaped(machine));
    }
    let service = name.strip_suffix(b".service")?;
    let machine = service.strip_prefix(b"systemd-nspawn@")?;
    Some(unescaped(machine))
}

/// A part of the name of a unit of systemd as it was before `systemd-escape`: `\x2d` is `-`.
fn unescaped(name: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((first, after)) = rest.split_first() {
        let escaped = rest.strip_prefix(br"\x").and_then(|rest| {
            let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
            Some((u8::from_str_radix(digits, 16).ok()?, &rest[2..]))
        });
        let (byte, after) = escaped.unwrap_or((*first, after));
        text.push(byte);
        rest = after;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(text: &str) -> String {
        String::from_utf8(CgroupPath::parse(text.as_bytes()).0).unwrap()
    }

    /// SEMANTICS: which group a process is shown in.
    #[test]
    fn the_group_that_tells_most_is_taken() {
        let table = [
            (
                "0::/system.slice/nginx.service\n",
                "/system.slice/nginx.service",
            ),
            ("0::/\n", "/"),
            ("", "/"),
            // Outside of the reader's cgroup namespace.
            ("0::/../../init.scope\n", "/../../init.scope"),
            ("0::/..\n", "/.."),
            ("3:memory:/../../a\n2:cpu:/../..\n0::/../..\n", "/../../a"),
            ("3:memory:/\n0::/../..\n", "/../.."),
            // Both versions together.
            (
                "5:devices:/user.slice\n1:name=systemd:/user.slice/user-1.slice\n0::/user.slice/user-1.slice\n",
                "/user.slice/user-1.slice",
            ),
            (
                "4:pids:/b\n3:memory:/a\n2:name=openrc:/sshd\n1:name=systemd:/\n0::/\n",
                "/sshd",
            ),
            ("9:name=systemd:/\n4:memory:/a/b\n2:cpu:/c\n0::/\n", "/a/b"),
            ("3:cpu,cpuacct:/x\n2:blkio:/y\n", "/x"),
            // Names may have colons, blanks and anything but a line feed.
            (
                "1:name=systemd:/system.slice:crio:a b/c\n",
                "/system.slice:crio:a b/c",
            ),
            ("0::/gone (deleted)\n", "/gone"),
            ("2:cpu:/named (deleted)\n", "/named (deleted)"),
            ("nonsense\n1:cpu\n0::relative\n", "/"),
        ];
        for (text, expected) in table {
            assert_eq!(group(text), expected, "{text}");
        }
        let bytes = CgroupPath::parse(b"0::/a\xff\xfeb\n");
        assert_eq!(bytes.as_bytes(), b"/a\xff\xfeb");
    }

    #[test]
    fn paths_are_of_so_many_names() {
        let path = CgroupPath::parse(b"0::/../a/b.service\n");
        assert_eq!(path.names().count(), 3);
        let first = |names| path.first(names).as_bytes().to_vec();
        assert_eq!(first(0), b"/");
        assert_eq!(first(1), b"/..");
        assert_eq!(first(2), b"/../a");
        assert_eq!(first(3), path.as_bytes());
        assert_eq!(CgroupPath::root().names().count(), 0);
    }

    /// SEMANTICS: the containers that are known by the names of their groups.
    #[test]
    fn containers_are_known_by_their_groups() {
        let id = "0123456789abcdef".repeat(4);
        let other = "f".repeat(64);
        let table = [
            (format!("/system.slice/docker-{id}.scope"), Some(&*id)),
            (format!("/docker/{id}"), Some(&*id)),
            (format!("/docker/{id}/init.scope"), Some(&*id)),
            // Kubernetes within Docker: the innermost one.
            (
                format!("/docker/{other}/kubelet/kubepods/besteffort/pod12-34/{id}"),
                Some(&*id),
            ),
            (
                format!(
                    "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice/cri-containerd-{id}.scope"
                ),
                Some(&*id),
            ),
            (
                format!("/kubepods.slice/kubepods-pod1.slice/crio-{id}.scope/container"),
                Some(&*id),
            ),
            (
                format!("/kubepods/burstable/system.slice:crio:{id}"),
                Some(&*id),
            ),
            (format!("/machine.slice/libpod-{id}.scope"), Some(&*id)),
            (
                format!(
                    "/user.slice/user-1.slice/user@1.service/user.slice/libpod-{id}.scope/container"
                ),
                Some(&*id),
            ),
            (format!("/machine.slice/libpod-conmon-{id}.scope"), None),
            (format!("/../../system.slice/docker-{id}.scope"), Some(&*id)),
            ("/lxc.payload.web-1/init.scope".to_owned(), Some("web-1")),
            ("/lxc/101/ns/init.scope".to_owned(), Some("101")),
            ("/lxc.monitor.web-1".to_owned(), None),
            (
                r"/machine.slice/machine-my\x2ddebian.scope/payload".to_owned(),
                Some("my-debian"),
            ),
            (
                "/machine.slice/systemd-nspawn@deb.service".to_owned(),
                Some("deb"),
            ),
            ("/machine.slice".to_owned(), None),
            ("/kubepods.slice/kubepods-pod1.slice".to_owned(), None),
            ("/system.slice/nginx.service".to_owned(), None),
            // Neither has 64 digits of its own.
            (format!("/a{id}"), None),
            (format!("/{}", &id[1..]), None),
            ("/".to_owned(), None),
        ];
        for (path, expected) in table {
            let found = CgroupPath::parse(format!("0::{path}\n").as_bytes()).container();
            let found = found.map(|id| String::from_utf8(id).unwrap());
            assert_eq!(found.as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn escapes_of_systemd_are_undone_where_they_are_whole() {
        for (name, expected) in [
            (r"a\x2db", "a-b"),
            (r"\x5cx", r"\x"),
            (r"a\x2", r"a\x2"),
            (r"a\xzz\", r"a\xzz\"),
            ("", ""),
        ] {
            assert_eq!(unescaped(name.as_bytes()), expected.as_bytes());
        }
    }
}
