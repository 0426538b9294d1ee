//! How far something is that takes long.

use std::sync::Once;
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
    patience: Duration,
    /// Where it is drawn once it is shown.
    target: fn() -> ProgressDrawTarget,
    shown: Once,
}

impl Progress {
    /// Of bytes.
    pub(super) fn of_bytes() -> Self {
        Self::new(BYTES, PATIENCE, ProgressDrawTarget::stderr)
    }

    /// Of mappings.
    pub(super) fn of_mappings() -> Self {
        Self::new(MAPPINGS, PATIENCE, ProgressDrawTarget::stderr)
    }

    fn new(template: &str, patience: Duration, target: fn() -> ProgressDrawTarget) -> Self {
        let style = ProgressStyle::with_template(template);
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        Self {
            bar: bar.with_style(style),
            begun: Instant::now(),
            patience,
            target,
            shown: Once::new(),
        }
    }

    /// So much of `total` is done.
    pub(super) fn at(&self, done: u64, total: u64) {
        if self.begun.elapsed() >= self.patience {
            self.shown
                .call_once(|| self.bar.set_draw_target((self.target)()));
        }
        if self.bar.length() != Some(total) {
            self.bar.set_length(total);
        }
        if self.bar.position() != done {
            self.bar.set_position(done);
        }
    }

    /// Takes it away.
    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::fmt::Debug;
    use std::io;
    use std::num::NonZero;

    use indicatif::TermLike;

    use super::*;

    const ROWS: NonZero<u16> = NonZero::new(5).expect("not zero");
    const COLUMNS: NonZero<u16> = NonZero::new(100).expect("not zero");

    thread_local! {
        /// The screen of the terminal that the bars of this thread are drawn on.
        static SCREEN: RefCell<vt100::Parser> = RefCell::new(vt100::Parser::new(ROWS, COLUMNS, 0));
    }

    fn screen() -> String {
        SCREEN.with_borrow(|screen| screen.screen().contents().trim().to_owned())
    }

    #[derive(Debug)]
    struct Terminal;

    impl Terminal {
        fn send(text: &str) -> io::Result<()> {
            SCREEN.with_borrow_mut(|screen| screen.process(text.as_bytes()));
            Ok(())
        }
    }

    impl TermLike for Terminal {
        fn width(&self) -> u16 {
            COLUMNS.get()
        }

        fn move_cursor_up(&self, lines: usize) -> io::Result<()> {
            (0..lines).try_for_each(|_| Self::send("\x1b[A"))
        }

        fn move_cursor_down(&self, lines: usize) -> io::Result<()> {
            (0..lines).try_for_each(|_| Self::send("\x1b[B"))
        }

        fn move_cursor_right(&self, columns: usize) -> io::Result<()> {
            (0..columns).try_for_each(|_| Self::send("\x1b[C"))
        }

        fn move_cursor_left(&self, columns: usize) -> io::Result<()> {
            (0..columns).try_for_each(|_| Self::send("\x1b[D"))
        }

        fn write_line(&self, text: &str) -> io::Result<()> {
            Self::send(text)?;
            Self::send("\r\n")
        }

        fn write_str(&self, text: &str) -> io::Result<()> {
            Self::send(text)
        }

        fn clear_line(&self) -> io::Result<()> {
            Self::send("\r\x1b[2K")
        }

        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    fn terminal() -> ProgressDrawTarget {
        ProgressDrawTarget::term_like_with_hz(Box::new(Terminal), 255)
    }

    #[test]
    fn a_bar_shows_how_much_is_done_and_goes_away() {
        let bar = Progress::new(BYTES, Duration::ZERO, terminal);
        assert_eq!(screen(), "", "nothing is known yet");
        bar.at(3 << 20, 4 << 20);
        let shown = screen();
        assert!(shown.contains("3.00 MiB/4.00 MiB"), "{shown:?}");
        assert_eq!(shown.matches('\u{2588}').count(), 30, "{shown:?}");
        drop(bar);
        assert_eq!(screen(), "");
        let bar = Progress::new(MAPPINGS, Duration::ZERO, terminal);
        bar.at(7, 28);
        let shown = screen();
        assert!(shown.contains("7/28 mappings"), "{shown:?}");
        bar.clear();
        assert_eq!(screen(), "");
    }

    #[test]
    fn what_is_done_soon_needs_no_bar() {
        let bar = Progress::new(BYTES, Duration::from_secs(600), terminal);
        bar.at(1, 2);
        bar.at(2, 2);
        assert_eq!(screen(), "");
    }
}
