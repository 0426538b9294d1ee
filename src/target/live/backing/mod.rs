//! The file or shared memory object of a mapping, read itself where the process has not mapped a page of it.
//!
//! Nothing is opened that need not be, and nothing stays open longer than a request: an open can break a
//! lease, ask a server, and keep a file system from being unmounted.

mod content;
mod descriptors;
mod held;
mod hugetlb;
mod leases;
mod own_page;
mod sameness;
mod status;

use std::fs::File;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lru::LruCache;
use nix::errno::Errno;
use parking_lot::Mutex;
use rustix::fs::{CWD, FileType, OFlags};

use super::credentials::Rights;
use super::kernel::{Feature, Kernel};
use super::pagemap::Pagemap;
use super::pinned::Pinned;
use super::shortage::found;
use super::vma::Vma;
use crate::common::address::{Address, AddressRange};
use crate::common::clock::Clock;
use crate::common::error::Unknown;
use crate::target::mapping::Mapping;
use crate::target::page_state::Extent;

use content::Holes;
use descriptors::Descriptors;
use status::{FileId, FileSystemKind, status_of_file};

pub(super) use held::held_file;
pub(super) use hugetlb::can_probe_huge_pages;
pub(super) use leases::Leases;
pub(super) use own_page::OwnPage;
pub(super) use sameness::is_older_than_mappings;
pub(super) use status::{MapFiles, file_type, is_dev_zero, is_stacked_at, path_in_root, status};

/// How long a file is used where one request on the process follows the other.
const LONGEST: Duration = Duration::from_millis(100);

/// Files that are open at a time for the requests on one process.
const KEPT: NonZeroUsize = NonZeroUsize::new(8).expect("not zero");

/// What a mapping that has an inode maps.
#[derive(Clone, Debug)]
pub(super) enum Backing {
    /// A file or a shared memory object.
    File(Arc<OpenFile>),
    /// `/dev/zero`: anonymous memory.
    Zeros,
    /// What cannot be read by anybody else than the process, or not by this user, or not without harm.
    Closed(Unknown),
}

/// An open file whose bytes are those of a mapping.
#[derive(Debug)]
pub(super) struct OpenFile {
    file: File,
    /// Whether the process has the same open file: then its offset is not ours to move.
    is_copy: bool,
    leases: Arc<Leases>,
    rights: Rights,
    id: FileId,
    /// Whether less of it is allocated than it is long.
    is_sparse: bool,
    /// The time of its last change, in seconds and nanoseconds.
    changed: Option<(i64, u32)>,
    kind: FileSystemKind,
    kernel: Arc<Kernel>,
}

/// The files of one process's mappings.
#[derive(Debug)]
pub(super) struct BackingFiles {
    /// Requests that use them. With the last one they are closed.
    users: AtomicUsize,
    /// Guards which files are open, and since when. Nothing is locked inside it, and no file is opened or
    /// closed: either can wait for a file system.
    open: Mutex<LruCache<Key, (Backing, Duration)>>,
    descriptors: Descriptors,
    leases: Arc<Leases>,
    rights: Rights,
    clock: Arc<dyn Clock>,
    kernel: Arc<Kernel>,
}

type Key = (u64, u64, u32, u32, u64);

/// A request under way; files stay open until it is dropped.
#[derive(Debug)]
pub(super) struct InUse<'a>(&'a BackingFiles);

impl Drop for InUse<'_> {
    fn drop(&mut self) {
        if self.0.users.fetch_sub(1, Ordering::AcqRel) == 1 {
            let files = std::mem::replace(&mut *self.0.open.lock(), LruCache::new(KEPT));
            // Outside the lock: that can take long on a file system that hangs.
            drop(files);
        }
    }
}

/// Where to find the file of a mapping.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) pinned: &'a Pinned,
    pub(super) pagemap: &'a Pagemap,
    /// The mapping as the kernel shows it now.
    pub(super) vma: &'a Vma,
    /// The mapping as it was listed: it names the file, for plain users.
    pub(super) mapping: &'a Mapping,
}

impl BackingFiles {
    /// Files that are opened with these rights.
    pub(super) fn new(
        clock: Arc<dyn Clock>,
        leases: Arc<Leases>,
        kernel: Arc<Kernel>,
        rights: Rights,
    ) -> Self {
        Self {
            users: AtomicUsize::new(0),
            open: Mutex::new(LruCache::new(KEPT)),
            descriptors: Descriptors::new(Arc::clone(&clock), Arc::clone(&kernel)),
            leases,
            rights,
            clock,
            kernel,
        }
    }

