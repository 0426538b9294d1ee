//! Processes by control group.

use super::*;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Process 7 in a container, process 8 in a service, process 9 in no group but the root.
fn grouped() -> Bench {
    let bench = bench();
    let container = format!("1:name=systemd:/\n0::/system.slice/docker-{ID}.scope\n");
    bench.process.set_cgroup(container.as_bytes());
    for (pid, group) in [
        (8, &b"0::/system.slice/nginx.service\n"[..]),
        (9, b"0::/\n"),
    ] {
        let process = FakeProcess::new(pid, b"other");
        process.set_cgroup(group);
        bench.source.add(process);
    }
    bench
}

impl Bench {
    fn attribute(&self, path: &str, name: &str) -> Result<Vec<u8>> {
        let inode = self.find(path)?.inode;
        let name = format!("user.procmemfs.{name}");
        self.fs
            .extended_attribute(inode, OsStr::new(&name), &subject())
    }
}

/// SEMANTICS: the tree of control groups.
#[test]
fn groups_are_directories_and_processes_links() {
    let bench = grouped();
    let scope = format!("docker-{ID}.scope");
    assert_eq!(bench.names("by-cgroup"), [".", "..", "system.slice", "9"]);
    let slice = [".", "..", scope.as_str(), "nginx.service"];
    assert_eq!(bench.names("by-cgroup/system.slice"), slice);
    let service = "by-cgroup/system.slice/nginx.service";
    assert_eq!(bench.names(service), [".", "..", "8"]);
    for (path, target) in [
        ("by-cgroup/9".to_owned(), "../9"),
        (format!("{service}/8"), "../../../8"),
        (format!("by-cgroup/system.slice/{scope}/7"), "../../../7"),
    ] {
        assert_eq!(bench.link(&path), target);
        assert_eq!(bench.stat(&path).size, target.len() as u64);
    }
    for path in [
        "by-cgroup/7",
        "by-cgroup/user.slice",
        "by-cgroup/system.slice/8",
        "by-cgroup/system.slice/nginx",
        "by-cgroup/system.slice/nginx.service/7",
    ] {
        assert_eq!(bench.find(path), Err(Error::NoEntry), "{path}");
    }
}

/// `..` of a directory is the directory that it was found in.
#[test]
fn inodes_of_groups_are_the_same_on_each_way() {
    let bench = grouped();
    let inode = |path: &str| bench.find(path).unwrap().inode;
    let in_listing = |path: &str, name: &str| {
        let handle = bench.open_directory(inode(path)).unwrap();
        let listing = bench.read_directory(handle, 0).unwrap();
        bench.fs.release(handle);
        let entry = listing.iter().find(|entry| entry.name == name).unwrap();
        bench.fs.inode_of(&entry.node)
    };
    let (top, slice) = (inode("by-cgroup"), inode("by-cgroup/system.slice"));
    let service = "by-cgroup/system.slice/nginx.service";
    for _ in 0..2 {
        assert_eq!(in_listing("by-cgroup", "system.slice"), slice);
        assert_eq!(in_listing("by-cgroup", ".."), ROOT);
        assert_eq!(in_listing("by-cgroup/system.slice", ".."), top);
        assert_eq!(in_listing("by-cgroup/system.slice", "."), slice);
        assert_eq!(in_listing(service, ".."), slice);
        assert_eq!(in_listing(service, "8"), inode(&format!("{service}/8")));
        bench.clock.advance(TTL * 2);
    }
}

/// SEMANTICS: groups are as fresh as the list of processes.
#[test]
fn processes_that_move_are_shown_where_they_are() {
    let bench = grouped();
    let reads = || bench.process.cgroup_reads();
    for path in ["by-cgroup", "by-cgroup/system.slice", "by-cgroup"] {
        bench.names(path);
    }
    assert_eq!(reads(), 1, "all of them at once");
    bench.process.set_cgroup(b"0::/new/group\n");
    // A name that is not known is looked for anew, once time has passed.
    bench.clock.advance(Duration::from_millis(1));
    assert_eq!(bench.link("by-cgroup/new/group/7"), "../../../7");
    assert_eq!(reads(), 2);
    let scope = format!("docker-{ID}.scope");
    let slice = bench.names("by-cgroup/system.slice");
    assert!(
        !slice.contains(&scope),
        "a group that is empty is not shown"
    );
    bench.process.set_cgroup(b"0::/\n");
    bench.clock.advance(TTL);
    assert_eq!(
        bench.names("by-cgroup"),
        [".", "..", "system.slice", "7", "9"]
    );
    // Whoever is in a directory that is gone sees nothing in it.
    bench
        .source
        .find(crate::target::ProcessId::new(8).unwrap())
        .unwrap()
        .end();
    let slice = bench.find("by-cgroup/system.slice").unwrap().inode;
    let handle = bench.open_directory(slice).unwrap();
    let count = || bench.read_directory(handle, 0).unwrap().iter().count();
    assert_eq!(count(), 3, "as it was when it was opened");
    bench.clock.advance(TTL);
    assert_eq!(count(), 2);
}

/// SEMANTICS: attributes say which group and which container it is.
#[test]
fn groups_and_processes_say_their_container() {
    let bench = grouped();
    let scope = format!("/system.slice/docker-{ID}.scope");
    for path in ["7".to_owned(), format!("by-cgroup{scope}")] {
        assert_eq!(bench.attribute(&path, "cgroup").unwrap(), scope.as_bytes());
        assert_eq!(bench.attribute(&path, "container").unwrap(), ID.as_bytes());
    }
    for path in ["8", "by-cgroup/system.slice/nginx.service"] {
        let group = bench.attribute(path, "cgroup").unwrap();
        assert_eq!(group, b"/system.slice/nginx.service");
        assert_eq!(bench.attribute(path, "container").unwrap(), b"");
    }
    assert_eq!(bench.attribute("9", "cgroup").unwrap(), b"/");
    assert_eq!(
        bench.attribute("by-cgroup/system.slice", "cgroup").unwrap(),
        b"/system.slice"
    );
    let unknown = bench.attribute("by-cgroup/system.slice", "comm");
    assert_eq!(unknown, Err(Error::NoAttribute));
    // What another program has is not told.
    let inode = bench.find("7").unwrap().inode;
    bench.process.exec();
    let name = OsStr::new("user.procmemfs.cgroup");
    let asked = bench.fs.extended_attribute(inode, name, &subject());
    assert!(matches!(asked, Err(Error::Replaced(_))), "{asked:?}");
}
