//! Figures of a mount, again and again.

use std::collections::VecDeque;

use anyhow::Result;
use ratatui::Frame;
use ratatui::crossterm::event::KeyCode;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Text};
use ratatui::widgets::Sparkline;

use super::figures::Figures;
use super::source::Source;
use super::table::{operations, others};
use crate::cli::terminal::Screen;
use crate::cli::units::{bytes, number};

/// Figures that are remembered: more than any terminal has columns.
const HISTORY: usize = 512;

/// What is seen.
#[derive(Debug, Default)]
struct View {
    title: String,
    figures: Figures,
    /// The newest first.
    requests: VecDeque<u64>,
    read_bytes: VecDeque<u64>,
}

/// The figures of a mount.
#[derive(Debug)]
pub(super) struct StatsScreen {
    source: Source,
    view: View,
}

impl StatsScreen {
    pub(super) fn new(source: Source) -> Self {
        let title = source.title();
        Self {
            source,
            view: View {
                title,
                ..View::default()
            },
        }
    }
}

impl Screen for StatsScreen {
    fn refresh(&mut self) -> Result<()> {
        let figures = self.source.figures()?;
        self.view.take(figures);
        Ok(())
    }

    fn draw(&mut self, frame: &mut Frame<'_>) {
        self.view.draw(frame);
    }

    fn press(&mut self, _key: KeyCode) {}
}

fn remember(history: &mut VecDeque<u64>, rate: f64) {
    history.push_front(rate as u64);
    history.truncate(HISTORY);
}

impl View {
    fn take(&mut self, figures: Figures) {
        remember(&mut self.requests, figures.requests.rate);
        remember(&mut self.read_bytes, figures.read_bytes.rate);
        self.figures = figures;
    }

    fn draw(&self, frame: &mut Frame<'_>) {
        let requests = operations(&self.figures);
        let others = others(&self.figures);
        let lines = |text: &[Line<'_>]| Constraint::Length(text.len() as u16);
        let [title, rates, table, _, facts, _, keys] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(4),
            lines(&requests),
            Constraint::Length(1),
            lines(&others),
            Constraint::Fill(1),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        let bold = Style::new().add_modifier(Modifier::BOLD);
        frame.render_widget(Line::styled(self.title.clone(), bold), title);
        let [left, right] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)])
            .spacing(2)
            .areas(rates);
        let rate = number(self.figures.requests.rate);
        graph(
            frame,
            left,
            format!("{rate} requests a second"),
            &self.requests,
        );
        let rate = bytes(self.figures.read_bytes.rate as u64);
        graph(
            frame,
            right,
            format!("{rate} read a second"),
            &self.read_bytes,
        );
        frame.render_widget(Text::from(requests), table);
        frame.render_widget(Text::from(others), facts);
        let reversed = Style::new().add_modifier(Modifier::REVERSED);
        frame.render_widget(Line::raw(" q quits").style(reversed), keys);
    }
}

/// The newest at the right.
fn graph(frame: &mut Frame<'_>, area: Rect, title: String, history: &VecDeque<u64>) {
    let [name, graph] = Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(area);
    frame.render_widget(Line::raw(title), name);
    let newest = history.iter().take(usize::from(graph.width));
    let data: Vec<u64> = newest.rev().copied().collect();
    let line = Sparkline::default()
        .data(&data)
        .style(Style::new().fg(Color::Green));
    frame.render_widget(line, graph);
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::figures::tests::example;
    use super::*;

    #[test]
    fn a_frame_shows_rates_latencies_and_keys() {
        let mut view = View {
            title: "/mnt".to_owned(),
            ..View::default()
        };
        view.take(example());
        view.take(example());
        let mut terminal = Terminal::new(TestBackend::new(100, 24)).unwrap();
        let frame = terminal.draw(|frame| view.draw(frame)).unwrap();
        let cells = frame.buffer.content().chunks(100);
        let lines = cells.map(|line| line.iter().map(ratatui::buffer::Cell::symbol).collect());
        let lines: Vec<String> = lines.collect();
        let text = lines.join("\n");
        for part in [
            "/mnt",
            "10 requests a second",
            "4.0M read a second",
            "99 %",
            "errors    EIO",
            "q quits",
            "██",
        ] {
            assert!(text.contains(part), "no {part}:\n{text}");
        }
        for (width, height) in [(1, 1), (30, 5)] {
            let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
            terminal.draw(|frame| view.draw(frame)).unwrap();
        }
    }
}
