//! A picture as SVG.

use procmemfs::picture::{Cell, MappingPicture, Picture, Place};
use svg::Document;
use svg::node::element::path::Data;
use svg::node::element::{Path, Rectangle, Text, Title};

use super::order::Order;
use crate::cli::units::bytes;

/// Cells of the strip of each mapping.
pub(super) const CELLS: usize = 180;

// All lengths are in pixels.
const WIDTH: usize = 1000;
const MARGIN: usize = 20;
const STRIP: usize = 2 * CELLS;
const ROW: usize = 18;
const BAR: usize = 12;
/// Right ends of the columns of numbers.
const SIZE: usize = MARGIN + STRIP + 60;
const RESIDENT: usize = SIZE + 70;
const SWAPPED: usize = RESIDENT + 70;
const NAME: usize = SWAPPED + 20;
const TOP: usize = 130;
/// Letters of a name that the picture has room for.
const LETTERS: usize = 56;

const FONT: &str = "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace";

fn colour(place: Place) -> &'static str {
    match place {
        Place::Resident => "#2a9d5c",
        Place::Swapped => "#d1495b",
        Place::Zero => "#e4e7ea",
        Place::Absent => "#9fc3e6",
        Place::Unreadable => "#8a7fa8",
    }
}

/// Draws the first `top` mappings in this order, or all of them where that is 0.
pub(super) fn draw(picture: &Picture, order: Order, top: usize) -> Document {
    let sorted = order.sorted(picture);
    let shown = if top == 0 {
        sorted.len()
    } else {
        top.min(sorted.len())
    };
    let rest = &sorted[shown..];
    let lines = shown + usize::from(!rest.is_empty());
    let height = TOP + ROW * lines + MARGIN;
    let mut drawing = Document::new()
        .set("viewBox", (0, 0, WIDTH, height))
        .set("width", WIDTH)
        .set("height", height)
        .set("font-family", FONT)
        .set("font-size", 11)
        .add(
            Rectangle::new()
                .set("width", WIDTH)
                .set("height", height)
                .set("fill", "#ffffff"),
        );
    drawing = heading(drawing, picture);
    for (index, mapping) in sorted[..shown].iter().enumerate() {
        drawing = row(drawing, mapping, TOP + ROW * index);
    }
    if !rest.is_empty() {
        let held: u64 = rest.iter().map(|mapping| mapping.amounts.held()).sum();
        let text = format!("and {} more, which hold {}", rest.len(), bytes(held));
        drawing = drawing
            .add(label(text, MARGIN, TOP + ROW * shown + BAR, "start").set("fill", "#555555"));
    }
    drawing
}

fn label(text: impl Into<String>, x: usize, y: usize, anchor: &str) -> Text {
    let label = Text::new(text).set("x", x).set("y", y);
    match anchor {
        "start" => label,
        anchor => label.set("text-anchor", anchor),
    }
}

fn heading(mut drawing: Document, picture: &Picture) -> Document {
    let Picture {
        pid,
        command,
        mappings,
        ..
    } = picture;
    let totals = picture.totals();
    let title = format!("{command} (process {pid})");
    let size = bytes(totals.size());
    let count = format!("{} mappings, {size} of addresses", mappings.len());
    drawing = drawing
        .add(Title::new(&title))
        .add(
            label(title, MARGIN, 30, "start")
                .set("font-size", 17)
                .set("font-weight", "bold"),
        )
        .add(label(count, WIDTH - MARGIN, 30, "end"));
    let mut at = MARGIN;
    for place in Place::ALL {
        let text = format!("{} {}", place.name(), bytes(totals.at(place)));
        let len = text.len();
        drawing = drawing
            .add(square(at, place))
            .add(label(text, at + 17, 58, "start"));
        at += 17 + 7 * len + 18;
    }
    let both = Rectangle::new()
        .set("x", at)
        .set("y", 48)
        .set("width", BAR)
        .set("height", BAR);
    drawing = drawing
        .add(both.set("fill", colour(Place::Zero)))
        .add(
            Rectangle::new()
                .set("x", at)
                .set("y", 54)
                .set("width", BAR)
                .set("height", 6)
                .set("fill", colour(Place::Resident)),
        )
        .add(label("some in memory", at + 17, 58, "start"));
    let whole = (WIDTH - 2 * MARGIN) as f64;
    let mut x = MARGIN as f64;
    for place in Place::ALL {
        let width = whole * totals.at(place) as f64 / totals.size().max(1) as f64;
        if width > 0.0 {
            let bar = Rectangle::new()
                .set("x", rounded(x))
                .set("y", 72)
                .set("width", rounded(width));
            drawing = drawing.add(bar.set("height", 14).set("fill", colour(place)));
        }
        x += width;
    }
    for (name, x, anchor) in [
        ("from its start to its end", MARGIN, "start"),
        ("size", SIZE, "end"),
        ("resident", RESIDENT, "end"),
        ("swapped", SWAPPED, "end"),
        ("mapping", NAME, "start"),
    ] {
        drawing = drawing.add(label(name, x, TOP - 10, anchor).set("fill", "#555555"));
    }
    drawing
}

