//! Answers as `fuser` sends them: a type for each kind of request.

use fuser::{
    BackingId, FileHandle, FopenFlags, INodeNo, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite,
    ReplyXattr,
};
use nix::errno::Errno;

use super::convert;
use crate::server::{Reply, Respond};
use crate::target::snapshot::KeptStore;

/// Sends an error.
macro_rules! refuse {
    ($reply:expr, $errno:expr) => {
        $reply.error(fuser::Errno::from_i32($errno as i32))
    };
}

/// For each type of reply what it takes, and how; anything else is a defect, and an error to the caller.
macro_rules! respond {
    ($($kind:ty { $($pattern:pat => $give:expr,)* })*) => {
        $(impl Respond for $kind {
            fn respond(self, reply: Result<Reply<'_>, Errno>) -> usize {
                match reply {
                    $(Ok($pattern) => give(self, $give),)*
                    Err(errno) => refuse!(self, errno),
                    Ok(_) => mismatched(|| refuse!(self, Errno::EIO)),
                }
                0
            }
        })*
    };
}

fn give<R>(reply: R, how: impl FnOnce(R)) {
    how(reply);
}

fn mismatched(refuse: impl FnOnce()) {
    debug_assert!(false, "an answer of another operation");
    refuse();
}

respond! {
    ReplyEntry {
        Reply::Entry(entry, name_valid) => |reply: Self| {
            let (attributes, generation) = (convert::attributes(entry), convert::generation(entry.generation));
            reply.entry_with_ttls(&entry.attributes.valid, &name_valid, &attributes, generation);
        },
    }
    ReplyAttr {
        Reply::Attributes(entry) => |reply: Self| {
            reply.attr(&entry.attributes.valid, &convert::attributes(entry));
        },
    }
    ReplyData {
        Reply::Data(bytes) => |reply: Self| reply.data(bytes),
    }
    ReplyOpen {
        Reply::Opened(opened) => |reply: Self| {
            let mut flags = FopenFlags::empty();
            flags.set(FopenFlags::FOPEN_DIRECT_IO, opened.direct);
            flags.set(FopenFlags::FOPEN_KEEP_CACHE, opened.is_constant);
            let handle = FileHandle(opened.handle);
            match opened.backing.as_ref().and_then(|store| backing(&reply, store)) {
                Some(backing) => reply.opened_passthrough(handle, FopenFlags::empty(), backing),
                None => reply.opened(handle, flags),
            }
        },
    }
    ReplyWrite {
        Reply::Written(bytes) => |reply: Self| reply.written(bytes),
    }
    ReplyLseek {
        Reply::Offset(offset) => |reply: Self| reply.offset(offset.cast_signed()),
    }
    ReplyStatfs {
        Reply::Statistics(of) => |reply: Self| reply.statfs(
            of.blocks,
            of.free,
            of.available,
            of.files,
            of.files_free,
            of.block_size,
            of.name_length,
            of.block_size,
        ),
    }
    ReplyEmpty {
        Reply::Done => |reply: Self| reply.ok(),
    }
    ReplyCreate {}
    ReplyDirectory {
        Reply::Names(names) => |mut reply: Self| {
            for name in names {
                let number = INodeNo(name.inode.0);
                if reply.add(number, name.next, convert::kind(name.kind), &name.name) {
                    break;
                }
            }
            reply.ok();
        },
    }
    XattrReply {
        // A size of zero asks how long the value is (getxattr(2)).
        Reply::Attribute(value) => |Self { reply, size }| match size as usize {
            0 => reply.size(value.len() as u32),
            size if value.len() <= size => reply.data(value),
            _ => reply.error(fuser::Errno::ERANGE),
        },
    }
}

/// What the kernel knows a store by, so that it reads that itself (FUSE passthrough); the same for all opens of its files. `None` where the
/// kernel does not do that, or not for this user.
fn backing<'a>(reply: &ReplyOpen, store: &'a KeptStore) -> Option<&'a BackingId> {
    store.registered(|descriptor| {
        let registered = reply.open_backing(descriptor);
        let told = registered.as_ref().err();
        if let Some(error) = told {
            log::debug!("no passthrough for a snapshot: {error}");
        }
        registered.ok()
    })
}

/// A reply to `getxattr` or `listxattr`, for a buffer of this size.
#[derive(Debug)]
pub(super) struct XattrReply {
    pub(super) reply: ReplyXattr,
    pub(super) size: u32,
}

impl XattrReply {
    fn error(self, errno: fuser::Errno) {
        self.reply.error(errno);
    }
}

impl Respond for ReplyDirectoryPlus {
    fn respond(mut self, reply: Result<Reply<'_>, Errno>) -> usize {
        let mut taken = 0;
        match reply {
            Ok(Reply::Entries(entries)) => {
                for named in entries {
                    let attributes = convert::attributes(&named.entry);
                    let generation = convert::generation(named.entry.generation);
                    let (number, name) = (attributes.ino, &named.name);
                    if self.add(
                        number,
                        named.next,
                        name,
                        &named.valid,
                        &attributes,
                        generation,
                    ) {
                        break;
                    }
                    taken += 1;
                }
                self.ok();
            }
            Err(errno) => refuse!(self, errno),
            Ok(_) => mismatched(|| refuse!(self, Errno::EIO)),
        }
        taken
    }
}
