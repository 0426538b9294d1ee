//! What is left of a test run that is ended from outside (Ctrl-C, a time limit of CI): nobody is there to drop anything.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{LazyLock, Mutex};

/// Waits for the end of the test run, and takes away the mount points that were named and are still there.
const SCRIPT: &str = r#"
points=$(cat)
printf '%s\n' "$points" | while IFS= read -r point; do
    [ -n "$point" ] || continue
    while grep -qF " $point " /proc/self/mountinfo; do
        umount -l "$point" || fusermount3 -u -z "$point" || break
    done
    rmdir "$point" && rmdir "${point%/*}"
done
"#;

/// To the process that outlives this one. Closed by the kernel, however this one ends.
#[expect(clippy::zombie_processes, reason = "it waits for our end")]
static CLEANER: LazyLock<Mutex<ChildStdin>> = LazyLock::new(|| {
    let mut shell = Command::new("sh");
    // In a group of its own: what Ctrl-C sends goes to the test run's.
    shell.args(["-c", SCRIPT]).process_group(0);
    shell
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut cleaner = shell.spawn().expect("a shell");
    Mutex::new(cleaner.stdin.take().expect("piped"))
});

/// Has a mount point unmounted once the test run is over, however it ends.
pub(crate) fn unmount_at_the_end(point: &Path) {
    let mut cleaner = CLEANER.lock().unwrap();
    writeln!(cleaner, "{}", point.display()).expect("the cleaner waits for our end");
}
