//! A picture that is taken again and again.

use anyhow::Result;
use procmemfs::picture::Picture;
use ratatui::Frame;
use ratatui::crossterm::event::KeyCode;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Text};
use ratatui::widgets::Paragraph;

use super::order::Order;
use super::table::{Look, columns, heading, rows};
use super::watched::Watched;
use crate::cli::terminal::{Screen, width};

/// The picture, and what of it is seen.
#[derive(Debug)]
pub(super) struct MapScreen {
    watched: Watched,
    view: View,
}

/// What of a picture is seen.
#[derive(Debug)]
struct View {
    picture: Picture,
    order: Order,
    /// Mappings above the first that is seen.
    above: usize,
    /// Lines that the last frame had for mappings.
    height: usize,
}

impl MapScreen {
    pub(super) fn new(watched: Watched, order: Order) -> Self {
        let pid = watched.pid().get();
        let view = View::new(
            Picture {
                pid,
                command: String::new(),
                program: String::new(),
                mappings: Vec::new(),
            },
            order,
        );
        Self { watched, view }
    }
}

fn look(width: Option<u16>) -> Look {
    Look {
        width,
        is_plain: false,
    }
}

impl Screen for MapScreen {
    fn refresh(&mut self) -> Result<()> {
        let cells = look(width()).cells();
        self.view.picture = self.watched.look(cells, |_, _| ())?;
        Ok(())
    }

    fn draw(&mut self, frame: &mut Frame<'_>) {
        self.view.draw(frame);
    }

    fn press(&mut self, key: KeyCode) {
        self.view.press(key);
    }
}

impl View {
    fn new(picture: Picture, order: Order) -> Self {
        Self {
            picture,
            order,
            above: 0,
            height: 1,
        }
    }

    fn draw(&mut self, frame: &mut Frame<'_>) {
        let look = look(Some(frame.area().width));
        let [top, names, middle, bottom] = Layout::vertical([
            Constraint::Length(2),
            Constraint::Length(1),
            Constraint::Min(1),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        self.height = usize::from(middle.height).max(1);
        let most = self.picture.mappings.len().saturating_sub(self.height);
        self.above = self.above.min(most);
        let lines = rows(&self.picture, self.order, 0, look);
        let seen: Vec<Line<'_>> = lines
            .into_iter()
            .skip(self.above)
            .take(self.height)
            .collect();
        frame.render_widget(Text::from(heading(&self.picture, look)), top);
        frame.render_widget(columns(look), names);
        frame.render_widget(Paragraph::new(seen), middle);
        let keys = format!(
            " sorted by {}: s sorts otherwise  \u{2191}\u{2193} PgUp PgDn Home End scroll  q quits",
            self.order.name()
        );
        let reversed = Style::new().add_modifier(Modifier::REVERSED);
        frame.render_widget(Line::styled(keys, reversed).style(reversed), bottom);
    }

    fn press(&mut self, key: KeyCode) {
        match key {
            KeyCode::Char('s') => (self.order, self.above) = (self.order.next(), 0),
            KeyCode::Down | KeyCode::Char('j') => self.above += 1,
            KeyCode::Up | KeyCode::Char('k') => self.above = self.above.saturating_sub(1),
            KeyCode::PageDown => self.above += self.height,
            KeyCode::PageUp => self.above = self.above.saturating_sub(self.height),
            KeyCode::Home => self.above = 0,
            // The next frame knows how many there are.
            KeyCode::End => self.above = usize::MAX - self.height,
            _ => (),
        }
    }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::table::tests::example;
    use super::*;

    /// The lines of a frame of this size.
    fn frame(view: &mut View, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let frame = terminal.draw(|frame| view.draw(frame)).unwrap();
        let cells = frame.buffer.content().chunks(usize::from(width));
        let lines = cells.map(|line| line.iter().map(ratatui::buffer::Cell::symbol).collect());
        lines
            .map(|line: String| line.trim_end().to_owned())
            .collect()
    }

    #[test]
    fn a_frame_shows_mappings_and_keys() {
        let mut view = View::new(example(32), Order::default());
        let lines = frame(&mut view, 130, 8);
        assert!(
            lines[0].starts_with("process 7 (fake): 3 mappings"),
            "{lines:?}"
        );
        assert!(
            lines[3].ends_with("rw-p.heap") && lines[3].contains("██··"),
            "{lines:?}"
        );
        assert!(
            lines[7].contains("sorted by held") && lines[7].contains("q quits"),
            "{lines:?}"
        );
        view.press(KeyCode::Char('s'));
        let lines = frame(&mut view, 130, 8);
        assert!(
            lines[3].ends_with("rw-p.anon") && lines[7].contains("by size"),
            "{lines:?}"
        );
    }

    #[test]
    fn it_scrolls_from_the_first_to_the_last() {
        let mut view = View::new(example(16), Order::Address);
        // One mapping is seen at a time.
        let mut first = |key| {
            if let Some(key) = key {
                view.press(key);
            }
            let line = frame(&mut view, 80, 5)[3].clone();
            line.rsplit('.').next().unwrap().to_owned()
        };
        assert_eq!(first(None), "heap");
        assert_eq!(first(Some(KeyCode::Up)), "heap");
        assert_eq!(first(Some(KeyCode::Down)), "anon");
        assert_eq!(first(Some(KeyCode::End)), "so");
        assert_eq!(first(Some(KeyCode::PageDown)), "so");
        assert_eq!(first(Some(KeyCode::PageUp)), "anon");
        assert_eq!(first(Some(KeyCode::Home)), "heap");
    }

    #[test]
    fn the_smallest_terminal_will_do() {
        let mut view = View::new(example(16), Order::Address);
        for (width, height) in [(1, 1), (20, 3), (80, 4)] {
            assert_eq!(frame(&mut view, width, height).len(), usize::from(height));
        }
    }
}