    /// Says that a request begins.
    pub(super) fn begin(&self) -> InUse<'_> {
        self.users.fetch_add(1, Ordering::AcqRel);
        InUse(self)
    }

    /// What `place.vma`, which was asked for just now, maps.
    ///
    /// # Errors
    /// As [`found`]: it may be known a moment later.
    pub(super) fn backing(&self, place: Place<'_>) -> Result<Backing, Errno> {
        let vma = place.vma;
        let key = (
            vma.range.start().get(),
            vma.offset,
            vma.device.major,
            vma.device.minor,
            vma.inode,
        );
        // An open file holds its inode, so the same numbers are the same file.
        let now = self.clock.now();
        if let Some((known, opened)) = self.open.lock().get(&key)
            && now.saturating_sub(*opened) < LONGEST
        {
            return Ok(known.clone());
        }
        let backing = self.find(place)?;
        let is_open = !matches!(backing, Backing::Closed(_));
        let evicted = is_open.then(|| self.open.lock().push(key, (backing.clone(), now)));
        // Outside the lock: this may close a file.
        drop(evicted);
        Ok(backing)
    }

    fn find(&self, place: Place<'_>) -> Result<Backing, Errno> {
        let asked = place.pinned.task();
        let has_another = || {
            let lives = place.pinned.check_program().is_ok();
            lives && !Arc::ptr_eq(&asked, &place.pinned.task())
        };
        match self.find_by_thread(place) {
            // The thread that was asked has ended meanwhile, and the process has another one.
            Ok(Backing::Closed(_)) | Err(Errno::ESRCH) if has_another() => {
                self.find_by_thread(place)
            }
            found => found,
        }
    }

    /// The same, as the thread tells it that is asked now.
    fn find_by_thread(&self, place: Place<'_>) -> Result<Backing, Errno> {
        let Place {
            pinned,
            vma,
            mapping,
            ..
        } = place;
        let links = MapFiles::of(pinned)?;
        let link = links.status(vma.range)?;
        // As it is now: the mapping was listed a moment ago.
        let name = links.name(vma.range)?;
        let name = name.unwrap_or_else(|| mapping.link_text());
        // Who is not privileged must go by the numbers in `maps`, which are those of `stat` on most file systems.
        let wanted = link.as_ref().map_or(
            FileId {
                device: vma.device,
                inode: vma.inode,
            },
            FileId::of,
        );
        match link.as_ref().map(|status| (file_type(status), status)) {
            None | Some((FileType::RegularFile, _)) => (),
            Some((FileType::CharacterDevice, status)) if is_dev_zero(status) => {
                return Ok(Backing::Zeros);
            }
            Some(_) => return Ok(Backing::Closed(Unknown::NoFile)),
        }
        if let Some(copy) = self.descriptors.copy(pinned, wanted, &name)?
            && let Some(found) = self.checked(copy, wanted, true, place)?
        {
            return Ok(found);
        }
        // The link leads past all directories: that is a right of this program alone.
        let by_link = match link.is_some() && self.rights.are_own() {
            true => links.place(vma.range)?,
            false => None,
        };
        let is_named = !mapping.is_deleted() && mapping.inode() == vma.inode;
        let file = match by_link {
            None if is_named => {
                let path = path_in_root(pinned.task().number(), mapping.path());
                found(self.rights.open(CWD, &path, OFlags::PATH))?
            }
            by_link => by_link,
        };
        let backing = match file {
            Some(file) => self.open_if_same(&file, wanted, place)?,
            None => None,
        };
        Ok(backing.unwrap_or(Backing::Closed(Unknown::Closed)))
    }

    /// Opens what a place leads to, once it is known what that is: opening a device can have effects.
    fn open_if_same(
        &self,
        found: &File,
        wanted: FileId,
        place: Place<'_>,
    ) -> Result<Option<Backing>, Errno> {
        let status = status_of_file(found)?;
        let Some(status) = status.filter(|status| FileId::of(status) == wanted) else {
            return Ok(None);
        };
        match file_type(&status) {
            FileType::RegularFile => (),
            FileType::CharacterDevice if is_dev_zero(&status) => return Ok(Some(Backing::Zeros)),
            _ => return Ok(Some(Backing::Closed(Unknown::NoFile))),
        }
        let Place { vma, .. } = place;
        if self.leases.would_break(vma.device, vma.inode) {
            return Ok(Some(Backing::Closed(Unknown::Leased)));
        }
        match reopen(found, &self.rights)? {
            Some(file) => self.checked(file, wanted, false, place),
            None => Ok(None),
        }
    }

    /// What an opened file is, if it is the one that is mapped.
    fn checked(
        &self,
        file: File,
        id: FileId,
        is_copy: bool,
        place: Place<'_>,
    ) -> Result<Option<Backing>, Errno> {
        // Not there where the file system of a user lets root see nothing of its files.
        let status = status_of_file(&file)?;
        if status
            .as_ref()
            .is_some_and(|status| file_type(status) != FileType::RegularFile)
        {
            return Ok(None);
        }
        let kind = FileSystemKind::of(&file);
        let frames = || sameness::shares_a_frame(place.vma, &file, place.pagemap, &self.kernel);
        let is_same = match kind {
            FileSystemKind::Plain | FileSystemKind::Huge => true,
            FileSystemKind::Stacked => {
                let is_older = |status| is_older_than_mappings(status, place.pinned);
                // The frames first: the other goes by a clock that somebody may have set.
                frames().unwrap_or_else(|| status.as_ref().is_some_and(is_older))
            }
            FileSystemKind::Served => frames() != Some(false),
        };
        if !is_same {
            return Ok(Some(Backing::Closed(Unknown::OtherFile)));
        }
        Ok(Some(Backing::File(Arc::new(OpenFile {
            file,
            is_copy,
            leases: Arc::clone(&self.leases),
            rights: self.rights.clone(),
            id,
            is_sparse: status
                .as_ref()
                .is_some_and(|status| status.stx_blocks * 512 < status.stx_size),
            changed: status.as_ref().map(sameness::last_change),
            kind,
            kernel: Arc::clone(&self.kernel),
        }))))
    }
}

