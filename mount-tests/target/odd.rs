//! What the target does with itself: names, process ids, exec, threads.

use std::ffi::CString;
use std::io::{self, Read, Write};
use std::path::Path;

use crate::regions::{c_path, check};

/// The kernel kills this process when its parent ends.
pub(crate) fn die_with_parent() {
    // SAFETY: no pointer is passed.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}

/// Lets any process of the same user look, where Yama would forbid it.
pub(crate) fn allow_any_tracer() {
    // SAFETY: no pointer is passed.
    unsafe { libc::prctl(libc::PR_SET_PTRACER, libc::PR_SET_PTRACER_ANY) };
}

/// Names this process as `ps` shows it.
pub(crate) fn set_comm(name: &[u8]) -> io::Result<()> {
    let name = CString::new(name)?;
    // SAFETY: the argument is a C string; the kernel copies 16 bytes at most.
    check(unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) })
}

/// Runs this program again, with other bytes at the same addresses. Comes
/// back only when that fails.
pub(crate) fn exec_self(dir: &Path, generation: &str) -> io::Error {
    let arguments = [
        c"mount-target".to_owned(),
        c"serve".to_owned(),
        c_path(dir),
        CString::new(generation).expect("no NUL in a number"),
    ];
    let mut pointers: Vec<_> = arguments.iter().map(|word| word.as_ptr()).collect();
    pointers.push(std::ptr::null());
    // SAFETY: both arguments are C strings, the list ends with a null pointer.
    unsafe { libc::execv(c"/proc/self/exe".as_ptr(), pointers.as_ptr()) };
    io::Error::last_os_error()
}

/// Runs `serve` in a child whose process id is `pid`, and ends when it ends.
pub(crate) fn serve_as(pid: libc::pid_t, serve: impl FnOnce()) {
    let set_tid = [pid];
    // SAFETY: all of its fields are numbers, for which zero is a valid value.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.exit_signal = libc::SIGCHLD as u64;
    arguments.set_tid = set_tid.as_ptr() as u64;
    arguments.set_tid_size = 1;
    let size = std::mem::size_of_val(&arguments);
    // SAFETY: no CLONE_VM: like a fork of a process that has one thread.
    let child = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size) };
    if child < 0 {
        println!("err {}", io::Error::last_os_error());
        std::process::exit(1);
    }
    if child == 0 {
        die_with_parent();
        serve();
        std::process::exit(0);
    }
    // SAFETY: a null status pointer is allowed.
    unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
}

/// Starts a child that does `work` and ends; the kernel kills it when we end.
pub(crate) fn fork(work: impl FnOnce()) -> io::Result<libc::pid_t> {
    // SAFETY: the child makes system calls only, and takes no lock.
    let child = unsafe { libc::fork() };
    check(child)?;
    if child == 0 {
        die_with_parent();
        work();
        // SAFETY: ends the child without running what the parent has set up.
        unsafe { libc::_exit(0) };
    }
    Ok(child)
}

/// Starts a child that does `work` and waits until we end. Returns once the work is done: the child may run long after us.
pub(crate) fn fork_waiting(work: impl FnOnce()) -> io::Result<libc::pid_t> {
    let (mut done, mut say_done) = io::pipe()?;
    let child = fork(|| {
        work();
        let _ = say_done.write_all(b".");
        wait_for_ever();
    })?;
    drop(say_done);
    done.read_exact(&mut [0])?;
    Ok(child)
}

/// Sleeps until a signal ends the process.
fn wait_for_ever() {
    loop {
        // SAFETY: no pointer is passed.
        unsafe { libc::pause() };
    }
}

/// Ends the calling thread alone, as `pthread_exit` does.
pub(crate) fn end_thread() -> ! {
    // SAFETY: this thread holds no lock, and nothing of its stack is borrowed elsewhere.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    unreachable!("a thread that has ended");
}

/// Takes out a lease of this kind on an open file: for `F_WRLCK` who opens it kills this process.
pub(crate) fn lease(file: &std::fs::File, kind: libc::c_int) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    // SAFETY: no pointer is passed.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, kind) })
}

/// Waits until the child `pid` has ended, and leaves it a zombie.
pub(crate) fn wait_until_zombie(pid: u32) -> io::Result<()> {
    // SAFETY: all of its fields are numbers, for which zero is a valid value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let options = libc::WEXITED | libc::WNOWAIT;
    // SAFETY: `info` is valid for writing.
    check(unsafe { libc::waitid(libc::P_PID, pid, &raw mut info, options) })
}

/// Starts a thread that lays a new mapping over what is there: while the kernel takes that away the
/// thread holds the lock of the address space to write.
pub(crate) fn lay_over(start: usize, len: usize) {
    std::thread::spawn(move || {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        // SAFETY: the test names a region that nobody else uses.
        unsafe { libc::mmap(start as *mut libc::c_void, len, prot, flags, -1, 0) };
    });
}

/// Starts a program in a child that shares this address space until then, and does not wait for
/// that. Allocates nothing: the lock of the address space may be held.
pub(crate) fn vfork_exec() -> io::Result<libc::pid_t> {
    static mut STACK: [u8; 16 * 1024] = [0; 16 * 1024];
    extern "C" fn run(_: *mut libc::c_void) -> libc::c_int {
        let arguments = [c"true".as_ptr(), std::ptr::null()];
        let none = [std::ptr::null()];
        // SAFETY: the strings and lists are constants.
        unsafe { libc::execve(c"/bin/true".as_ptr(), arguments.as_ptr(), none.as_ptr()) };
        1
    }
    let top = (&raw mut STACK).wrapping_add(1).cast();
    let flags = libc::CLONE_VM | libc::SIGCHLD;
    // SAFETY: the stack is a static that one child at a time uses; the child makes one call only.
    let pid = unsafe { libc::clone(run, top, flags, std::ptr::null_mut()) };
    check(pid).map(|()| pid)
}
