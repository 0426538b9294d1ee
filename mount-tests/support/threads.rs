//! The threads of a process, as `/proc` shows them.

/// This file of `/proc/PID/task/TID` for each thread. One that ends meanwhile is left out: which ends when is nobody's
/// promise.
#[track_caller]
pub(crate) fn of_threads(pid: u32, file: &str) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
    let tasks = tasks.unwrap_or_else(|error| panic!("threads of {pid}: {error}"));
    let paths = tasks.filter_map(|task| Some(task.ok()?.path().join(file)));
    paths
        .filter_map(|path| std::fs::read(path).ok())
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .collect()
}

/// What stands after a field's name in a text such as `/proc/PID/status`.
pub(crate) fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.map(str::trim)
}
