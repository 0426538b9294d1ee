//! A plain user: mounts with `fusermount3`, sees what is theirs.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{
    MountPoint, Target, daemon_binary, daemons_on, eventually, is_mounted, quote, run, tests, tool,
};

tests![
    a_plain_user_mounts_and_reads_their_own: [Need::PlainUser],
    a_plain_user_does_not_see_the_processes_of_others: [Need::PlainUser],
    a_plain_user_without_fusermount3_is_told: [Need::PlainUser, Need::Tool("unshare")],
    a_plain_user_cannot_mount_on_a_directory_of_root: [Need::PlainUser],
];

/// A user that nobody else is.
const USER: u32 = 54_321;

/// A copy of the daemon where a plain user can run it.
fn public_daemon(point: &MountPoint) -> PathBuf {
    let path = point.outside().join("procmemfs");
    std::fs::copy(daemon_binary(), &path).unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    path
}

/// A script of the shell, as the plain user.
fn as_user(script: &str) -> Command {
    let mut command = Command::new("setpriv");
    let user = USER.to_string();
    command.args(["--reuid", &user, "--regid", &user, "--clear-groups"]);
    command.args(["sh", "-c", script]);
    command
}

/// A mount point of the plain user.
fn users_point() -> MountPoint {
    let point = MountPoint::new();
    chown(point.path(), Some(USER), Some(USER)).unwrap();
    point
}

/// Waits until the mount is gone and its daemon has ended.
fn gone(point: &Path) {
    eventually("the mount is gone", || (!is_mounted(point)).then_some(()));
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
         until grep -q '^sleep' /proc/$child/comm; do :; done\n\
         tar cf - -C {point} $child | wc -c > /dev/null\n\
         kill $child\n\
         fusermount3 -u {point}\n",
        daemon = quote(&public_daemon(&point)),
        point = quote(point.path()),
    );
    let output = run(&mut as_user(&script)).success().quiet();
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
    let output = run(&mut as_user(&script)).success();
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
    let daemon = public_daemon(&point);
    // A mount namespace of its own, in which the helpers cannot be run.
    let mut script = String::new();
    for helper in ["fusermount3", "fusermount"] {
        for dir in ["/usr/bin", "/bin", "/usr/local/bin"] {
            let path = Path::new(dir).join(helper);
            if path.exists() {
                script += &format!("mount --bind /dev/null {}\n", quote(&path));
            }
        }
        assert!(helper != "fusermount3" || tool(helper).is_some());
    }
    script += &format!(
        "exec setpriv --reuid {USER} --regid {USER} --clear-groups {} {}",
        quote(&daemon),
        quote(point.path())
    );
    let mut unshare = Command::new("unshare");
    let output = run(unshare.args(["-m", "sh", "-c", &script]));
    output.failure().one_line(&["fusermount3", "fuse3"]);
    assert!(!is_mounted(point.path()));
}

/// Mounting on a directory of somebody else fails with one line that names it.
fn a_plain_user_cannot_mount_on_a_directory_of_root() {
    let point = MountPoint::new();
    let script = format!(
        "exec {} {}",
        quote(&public_daemon(&point)),
        quote(point.path())
    );
    let output = run(&mut as_user(&script)).failure();
    output.one_line(&[point.path().to_str().unwrap()]);
    assert!(!is_mounted(point.path()));
}
