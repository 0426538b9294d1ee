//! What this kernel has and says as a whole, so that single processes need not be asked.

mod feature;
mod files;
mod namespace;

use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use procfs::PhysicalPageFlags;
use rustix::time::{ClockId, clock_gettime};

use crate::common::error::Result;

use namespace::ProcMount;

pub use feature::Feature;
pub(super) use files::Files;
pub use namespace::ProcFault;
pub(super) use namespace::check_pidfd;

/// Finds out whether a feature is there.
type Probe = fn(Feature, &Files) -> bool;

/// What this kernel has, found out once for all processes.
#[derive(Debug)]
pub struct Kernel {
    /// The bits of the features that are there. They are only ever cleared, so their order says nothing.
    features: AtomicU32,
    files: Files,
    proc_mount: ProcMount,
    is_there: Probe,
}

impl Kernel {
    /// What `is_there` says of each feature, but for those that are to be done `without`.
    ///
    /// # Errors
    /// Where `/proc` does not show the processes that the system calls speak of.
    pub(super) fn new(
        without: &[Feature],
        is_there: Probe,
    ) -> std::result::Result<Self, ProcFault> {
        let proc_mount = ProcMount::check()?;
        let files = Files::open();
        let mut features = 0;
        for feature in Feature::ALL {
            if without.contains(&feature) {
                continue;
            }
            if is_there(feature, &files) {
                features |= feature.bit();
            } else {
                log_absent(feature);
            }
        }
        Ok(Self {
            features: AtomicU32::new(features),
            files,
            proc_mount,
            is_there,
        })
    }

    /// Whether the feature is there.
    pub fn has(&self, feature: Feature) -> bool {
        self.features.load(Ordering::Relaxed) & feature.bit() != 0
    }

    /// All features, and whether each is there.
    pub fn features(&self) -> impl Iterator<Item = (Feature, bool)> + '_ {
        Feature::ALL
            .into_iter()
            .map(|feature| (feature, self.has(feature)))
    }

    /// Probes a feature again that was refused for one process: a seccomp filter refuses it for all.
    pub(super) fn still_has(&self, feature: Feature) -> bool {
        let is_there = self.has(feature) && (self.is_there)(feature, &self.files);
        if !is_there {
            self.lose(feature);
        }
        is_there
    }

    fn lose(&self, feature: Feature) {
        let before = self.features.fetch_and(!feature.bit(), Ordering::Relaxed);
        if before & feature.bit() != 0 {
            log::info!("{} is refused from now on", feature.name());
        }
    }

    /// Whether some process may have a `userfaultfd`: yes, where that is not known.
    pub(super) fn may_have_userfaultfd(&self) -> bool {
        let slabs = self.files.userfault_slabs.as_ref();
        let Some(file) = slabs.filter(|_| self.has(Feature::UserfaultSlabs)) else {
            return true;
        };
        let mut text = [0; 2];
        // "0", or a number and where these slabs are: "1 N0=1".
        match file.read_at(&mut text, 0) {
            Ok(2) => text != *b"0\n",
            _ => true,
        }
    }

    /// Whether the memory of a page frame is broken; `false` where this user may not know.
    pub(super) fn is_poisoned(&self, frame: u64) -> bool {
        if !self.has(Feature::PageFlags) {
            return false;
        }
        let Some(file) = self.files.page_flags() else {
            return false;
        };
        let mut flags = [0; 8];
        let read = file.read_exact_at(&mut flags, frame * 8);
        read.is_ok() && u64::from_ne_bytes(flags) & PhysicalPageFlags::HWPOISON.bits() != 0
    }

    /// Fails where another `/proc` than before lies there now, and it is not this namespace's own.
    ///
    /// # Errors
    /// `WrongProc`.
    pub(super) fn confirm_proc(&self) -> Result<()> {
        self.proc_mount.confirm()
    }
}

fn log_absent(feature: Feature) {
    let level = match feature {
        Feature::PagemapScan | Feature::ProcessVm | Feature::ForcedAccess => log::Level::Info,
        _ => log::Level::Debug,
    };
    log::log!(level, "{}", absence(feature));
}

/// Why a feature is not there, and what would help.
fn absence(feature: Feature) -> String {
    let name = feature.name();
    let (major, minor) = feature.since();
    match feature {
        Feature::ForcedAccess => {
            "memory without the protection r cannot be read: the kernel was started with proc_mem.force_override".to_owned()
        }
        // Every kernel that can run this has it, unless it was built without CONFIG_CROSS_MEMORY_ATTACH.
        Feature::ProcessVm => format!(
            "{name} is refused, as by the seccomp filter of a container without --cap-add SYS_PTRACE: {}",
            feature.without()
        ),
        _ => format!("there is no {name}, which Linux {major}.{minor} has first"),
    }
}

