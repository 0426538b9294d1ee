//! Memory that goes through states in a known order, so that a copy of it shows whether it is of one moment.

use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use crate::regions::PAGE;

/// A word of a region.
fn word(at: usize) -> &'static AtomicU64 {
    // SAFETY: the test names a page of a writable region, which is mapped for as long as the process lives, and which only such
    // threads use from now on.
    unsafe { AtomicU64::from_ptr(at as *mut u64) }
}

/// Starts a thread that counts in the first word of each page, one page after the other: none is ever ahead of the page
/// before it, nor more than one step later than the first.
pub(crate) fn in_order(start: usize, len: usize) {
    let words: Vec<_> = (start..start + len).step_by(PAGE).map(word).collect();
    for word in &words {
        word.store(0, Ordering::Release);
    }
    std::thread::spawn(move || {
        for value in 1.. {
            for word in &words {
                word.store(value, Ordering::Release);
            }
        }
    });
}

/// Starts a thread that counts in the word `own` whenever the word `turn` is `mine`, and then gives the turn to the other one.
pub(crate) fn take_turns(turn: usize, own: usize, mine: u64) {
    let (turn, own) = (word(turn), word(own));
    own.store(0, Ordering::Release);
    std::thread::spawn(move || {
        loop {
            if turn.load(Ordering::Acquire) == mine {
                own.fetch_add(1, Ordering::Release);
                turn.store(1 - mine, Ordering::Release);
            } else {
                std::thread::yield_now();
            }
        }
    });
}

/// Starts a thread that waits in the kernel for a child, with which it shares its memory, and which never ends by itself: no signal reaches
/// that thread but one that kills. Returns the child's process id.
pub(crate) fn wait_for_vfork() -> i32 {
    static CHILD: AtomicI32 = AtomicI32::new(0);
    static mut STACK: [u8; 16 * 1024] = [0; 16 * 1024];
    extern "C" fn run(_: *mut libc::c_void) -> libc::c_int {
        // SAFETY: no pointer is passed.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        // SAFETY: takes nothing.
        CHILD.store(unsafe { libc::getpid() }, Ordering::Release);
        loop {
            // SAFETY: takes nothing.
            unsafe { libc::pause() };
        }
    }
    std::thread::spawn(|| {
        let top = (&raw mut STACK).wrapping_add(1).cast();
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        // SAFETY: the stack is a static that one child uses; the child makes system calls only.
        unsafe { libc::clone(run, top, flags, std::ptr::null_mut()) };
    });
    loop {
        match CHILD.load(Ordering::Acquire) {
            0 => std::thread::yield_now(),
            child => return child,
        }
    }
}
