//! How far something is that takes long.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Nothing is shown before: what is done by then needs no bar.
const PATIENCE: Duration = Duration::from_secs(1);

const BYTES: &str = "{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
const MAPPINGS: &str = "{bar:40} {pos}/{len} mappings {eta}";

/// A bar on standard error, where that is a terminal, of what takes longer than a second. It goes away when dropped.
#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
    begun: Instant,
    is_shown: bool,
}

impl Progress {
    /// Of bytes.
    pub(super) fn of_bytes() -> Self {
        Self::new(BYTES)
    }

    /// Of mappings.
    pub(super) fn of_mappings() -> Self {
        Self::new(MAPPINGS)
    }

    fn new(template: &str) -> Self {
        let style = ProgressStyle::with_template(template);
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        Self {
            bar: bar.with_style(style),
            begun: Instant::now(),
            is_shown: false,
        }
    }

    /// So much of `total` is done.
    pub(super) fn at(&mut self, done: u64, total: u64) {
        if !self.is_shown && self.begun.elapsed() >= PATIENCE {
            self.is_shown = true;
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.bar.set_length(total);
        self.bar.set_position(done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
