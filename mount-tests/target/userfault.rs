//! Memory under a `userfaultfd` that nobody answers (`include/uapi/linux/userfaultfd.h`).

use std::io;

use crate::regions::check;

/// `struct uffdio_api`.
#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

/// `struct uffdio_register`.
#[repr(C)]
struct Register {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

/// `struct uffdio_writeprotect`.
#[repr(C)]
struct WriteProtect {
    start: u64,
    len: u64,
    mode: u64,
}

/// `struct uffdio_poison`.
#[repr(C)]
struct Poison {
    start: u64,
    len: u64,
    mode: u64,
    updated: i64,
}

/// `_IOWR(0xAA, NUMBER, TYPE)`.
const fn request<T>(number: u32) -> libc::Ioctl {
    (3 << 30 | (size_of::<T>() as u32) << 16 | 0xaa << 8 | number) as libc::Ioctl
}

/// What a `userfaultfd` is asked for, by a word.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mode {
    features: u64,
    register: u64,
}

impl Mode {
    /// `missing`, `minor`, `protect` (`WP_UNPOPULATED`), `async` (`WP_ASYNC`).
    pub(crate) fn parse(word: &str) -> Option<Self> {
        const HUGE_AND_SHMEM: u64 = 1 << 4 | 1 << 5;
        let (features, register) = match word {
            "missing" => (HUGE_AND_SHMEM, 1),
            "minor" => (1 << 10, 4),
            // UFFD_FEATURE_WP_HUGETLBFS_SHMEM, UFFD_FEATURE_WP_UNPOPULATED
            "protect" => (1 << 12 | 1 << 13, 2),
            // and UFFD_FEATURE_WP_ASYNC
            "async" => (1 << 12 | 1 << 13 | 1 << 15, 2),
            // UFFD_FEATURE_POISON
            "poison" => (1 << 12 | 1 << 14, 2),
            _ => return None,
        };
        Some(Self { features, register })
    }
}

/// Memory that is registered. The descriptor stays open for as long as the process lives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Userfault(libc::c_int);

impl Userfault {
    /// Registers the range. Where pages are missing and wait, whoever touches one waits for ever.
    pub(crate) fn register(mode: Mode, start: usize, len: usize) -> io::Result<Self> {
        /// `UFFD_USER_MODE_ONLY`: all that a plain user may have.
        const USER_MODE_ONLY: libc::c_int = 1;

        // SAFETY: no pointer is passed.
        let is_root = unsafe { libc::geteuid() } == 0;
        let flags = libc::O_CLOEXEC | if is_root { 0 } else { USER_MODE_ONLY };
        // SAFETY: no pointer is passed.
        let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, flags) };
        let fd = libc::c_int::try_from(fd).unwrap_or(-1);
        check(fd)?;
        let mut api = Api {
            api: 0xaa,
            features: mode.features,
            ioctls: 0,
        };
        // SAFETY: the argument is the structure that this request takes.
        check(unsafe { libc::ioctl(fd, request::<Api>(0x3f), &raw mut api) })?;
        let mut register = Register {
            start: start as u64,
            len: len as u64,
            mode: mode.register,
            ioctls: 0,
        };
        // SAFETY: as above.
        check(unsafe { libc::ioctl(fd, request::<Register>(0), &raw mut register) })?;
        Ok(Self(fd))
    }

    /// Protects the range against writes: where no page is, a marker takes its place.
    pub(crate) fn protect(self, start: usize, len: usize) -> io::Result<()> {
        let mut protect = WriteProtect {
            start: start as u64,
            len: len as u64,
            mode: 1,
        };
        // SAFETY: the argument is the structure that this request takes.
        check(unsafe { libc::ioctl(self.0, request::<WriteProtect>(6), &raw mut protect) })
    }

    /// Poisons the range: who touches it gets SIGBUS.
    pub(crate) fn poison(self, start: usize, len: usize) -> io::Result<()> {
        let mut poison = Poison {
            start: start as u64,
            len: len as u64,
            mode: 0,
            updated: 0,
        };
        // SAFETY: the argument is the structure that this request takes.
        check(unsafe { libc::ioctl(self.0, request::<Poison>(8), &raw mut poison) })
    }
}
