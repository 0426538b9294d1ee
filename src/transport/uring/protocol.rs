//! The structures of FUSE as they lie in a ring's memory (`include/uapi/linux/fuse.h`), all in the byte order of the machine.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Commands to a ring (`enum fuse_uring_cmd`).
pub(super) mod command {
    /// Gives the kernel an entry, and waits for a request in it (`FUSE_IO_URING_CMD_REGISTER`).
    pub(in super::super) const REGISTER: u32 = 1;
    /// Answers the request in an entry, and waits for the next one in it (`FUSE_IO_URING_CMD_COMMIT_AND_FETCH`).
    pub(in super::super) const COMMIT_AND_FETCH: u32 = 2;
}

/// What the kernel asks for (`enum fuse_opcode`), as far as it comes over a ring.
pub(super) mod opcode {
    pub(in super::super) const LOOKUP: u32 = 1;
    pub(in super::super) const GETATTR: u32 = 3;
    pub(in super::super) const SETATTR: u32 = 4;
    pub(in super::super) const READLINK: u32 = 5;
    pub(in super::super) const SYMLINK: u32 = 6;
    pub(in super::super) const MKNOD: u32 = 8;
    pub(in super::super) const MKDIR: u32 = 9;
    pub(in super::super) const UNLINK: u32 = 10;
    pub(in super::super) const RMDIR: u32 = 11;
    pub(in super::super) const RENAME: u32 = 12;
    pub(in super::super) const LINK: u32 = 13;
    pub(in super::super) const OPEN: u32 = 14;
    pub(in super::super) const READ: u32 = 15;
    pub(in super::super) const WRITE: u32 = 16;
    pub(in super::super) const STATFS: u32 = 17;
    pub(in super::super) const RELEASE: u32 = 18;
    pub(in super::super) const FSYNC: u32 = 20;
    pub(in super::super) const SETXATTR: u32 = 21;
    pub(in super::super) const GETXATTR: u32 = 22;
    pub(in super::super) const LISTXATTR: u32 = 23;
    pub(in super::super) const REMOVEXATTR: u32 = 24;
    pub(in super::super) const OPENDIR: u32 = 27;
    pub(in super::super) const READDIR: u32 = 28;
    pub(in super::super) const RELEASEDIR: u32 = 29;
    pub(in super::super) const FSYNCDIR: u32 = 30;
    pub(in super::super) const ACCESS: u32 = 34;
    pub(in super::super) const CREATE: u32 = 35;
    pub(in super::super) const IOCTL: u32 = 39;
    pub(in super::super) const FALLOCATE: u32 = 43;
    pub(in super::super) const READDIRPLUS: u32 = 44;
    pub(in super::super) const RENAME2: u32 = 45;
    pub(in super::super) const LSEEK: u32 = 46;
}

/// `getattr_flags`: a handle is named.
pub(super) const GETATTR_FH: u32 = 1 << 0;

/// `write_flags`: the data are pages of the kernel's cache.
pub(super) const WRITE_CACHE: u32 = 1 << 0;

/// What an open is answered with (`FOPEN_*`).
pub(super) mod fopen {
    pub(in super::super) const DIRECT_IO: u32 = 1 << 0;
    pub(in super::super) const KEEP_CACHE: u32 = 1 << 1;
    pub(in super::super) const PASSTHROUGH: u32 = 1 << 7;
}

/// What of a file is to be changed (`FATTR_*`).
pub(super) mod fattr {
    pub(in super::super) const MODE: u32 = 1 << 0;
    pub(in super::super) const UID: u32 = 1 << 1;
    pub(in super::super) const GID: u32 = 1 << 2;
    pub(in super::super) const SIZE: u32 = 1 << 3;
    pub(in super::super) const ATIME: u32 = 1 << 4;
    pub(in super::super) const MTIME: u32 = 1 << 5;
    pub(in super::super) const FH: u32 = 1 << 6;
}

