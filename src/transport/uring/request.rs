//! From what lies in an entry to what is asked for.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use zerocopy::FromBytes;

use super::protocol::{
    AccessIn, GETATTR_FH, GetattrIn, GetxattrIn, InHeader, LseekIn, OpenIn, ReadIn, ReleaseIn,
    SetattrIn, WRITE_CACHE, WriteIn, fattr, opcode,
};
use crate::files::view::Seek;
use crate::files::{Access, Caller, Change};
use crate::server::{Inode, Operation, Request};

/// What the kernel has put into an entry.
#[derive(Debug)]
pub(super) struct Incoming<'a> {
    pub(super) header: InHeader,
    /// The first argument, padded.
    pub(super) argument: &'a [u8],
    /// Names, or the data of a write.
    pub(super) payload: &'a [u8],
}

/// What is to be done about it.
#[derive(Debug)]
pub(super) enum Asked {
    /// The server has it answered. The size is that of what may be answered, where that is bounded.
    Serve(Request, usize),
    /// It is answered at once, and then done.
    Release(u64),
    /// It is answered at once.
    Done,
    Refused(Errno),
}

/// The least read that takes longer than to wake another processor, in bytes.
const LARGE: u32 = 64 << 10;

impl Incoming<'_> {
    /// Whether it is a read that takes long.
    pub(super) fn is_large(&self) -> bool {
        let is_read = self.header.opcode == opcode::READ;
        is_read
            && self
                .argument()
                .is_some_and(|read: ReadIn| read.size >= LARGE)
    }

    /// The request; a malformed one is an error to the caller, as in the kernel's own parsers.
    pub(super) fn asked(&self) -> Asked {
        self.parse().unwrap_or(Asked::Refused(Errno::EIO))
    }

    fn parse(&self) -> Option<Asked> {
        let inode = Inode(self.header.nodeid);
        let operation = match self.header.opcode {
            opcode::LOOKUP => Operation::Lookup {
                parent: inode,
                name: self.name()?,
            },
            opcode::GETATTR => {
                let found: GetattrIn = self.argument()?;
                let has_handle = found.getattr_flags & GETATTR_FH != 0;
                Operation::GetAttributes {
                    inode,
                    handle: has_handle.then_some(found.fh),
                }
            }
            opcode::SETATTR => set_attributes(inode, &self.argument()?),
            opcode::READLINK => Operation::ReadLink { inode },
            opcode::OPEN => {
                let OpenIn { flags, .. } = self.argument()?;
                let access = Access::of_open(flags.cast_signed());
                Operation::Open { inode, access }
            }
            opcode::READ => {
                let read: ReadIn = self.argument()?;
                Operation::Read {
                    inode,
                    handle: read.fh,
                    offset: read.offset,
                    size: read.size as usize,
                }
            }
            opcode::WRITE => {
                let write: WriteIn = self.argument()?;
                if write.size as usize != self.payload.len() {
                    return None;
                }
                Operation::Write {
                    inode,
                    handle: write.fh,
                    offset: write.offset,
                    is_mapped: write.write_flags & WRITE_CACHE != 0,
                }
            }
            opcode::LSEEK => {
                let seek: LseekIn = self.argument()?;
                Operation::Seek {
                    inode,
                    handle: seek.fh,
                    offset: seek.offset.cast_signed(),
                    whence: Seek::of_lseek(seek.whence.cast_signed()),
                }
            }
            opcode::OPENDIR => Operation::OpenDirectory { inode },
            opcode::READDIR | opcode::READDIRPLUS => {
                let ReadIn {
                    fh: handle,
                    offset: position,
                    size,
                    ..
                } = self.argument()?;
                let operation = if self.header.opcode == opcode::READDIR {
                    Operation::ReadDirectory {
                        inode,
                        handle,
                        position,
                    }
                } else {
                    Operation::ReadDirectoryPlus {
                        inode,
                        handle,
                        position,
                    }
                };
                return Some(self.serve(operation, size));
            }
            opcode::GETXATTR => {
                let GetxattrIn { size, .. } = self.argument()?;
                let name = self.name()?;
                let operation = Operation::GetExtendedAttribute { inode, name };
                return Some(self.serve(operation, size));
            }
            opcode::LISTXATTR => {
                let GetxattrIn { size, .. } = self.argument()?;
                let operation = Operation::ListExtendedAttributes { inode };
                return Some(self.serve(operation, size));
            }
            opcode::STATFS => Operation::Statfs { inode },
            opcode::ACCESS => {
                let AccessIn { mask, .. } = self.argument()?;
                Operation::Access {
                    inode,
                    access: Access::of_mask(mask),
                }
            }
            opcode::MKDIR => Operation::MakeDirectory {
                parent: inode,
                name: self.name()?,
            },
            opcode::RMDIR => Operation::RemoveDirectory {
                parent: inode,
                name: self.name()?,
            },
            opcode::SYMLINK
            | opcode::MKNOD
            | opcode::UNLINK
            | opcode::RENAME
            | opcode::RENAME2
            | opcode::LINK
            | opcode::CREATE
            | opcode::SETXATTR
            | opcode::REMOVEXATTR => Operation::Change { inode },
            opcode::RELEASE | opcode::RELEASEDIR => {
                let ReleaseIn { fh, .. } = self.argument()?;
                return Some(Asked::Release(fh));
            }
            opcode::FSYNC | opcode::FSYNCDIR => return Some(Asked::Done),
            // Python and others ask every file whether it is a terminal.
            opcode::IOCTL => return Some(Asked::Refused(Errno::ENOTTY)),
            opcode::FALLOCATE => return Some(Asked::Refused(Errno::EOPNOTSUPP)),
            // FLUSH: every write is done when it is answered. POLL: always ready, as any regular file. The kernel asks for
            // none of them again.
            _ => return Some(Asked::Refused(Errno::ENOSYS)),
        };
        Some(self.serve(operation, 0))
    }

    fn serve(&self, operation: Operation, size: u32) -> Asked {
        let InHeader {
            unique,
            pid,
            uid,
            gid,
            ..
        } = self.header;
        let request = Request {
            number: unique,
            caller: Caller { pid, uid, gid },
            operation,
        };
        Asked::Serve(request, size as usize)
    }

    fn argument<T: FromBytes>(&self) -> Option<T> {
        T::read_from_prefix(self.argument)
            .ok()
            .map(|(read, _)| read)
    }

    /// The first name of the payload, which ends with a NUL.
    fn name(&self) -> Option<OsString> {
        let end = self.payload.iter().position(|byte| *byte == 0)?;
        Some(OsStr::from_bytes(&self.payload[..end]).to_owned())
    }
}

fn set_attributes(inode: Inode, wanted: &SetattrIn) -> Operation {
    let has = |bits: u32| wanted.valid & bits != 0;
    let size = has(fattr::SIZE).then_some(wanted.size);
    Operation::SetAttributes {
        inode,
        handle: has(fattr::FH).then_some(wanted.fh),
        change: Change::new(
            has(fattr::MODE | fattr::UID | fattr::GID),
            has(fattr::ATIME | fattr::MTIME),
            size,
        ),
    }
}
