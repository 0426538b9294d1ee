//! Files whose presence is a feature.

use std::fs::File;
use std::sync::OnceLock;

/// Files whose presence is a feature.
#[derive(Debug, Default)]
pub(in crate::target::live) struct Files {
    /// The slabs that hold every `userfaultfd` of the system.
    pub(super) userfault_slabs: Option<File>,
    /// A word for each page frame (`Documentation/admin-guide/mm/pagemap.rst`); opened when the first frame is asked
    /// for, which few systems ever come to.
    pub(super) page_flags: OnceLock<Option<File>>,
}

impl Files {
    pub(in crate::target::live) fn open() -> Self {
        Self {
            // From `fs/userfaultfd.c`. This cache has a constructor, so it is never merged with another one.
            userfault_slabs: File::open("/sys/kernel/slab/userfaultfd_ctx_cache/slabs").ok(),
            page_flags: OnceLock::new(),
        }
    }

    pub(in crate::target::live) fn has_userfault_slabs(&self) -> bool {
        self.userfault_slabs.is_some()
    }

    pub(in crate::target::live) fn has_page_flags() -> bool {
        open_page_flags().is_some()
    }

    pub(in crate::target::live) fn page_flags(&self) -> Option<&File> {
        self.page_flags.get_or_init(open_page_flags).as_ref()
    }
}

fn open_page_flags() -> Option<File> {
    File::open("/proc/kpageflags").ok()
}
