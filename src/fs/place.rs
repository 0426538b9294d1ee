//! What a line of the log calls an inode.

use std::ffi::OsStr;

use super::FileSystem;
use crate::target::mapping::sanitized;
use crate::tree::{Inode, Node};

impl FileSystem {
    /// The path of `inode` from the mount point on, or that of `name` in it, and before it the process that
    /// it belongs to: printable ASCII, whatever the names are.
    pub fn place(&self, operation: &str, inode: Inode, name: Option<&OsStr>) -> String {
        let node = self.inodes.get(inode).ok();
        let path = match &node {
            Some(node) => self.path(node),
            None => format!("inode {inode}"),
        };
        let name = name.map(|name| sanitized(name.as_encoded_bytes()));
        let path = match name {
            Some(name) if path == "." => name,
            Some(name) => format!("{path}/{name}"),
            None => path,
        };
        let process = node.as_ref().and_then(Node::process);
        match process {
            Some(info) => format!(
                "{} ({}): {operation} of {path}",
                info.identity.pid,
                sanitized(&info.command)
            ),
            None => format!("{operation} of {path}"),
        }
    }

    fn path(&self, node: &Node) -> String {
        match node {
            Node::Root => ".".to_owned(),
            Node::SelfLink => "self".to_owned(),
            Node::Stats => "stats".to_owned(),
            Node::Spaces => "mem".to_owned(),
            Node::Space(info) => format!("mem/{}", info.identity.pid),
            Node::Names => "by-name".to_owned(),
            Node::Command(command) => format!("by-name/{command}"),
            Node::CommandLink(pid) => format!("by-name/*/{pid}"),
            Node::Process(info) => info.identity.pid.to_string(),
            Node::MappingLink(info, which) => format!("{}/{}", info.identity.pid, which.name()),
            Node::Mapping(info, mapping) => {
                format!("{}/{}", info.identity.pid, mapping.file_name())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::tests::{HEAP, bench};
    use crate::target::fake::FakeProcess;
    use crate::tree::ROOT;

    #[test]
    fn a_place_names_process_mapping_and_path() {
        let bench = bench();
        let process = FakeProcess::new(8, b"ngi\nnx \x1b[31m");
        process.set_maps(b"10000-12000 rw-p 00000000 00:00 0 [heap]\n");
        bench.source.add(process);
        let inode = |path: &str| bench.find(path).unwrap().inode;
        let place = |path: &str| bench.fs.place("read", inode(path), None);
        assert_eq!(
            place(&format!("8/{HEAP}")),
            format!("8 (ngi_nx__[31m): read of 8/{HEAP}")
        );
        assert_eq!(place("8"), "8 (ngi_nx__[31m): read of 8");
        assert_eq!(place("8/heap"), "8 (ngi_nx__[31m): read of 8/heap");
        assert_eq!(place("mem/8"), "8 (ngi_nx__[31m): read of mem/8");
        for path in ["stats", "self", "mem", "by-name"] {
            assert_eq!(place(path), format!("read of {path}"));
        }
        let name = OsStr::new("a\n\u{7f}b");
        assert_eq!(bench.fs.place("lookup", ROOT, Some(name)), "lookup of a__b");
        let process = inode("8");
        assert!(
            bench
                .fs
                .place("lookup", process, Some(name))
                .ends_with("lookup of 8/a__b")
        );
        assert_eq!(
            bench.fs.place("read", Inode(1 << 50), None),
            "read of inode 1125899906842624"
        );
    }
}
