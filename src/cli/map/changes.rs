//! What differs between two copies, as lines of text.

use std::cmp::Reverse;

use procmemfs::backup::Backup;
use procmemfs::picture::{Difference, MappingDifference, PageCounts};
use ratatui::style::{Color, Style};
use ratatui::text::{Line, Span};

use super::table::bold;

const COLUMNS: [&str; 5] = ["same", "changed", "came", "went", "unknown"];

/// A line for each mapping that differs, what differs most first, and one for all others.
pub(super) fn lines(old: &Backup, new: &Backup, difference: &Difference) -> Vec<Line<'static>> {
    let who = |backup: &Backup| {
        let record = backup.record();
        format!("process {} ({})", record.pid, record.command)
    };
    let (before, after) = (who(old), who(new));
    let title = match before == after {
        true => before,
        false => format!("{before}, then {after}"),
    };
    let count = |backup: &Backup| backup.names().count();
    let counts = format!(": {} mappings, then {}", count(old), count(new));
    let mut lines = vec![Line::from(vec![bold(title), Span::raw(counts)])];
    lines.extend(table(difference));
    lines
}

fn table(difference: &Difference) -> Vec<Line<'static>> {
    let names = COLUMNS.map(|name| format!("{name:>9}")).concat();
    let mut lines = vec![Line::from(bold(format!(
        "{names}  pages of 4K, by mapping"
    )))];
    let is_moved = |row: &&MappingDifference| row.pages.moved() + row.pages.unknown > 0;
    let (mut moved, alike): (Vec<_>, Vec<_>) = difference.mappings.iter().partition(is_moved);
    // They are in the order of their addresses, and stay so where they are equal.
    moved.sort_by_key(|row| Reverse(row.pages.moved()));
    lines.extend(moved.iter().map(|row| line(row.pages, &row.name)));
    if !alike.is_empty() {
        let mut pages = PageCounts::default();
        alike.iter().for_each(|row| pages.add(row.pages));
        let those = match moved.is_empty() {
            true => format!("all {} mappings are the same", alike.len()),
            false => format!("{} more, which are the same", alike.len()),
        };
        lines.push(line(pages, &those));
    }
    lines.push(line(difference.totals(), "in all"));
    lines
}

fn line(pages: PageCounts, name: &str) -> Line<'static> {
    let PageCounts {
        same,
        changed,
        came,
        went,
        unknown,
    } = pages;
    let colours = [
        None,
        Some(Color::Yellow),
        Some(Color::Green),
        Some(Color::Red),
        Some(Color::Magenta),
    ];
    let numbers = [same, changed, came, went, unknown]
        .into_iter()
        .zip(colours);
    let mut spans: Vec<Span<'static>> = numbers
        .map(|(number, colour)| match colour.filter(|_| number > 0) {
            Some(colour) => Span::styled(format!("{number:>9}"), Style::new().fg(colour)),
            None => Span::raw(format!("{number:>9}")),
        })
        .collect();
    spans.push(Span::raw(format!("  {name}")));
    Line::from(spans)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, [same, changed, came, went, unknown]: [u64; 5]) -> MappingDifference {
        MappingDifference {
            name: name.to_owned(),
            pages: PageCounts {
                same,
                changed,
                came,
                went,
                unknown,
            },
        }
    }

    #[test]
    fn what_differs_most_is_first_and_what_is_the_same_is_one_line() {
        let difference = Difference {
            mappings: vec![
                row("a", [5, 0, 0, 0, 0]),
                row("b", [1, 2, 0, 0, 0]),
                row("c", [0, 0, 70, 0, 0]),
                row("d", [6, 0, 0, 0, 0]),
                row("e", [3, 0, 0, 0, 1]),
            ],
        };
        let text: Vec<String> = table(&difference).iter().map(ToString::to_string).collect();
        assert_eq!(
            text,
            [
                "     same  changed     came     went  unknown  pages of 4K, by mapping",
                "        0        0       70        0        0  c",
                "        1        2        0        0        0  b",
                "        3        0        0        0        1  e",
                "       11        0        0        0        0  2 more, which are the same",
                "       15        2       70        0        1  in all",
            ]
        );
    }
}
