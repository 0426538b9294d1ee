//! What the user may leave to the program.

/// Whether something is used that is not always there, or does not always pay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// Where it is there, and pays.
    #[default]
    Auto,
    /// By all means.
    On,
    /// Never.
    Off,
}
