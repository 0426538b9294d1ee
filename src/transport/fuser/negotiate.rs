//! What the kernel and this mount agree on when they meet.

use fuser::{InitFlags, KernelConfig};

use crate::transport::{MAX_READ, MAX_REQUEST};

/// Requests of readahead that may wait at a time.
const MAX_BACKGROUND: u16 = 64;

/// Agrees with the kernel on what it may do and how much it may ask for at a time.
pub fn negotiate(config: &mut KernelConfig) {
    negotiate_up_to(config, MAX_REQUEST);
}

fn negotiate_up_to(config: &mut KernelConfig, max_request: u32) {
    for wish in [
        // The kernel drops its pages when the mtime it is told moves.
        InitFlags::FUSE_AUTO_INVAL_DATA,
        InitFlags::FUSE_PARALLEL_DIROPS,
        InitFlags::FUSE_DO_READDIRPLUS,
        InitFlags::FUSE_READDIRPLUS_AUTO,
        InitFlags::FUSE_ASYNC_DIO,
        // Snapshots lie in files that the kernel can read itself.
        InitFlags::FUSE_PASSTHROUGH,
    ] {
        if config.add_capabilities(wish).is_err() {
            log::debug!("the kernel does without {wish:?}");
        }
    }
    // Each of these says the nearest value that it takes instead.
    if let Err(nearest) = config.set_max_write(max_request) {
        log::debug!("requests hold at most {nearest} bytes");
    }
    if let Err(nearest) = config.set_max_readahead(max_request) {
        log::debug!("readahead is at most {nearest} bytes");
    }
    // Those files are on no other file system.
    if let Err(nearest) = config.set_max_stack_depth(1) {
        log::debug!("no passthrough: the kernel takes {nearest} file systems on each other");
    }
    if let Err(nearest) = config.set_max_background(MAX_BACKGROUND) {
        log::debug!("at most {nearest} requests may wait");
    }
}

/// What not every mount has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Features {
    /// Requests come over io_uring.
    pub(crate) rings: bool,
    /// Files that are opened past the kernel's page cache can be mapped (`MAP_SHARED`).
    pub(crate) direct_maps: bool,
}

impl Features {
    /// Agrees with the kernel on these and all else; returns those that it grants.
    pub(super) fn negotiate(self, config: &mut KernelConfig) -> Self {
        let mut ask = |is_wished, flag| is_wished && config.add_capabilities(flag).is_ok();
        let granted = Self {
            rings: ask(self.rings, InitFlags::FUSE_OVER_IO_URING),
            direct_maps: ask(self.direct_maps, InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP),
        };
        // Each entry of a ring has place for the largest request.
        let max_request = if granted.rings { MAX_READ } else { MAX_REQUEST };
        negotiate_up_to(config, max_request);
        granted
    }
}
