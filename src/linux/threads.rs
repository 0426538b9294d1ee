//! Threads of this process.

use procfs::process::Process;

use crate::patience::Threads;

/// Threads as the kernel schedules them.
#[derive(Debug)]
pub struct LiveThreads;

impl Threads for LiveThreads {
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_is_running_and_who_waits_is_not() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let (end, wait) = std::sync::mpsc::channel::<()>();
        let waiting = std::thread::spawn(move || {
            sender.send(LiveThreads.current()).unwrap();
            wait.recv().unwrap_err();
        });
        assert!(LiveThreads.is_running(LiveThreads.current()));
        let other = receiver.recv().unwrap();
        assert_ne!(other, LiveThreads.current());
        while LiveThreads.is_running(other) {
            std::thread::yield_now();
        }
        drop(end);
        waiting.join().unwrap();
        assert!(!LiveThreads.is_running(other), "nor is who has ended");
    }
}
