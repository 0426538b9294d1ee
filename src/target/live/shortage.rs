//! Refusals that say nothing of what was asked for: this program has no descriptor or no memory left, or the process that was
//! asked is on its way out. Whoever took them for "it is not there" would call bytes unknown that can be read a moment later, and
//! a sparse copy would have a hole in their place.

use nix::errno::Errno;

use super::errno::HasErrno;

/// What was found, or `None` where the kernel says that it is not there or not for this user.
///
/// # Errors
/// `EMFILE`, `ENFILE`, `ENOMEM`, `EAGAIN`, `ESRCH`.
pub(super) fn found<T, E: HasErrno>(result: Result<T, E>) -> Result<Option<T>, Errno> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) => match error.errno() {
            Some(
                errno @ (Errno::EMFILE
                | Errno::ENFILE
                | Errno::ENOMEM
                | Errno::EAGAIN
                | Errno::ESRCH),
            ) => Err(errno),
            _ => Ok(None),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_shortage_is_not_taken_for_an_absence() {
        assert_eq!(found::<_, Errno>(Ok(1)), Ok(Some(1)));
        for errno in [Errno::ENOENT, Errno::EACCES, Errno::EPERM, Errno::EIO] {
            assert_eq!(found::<(), _>(Err(errno)), Ok(None), "{errno}");
        }
        for errno in [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::ESRCH] {
            assert_eq!(found::<(), _>(Err(errno)), Err(errno));
            let error = io::Error::from_raw_os_error(errno as i32);
            assert_eq!(found::<(), _>(Err(error)), Err(errno));
            let error = rustix::io::Errno::from_raw_os_error(errno as i32);
            assert_eq!(found::<(), _>(Err(error)), Err(errno));
        }
    }
}
