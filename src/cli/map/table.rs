//! A picture as lines of text.

use std::ops::Add;

use procmemfs::picture::{Amounts, Cell, MappingPicture, Picture, Place};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use super::order::Order;
use crate::cli::units::bytes;

/// From so many columns on there is room for names with addresses.
const WIDE: u16 = 124;

/// How lines are to look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    /// Columns of the terminal; `None` where lines may be as long as they are.
    pub(super) width: Option<u16>,
    /// Whether letters stand for themselves, without colour.
    pub(super) is_plain: bool,
}

impl Look {
    fn is_wide(self) -> bool {
        self.width.is_none_or(|width| width >= WIDE)
    }

    /// Cells of the strip of each mapping.
    pub(super) fn cells(self) -> usize {
        if self.is_wide() { 32 } else { 16 }
    }

    fn letter(self, place: Place) -> char {
        match (place, self.is_plain) {
            (Place::Resident, true) => '#',
            (Place::Swapped, true) => 's',
            (Place::Zero, true) => '.',
            (Place::Absent, true) => '-',
            (Place::Unreadable, _) => 'x',
            (Place::Resident | Place::Swapped, false) => '█',
            (Place::Zero, false) => '·',
            (Place::Absent, false) => '░',
        }
    }

    /// The letter of a cell where some pages are in memory, and most are not.
    fn letter_of_some(self) -> char {
        if self.is_plain { '+' } else { '▄' }
    }

    fn cell(self, cell: Cell) -> (char, Style) {
        let is_held = matches!(cell.place, Place::Resident | Place::Swapped);
        match cell.holds_some && !is_held {
            true => (self.letter_of_some(), style(Place::Resident)),
            false => (self.letter(cell.place), style(cell.place)),
        }
    }
}

/// The colour of what is there.
pub(super) fn style(place: Place) -> Style {
    let colour = match place {
        Place::Resident => Color::Green,
        Place::Swapped => Color::Red,
        Place::Zero => Color::DarkGray,
        Place::Absent => Color::Blue,
        Place::Unreadable => Color::Magenta,
    };
    Style::new().fg(colour)
}

pub(super) fn bold(text: String) -> Span<'static> {
    Span::styled(text, Style::new().add_modifier(Modifier::BOLD))
}

/// What all of it is.
pub(super) fn heading(picture: &Picture, look: Look) -> Vec<Line<'static>> {
    let totals = picture.totals();
    let Picture {
        pid,
        command,
        mappings,
        ..
    } = picture;
    let title = format!("process {pid} ({command})");
    let size = bytes(totals.size());
    let count = format!(": {} mappings, {size} of addresses", mappings.len());
    let mut legend = Vec::new();
    for place in Place::ALL {
        let letter = look.letter(place).to_string();
        legend.push(Span::styled(letter, style(place)));
        let amount = bytes(totals.at(place));
        legend.push(Span::raw(format!(" {} {amount}  ", place.name())));
    }
    let some = look.letter_of_some().to_string();
    legend.push(Span::styled(some, style(Place::Resident)));
    legend.push(Span::raw(" some in memory"));
    vec![
        Line::from(vec![bold(title), Span::raw(count)]),
        Line::from(legend),
    ]
}

/// The names of the columns.
pub(super) fn columns(look: Look) -> Line<'static> {
    let mut text = format!("{:>7}", "size");
    for place in &Place::ALL[..4] {
        text.push_str(&format!("{:>9}", place.name()));
    }
    text.push_str(&format!(
        "  {:width$}  mapping",
        "start to end",
        width = look.cells()
    ));
    Line::from(bold(text))
}

/// A line for each mapping, and one for those that are more than `top`, which is 0 where all are wanted.
pub(super) fn rows(picture: &Picture, order: Order, top: usize, look: Look) -> Vec<Line<'static>> {
    let sorted = order.sorted(picture);
    let shown = if top == 0 {
        sorted.len()
    } else {
        top.min(sorted.len())
    };
    let mut lines: Vec<_> = sorted[..shown]
        .iter()
        .map(|mapping| row(mapping, look))
        .collect();
    let rest = &sorted[shown..];
    if !rest.is_empty() {
        let amounts = rest.iter().map(|mapping| mapping.amounts);
        let mut text = numbers(amounts.fold(Amounts::default(), Add::add));
        text.push_str(&format!("  {} more (--top 0 shows all)", rest.len()));
        lines.push(Line::from(text));
    }
    lines
}

fn numbers(amounts: Amounts) -> String {
    let mut text = format!("{:>7}", bytes(amounts.size()));
    for place in &Place::ALL[..4] {
        text.push_str(&format!("{:>9}", bytes(amounts.at(*place))));
    }
    text
}

