//! Names and inode numbers, shaped as in a mount of ours: a directory for each process, and files in each.

use std::ffi::OsStr;

use fuser::INodeNo;

use super::super::PAGE;

/// What an inode number stands for.
#[derive(Clone, Copy)]
pub(super) enum Node {
    Root,
    Directory(usize),
    /// Its directory, and its place in there.
    File(usize, usize),
}

/// All there is. The files have the same names in each directory, but inodes of their own.
pub(in super::super) struct Tree {
    /// In order, as the files are: they are looked up by halves.
    directories: Vec<String>,
    files: Vec<String>,
}

impl Tree {
    /// So many directories, with so many files in each; the names are about as long as ours.
    pub(in super::super) fn new(directories: usize, files: usize) -> Self {
        // Far enough from the next longer number that the order of the text is that of the numbers.
        const FIRST_DIRECTORY: usize = 1_000_000;
        const FIRST_ADDRESS: usize = 0x7f00_0000_0000;

        let file = |index: usize| {
            let start = FIRST_ADDRESS + index * PAGE;
            format!("{start:012x}-{:012x}.rw-p.anon", start + PAGE)
        };
        Self {
            directories: (0..directories)
                .map(|index| (FIRST_DIRECTORY + index).to_string())
                .collect(),
            files: (0..files).map(file).collect(),
        }
    }

    /// How many directories there are below the root.
    pub(super) fn directories(&self) -> usize {
        self.directories.len()
    }

    pub(super) fn node(&self, inode: INodeNo) -> Node {
        let Some(number) = (inode.0 as usize).checked_sub(2) else {
            return Node::Root;
        };
        let numbers = self.files.len() + 1;
        match (number / numbers, number % numbers) {
            (directory, 0) => Node::Directory(directory),
            (directory, next) => Node::File(directory, next - 1),
        }
    }

    pub(super) fn inode(&self, node: Node) -> INodeNo {
        let numbers = self.files.len() + 1;
        let number = match node {
            Node::Root => return INodeNo::ROOT,
            Node::Directory(directory) => directory * numbers,
            Node::File(directory, file) => directory * numbers + 1 + file,
        };
        INodeNo(number as u64 + 2)
    }

    pub(super) fn child(&self, parent: Node, name: &OsStr) -> Option<Node> {
        let names = self.names(parent);
        let index = names.binary_search_by(|one| OsStr::new(one).cmp(name));
        Some(in_directory(parent, index.ok()?))
    }

    /// The entries of a directory from a position on, each with the position after it.
    pub(super) fn entries(
        &self,
        parent: Node,
        position: u64,
    ) -> impl Iterator<Item = (u64, Node, &str)> {
        (position..).map_while(move |at| {
            let (node, name) = self.entry(parent, at as usize)?;
            Some((at + 1, node, name))
        })
    }

    fn entry(&self, parent: Node, position: usize) -> Option<(Node, &str)> {
        match position {
            0 => Some((parent, ".")),
            1 => Some((Node::Root, "..")),
            _ => {
                let index = position - 2;
                let name = self.names(parent).get(index)?;
                Some((in_directory(parent, index), name))
            }
        }
    }

    fn names(&self, parent: Node) -> &[String] {
        match parent {
            Node::Root => &self.directories,
            Node::Directory(_) => &self.files,
            Node::File(..) => &[],
        }
    }
}

fn in_directory(parent: Node, index: usize) -> Node {
    match parent {
        Node::Directory(directory) => Node::File(directory, index),
        _ => Node::Directory(index),
    }
}
