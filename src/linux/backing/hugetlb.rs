//! Huge pages of hugetlbfs, whose files know no holes (`fs/hugetlbfs/inode.c` has no `llseek` of its own).

use std::fs::File;
use std::os::unix::fs::MetadataExt;

use crate::linux::pagemap::Pagemap;
use crate::linux::vma::Vma;

/// Whether the mapping has all pages of the file that there are: then the others are zeros.
///
/// `st_blocks` counts the pages that are allocated. It is asked for last: a page that somebody else
/// brings in meanwhile makes it larger than what was counted here.
pub(super) fn is_all_mapped(file: &File, vma: &Vma, pagemap: &Pagemap) -> bool {
    let allocated = || file.metadata().map(|status| status.blocks() * 512);
    if matches!(allocated(), Ok(0)) {
        return true;
    }
    let Ok(mapped) = pagemap.bytes_of_file(vma.range) else {
        return false;
    };
    matches!(allocated(), Ok(bytes) if bytes == mapped)
}
