//! Names: what becomes of any bytes, and what is found by them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use super::is_plain_name;
use super::world::{Answer, ROOT, Setup, World, ask};
use crate::server::{Inode, Operation, Server};
use crate::target::ProcessId;
use crate::target::mapping::{AddressSpace, sanitized};

/// Names are printable, lead to what they are listed for, and nothing else leads anywhere.
///
/// The bytes up to the first NUL are a name that is looked up, and of a process; those after it `maps`.
pub(super) fn check(data: &[u8]) {
    let (name, maps) = match data.iter().position(|byte| *byte == 0) {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &b""[..]),
    };
    check_sanitized(name);
    if let Ok(text) = std::str::from_utf8(name)
        && let Some(pid) = ProcessId::parse(text)
    {
        assert_eq!(pid.to_string(), text);
    }
    // The longest name that the kernel shows: that of a worker (`proc_task_name` in `fs/proc/array.c`).
    let command = &name[..name.len().min(63)];
    let is_maps = AddressSpace::parse(maps).is_ok();
    let (mut world, server, _queue) = World::new(&Setup::default());
    let server = Arc::new(server);
    world.add(7, if is_maps { maps } else { b"" }, command);
    let process = lookup(&server, ROOT, b"7").expect("it is there");
    let by_name = lookup(&server, ROOT, b"by-name").expect("it is there");
    let by_cgroup = lookup(&server, ROOT, b"by-cgroup").expect("it is there");
    let group = lookup(&server, by_cgroup, b"group").expect("it has the process");
    for directory in [ROOT, process, by_name, by_cgroup, group] {
        let names = list(&server, directory);
        for (listed, inode) in &names {
            assert!(is_plain_name(listed), "{listed}");
            let found = lookup(&server, directory, listed.as_bytes());
            assert_eq!(found, Some(*inode), "{listed}");
            let same = names.iter().filter(|(other, _)| other == listed);
            assert_eq!(same.count(), 1, "{listed}");
        }
        if let Some(found) = lookup(&server, directory, name) {
            let is_listed = names
                .iter()
                .any(|(listed, inode)| *inode == found && listed.as_bytes() == name);
            assert!(is_listed, "{}", name.escape_ascii());
        }
    }
}

fn check_sanitized(bytes: &[u8]) {
    let name = sanitized(bytes);
    // One of any length: who makes a name of a directory of it cuts it.
    assert!(is_plain_name(&name[..name.len().min(255)]), "{name}");
    assert_eq!(sanitized(name.as_bytes()), name);
    let is_kept = is_plain_name(&String::from_utf8_lossy(bytes));
    assert!(!is_kept || name.as_bytes() == bytes, "{name}");
}

fn lookup(server: &Arc<Server>, parent: Inode, name: &[u8]) -> Option<Inode> {
    let name = OsStr::from_bytes(name).to_owned();
    match ask(server, Operation::Lookup { parent, name }) {
        Answer::Entry(inode) => Some(inode),
        Answer::Error(_) => None,
        other => panic!("{other:?}"),
    }
}

/// The entries of a directory, without `.` and `..`.
fn list(server: &Arc<Server>, inode: Inode) -> Vec<(String, Inode)> {
    let Answer::Opened(handle) = ask(server, Operation::OpenDirectory { inode }) else {
        panic!("a directory that is there");
    };
    let position = 0;
    let operation = Operation::ReadDirectory {
        inode,
        handle,
        position,
    };
    let Answer::Names(mut names) = ask(server, operation) else {
        panic!("an open directory");
    };
    server.release(handle);
    assert_eq!([&names[0].0, &names[1].0], [".", ".."]);
    names.drain(..2);
    names
}
