//! Threads of this process, and what tells a process from the next one of its number.

use std::os::unix::fs::MetadataExt;

use procfs::process::Process;

use super::pinned;
use crate::admission::Tasks;
use crate::pid::ProcessId;

/// Tasks as the kernel schedules them.
#[derive(Debug)]
pub struct LiveTasks;

impl Tasks for LiveTasks {
    fn current(&self) -> i32 {
        thread_local! {
            static NUMBER: i32 = nix::unistd::gettid().as_raw();
        }
        NUMBER.with(|number| *number)
    }

    fn is_running(&self, thread: i32) -> bool {
        Process::myself()
            .and_then(|process| process.task_from_tid(thread))
            .and_then(|task| task.stat())
            .is_ok_and(|stat| stat.state == 'R')
    }

    /// The inode of its pidfd, which is its own since Linux 6.9. `/proc/PID/stat` would wait for an exec.
    fn instance(&self, process: ProcessId) -> Option<u64> {
        let pidfd = pinned::pidfd(process).ok()?;
        Some(pidfd.metadata().ok()?.ino())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_is_running_and_who_waits_is_not() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let (end, wait) = std::sync::mpsc::channel::<()>();
        let waiting = std::thread::spawn(move || {
            sender.send(LiveTasks.current()).unwrap();
            wait.recv().unwrap_err();
        });
        assert!(LiveTasks.is_running(LiveTasks.current()));
        let other = receiver.recv().unwrap();
        assert_ne!(other, LiveTasks.current());
        while LiveTasks.is_running(other) {
            std::thread::yield_now();
        }
        drop(end);
        waiting.join().unwrap();
        assert!(!LiveTasks.is_running(other), "nor is who has ended");
    }
}
