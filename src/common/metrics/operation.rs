//! Requests by their kind.

use std::ops::Index;

use super::text::{Family, Kind, Metric};

macro_rules! operations {
    ($($(#[$doc:meta])* $variant:ident => $name:literal,)*) => {
        /// A request of the kernel's.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Operation {
            $($(#[$doc])* $variant,)*
        }

        impl Operation {
            /// All of them, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name in `/stats` and in the log.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

operations! {
    /// A name is looked up.
    Lookup => "lookup",
    /// Attributes are asked for.
    GetAttributes => "getattr",
    /// Attributes are to be changed.
    SetAttributes => "setattr",
    /// A symbolic link is read.
    ReadLink => "readlink",
    /// A file is opened.
    Open => "open",
    /// Bytes are read.
    Read => "read",
    /// Bytes are written.
    Write => "write",
    /// Data or a hole is sought.
    Seek => "lseek",
    /// An extended attribute, or their names, are asked for.
    ExtendedAttribute => "getxattr",
    /// A directory is opened.
    OpenDirectory => "opendir",
    /// Names are listed.
    ReadDirectory => "readdir",
    /// A snapshot is taken.
    MakeDirectory => "mkdir",
    /// A snapshot is removed.
    RemoveDirectory => "rmdir",
    /// A right is asked for.
    Access => "access",
    /// The file system as a whole is asked about.
    Statfs => "statfs",
    /// Something that never succeeds here (create, rename, link, remove).
    Refused => "refused",
}

/// One metric for each operation.
#[derive(Debug, Default)]
pub(super) struct PerOperation<T>([T; Operation::ALL.len()]);

impl<T> Index<Operation> for PerOperation<T> {
    type Output = T;

    fn index(&self, operation: Operation) -> &T {
        &self.0[operation as usize]
    }
}

impl<T: Metric> Metric for PerOperation<T> {
    const KIND: Kind = T::KIND;

    fn write(&self, family: &mut Family<'_>) {
        for (operation, metric) in Operation::ALL.iter().zip(&self.0) {
            family.labelled("operation", operation.name(), |family| metric.write(family));
        }
    }
}
