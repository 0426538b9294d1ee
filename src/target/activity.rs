//! Whether a thread gets on.

/// What a thread does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Activity {
    /// Whether it is running, or would be if it had a processor: then it does not wait for anything.
    pub(crate) is_running: bool,
    /// How often it has begun to wait or has lost its processor.
    pub(crate) scheduled: u64,
}
