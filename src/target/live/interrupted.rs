//! System calls that a signal interrupts (signal(7)): they are made again, since whoever asked has got none.

use nix::errno::Errno;

use super::errno::HasErrno;

/// Makes a call, again and again for as long as it is interrupted.
///
/// # Errors
/// Any other of the call's.
pub(super) fn retry<T, E: HasErrno>(mut call: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    loop {
        match call() {
            Err(error) if error.errno() == Some(Errno::EINTR) => (),
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use procfs::ProcError;

    use super::*;

    /// A call that is interrupted twice.
    fn twice<E>(interrupt: impl Fn() -> E) -> impl FnMut() -> Result<u8, E> {
        let mut made = 0;
        move || {
            made += 1;
            if made > 2 { Ok(made) } else { Err(interrupt()) }
        }
    }

    #[test]
    fn a_call_is_made_until_nothing_interrupts_it() {
        let io = || io::Error::from_raw_os_error(Errno::EINTR as i32);
        assert_eq!(retry(twice(|| Errno::EINTR)), Ok(3));
        assert_eq!(retry(twice(|| rustix::io::Errno::INTR)), Ok(3));
        assert_eq!(retry(twice(io)).unwrap(), 3);
        assert_eq!(retry(twice(|| ProcError::Io(io(), None))).unwrap(), 3);
    }

    #[test]
    fn another_error_ends_it() {
        let mut made = 0;
        let refused = retry(|| {
            made += 1;
            Err::<(), _>(Errno::ENOMEM)
        });
        assert_eq!((refused, made), (Err(Errno::ENOMEM), 1));
    }
}
