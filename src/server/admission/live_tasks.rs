//! Threads of this process, and what tells a process from the next one of its number.

use std::io;

use super::Tasks;
use crate::common::threads;
use crate::target::live::{instance, own_activity};
use crate::target::{Activity, ProcessId};

/// Tasks as the kernel schedules them.
#[derive(Debug)]
pub(crate) struct LiveTasks;

impl Tasks for LiveTasks {
    fn current(&self) -> i32 {
        thread_local! {
            static NUMBER: i32 = nix::unistd::gettid().as_raw();
        }
        NUMBER.with(|number| *number)
    }

    fn activity(&self, thread: i32) -> Activity {
        own_activity(thread).unwrap_or_default()
    }

    /// As `/proc/TID/wchan` has it (proc_pid_wchan(5)).
    fn waits_in(&self, thread: i32) -> String {
        let wchan = std::fs::read_to_string(format!("/proc/self/task/{thread}/wchan"));
        wchan.unwrap_or_else(|error| format!("an unknown place: {error}"))
    }

    fn instance(&self, process: ProcessId) -> Option<u64> {
        instance(process)
    }

    fn start(&self, name: &str, work: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        threads::start(name, work)
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
        assert!(LiveTasks.activity(LiveTasks.current()).is_running);
        let other = receiver.recv().unwrap();
        assert_ne!(other, LiveTasks.current());
        while LiveTasks.activity(other).is_running {
            std::thread::yield_now();
        }
        drop(end);
        waiting.join().unwrap();
        // It counts as ended a moment before it does.
        while LiveTasks.activity(other).is_running {
            std::thread::yield_now();
        }
    }
}