fn row(mapping: &MappingPicture, look: Look) -> Line<'static> {
    let mut spans = vec![Span::raw(numbers(mapping.amounts)), Span::raw("  ")];
    let cells: Vec<_> = mapping.strip.iter().map(|cell| look.cell(*cell)).collect();
    for alike in cells.chunk_by(|(_, one), (_, next)| one == next) {
        let letters: String = alike.iter().map(|(letter, _)| letter).collect();
        spans.push(Span::styled(letters, alike[0].1));
    }
    let blanks = " ".repeat(look.cells().saturating_sub(cells.len()) + 2);
    let name = match look.is_wide() {
        true => mapping.name.clone(),
        // Protection and label.
        false => mapping
            .name
            .split_once('.')
            .map_or("", |(_, rest)| rest)
            .to_owned(),
    };
    spans.push(Span::raw(blanks + &name));
    Line::from(spans)
}

#[cfg(test)]
pub(super) mod tests {
    use procmemfs::target::ProcessSource;
    use procmemfs::target::fake::{FakeProcess, FakeSource};

    use super::*;

    const PLAIN: Look = Look {
        width: None,
        is_plain: true,
    };

    /// A process with a heap that is half there, a large reserve with one page in it, and a file.
    pub(crate) fn example(cells: usize) -> Picture {
        let maps = "10000-14000 rw-p 00000000 00:00 0 [heap]\n\
            20000-a0000 rw-p 00000000 00:00 0\n\
            b0000-b2000 r-xp 00001000 08:01 7 /lib/a<b>&.so\n";
        let process = FakeProcess::new(7, b"fake");
        process.set_maps(maps.as_bytes());
        process.map(0x10000, &[b'a'; 8192]).reserve(0x12000, 2);
        process.reserve(0x20000, 128).map(0x30000, &[b'a'; 4096]);
        process.swap_out(0x11000).map(0xb0000, &[b'c'; 4096]);
        let source = FakeSource::default();
        source.add(process.clone());
        let info = source.describe(process.identity().pid).unwrap();
        let opened = source.open(&info.identity).unwrap();
        procmemfs::picture::picture(&info, &*opened, cells, &mut |_, _| ()).unwrap()
    }

    fn text(lines: &[Line<'_>]) -> Vec<String> {
        lines
            .iter()
            .map(|line| line.to_string().trim_end().to_owned())
            .collect()
    }

    #[test]
    fn a_line_says_how_much_is_where() {
        let picture = example(PLAIN.cells());
        let lines = text(&rows(&picture, Order::Held, 0, PLAIN));
        assert_eq!(
            lines,
            [
                "    16K     4.0K     4.0K     8.0K        0  #s..                              000000010000-000000014000.rw-p.heap",
                "   512K     4.0K        0     508K        0  ....+...........................  000000020000-0000000a0000.rw-p.anon",
                "   8.0K     4.0K        0        0     4.0K  #-                                0000000b0000-0000000b2000.r-xp.a<b>&.so",
            ]
        );
        let columns = columns(PLAIN).to_string();
        assert_eq!(columns.find("mapping"), lines[0].find("0000"), "{columns}");
        let heading = text(&heading(&picture, PLAIN));
        assert_eq!(
            heading[0],
            "process 7 (fake): 3 mappings, 536K of addresses"
        );
        assert_eq!(
            heading[1],
            "# resident 12K  s swapped 4.0K  . zero 516K  - absent 4.0K  x unreadable 0  + some in memory"
        );
    }

    #[test]
    fn a_narrow_terminal_has_short_lines() {
        let look = Look {
            width: Some(80),
            is_plain: false,
        };
        let picture = example(look.cells());
        let lines = rows(&picture, Order::Address, 0, look);
        assert!(
            lines.iter().all(|line| line.width() <= 80),
            "{:?}",
            text(&lines)
        );
        assert!(text(&lines)[1].contains("··▄·····"), "{:?}", text(&lines));
        assert_eq!(lines[0].spans[2].style, style(Place::Resident));
        assert_eq!(lines[0].spans[3].style, style(Place::Swapped));
    }

    #[test]
    fn those_past_the_top_are_one_line() {
        let lines = text(&rows(&example(32), Order::Size, 1, PLAIN));
        assert!(lines[0].ends_with("rw-p.anon"), "{lines:?}");
        assert_eq!(
            lines[1],
            "    24K     8.0K     4.0K     8.0K     4.0K  2 more (--top 0 shows all)"
        );
    }

    #[test]
    fn each_order_puts_its_own_first() {
        let picture = example(8);
        let mut order = Order::default();
        let mut firsts = Vec::new();
        loop {
            let label = order.sorted(&picture)[0]
                .name
                .rsplit('.')
                .next()
                .unwrap()
                .to_owned();
            firsts.push((order.name(), label));
            order = order.next();
            if order == Order::default() {
                break;
            }
        }
        let expected = [
            ("held", "heap"),
            ("size", "anon"),
            ("resident", "anon"),
            ("swapped", "heap"),
            ("zero", "anon"),
            ("absent", "so"),
            ("address", "heap"),
            ("name", "anon"),
        ];
        let expected = expected.map(|(order, label)| (order.to_owned(), label.to_owned()));
        assert_eq!(firsts, expected);
    }
}
