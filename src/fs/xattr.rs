//! Extended attributes: what a script would otherwise parse out of names and of `/proc`.

use std::sync::Arc;

use super::FileSystem;
use crate::common::error::{Error, Result};
use crate::target::ProcessInfo;
use crate::target::mapping::{AccessibleLength, Barrier, Mapping};
use crate::tree::{Inode, Node};
use crate::view::{MappingFile, Unreadable};

const PREFIX: &str = "user.procmemfs.";

/// Bytes of a value, or of a list of names, that the kernel passes on (`XATTR_SIZE_MAX` and `XATTR_LIST_MAX` of
/// `include/uapi/linux/limits.h`); more gives `E2BIG`, and stops `tar --xattrs`.
const MOST: usize = 64 << 10;

/// Attributes of a mapping, in the order of their listing.
const MAPPING: &[&str] = &[
    "start",
    "end",
    "perms",
    "offset",
    "dev",
    "inode",
    "path",
    "rss",
    "swap",
    UNREADABLE_BYTES,
];

/// Attributes of an address space.
const SPACE: &[&str] = &[UNREADABLE_BYTES];

/// Bytes that cannot be read now, so that a copy can be known to lack something.
const UNREADABLE_BYTES: &str = "unreadable_bytes";

/// Extents that one count of unreadable bytes takes in: as many as a process has mappings by
/// default (`vm.max_map_count`), which takes about a second.
const COUNTED_EXTENTS: usize = 1 << 16;

/// The attribute of a mapping that nobody can read: why.
const UNREADABLE: &str = "unreadable";

/// Attributes of a process.
const PROCESS: &[&str] = &["comm", "exe", "cmdline", "uid", "state", "rss"];

impl FileSystem {
    /// The value of an extended attribute: text, or bytes as the process has them.
    ///
    /// Numbers are decimal, sizes in bytes, addresses and offsets in hex as in
    /// `/proc/PID/maps`. What is longer than 64 KiB is cut there.
    ///
    /// # Errors
    /// `NoAttribute`, `NotSupported`, and why the process cannot be asked.
    pub fn extended_attribute(&self, inode: Inode, name: &str) -> Result<Vec<u8>> {
        if !name.starts_with("user.") {
            // `ls -l` asks every file for its ACL and its label, until one says that there are none.
            return Err(Error::NotSupported);
        }
        let name = name.strip_prefix(PREFIX).ok_or(Error::NoAttribute)?;
        let mut value = match self.inodes.get(inode)? {
            Node::Mapping(info, mapping) => self.of_mapping(&info, &mapping, name),
            Node::Space(info) if name == UNREADABLE_BYTES => self.unreadable_in_space(&info),
            Node::Process(info) => self.of_process(&info, name),
            _ => Err(Error::NoAttribute),
        }?;
        value.truncate(MOST);
        Ok(value)
    }

    /// The names of all extended attributes, each ended by a NUL.
    ///
    /// # Errors
    /// `NoEntry`.
    pub fn extended_attributes(&self, inode: Inode) -> Result<Vec<u8>> {
        let mut names = Vec::new();
        let mut add = |name: &str| {
            names.extend_from_slice(PREFIX.as_bytes());
            names.extend_from_slice(name.as_bytes());
            names.push(0);
        };
        match self.inodes.get(inode)? {
            Node::Mapping(_, mapping) => {
                MAPPING.iter().for_each(|name| add(name));
                if unreadable(&mapping).is_some() {
                    add(UNREADABLE);
                }
            }
            Node::Process(_) => PROCESS.iter().for_each(|name| add(name)),
            Node::Space(_) => SPACE.iter().for_each(|name| add(name)),
            _ => (),
        }
        debug_assert!(names.len() <= MOST, "the kernel passes on no more");
        Ok(names)
    }

    fn of_mapping(
        &self,
        info: &ProcessInfo,
        mapping: &Arc<Mapping>,
        name: &str,
    ) -> Result<Vec<u8>> {
        let device = mapping.device();
        let text = match name {
            "start" => mapping.range().start().to_string(),
            "end" => mapping.range().end().to_string(),
            "perms" => mapping.protection().to_string(),
            "offset" => format!("{:08x}", mapping.offset()),
            "dev" => format!("{:02x}:{:02x}", device.major, device.minor),
            "inode" => mapping.inode().to_string(),
            "path" => return Ok(mapping.path().to_vec()),
            "rss" => self.held_by(info, mapping)?.resident.to_string(),
            "swap" => self.held_by(info, mapping)?.swapped.to_string(),
            UNREADABLE_BYTES => return self.unreadable_in_mapping(info, mapping),
            UNREADABLE => unreadable(mapping).ok_or(Error::NoAttribute)?.to_owned(),
            _ => return Err(Error::NoAttribute),
        };
        Ok(text.into_bytes())
    }

    fn held_by(
        &self,
        info: &ProcessInfo,
        mapping: &Mapping,
    ) -> Result<crate::target::page_state::MemoryUsage> {
        let process = self.opened.open(&info.identity)?;
        self.held.of(&*process.memory, mapping.range())
    }

    fn unreadable_in_mapping(&self, info: &ProcessInfo, mapping: &Arc<Mapping>) -> Result<Vec<u8>> {
        let memory = Arc::clone(&self.opened.open(&info.identity)?.memory);
        let file = MappingFile::new(memory, Arc::clone(mapping), self.options.faults);
        Ok(counted(file.unreadable(COUNTED_EXTENTS)?))
    }

    fn unreadable_in_space(&self, info: &Arc<ProcessInfo>) -> Result<Vec<u8>> {
        let process = self.opened.open(&info.identity)?;
        Ok(counted(
            self.space(&process, info)?.unreadable(COUNTED_EXTENTS)?,
        ))
    }

    fn of_process(&self, info: &ProcessInfo, name: &str) -> Result<Vec<u8>> {
        let details = || self.services.source.details(&info.identity);
        match name {
            "comm" => Ok(info.command.clone()),
            "uid" => Ok(info.uid.to_string().into_bytes()),
            "exe" => Ok(details()?.executable),
            "cmdline" => Ok(details()?.arguments),
            "state" => Ok(vec![details()?.state]),
            "rss" => Ok(details()?.resident.to_string().into_bytes()),
            _ => Err(Error::NoAttribute),
        }
    }
}

/// A count that stopped before all was looked at ends in `+`: there are at least so many.
fn counted(unreadable: Unreadable) -> Vec<u8> {
    let mark = if unreadable.is_all { "" } else { "+" };
    format!("{}{mark}", unreadable.bytes).into_bytes()
}

fn unreadable(mapping: &Mapping) -> Option<&'static str> {
    match mapping.accessible_length() {
        AccessibleLength::Whole | AccessibleLength::UpTo(_) | AccessibleLength::OwnMount => None,
        AccessibleLength::Nothing(Barrier::Kernel) => {
            Some("pages of the kernel that it shows to the process alone")
        }
        AccessibleLength::Nothing(Barrier::Device) => {
            Some("memory of a device: reading it can have effects")
        }
        AccessibleLength::Nothing(Barrier::Secret) => {
            Some("secret memory (memfd_secret) that its process alone can read")
        }
    }
}
