//! What newer kernels can do, and what a user may be refused.

/// Something that a kernel may lack or refuse, and that is done without then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Feature {
    /// Memory is copied by the number of its process; else through `/proc/PID/mem` (`process_vm_readv(2)`).
    ProcessVm,
    /// One call says which pages are in memory; else each page's entry is read.
    PagemapScan,
    /// That call tells guard pages (`MADV_GUARD_INSTALL`) from others; else their entries do.
    ScannedGuards,
    /// The kernel says which mapping is at an address; else the text of `maps` is read.
    ProcmapQuery,
    /// `pagemap` shows page frames: whether a file is the one that is mapped can be told by them (`CAP_SYS_ADMIN`).
    PageFrames,
    /// Which page frames are broken (root).
    PageFlags,
    /// Whether any process has a `userfaultfd` (root); else each process is taken for one that has.
    UserfaultSlabs,
    /// The pages of a file of hugetlbfs can be found without allocating any; else only whether it has some.
    MinorFaults,
    /// Open files of a process can be copied; else they are opened by name.
    PidfdGetfd,
    /// Processes of one number and start time are told apart.
    PidfdInodes,
    /// A killed daemon's mount can be ended by another process, which knows it by a number that no other gets.
    UniqueMounts,
    /// `/proc/PID/mem` passes over the protection of a mapping (`FOLL_FORCE`); not where the kernel was started with
    /// `proc_mem.force_override=never` or `ptrace` (`proc_mem_foll_force` in `fs/proc/base.c`).
    ForcedAccess,
}

impl Feature {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::ProcessVm,
        Self::PagemapScan,
        Self::ScannedGuards,
        Self::ProcmapQuery,
        Self::PageFrames,
        Self::PageFlags,
        Self::UserfaultSlabs,
        Self::MinorFaults,
        Self::PidfdGetfd,
        Self::PidfdInodes,
        Self::UniqueMounts,
        Self::ForcedAccess,
    ];

    /// Its name: the kernel's own where it has one.
    pub fn name(self) -> &'static str {
        match self {
            Self::ProcessVm => "process_vm_readv",
            Self::PagemapScan => "PAGEMAP_SCAN",
            Self::ScannedGuards => "PAGE_IS_GUARD",
            Self::ProcmapQuery => "PROCMAP_QUERY",
            Self::PageFrames => "page frames in /proc/PID/pagemap",
            Self::PageFlags => "/proc/kpageflags",
            Self::UserfaultSlabs => "/sys/kernel/slab/userfaultfd_ctx_cache",
            Self::MinorFaults => "UFFD_FEATURE_MINOR_HUGETLBFS",
            Self::PidfdGetfd => "pidfd_getfd",
            Self::PidfdInodes => "inodes of pidfds",
            Self::UniqueMounts => "STATX_MNT_ID_UNIQUE",
            Self::ForcedAccess => "FOLL_FORCE in /proc/PID/mem",
        }
    }

    /// The first Linux that has it, major and minor number.
    pub fn since(self) -> (u32, u32) {
        match self {
            Self::ProcessVm => (3, 2),
            Self::PagemapScan => (6, 7),
            Self::ScannedGuards => (6, 15),
            Self::ProcmapQuery => (6, 11),
            Self::PageFrames | Self::PageFlags | Self::ForcedAccess => (2, 6),
            Self::UserfaultSlabs => (4, 3),
            Self::MinorFaults => (5, 13),
            Self::PidfdGetfd => (5, 6),
            Self::PidfdInodes => (6, 9),
            Self::UniqueMounts => (6, 8),
        }
    }

    /// What is so where it is not there.
    pub fn without(self) -> &'static str {
        match self {
            Self::ProcessVm => {
                "memory is read through /proc/PID/mem, with a call for each piece, which is slower"
            }
            Self::PagemapScan => {
                "the entry of each page is read, which is slow in large and sparse memory"
            }
            Self::ScannedGuards => "guard pages are found by the entry of each page",
            Self::ProcmapQuery => {
                "the text of /proc/PID/maps is read for each look-up, which is slow where there are many mappings"
            }
            Self::PageFrames => {
                "a file of a stacked file system (overlayfs) cannot be told from the one that is mapped: pages of it \
                 that a process has not touched are errors (EIO)"
            }
            Self::PageFlags => {
                "pages of broken memory (hwpoison) are found only when they are read"
            }
            Self::UserfaultSlabs => {
                "each process is asked whether a userfaultfd fills its memory in (its smaps are read)"
            }
            Self::MinorFaults => {
                "huge pages of files that a process has not touched are errors (EIO) where the file has some"
            }
            Self::PidfdGetfd => {
                "files of mappings are opened by name, and deleted ones that a process has not touched may be errors (EIO)"
            }
            Self::PidfdInodes => {
                "two processes of one number are told apart by their start time and layout alone"
            }
            Self::UniqueMounts => {
                "the mount of a daemon that was killed stays until somebody unmounts it"
            }
            Self::ForcedAccess => {
                "memory without the protection r cannot be read, and -o force writes nothing"
            }
        }
    }

    /// Whether the kernel lets root alone have it.
    pub fn is_of_root(self) -> bool {
        matches!(
            self,
            Self::PageFrames | Self::PageFlags | Self::UserfaultSlabs
        )
    }

    pub(super) fn bit(self) -> u32 {
        1 << self as u32
    }
}