/// Declares structures of the protocol, with the type of the kernel that each of them is.
macro_rules! structures {
    ($($(#[$doc:meta])* $name:ident = $kernel:literal { $($(#[$field_doc:meta])* $field:ident: $kind:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
            #[repr(C)]
            pub(super) struct $name {
                $($(#[$field_doc])* pub(super) $field: $kind,)*
            }
        )*

        /// Each structure: what the kernel calls it, its size, and its fields with their offsets.
        #[cfg(test)]
        type Layout = (&'static str, usize, Vec<(&'static str, usize)>);

        #[cfg(test)]
        fn layouts() -> Vec<Layout> {
            vec![$((
                $kernel,
                size_of::<$name>(),
                vec![$((stringify!($field), std::mem::offset_of!($name, $field)),)*],
            ),)*]
        }
    };
}

structures! {
    /// The head of a request.
    InHeader = "fuse_in_header" {
        len: u32,
        opcode: u32,
        unique: u64,
        nodeid: u64,
        uid: u32,
        gid: u32,
        pid: u32,
        total_extlen: u16,
        padding: u16,
    }

    /// The head of an answer.
    OutHeader = "fuse_out_header" {
        len: u32,
        /// 0, or an errno below it.
        error: i32,
        unique: u64,
    }

    /// What is told of an entry of a ring besides.
    EntryInOut = "fuse_uring_ent_in_out" {
        flags: u64,
        commit_id: u64,
        /// Bytes of the payload that count.
        payload_sz: u32,
        padding: u32,
        reserved: u64,
    }

    /// The first page of an entry of a ring.
    RequestHeader = "fuse_uring_req_header" {
        in_out: [u8; 128],
        op_in: [u8; 128],
        ring_ent_in_out: EntryInOut,
    }

    /// The argument of a command to a ring.
    CommandRequest = "fuse_uring_cmd_req" {
        flags: u64,
        commit_id: u64,
        /// The queue: the number of a processor.
        qid: u16,
        padding: [u8; 6],
    }

    Attr = "fuse_attr" {
        ino: u64,
        size: u64,
        blocks: u64,
        atime: u64,
        mtime: u64,
        ctime: u64,
        atimensec: u32,
        mtimensec: u32,
        ctimensec: u32,
        mode: u32,
        nlink: u32,
        uid: u32,
        gid: u32,
        rdev: u32,
        blksize: u32,
        flags: u32,
    }

    EntryOut = "fuse_entry_out" {
        nodeid: u64,
        generation: u64,
        entry_valid: u64,
        attr_valid: u64,
        entry_valid_nsec: u32,
        attr_valid_nsec: u32,
        attr: Attr,
    }

    AttrOut = "fuse_attr_out" {
        attr_valid: u64,
        attr_valid_nsec: u32,
        dummy: u32,
        attr: Attr,
    }

    GetattrIn = "fuse_getattr_in" {
        getattr_flags: u32,
        dummy: u32,
        fh: u64,
    }

    SetattrIn = "fuse_setattr_in" {
        valid: u32,
        padding: u32,
        fh: u64,
        size: u64,
        lock_owner: u64,
        atime: u64,
        mtime: u64,
        ctime: u64,
        atimensec: u32,
        mtimensec: u32,
        ctimensec: u32,
        mode: u32,
        unused4: u32,
        uid: u32,
        gid: u32,
        unused5: u32,
    }

    OpenIn = "fuse_open_in" {
        flags: u32,
        open_flags: u32,
    }

    OpenOut = "fuse_open_out" {
        fh: u64,
        open_flags: u32,
        backing_id: i32,
    }

    ReleaseIn = "fuse_release_in" {
        fh: u64,
        flags: u32,
        release_flags: u32,
        lock_owner: u64,
    }

    /// Of READ, READDIR and READDIRPLUS.
    ReadIn = "fuse_read_in" {
        fh: u64,
        offset: u64,
        size: u32,
        read_flags: u32,
        lock_owner: u64,
        flags: u32,
        padding: u32,
    }

    WriteIn = "fuse_write_in" {
        fh: u64,
        offset: u64,
        size: u32,
        write_flags: u32,
        lock_owner: u64,
        flags: u32,
        padding: u32,
    }

    WriteOut = "fuse_write_out" {
        size: u32,
        padding: u32,
    }

    /// Of GETXATTR and LISTXATTR.
    GetxattrIn = "fuse_getxattr_in" {
        size: u32,
        padding: u32,
    }

    GetxattrOut = "fuse_getxattr_out" {
        size: u32,
        padding: u32,
    }

    AccessIn = "fuse_access_in" {
        mask: u32,
        padding: u32,
    }

    LseekIn = "fuse_lseek_in" {
        fh: u64,
        offset: u64,
        whence: u32,
        padding: u32,
    }

    LseekOut = "fuse_lseek_out" {
        offset: u64,
    }

    /// The head of a name in a directory.
    Dirent = "fuse_dirent" {
        ino: u64,
        off: u64,
        namelen: u32,
        r#type: u32,
    }

    Kstatfs = "fuse_kstatfs" {
        blocks: u64,
        bfree: u64,
        bavail: u64,
        files: u64,
        ffree: u64,
        bsize: u32,
        namelen: u32,
        frsize: u32,
        padding: u32,
        spare: [u32; 6],
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use btfparse::{Error, ErrorKind, Offset, Readable, TypeInformation};

    use super::*;

    struct Types(Vec<u8>);

    impl Readable for Types {
        fn read(&self, offset: u64, buffer: &mut [u8]) -> btfparse::Result<()> {
            let start = usize::try_from(offset).unwrap();
            let found = self.0.get(start..start + buffer.len());
            let found = found.ok_or_else(|| Error::new(ErrorKind::IOError, "past the end"))?;
            buffer.copy_from_slice(found);
            Ok(())
        }
    }

    /// The running kernel says itself how its structures are laid out (BTF, `CONFIG_DEBUG_INFO_BTF`). The headers of the C library
    /// may be older than that.
    #[test]
    fn all_structures_are_laid_out_as_in_the_kernel() {
        let Ok(types) = fs::read("/sys/kernel/btf/vmlinux") else {
            eprintln!("NOT CHECKED: this kernel does not tell its types");
            return;
        };
        let kernel = TypeInformation::new(&Types(types)).unwrap();
        for (name, size, fields) in layouts() {
            let Some(id) = kernel.id_of(name) else {
                // FUSE is a module, or has no rings.
                eprintln!("NOT CHECKED: the kernel has no struct {name}");
                continue;
            };
            assert_eq!(size, kernel.size_of(id).unwrap(), "{name}");
            for (field, offset) in fields {
                let field = field.trim_start_matches("r#");
                let (_, there) = kernel.offset_of(id, field).unwrap();
                let Offset::ByteOffset(there) = there else {
                    panic!("{name}.{field} is a bit field");
                };
                assert_eq!(offset, there as usize, "{name}.{field}");
            }
        }
    }
}
