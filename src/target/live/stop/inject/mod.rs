//! A `userfaultfd` of the target's own address space, which the kernel gives to nobody but a thread of it.
//!
//! A stopped thread is made to run a few instructions ([`stub`]), which lie in the padding at the end of its vDSO, and is
//! brought back to where it was. No descriptor, no register and no byte is other than before then; one page, that of the
//! vDSO, is the process's own from then on.

mod control;
mod stub;
mod thread;

use std::os::fd::OwnedFd;

use super::ptrace::Waited;
use super::{Failure, Pinned, Refusal, Tracee};
use crate::common::address::{Address, AddressRange, PAGE_SIZE};
use thread::Thread;

/// Threads that are tried at most.
const MOST: usize = 64;

/// Bytes of padding that are left as they are, after what the image of the vDSO ends with.
const GAP: usize = 64;

/// Takes a `userfaultfd` of the process, all of whose threads stand still.
///
/// # Errors
/// `Refused` where there is none: for the last thread that was tried. `Lost` where one is not where it was.
pub(super) fn userfaultfd(
    pinned: &Pinned,
    threads: &mut [Tracee],
    vdso: AddressRange,
) -> Result<OwnedFd, Failure> {
    let place = room(pinned, vdso).map_err(Failure::Refused)?;
    let mut refusal = "no thread of it stands still";
    let still = threads.iter_mut().filter(|it| it.state == Waited::Stopped);
    for tracee in still.take(MOST) {
        match Thread::new(pinned, tracee.tid) {
            Ok(mut thread) => {
                let opened = thread.open_userfaultfd(place);
                tracee.state = thread.state();
                return opened;
            }
            Err(why) => refusal = why,
        }
    }
    Err(Failure::Refused(refusal))
}

/// Where in the vDSO the code can lie: in the zeros at its end. What an earlier attempt left there is passed over, since a
/// thread may still have to run through it.
fn room(pinned: &Pinned, vdso: AddressRange) -> Result<Address, Refusal> {
    let mut page = [0; PAGE_SIZE as usize];
    let start = Address::new(vdso.end().get().saturating_sub(PAGE_SIZE));
    if vdso.len() < PAGE_SIZE || pinned.mem().read(start, &mut page) != Ok(page.len()) {
        return Err("its vDSO cannot be read");
    }
    free_offset(&page)
        .map(|offset| start.plus(offset as u64))
        .ok_or("its vDSO has no room")
}

fn free_offset(page: &[u8]) -> Option<usize> {
    let used = page.iter().rposition(|byte| *byte != 0)? + 1;
    let offset = (used + GAP).next_multiple_of(8);
    (offset + stub::LEN <= page.len()).then_some(offset)
}

#[cfg(test)]
mod tests;
