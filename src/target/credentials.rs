//! The credentials by which the kernel judges an access.

use std::fs::File;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// A user namespace other than this program's, held open (user_namespaces(7)).
#[derive(Debug)]
pub struct UserNamespace {
    /// Device and inode, which no other one has while it is held.
    pub(crate) id: (u64, u64),
    pub(crate) file: File,
}

impl PartialEq for UserNamespace {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for UserNamespace {}

impl Hash for UserNamespace {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

/// What the kernel judges a thread by when it opens a file of `/proc` (credentials(7), `ptrace_may_access` in
/// `kernel/ptrace.c` with `PTRACE_MODE_FSCREDS`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// Its file system user (fsuid), by which files are judged.
    pub uid: u32,
    /// Its file system group (fsgid).
    pub gid: u32,
    /// Its effective user: it has every capability in the user namespaces that this one has made (user_namespaces(7)).
    pub effective_uid: u32,
    /// Its effective group.
    pub effective_gid: u32,
    /// Its supplementary groups.
    pub groups: Arc<[u32]>,
    /// Its effective capabilities, a bit each (capabilities(7)).
    pub capabilities: u64,
    /// The user namespace in which all that holds, where it is not this program's. The numbers are those of this program's all
    /// the same.
    pub user_namespace: Option<Arc<UserNamespace>>,
}

impl Credentials {
    /// Those of somebody of whom a user and a group are known, and nothing else: no right comes from anything else.
    pub fn plain(uid: u32, gid: u32) -> Self {
        Self {
            uid,
            gid,
            effective_uid: uid,
            effective_gid: gid,
            groups: Arc::default(),
            capabilities: 0,
            user_namespace: None,
        }
    }

    /// Whether the kernel grants whoever has these all that it grants to who has `others`.
    pub(crate) fn include(&self, others: &Self) -> bool {
        let are_same_users = self.uid == others.uid && self.effective_uid == others.effective_uid;
        let are_same_groups = self.gid == others.gid
            && self.effective_gid == others.effective_gid
            && others
                .groups
                .iter()
                .all(|group| self.groups.contains(group));
        let has_capabilities = others.capabilities & !self.capabilities == 0;
        let are_here = self.user_namespace == others.user_namespace;
        are_here && are_same_users && are_same_groups && has_capabilities
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_included_only_where_none_is_missing() {
        let own = Credentials {
            groups: Arc::new([4, 5]),
            capabilities: 0b110,
            ..Credentials::plain(0, 0)
        };
        let more = Credentials {
            groups: Arc::new([5, 3, 4]),
            capabilities: 0b111,
            ..own.clone()
        };
        assert!(own.include(&own) && more.include(&own));
        assert!(!own.include(&more));
        for less in [
            Credentials {
                uid: 1,
                ..own.clone()
            },
            Credentials {
                gid: 1,
                ..own.clone()
            },
            Credentials {
                effective_uid: 1,
                ..own.clone()
            },
            Credentials {
                effective_gid: 1,
                ..own.clone()
            },
            Credentials {
                groups: Arc::new([4]),
                ..own.clone()
            },
            Credentials {
                capabilities: 0b100,
                ..own.clone()
            },
        ] {
            assert!(!less.include(&own), "{less:?}");
        }
    }
}
