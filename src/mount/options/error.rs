//! Options that cannot be taken.

use thiserror::Error;

/// An option that cannot be taken, and what would be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OptionError {
    /// Not an option of ours or of mount(8).
    #[error("unknown option '{}'{}: see procmemfs --help", one_line(.name), suggested(.suggestion))]
    Unknown {
        /// The option.
        name: String,
        /// One that is spelt much like it.
        suggestion: Option<&'static str>,
    },
    /// A value is missing or is not of its kind.
    #[error("option {name}={}: needs {wanted}", one_line(.value))]
    Value {
        /// The option.
        name: &'static str,
        /// What was given.
        value: String,
        /// What would be taken.
        wanted: &'static str,
    },
    /// A value where none belongs.
    #[error("option {} takes no value", one_line(.name))]
    NoValue {
        /// The option.
        name: String,
    },
    /// A double quote without its second one.
    #[error(
        "option {}: its double quote is not closed: add one where the value ends",
        one_line(.option)
    )]
    Quote {
        /// The option and all that follows.
        option: String,
    },
    /// `force` alone.
    #[error("option force needs write: it lets writes pass over a mapping's protection")]
    ForceWithoutWrite,
    /// `allow_root`.
    #[error(
        "option allow_root: choose allow_other: each user is judged as themselves then, root among them"
    )]
    AllowRoot,
    /// `yama` alone.
    #[error("option yama=ignore needs allow_other: without that only the mounter may enter")]
    YamaWithoutOthers,
    /// `write` and `ro`.
    #[error(
        "options write and ro exclude each other: write lets memory be written, ro lets nothing be written"
    )]
    WriteAndReadOnly,
    /// `remount`.
    #[error(
        "option remount: a mount cannot be changed: unmount it, and mount it again with other options"
    )]
    Remount,
}

/// Without what ends a line or moves the cursor of a terminal.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter.is_control() {
            true => line.extend(letter.escape_default()),
            false => line.push(letter),
        }
    }
    line
}

fn suggested(suggestion: &Option<&'static str>) -> String {
    suggestion.map_or_else(String::new, |name| format!(", did you mean '{name}'?"))
}

/// The one of `known` that differs from `name` by the fewest letters, if it is but a slip.
pub(super) fn similar(name: &str, known: &[&'static str]) -> Option<&'static str> {
    known
        .iter()
        .map(|known| (strsim::levenshtein(name, known), *known))
        .filter(|(distance, _)| *distance <= 2)
        .min()
        .map(|(_, known)| known)
        .filter(|_| name.len() > 3)
}
