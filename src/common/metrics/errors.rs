//! Errors by their errno.

use nix::errno::Errno;

use super::Counter;
use super::text::{Family, Kind, Metric};

/// Errnos that are counted on their own; any other counts as `other`.
const ERRNOS: &[Errno] = &[
    Errno::EACCES,
    Errno::EBADF,
    Errno::EINVAL,
    Errno::EIO,
    Errno::EISDIR,
    Errno::EMFILE,
    Errno::ENOENT,
    Errno::ENOSPC,
    Errno::ENOTDIR,
    Errno::EPERM,
    Errno::EROFS,
    Errno::ESRCH,
    Errno::ESTALE,
    Errno::ETIMEDOUT,
];

/// One counter for each errno that matters, and one for the rest.
#[derive(Debug, Default)]
pub(super) struct PerErrno {
    known: [Counter; ERRNOS.len()],
    other: Counter,
}

impl PerErrno {
    pub(super) fn counter(&self, errno: Errno) -> &Counter {
        match ERRNOS.iter().position(|known| *known == errno) {
            Some(index) => &self.known[index],
            None => &self.other,
        }
    }
}

impl Metric for PerErrno {
    const KIND: Kind = Kind::Counter;

    fn write(&self, family: &mut Family<'_>) {
        for (errno, counter) in ERRNOS.iter().zip(&self.known) {
            family.labelled("errno", format_args!("{errno:?}"), |family| {
                counter.write(family);
            });
        }
        family.labelled("errno", "other", |family| self.other.write(family));
    }
}
