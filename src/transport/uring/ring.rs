//! One io_uring of one thread, which waits for one request at a time.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use io_uring::register::Restriction;
use io_uring::types::Fd;
use io_uring::{IoUring, cqueue, opcode, squeue};
use zerocopy::IntoBytes;

use super::entry::Entry;
use super::protocol::{CommandRequest, command};

/// Heads and payload of an entry (`FUSE_URING_IOV_SEGS` in `fs/fuse/dev_uring.c`).
const PLACES: u32 = 2;

/// Where the length lies in a submission (`struct io_uring_sqe`), which `io_uring` does not set for commands to files.
const LEN_OFFSET: usize = std::mem::offset_of!(linux_raw_sys::io_uring::io_uring_sqe, len);

/// What the kernel is told of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// It is new.
    Register,
    /// The request in it has its answer.
    Commit,
}

/// An io_uring.
pub(super) struct Ring(IoUring<squeue::Entry128, cqueue::Entry>);

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ring").field(&self.0.as_raw_fd()).finish()
    }
}

impl Ring {
    /// A ring for any thread.
    ///
    /// # Errors
    /// io_uring_setup(2): `EPERM` where the system does not allow it (`kernel.io_uring_disabled`, a container's seccomp filter),
    /// `ENOSYS`, `ENOMEM`, `EMFILE`.
    pub(super) fn new() -> io::Result<Self> {
        let ring = IoUring::<squeue::Entry128, cqueue::Entry>::builder()
            // The thread comes to the kernel by itself to take requests: nobody has to interrupt it.
            .setup_coop_taskrun()
            .setup_r_disabled()
            .build(1)?;
        // System calls that are refused to this program must not be made by a ring in its place.
        let commands = Restriction::sqe_op(opcode::UringCmd80::CODE);
        ring.submitter().register_restrictions(&mut [commands])?;
        ring.submitter().register_enable_rings()?;
        Ok(Self(ring))
    }

    /// Tells the kernel of the entry, and waits until there is a request in it.
    ///
    /// # Errors
    /// Those of the command: `ENOTCONN` and `ECONNABORTED` where the mount is gone, `ENOENT` where the request is not there any more.
    pub(super) fn exchange(
        &mut self,
        device: BorrowedFd<'_>,
        entry: &mut Entry,
        command: Command,
    ) -> io::Result<()> {
        let places = entry.places();
        let (operation, commit_id) = match command {
            Command::Register => (command::REGISTER, 0),
            Command::Commit => (command::COMMIT_AND_FETCH, entry.commit()),
        };
        let request = CommandRequest {
            flags: 0,
            commit_id,
            qid: entry.queue(),
            padding: [0; 6],
        };
        let mut argument = [0; 80];
        argument[..size_of::<CommandRequest>()].copy_from_slice(request.as_bytes());
        let submission = opcode::UringCmd80::new(Fd(device.as_raw_fd()), operation)
            .cmd(argument)
            .addr(Some(places.as_ptr().addr() as u64))
            .build();
        let submission = with_len(submission, PLACES);
        // SAFETY: the kernel looks at `places` while it takes the submission, which is before this returns. Heads and payload of the
        // entry stay mapped until then, too, and nobody uses them before the command is completed.
        let pushed = unsafe { self.0.submission().push(&submission) };
        pushed.map_err(|_| io::Error::from(io::ErrorKind::WouldBlock))?;
        loop {
            match self.0.submit_and_wait(1) {
                Ok(_) => (),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) => return Err(error),
            }
            if let Some(completed) = self.0.completion().next() {
                return match completed.result() {
                    0.. => Ok(()),
                    errno => Err(io::Error::from_raw_os_error(-errno)),
                };
            }
        }
    }
}

/// The submission with a length.
fn with_len(mut submission: squeue::Entry128, len: u32) -> squeue::Entry128 {
    let start = (&raw mut submission).cast::<u8>();
    // SAFETY: it is the kernel's structure (`#[repr(C)]`), which is longer than that.
    let place = unsafe { start.add(LEN_OFFSET) };
    // SAFETY: as above, and nobody else has it.
    unsafe { place.cast::<u32>().write_unaligned(len) };
    submission
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_submission_says_what_it_is_told() {
        let submission = opcode::UringCmd80::new(Fd(0x1122_3344), 0x5566_7788)
            .cmd([0xaa; 80])
            .addr(Some(0x99))
            .build();
        let submission = with_len(submission, 0x0102_0304);
        // SAFETY: it is 128 bytes of numbers.
        let bytes: [u8; 128] = unsafe { std::mem::transmute(submission) };
        let at = |offset: usize| u32::from_ne_bytes(bytes[offset..offset + 4].try_into().unwrap());
        // `struct io_uring_sqe`: fd, cmd_op, addr, len, and the command's own argument.
        assert_eq!(
            (at(4), at(8), at(16), at(24)),
            (0x1122_3344, 0x5566_7788, 0x99, 0x0102_0304)
        );
        assert_eq!(bytes[48..], [0xaa; 80]);
    }
}
