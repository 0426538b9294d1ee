//! What `stat` shows.

use std::time::{Duration, SystemTime};

use super::{Caller, Context, CountedUsage, File, LISTING_VALID, Node};
use crate::target::ProcessInfo;

/// How long the kernel may keep a name at most, whatever the freshness bound: programs end and others start under the
/// same number.
const NAME_VALID: Duration = Duration::from_secs(1);

/// The kind of a file, as its mode shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Link,
}

/// What `stat` shows of a file, and how long that may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) kind: Kind,
    /// Permission bits.
    pub(crate) mode: u16,
    /// Length in bytes.
    pub(crate) size: u64,
    /// Memory in use, in units of 512 bytes.
    pub(crate) blocks: u64,
    /// When the content may have changed.
    pub(crate) modified: SystemTime,
    /// When the object came to be.
    pub(crate) changed: SystemTime,
    /// Names it has.
    pub(crate) links: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// How long all this may be kept.
    pub(crate) valid: Duration,
}

/// A change of attributes that somebody asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// Whether the mode, the owner or a time is to change.
    pub(crate) metadata: bool,
    /// The size to truncate to.
    pub(crate) size: Option<u64>,
}

impl Change {
    /// What is asked for by these attributes: a mode or an owner, times, and a size.
    pub(crate) fn new(has_owner_or_mode: bool, has_times: bool, size: Option<u64>) -> Self {
        Self {
            // A truncation brings times along, which are not what was asked for.
            metadata: has_owner_or_mode || (size.is_none() && has_times),
            size,
        }
    }
}

/// The size of a block as `st_blocks` counts them (stat(2)).
pub(super) const BLOCK: u64 = 512;

impl Attributes {
    /// Those of a link, whose size is that of its target; 0 where that depends on who asks, as in `/proc`.
    fn of_link(self, link: &dyn File, context: &Context) -> Self {
        let target = link.target(context, &Caller::default());
        Self {
            size: target.map_or(0, |target| target.len() as u64),
            ..self
        }
    }

    /// Those of a file that belongs to a process. Where the kernel checks owners and modes, what shows memory belongs
    /// to whom `/proc/PID/mem` belongs.
    fn owned_by(self, info: &ProcessInfo, is_checked: bool) -> Self {
        let started = SystemTime::UNIX_EPOCH + Duration::from_secs(info.started);
        let (uid, gid) = match self.kind {
            Kind::File if is_checked => info.memory_owner,
            Kind::File | Kind::Directory | Kind::Link => (info.uid, info.gid),
        };
        Self {
            uid,
            gid,
            modified: started,
            changed: started,
            ..self
        }
    }
}

impl Context {
    /// The attributes of a node; `counted` is the memory usage that is known already.
    pub(crate) fn attributes(&self, node: &Node, counted: &CountedUsage) -> Attributes {
        let plain = self.plain(node.kind());
        let plain = match node.process() {
            Some(info) => plain.owned_by(info, self.options.allow_other),
            None => plain,
        };
        let plain = match plain.kind {
            Kind::Link => plain.of_link(&**node, self),
            Kind::Directory | Kind::File => plain,
        };
        let shown = node.attributes(self, plain, counted);
        if shown.kind != Kind::Directory || node.snapshot().is_some() {
            return shown;
        }
        Attributes {
            // What is in it can change at any moment, and nobody tells us: who lists it again
            // because of its time must never miss a name.
            modified: self.clock().wall(),
            valid: shown.valid.min(LISTING_VALID),
            ..shown
        }
    }

    /// How long the kernel may keep the name of what has these attributes.
    ///
    /// Not at all where others may enter: whoever asks for the name next is judged by themselves, and who was not told of
    /// the name is not told of the rest.
    pub(crate) fn name_valid(&self, attributes: &Attributes) -> Duration {
        match self.options.allow_other {
            true => Duration::ZERO,
            false => attributes.valid.min(NAME_VALID),
        }
    }

    /// What files of a kind have in common.
    fn plain(&self, kind: Kind) -> Attributes {
        Attributes {
            kind,
            mode: match kind {
                Kind::Directory => 0o555,
                Kind::File => 0o444,
                Kind::Link => 0o777,
            },
            size: 0,
            blocks: 0,
            modified: self.mounted,
            changed: self.mounted,
            // A directory with two is taken for one without directories in it (`find`, `File::Find`
            // of Perl); one says that they were not counted, as on btrfs.
            links: 1,
            uid: self.options.uid,
            gid: self.options.gid,
            valid: self.services.freshness.longest_for_kernel(),
        }
    }

    /// Counts the memory usage of the nodes of one listing, all of them together.
    pub(crate) fn count<'a>(&self, nodes: impl IntoIterator<Item = &'a Node>) -> CountedUsage {
        // The mappings of a listing are all of one process, lowest address first.
        let mut of = None;
        let ranges: Vec<_> = nodes
            .into_iter()
            .filter_map(|node| node.memory().zip(node.process()))
            .inspect(|(_, info)| of = Some(*info))
            .map(|(range, _)| range)
            .filter(|range| !range.is_empty())
            .collect();
        // Where that fails each is asked for alone.
        let counted = of
            .and_then(|info| self.open_process(info))
            .and_then(|process| {
                self.usages
                    .usages_of(&**process.memory().ok()?, ranges)
                    .ok()
            })
            .unwrap_or_default()
            .of_listing();
        match of {
            // Last: counting can take long, and time runs.
            Some(info) => counted.modified(info.identity, self.modified(info)),
            None => counted,
        }
    }
}
