//! A plain user: mounts with `fusermount3`, sees what is theirs.

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{
    MountPoint, Target, daemon_binary, daemons_on, eventually, install, quote, run, tests,
};

tests![
    a_plain_user_mounts_and_reads_their_own: [Need::PlainUser],
    a_plain_user_does_not_see_the_processes_of_others: [Need::PlainUser],
    a_plain_user_without_fusermount3_is_told: [Need::PlainUser],
    a_fusermount3_that_may_not_be_run_is_named: [Need::PlainUser],
    a_plain_user_cannot_mount_on_a_directory_of_root: [Need::PlainUser],
    a_mount_that_is_not_found_is_an_error: [Need::PlainUser, Need::Tool("python3")],
];

/// The user `nobody`: `fusermount3` wants one that has a name.
pub(crate) const USER: u32 = 65_534;

/// A copy of the daemon where a plain user can run it.
pub(crate) fn public_daemon(point: &MountPoint) -> PathBuf {
    let path = point.outside().join("procmemfs");
    install(daemon_binary(), &path);
    path
}

/// A script of the shell, as the plain user, in a mount namespace in which
/// `/dev/fuse` has the mode that udev gives it. `first` is run as root there.
pub(crate) fn as_user(point: &MountPoint, first: &str, script: &str) -> Command {
    let device = quote(&point.outside().join("dev"));
    let script = format!(
        "set -e\n\
         mkdir {device}\n\
         mount -t tmpfs none {device}\n\
         mknod -m 666 {device}/fuse c 10 229\n\
         mount --bind {device}/fuse /dev/fuse\n\
         {first}\n\
         exec setpriv --reuid {USER} --regid {USER} --clear-groups sh -c {script}\n",
        script = quote(Path::new(script)),
    );
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &script]);
    command
}

/// A mount point of the plain user.
pub(crate) fn users_point() -> MountPoint {
    let point = MountPoint::new();
    chown(point.path(), Some(USER), Some(USER)).unwrap();
    point
}

/// Waits until the daemon has ended; its mount is in a namespace of its own.
pub(crate) fn gone(point: &Path) {
    eventually("the daemon has ended", || {
        daemons_on(point).is_empty().then_some(())
    });
}

/// A plain user mounts, finds a text in the memory of a process of theirs,
/// archives it without a complaint, and unmounts.
fn a_plain_user_mounts_and_reads_their_own() {
    let point = users_point();
    let script = format!(
        "set -e\n\
         {daemon} {point}\n\
         a=one; b=\"$a+two+three+four\"\n\
         sleep 600 & child=$!\n\
         test -d {point}/$child\n\
         grep -rl 'one+two+three+fou[r]' {point}/$$ | grep -c heap\n\
         until grep -q '^sleep' /proc/$child/comm && grep -q '^State:.S' /proc/$child/status; do :; done\n\
         tar cf - -C {point} $child | wc -c > /dev/null\n\
         kill $child\n\
         fusermount3 -u {point}\n",
        daemon = quote(&public_daemon(&point)),
        point = quote(point.path()),
    );
    let output = run(&mut as_user(&point, "", &script)).success().quiet();
    assert_eq!(output.text().trim(), "1");
    gone(point.path());
}

/// Processes that the mounter may not read are not listed; looking one up
/// gives `EACCES`, as its memory would.
fn a_plain_user_does_not_see_the_processes_of_others() {
    let target = Target::new();
    let point = users_point();
    let pid = target.pid();
    let script = format!(
        "{daemon} {point} || exit 9\n\
         ls -f {point}\n\
         ls {point}/{pid} >&2\n\
         fusermount3 -u {point}\n",
        daemon = quote(&public_daemon(&point)),
        point = quote(point.path()),
    );
    let output = run(&mut as_user(&point, "", &script)).success();
    let listed = output.text();
    assert!(listed.lines().any(|name| name == "stats"), "{listed}");
    assert!(
        !listed.lines().any(|name| name == pid.to_string()),
        "{pid} is listed: {listed}"
    );
    output.complains(&["Permission denied"]);
    gone(point.path());
}

/// Without `fusermount3` a plain user is told in one line what to install.
fn a_plain_user_without_fusermount3_is_told() {
    let point = users_point();
    // A root directory of its own, with the libraries and no programs.
    let root = point.outside().join("root");
    std::fs::create_dir_all(root.join("mnt")).unwrap();
    chown(root.join("mnt"), Some(USER), Some(USER)).unwrap();
    std::fs::rename(public_daemon(&point), root.join("procmemfs")).unwrap();
    let root = quote(&root);
    let first = format!(
        "unset PROCMEMFS_OPTIONS\n\
         for dir in /lib /lib64 /usr/lib /usr/lib64 /proc; do\n\
         test -d $dir || continue\n\
         mkdir -p {root}$dir && mount --rbind $dir {root}$dir\n\
         done\n\
         mkdir {root}/dev && touch {root}/dev/fuse {root}/dev/null\n\
         for node in fuse null; do mount --bind /dev/$node {root}/dev/$node; done\n\
         exec chroot --userspec={USER}:{USER} --groups= {root} /procmemfs /mnt\n"
    );
    let output = run(&mut as_user(&point, &first, "")).failure();
    output.one_line(&["fusermount3", "fuse3"]);
}

/// Where `fusermount3` is for members of a group only, it is named, not
/// something else.
fn a_fusermount3_that_may_not_be_run_is_named() {
    let point = users_point();
    let mut first = String::new();
    for program in ["fusermount3", "fusermount"] {
        for dir in ["/usr/bin", "/bin", "/usr/local/bin"] {
            let path = Path::new(dir).join(program);
            if path.exists() {
                first += &format!("mount --bind /dev/null {}\n", quote(&path));
            }
        }
    }
    assert!(first.contains("fusermount3"), "where is it?");
    let script = format!(
        "exec {} {}",
        quote(&public_daemon(&point)),
        quote(point.path())
    );
    let output = run(&mut as_user(&point, &first, &script)).failure();
    output.one_line(&["fusermount3"]);
}

/// Mounting on a directory of somebody else fails with one line that names it.
fn a_plain_user_cannot_mount_on_a_directory_of_root() {
    let point = MountPoint::new();
    let script = format!(
        "exec {} {}",
        quote(&public_daemon(&point)),
        quote(point.path())
    );
    let output = run(&mut as_user(&point, "", &script)).failure();
    output.one_line(&[point.path().to_str().unwrap()]);
}

/// Where the new mount is not found among the mounts, its own device is not known: it is given up. Here
/// the helper hands over a connection and mounts nothing.
fn a_mount_that_is_not_found_is_an_error() {
    let point = users_point();
    let helpers = point.outside().join("helpers");
    std::fs::create_dir(&helpers).unwrap();
    let source = point.outside().join("helper");
    std::fs::write(
        &source,
        "#!/usr/bin/env python3\n\
         import os, socket\n\
         fuse = os.open('/dev/fuse', os.O_RDWR)\n\
         there = socket.socket(fileno=int(os.environ['_FUSE_COMMFD']))\n\
         socket.send_fds(there, [b' '], [fuse])\n",
    )
    .unwrap();
    install(&source, &helpers.join("fusermount3"));
    let script = format!(
        "PATH={helpers}:$PATH exec {daemon} {point}",
        helpers = quote(&helpers),
        daemon = quote(&public_daemon(&point)),
        point = quote(point.path()),
    );
    let output = run(&mut as_user(&point, "", &script)).failure();
    output.one_line(&[point.path().to_str().unwrap(), "cannot be found"]);
}