fn square(x: usize, place: Place) -> Rectangle {
    let square = Rectangle::new()
        .set("x", x)
        .set("y", 48)
        .set("width", BAR)
        .set("height", BAR);
    square.set("fill", colour(place))
}

fn rounded(length: f64) -> f64 {
    (length * 10.0).round() / 10.0
}

fn row(mut drawing: Document, mapping: &MappingPicture, y: usize) -> Document {
    let amounts = mapping.amounts;
    for place in Place::ALL {
        let path = stretches(mapping, y, BAR, |cell| cell.place == place);
        if let Some(path) = path {
            drawing = drawing.add(path.set("fill", colour(place)));
        }
    }
    let is_held = |place| matches!(place, Place::Resident | Place::Swapped);
    let some = stretches(mapping, y + BAR / 2, BAR / 2, |cell| {
        cell.holds_some && !is_held(cell.place)
    });
    if let Some(path) = some {
        drawing = drawing.add(path.set("fill", colour(Place::Resident)));
    }
    let text_y = y + BAR - 2;
    let number = |bytes_there: u64| match bytes_there {
        0 => "-".to_owned(),
        there => bytes(there),
    };
    let mut name = mapping.name.clone();
    if name.len() > LETTERS {
        // Names are ASCII.
        name.truncate(LETTERS - 1);
        name.push('…');
    }
    drawing
        .add(label(number(amounts.size()), SIZE, text_y, "end"))
        .add(label(
            number(amounts.at(Place::Resident)),
            RESIDENT,
            text_y,
            "end",
        ))
        .add(label(
            number(amounts.at(Place::Swapped)),
            SWAPPED,
            text_y,
            "end",
        ))
        .add(label(name, NAME, text_y, "start"))
}

/// Neighbouring cells of one kind, each as one rectangle of a path.
fn stretches(
    mapping: &MappingPicture,
    y: usize,
    height: usize,
    is_wanted: impl Fn(&Cell) -> bool,
) -> Option<Path> {
    let cells = mapping.strip.len();
    let x = |cell: usize| MARGIN + STRIP * cell / cells;
    let mut data = Data::new();
    let mut at = 0;
    for alike in mapping
        .strip
        .chunk_by(|one, next| is_wanted(one) == is_wanted(next))
    {
        let end = at + alike.len();
        if is_wanted(&alike[0]) {
            data = data.move_to((x(at), y)).horizontal_line_by(x(end) - x(at));
            data = data
                .vertical_line_by(height)
                .horizontal_line_to(x(at))
                .close();
        }
        at = end;
    }
    (!data.is_empty()).then(|| Path::new().set("d", data))
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::example;
    use super::*;

    #[test]
    fn what_is_drawn_is_svg_and_says_what_it_is() {
        let text = draw(&example(CELLS), Order::Held, 0).to_string();
        assert!(text.starts_with("<svg"), "{text}");
        for part in [
            "fake (process 7)",
            "3 mappings, 536K of addresses",
            "000000010000-000000014000.rw-p.heap",
            "a&lt;b&gt;&amp;.so",
            colour(Place::Swapped),
        ] {
            assert!(text.contains(part), "no {part}: {text}");
        }
        assert!(text.matches("<path").count() >= 5, "{text}");
    }

    #[test]
    fn what_is_more_than_wanted_is_one_line() {
        let text = draw(&example(CELLS), Order::Size, 1).to_string();
        assert!(text.contains("and 2 more, which hold 12K"), "{text}");
        assert!(!text.contains("heap"), "{text}");
    }

    #[test]
    fn a_name_that_is_too_long_is_cut() {
        let mut picture = example(CELLS);
        picture.mappings[0].name = "x".repeat(255);
        let text = draw(&picture, Order::Held, 0).to_string();
        let cut = format!("{}…", "x".repeat(LETTERS - 1));
        assert!(
            text.contains(&cut) && !text.contains(&"x".repeat(LETTERS)),
            "{text}"
        );
    }

    /// A strip has its whole width, whatever the number of its cells.
    #[test]
    fn stretches_are_joined() {
        let picture = example(CELLS);
        let heap = &picture.mappings[0];
        let path = stretches(heap, 0, BAR, |cell| cell.place == Place::Zero).unwrap();
        let text = path.to_string();
        assert_eq!(text.matches('M').count(), 1, "{text}");
        assert!(text.contains(&format!("h{}", STRIP / 2)), "{text}");
    }
}
