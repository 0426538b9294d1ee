//! `by-cgroup`: processes by control group, and so by service and by container.
//!
//! The directories mirror the groups, whose names tell what they are: `system.slice/nginx.service`,
//! `system.slice/docker-ID.scope`, `kubepods.slice/kubepods-podUID.slice/cri-containerd-ID.scope`.

mod groups;
mod table;

use std::sync::Arc;

use groups::{Member, ShownGroup, depth};
pub(super) use table::CgroupTable;

use super::{Caller, Context, File, Kind, Listing, Node, Pass, WaitsFor};
use crate::common::error::{Error, Result};
use crate::target::{CgroupPath, ProcessId};

/// The attribute that shows the path of a control group, as the kernel says it.
pub(super) const CGROUP: &str = "cgroup";

/// The attribute that shows which container a control group is of.
pub(super) const CONTAINER: &str = "container";

/// The value of an attribute of whatever is in this group.
///
/// # Errors
/// `NoAttribute`.
pub(super) fn attribute_of(path: &CgroupPath, name: &str) -> Result<Vec<u8>> {
    match name {
        CGROUP => Ok(path.as_bytes().to_vec()),
        CONTAINER => Ok(path.container().unwrap_or_default()),
        _ => Err(Error::NoAttribute),
    }
}

/// The root of all control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ByCgroup;

impl File for ByCgroup {
    fn kind(&self) -> Kind {
        Kind::Directory
    }

    fn path(&self) -> String {
        "by-cgroup".to_owned()
    }

    fn lookup(&self, context: &Context, name: &str, pass: &Pass<'_>) -> Result<Node> {
        lookup(context, None, name, pass)
    }

    fn entries(&self, context: &Context, pass: &Pass<'_>) -> Result<Listing> {
        entries(context, None, pass)
    }

    fn entries_wait_for(&self) -> WaitsFor {
        WaitsFor::Everybody
    }

    fn lookup_waits_for(&self, _name: &str) -> WaitsFor {
        WaitsFor::Everybody
    }
}

/// A control group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Cgroup(ShownGroup);

impl File for Cgroup {
    fn kind(&self) -> Kind {
        Kind::Directory
    }

    fn path(&self) -> String {
        format!("by-cgroup/{}", self.0.shown())
    }

    fn parent(&self) -> Node {
        let above = self.0.parent();
        above.map_or(ByCgroup.into(), |group| Self(group).into())
    }

    fn lookup(&self, context: &Context, name: &str, pass: &Pass<'_>) -> Result<Node> {
        lookup(context, Some(&self.0), name, pass)
    }

    fn entries(&self, context: &Context, pass: &Pass<'_>) -> Result<Listing> {
        entries(context, Some(&self.0), pass)
    }

    fn xattr_names(&self) -> Vec<&'static str> {
        vec![CGROUP, CONTAINER]
    }

    fn xattr(&self, _context: &Context, name: &str) -> Result<Vec<u8>> {
        attribute_of(&self.0.path(), name)
    }

    fn entries_wait_for(&self) -> WaitsFor {
        WaitsFor::Everybody
    }

    fn lookup_waits_for(&self, _name: &str) -> WaitsFor {
        WaitsFor::Everybody
    }
}

/// A link to the directory of a process of a control group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CgroupLink(Arc<Link>);

/// What a link is, apart from the node: that must take little room.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Link {
    /// The group; `None` for the root.
    group: Option<ShownGroup>,
    pid: ProcessId,
}

impl File for CgroupLink {
    fn kind(&self) -> Kind {
        Kind::Link
    }

    fn path(&self) -> String {
        let Self(link) = self;
        match shown(link.group.as_ref()) {
            "" => format!("by-cgroup/{}", link.pid),
            group => format!("by-cgroup/{group}/{}", link.pid),
        }
    }

    fn target(&self, _context: &Context, _caller: &Caller) -> Result<String> {
        let Self(link) = self;
        let up = "../".repeat(1 + depth(shown(link.group.as_ref())));
        Ok(format!("{up}{}", link.pid))
    }
}

/// What a member of a group is in the tree; `None` is the root.
fn node(group: Option<&ShownGroup>, member: Member) -> Node {
    let group = group.cloned();
    match member {
        Member::Group(group) => Cgroup(group).into(),
        Member::Process(pid) => CgroupLink(Arc::new(Link { group, pid })).into(),
    }
}

fn shown(group: Option<&ShownGroup>) -> &str {
    group.map_or("", ShownGroup::shown)
}

fn entries(context: &Context, of: Option<&ShownGroup>, pass: &Pass<'_>) -> Result<Listing> {
    let processes = context.processes.fresh_list(pass)?;
    let mut listing = Listing::default();
    for (name, member) in context.groups_of(processes, pass)?.members(shown(of)) {
        listing.add(name, node(of, member));
    }
    Ok(listing)
}

fn lookup(context: &Context, of: Option<&ShownGroup>, name: &str, pass: &Pass<'_>) -> Result<Node> {
    let find = |processes| {
        let groups = context.groups_of(processes, pass)?;
        Ok(groups.member(shown(of), name))
    };
    let mut found = find(context.processes.recent_list(pass)?)?;
    if found.is_none() {
        // It may have come up since.
        found = find(context.processes.newer_list(pass)?)?;
    }
    Ok(node(of, found.ok_or(Error::NoEntry)?))
}
