//! Options that other programs act on and leave in the list.

/// Options that only mount(8), `fstab` or a boot manager acts on.
const WORDS: &[&str] = &[
    "defaults",
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "owner",
    "group",
    "nofail",
    "_netdev",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "diratime",
    "nodiratime",
    "lazytime",
    "nolazytime",
    "silent",
    "loud",
    "mand",
    "nomand",
    "iversion",
    "noiversion",
    "_rnetdev",
];

/// Whether it is one of these, and stands without a value.
pub(super) fn is_word(name: &str) -> bool {
    WORDS.contains(&name)
}

/// Options with any value: comments of `fstab`, of systemd and of desktops, and who mounted it and is to
/// unmount it (mount(8)).
pub(super) fn is_remark(name: &str, value: Option<&str>) -> bool {
    let has_prefix = ["x-", "X-"].iter().any(|prefix| name.starts_with(prefix));
    has_prefix
        || name == "comment"
        || (value.is_some() && ["user", "uhelper", "helper"].contains(&name))
}
