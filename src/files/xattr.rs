//! Extended attributes: what a script would otherwise parse out of names and of `/proc`.

use super::{Context, Node};
use crate::common::error::{Error, Result};
use crate::files::view::Unreadable;

const PREFIX: &str = "user.procmemfs.";

/// Bytes of a value, or of a list of names, that the kernel passes on (`XATTR_SIZE_MAX` and `XATTR_LIST_MAX` of
/// `include/uapi/linux/limits.h`); more gives `E2BIG`, and stops `tar --xattrs`.
const MOST: usize = 64 << 10;

/// Bytes that cannot be read now, so that a copy can be known to lack something.
pub(super) const UNREADABLE_BYTES: &str = "unreadable_bytes";

/// Extents that one count of unreadable bytes takes in: as many as a process has mappings by
/// default (`vm.max_map_count`), which takes about a second.
const COUNTED: usize = 1 << 16;

impl Context {
    /// The value of an extended attribute: text, or bytes as the process has them.
    ///
    /// Numbers are decimal, sizes in bytes, addresses and offsets in hex as in
    /// `/proc/PID/maps`. What is longer than 64 KiB is cut there.
    ///
    /// # Errors
    /// `NoAttribute`, `NotSupported`, and why the process cannot be asked.
    pub(crate) fn xattr(&self, node: &Node, name: &str) -> Result<Vec<u8>> {
        if !name.starts_with("user.") {
            // `ls -l` asks every file for its ACL and its label, until one says that there are none.
            return Err(Error::NotSupported);
        }
        let name = name.strip_prefix(PREFIX).ok_or(Error::NoAttribute)?;
        let mut value = node.xattr(self, name)?;
        value.truncate(MOST);
        Ok(value)
    }
}

/// The names of all extended attributes of a node, each ended by a NUL.
pub(crate) fn xattr_list(node: &Node) -> Vec<u8> {
    let names = node.xattr_names();
    let list: String = names
        .iter()
        .map(|name| format!("{PREFIX}{name}\0"))
        .collect();
    debug_assert!(list.len() <= MOST, "the kernel passes on no more");
    list.into_bytes()
}

/// What `count` counts, as text. A count that stopped before the end ends in `+`: there are at least so many.
///
/// # Errors
/// Whatever `count` says.
pub(super) fn counted_unreadable(
    count: impl FnOnce(usize) -> Result<Unreadable>,
) -> Result<Vec<u8>> {
    let unreadable = count(COUNTED)?;
    let mark = if unreadable.is_all { "" } else { "+" };
    Ok(format!("{}{mark}", unreadable.bytes).into_bytes())
}