impl OpenFile {
    /// Reads from `offset` on; returns the bytes up to the end of the page in which the file ends.
    ///
    /// # Errors
    /// The kernel's refusal; `ESTALE` where it is another file than the mapped one by now.
    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
        let read = content::read(&self.file, offset, buffer).map_err(|errno| match errno {
            // The process has made it O_DIRECT meanwhile.
            Errno::EINVAL => Errno::EIO,
            errno => errno,
        })?;
        if read.before_end < read.done {
            let own = match self.is_copy {
                true => self.own_description()?,
                false => None,
            };
            let file = own.as_ref().or((!self.is_copy).then_some(&self.file));
            let at = offset + read.before_end as u64;
            if let Some(file) = file.filter(|_| self.kind == FileSystemKind::Plain) {
                content::read_past_end(file, at, &mut buffer[read.before_end..read.done]);
            }
        }
        // A file that was copied up since it was opened gives the bytes of the copy.
        if self.kind == FileSystemKind::Stacked {
            let now = status_of_file(&self.file)?;
            if now.map(|status| sameness::last_change(&status)) != self.changed {
                return Err(Errno::ESTALE);
            }
        }
        Ok(read.done)
    }

    /// Data, holes and the end of the file, as extents of the range that maps it from `offset` on, until there
    /// are `at_most`; returns how far it got.
    pub(super) fn extents(
        &self,
        offset: u64,
        range: AddressRange,
        at_most: usize,
        extents: &mut Vec<Extent>,
    ) -> Address {
        if self.kind == FileSystemKind::Huge {
            let holes = match self.kernel.has(Feature::MinorFaults) {
                true => Holes::Probe,
                false => Holes::Blocks,
            };
            return content::extents(&self.file, holes, offset, range, at_most, extents);
        }
        // What nobody knows is data, and not lost in a sparse copy: also where there is no descriptor for the question.
        let own = (self.is_sparse && self.is_copy)
            .then(|| self.own_description().ok().flatten())
            .flatten();
        let (file, holes) = match &own {
            Some(own) => (own, Holes::Seek),
            None if self.is_sparse && !self.is_copy => (&self.file, Holes::Seek),
            None => (&self.file, Holes::None),
        };
        content::extents(file, holes, offset, range, at_most, extents)
    }

    /// The same file opened once more, if that harms nobody: its offset is ours then.
    fn own_description(&self) -> Result<Option<File>, Errno> {
        let FileId { device, inode } = self.id;
        let is_local = self.kind == FileSystemKind::Plain;
        match is_local && !self.leases.would_break(device, inode) {
            true => reopen(&self.file, &self.rights),
            false => Ok(None),
        }
    }
}

/// A place in the file system, without opening what is there.
fn place(directory: impl AsFd, path: &Path) -> Result<Option<File>, Errno> {
    found(Rights::Own.open(directory, path, OFlags::PATH))
}

/// Opens for reading what is held already, without a trace in its access time where these rights allow that.
fn reopen(place: &File, rights: &Rights) -> Result<Option<File>, Errno> {
    let path = format!("/proc/self/fd/{}", place.as_raw_fd());
    let open = |flags: OFlags| rights.open(CWD, Path::new(&path), flags);
    found(open(OFlags::NONBLOCK | OFlags::NOATIME).or_else(|_| open(OFlags::NONBLOCK)))
}
