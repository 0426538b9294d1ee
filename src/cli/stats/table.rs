//! Figures of a mount as lines of text.

use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};

use super::figures::{Count, Figures, Latency, percent};
use crate::cli::units::{bytes, number, time};

/// Requests by operation: how many, and how long they took.
pub(super) fn operations(figures: &Figures) -> Vec<Line<'static>> {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let over = format!("in {:.1} s", figures.interval.as_secs_f64());
    let groups = format!("{:32}{over:<30}since it was mounted", "");
    let names = format!(
        "{:<10}{:>10}{:>9}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}",
        "operation", "requests", "per s", "mean", "50 %", "99 %", "mean", "50 %", "99 %"
    );
    let mut lines = vec![Line::styled(groups, bold), Line::styled(names, bold)];
    lines.extend(figures.operations.iter().map(|operation| {
        let Count { total, rate } = operation.requests;
        let requests = format!(
            "{:<10}{:>10}{:>9}",
            operation.name,
            number(total),
            number(rate)
        );
        let latencies = latency(operation.now) + &latency(operation.ever);
        Line::from(vec![Span::raw(requests), Span::raw(latencies)])
    }));
    lines
}

fn latency(latency: Latency) -> String {
    let Latency { mean, p50, p99 } = latency;
    [mean, p50, p99]
        .map(|seconds| format!("{:>10}", time(seconds)))
        .concat()
}

/// All but the requests.
pub(super) fn others(figures: &Figures) -> Vec<Line<'static>> {
    let amount = |count: Count| {
        format!(
            "{}/s, {} in all",
            bytes(count.rate as u64),
            bytes(count.total as u64)
        )
    };
    let times = |count: Count| format!("{}/s, {} in all", number(count.rate), number(count.total));
    let hits = percent(figures.cache_hits.total, figures.cache_misses.total);
    let hits = hits.map_or_else(
        || "nothing was asked of it".to_owned(),
        |hits| format!("{hits:.1} % of pages"),
    );
    let ranges = figures.vm_ranges.total / figures.vm_calls.total.max(1.0);
    let mut lines = vec![
        fact("read", amount(figures.read_bytes)),
        fact("written", amount(figures.written_bytes)),
        fact(
            "cache",
            format!("{hits}, {} held", bytes(figures.cache_bytes as u64)),
        ),
        fact(
            "calls",
            format!(
                "process_vm_readv {} (of {} ranges)",
                times(figures.vm_calls),
                number(ranges)
            ),
        ),
        fact(
            "",
            format!(
                "mem {}; maps {}",
                times(figures.mem_reads),
                times(figures.maps_reads)
            ),
        ),
        fact("inodes", number(figures.inodes)),
    ];
    if figures.stops.count.total > 0.0 {
        let Latency { mean, p99, .. } = figures.stops.ever;
        let text = format!(
            "{} processes, for {} (99 %: {})",
            number(figures.stops.count.total),
            time(mean),
            time(p99)
        );
        lines.push(fact("stopped", text));
    }
    for (errno, count) in &figures.errors {
        lines.push(fact("errors", format!("{errno} {}", times(*count))));
    }
    lines
}

fn fact(name: &str, text: String) -> Line<'static> {
    let name = Span::styled(
        format!("{name:<10}"),
        Style::new().add_modifier(Modifier::BOLD),
    );
    Line::from(vec![name, Span::raw(text)])
}

#[cfg(test)]
mod tests {
    use super::super::figures::tests::example;
    use super::*;

    #[test]
    fn lines_say_how_often_and_how_long() {
        let figures = example();
        let text: Vec<String> = operations(&figures)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(text.len(), 4);
        assert!(text[0].contains("in 2.0 s"), "{text:?}");
        assert!(
            text[2].starts_with("read             120       10    4.0 ms    3.5 ms"),
            "{text:?}"
        );
        assert!(
            text[3].starts_with("open             1.0        0         -"),
            "{text:?}"
        );
        let text: Vec<String> = others(&figures).iter().map(ToString::to_string).collect();
        assert_eq!(
            text,
            [
                "read      4.0M/s, 8.0M in all",
                "written   0/s, 0 in all",
                "cache     90.0 % of pages, 1.0M held",
                "calls     process_vm_readv 2.0/s, 4.0 in all (of 2.5 ranges)",
                "          mem 0/s, 0 in all; maps 0/s, 0 in all",
                "inodes    0",
                "errors    EIO 0/s, 1.0 in all",
            ]
        );
    }
}
