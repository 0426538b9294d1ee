//! A mount that serves within this very process, without what the kernel has: no option says so.

use std::path::{Path, PathBuf};

use procmemfs::mount::{Mount as Unstarted, MountConfig, Serving};
use procmemfs::target::live::Feature;

use super::{Mount, MountPoint};

/// A mount of this process. Unmounted when dropped.
pub(crate) struct Inside {
    serving: Option<Serving>,
    point: MountPoint,
}

impl Inside {
    /// Mounts with `-o options`, as on a kernel without some features.
    #[track_caller]
    pub(crate) fn without(features: &[Feature], options: &str) -> Self {
        let point = MountPoint::new();
        let mut config = MountConfig::parse([options]).unwrap();
        config.without = features.to_vec();
        let mount = Unstarted::new(&config, point.path()).unwrap();
        let serving = Some(mount.start().unwrap());
        Self { serving, point }
    }

    /// The mount point.
    pub(crate) fn point(&self) -> &Path {
        self.point.path()
    }

    /// The same file as `path` of another mount.
    pub(crate) fn same(&self, mount: &Mount, path: &Path) -> PathBuf {
        let relative = path.strip_prefix(mount.point()).unwrap();
        self.point().join(relative)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let unmounted = self.serving.take().map(Serving::unmount);
        if let Some(Err(error)) = unmounted {
            eprintln!("unmounting {:?}: {error}", self.point());
        }
    }
}
