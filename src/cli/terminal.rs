//! Lines on a terminal: once, or again and again until somebody has seen enough.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::crossterm::style::ContentStyle;
use ratatui::crossterm::terminal::size;
use ratatui::prelude::IntoCrossterm;
use ratatui::style::Style;
use ratatui::text::Line;

use super::daemon::Ends;

/// How long a signal may wait for its effect.
const ATTENTION: Duration = Duration::from_millis(100);

/// What is shown again and again.
pub(super) trait Screen {
    /// Looks again at what is shown.
    ///
    /// # Errors
    /// Where there is nothing to be seen any more: that is the end.
    fn refresh(&mut self) -> Result<()>;

    /// Draws what was seen last.
    fn draw(&mut self, frame: &mut Frame<'_>);

    /// Somebody has pressed a key, another one than those that end.
    fn press(&mut self, key: KeyCode);
}

/// Columns of the terminal that is written to; `None` where it is none.
pub(super) fn width() -> Option<u16> {
    if !io::stdout().is_terminal() {
        return None;
    }
    size().ok().map(|(columns, _)| columns)
}

/// Writes lines to standard output: in colour where that is a terminal and `NO_COLOR` is not set.
///
/// # Errors
/// Where it cannot be written; not where whoever reads it has seen enough.
pub(super) fn print(lines: &[Line<'_>]) -> Result<()> {
    let mut text = Vec::new();
    for line in lines {
        for span in &line.spans {
            if span.style == Style::default() {
                write!(text, "{}", span.content)?;
            } else {
                let style: ContentStyle = span.style.into_crossterm();
                write!(text, "{}", style.apply(&span.content))?;
            }
        }
        writeln!(text)?;
    }
    print_styled(&text)
}

/// Writes text with the codes of colours to standard output: without them where [`print`] uses none.
///
/// # Errors
/// As [`print`].
pub(super) fn print_styled(text: &[u8]) -> Result<()> {
    let mut output = anstream::stdout().lock();
    written(output.write_all(text).and_then(|()| output.flush()))
}

/// Writes text to standard output as it is.
///
/// # Errors
/// As [`print`].
pub(super) fn print_text(text: &str) -> Result<()> {
    written(io::stdout().write_all(text.as_bytes()))
}

fn written(written: io::Result<()>) -> Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("standard output"),
    }
}

/// Shows it, anew after each `interval`, until somebody presses q, Esc or Ctrl-C, or a signal asks for the end. The terminal
/// is as before then.
///
/// # Errors
/// Where there is no terminal, and what [`Screen::refresh`] says.
pub(super) fn show(screen: &mut dyn Screen, interval: Duration) -> Result<()> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        bail!("--live needs a terminal: without it the text is written once");
    }
    // One that ended the program at once would leave the terminal as it is now.
    let ends = Ends::hold()?;
    let mut terminal = ratatui::try_init().context("the terminal")?;
    let shown = show_on(&mut terminal, screen, interval, &ends);
    let restored = ratatui::try_restore().context("the terminal");
    shown.and(restored)
}

fn show_on(
    terminal: &mut ratatui::DefaultTerminal,
    screen: &mut dyn Screen,
    interval: Duration,
    ends: &Ends,
) -> Result<()> {
    loop {
        screen.refresh()?;
        let due = Instant::now() + interval;
        loop {
            terminal.draw(|frame| screen.draw(frame))?;
            if !wait(screen, due, ends)? {
                return Ok(());
            }
            if Instant::now() >= due {
                break;
            }
        }
    }
}

/// Waits for something that changes what is shown; `false` where it is to end.
fn wait(screen: &mut dyn Screen, due: Instant, ends: &Ends) -> Result<bool> {
    loop {
        let left = due.saturating_duration_since(Instant::now());
        if ends.came()?.is_some() {
            return Ok(false);
        }
        if event::poll(left.min(ATTENTION))? {
            return Ok(match event::read()? {
                Event::Key(key) if is_end(&key) => false,
                Event::Key(key) if key.kind != KeyEventKind::Release => {
                    screen.press(key.code);
                    true
                }
                _ => true,
            });
        }
        if left.is_zero() {
            return Ok(true);
        }
    }
}

fn is_end(key: &KeyEvent) -> bool {
    let is_interrupt = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => true,
        KeyCode::Char('c') => is_interrupt,
        _ => false,
    }
}

/// Reads how often something is shown anew.
///
/// # Errors
/// What is wrong with it.
pub(super) fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text)
        .map_err(|_| "a time has a unit: 500ms, 1s, 1m".to_owned())?;
    match interval < ATTENTION {
        true => Err(format!("the shortest is {ATTENTION:?}")),
        false => Ok(interval),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_keys_end_it() {
        let control = |code| KeyEvent::new(code, KeyModifiers::CONTROL);
        let plain = |code| KeyEvent::new(code, KeyModifiers::NONE);
        for end in [
            plain(KeyCode::Char('q')),
            plain(KeyCode::Esc),
            control(KeyCode::Char('c')),
        ] {
            assert!(is_end(&end), "{end:?}");
        }
        for other in [plain(KeyCode::Char('c')), plain(KeyCode::Char('s'))] {
            assert!(!is_end(&other), "{other:?}");
        }
    }

    #[test]
    fn intervals_have_a_unit() {
        assert_eq!(parse_interval("2s"), Ok(Duration::from_secs(2)));
        assert!(parse_interval("2").unwrap_err().contains("unit"));
        assert!(parse_interval("0s").unwrap_err().contains("shortest"));
    }
}