/// When the system started, by the clocks of today, in time since the epoch; `None` where they contradict each other.
pub(super) fn boot_time() -> Option<Duration> {
    let time = |clock| {
        let time = clock_gettime(clock);
        let seconds = u64::try_from(time.tv_sec).ok()?;
        Some(Duration::new(seconds, u32::try_from(time.tv_nsec).ok()?))
    };
    time(ClockId::Realtime)?.checked_sub(time(ClockId::Boottime)?)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::sync::{Arc, OnceLock};

    use super::*;

    #[test]
    fn what_is_to_be_done_without_is_not_there() {
        let kernel = Kernel::probe(&[]).unwrap();
        for feature in Feature::ALL {
            let other = Kernel::probe(&[feature]).unwrap();
            assert!(!other.has(feature), "{}", feature.name());
            let same = |(of, has)| of == feature || has == kernel.has(of);
            assert!(other.features().all(same), "{}", feature.name());
        }
    }

    #[test]
    fn each_feature_has_a_name_and_a_bit_of_its_own() {
        for (number, feature) in Feature::ALL.into_iter().enumerate() {
            assert_eq!(feature.bit(), 1 << number);
            let is_other = |other: &Feature| other.name() != feature.name();
            assert!(Feature::ALL[number + 1..].iter().all(is_other));
            assert!(feature.since() > (2, 5));
        }
    }

    /// Docker's filter refuses it, whatever the kernel is.
    #[test]
    fn an_old_call_that_is_not_there_is_refused_and_the_capability_is_named() {
        let told = absence(Feature::ProcessVm);
        assert!(told.starts_with("process_vm_readv is refused"), "{told}");
        assert!(
            told.contains("--cap-add SYS_PTRACE") && !told.contains("3.2"),
            "{told}"
        );
        let told = absence(Feature::PagemapScan);
        assert_eq!(told, "there is no PAGEMAP_SCAN, which Linux 6.7 has first");
    }

    #[test]
    fn what_is_refused_for_all_is_lost_once() {
        let kernel = Arc::new(Kernel::probe(&[Feature::PageFrames]).unwrap());
        let other = Arc::clone(&kernel);
        assert!(kernel.has(Feature::ProcessVm));
        assert!(kernel.still_has(Feature::ProcessVm), "one process alone");
        other.lose(Feature::ProcessVm);
        assert!(!kernel.has(Feature::ProcessVm));
        assert!(!kernel.still_has(Feature::ProcessVm), "nor does it return");
        assert!(!kernel.still_has(Feature::PageFrames), "as it was wanted");
    }

    fn kernel_with(files: Files) -> Kernel {
        Kernel {
            features: AtomicU32::new(u32::MAX),
            files,
            proc_mount: ProcMount::check().unwrap(),
            is_there: |_, _| true,
        }
    }

    fn file(bytes: &[u8]) -> Option<File> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Some(file)
    }

    #[test]
    fn only_empty_slabs_say_that_nobody_has_a_userfaultfd() {
        for (text, may) in [
            ("0\n", false),
            ("1 N0=1\n", true),
            ("0 N0=1\n", true),
            ("", true),
        ] {
            let userfault_slabs = file(text.as_bytes());
            let files = Files {
                userfault_slabs,
                ..Files::default()
            };
            let kernel = kernel_with(files);
            assert_eq!(kernel.may_have_userfaultfd(), may, "{text:?}");
            kernel.lose(Feature::UserfaultSlabs);
            assert!(kernel.may_have_userfaultfd());
        }
        assert!(kernel_with(Files::default()).may_have_userfaultfd());
    }

    #[test]
    fn frames_are_broken_where_their_flags_say_so() {
        let words = [0, PhysicalPageFlags::HWPOISON.bits() | 1, 1].map(u64::to_ne_bytes);
        let page_flags = OnceLock::from(file(&words.concat()));
        let kernel = kernel_with(Files {
            page_flags,
            ..Files::default()
        });
        assert_eq!(
            [0, 1, 2, 3].map(|frame| kernel.is_poisoned(frame)),
            [false, true, false, false]
        );
        kernel.lose(Feature::PageFlags);
        assert!(!kernel.is_poisoned(1));
    }

    #[test]
    fn the_system_started_before_now() {
        let now = std::time::SystemTime::now();
        let now = now.duration_since(std::time::UNIX_EPOCH).unwrap();
        assert!(boot_time().unwrap() < now);
    }
}
