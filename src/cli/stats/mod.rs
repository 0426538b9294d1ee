//! `procmemfs stats`: rates and latencies of a mount.

mod figures;
mod live;
mod source;
mod table;

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use ratatui::text::Line;

use self::live::StatsScreen;
use self::source::Source;
use super::terminal::{parse_interval, print, print_text, show};

const EXAMPLES: &str = "\
On a terminal it is shown again and again, until q is pressed; elsewhere it is written once, after one interval. Sizes
are in bytes, K, M, G, T (powers of 1024). Latencies are estimated as Prometheus does it, from the counts of
MOUNTPOINT/stats; reading that file is counted, too.

Examples:
  procmemfs stats /mnt
  procmemfs stats --interval 10s /mnt | cat
  procmemfs stats --json /mnt | jq .read_bytes
  cat /mnt/stats                              what a Prometheus server takes (see docs/PICTURE.md)";

/// The time of the first figures that are shown on a terminal: nobody waits long for them.
const FIRST: Duration = Duration::from_millis(200);

/// Show what a mount is asked for, and how long it takes.
#[derive(Debug, Parser)]
#[command(bin_name = "procmemfs stats", after_help = EXAMPLES)]
pub(super) struct StatsArguments {
    /// Write JSON, once
    #[arg(long)]
    json: bool,

    /// How often it is looked at, and over what time rates are taken
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_interval)]
    interval: Duration,

    /// Where it is mounted
    #[arg(value_name = "MOUNTPOINT")]
    mountpoint: PathBuf,
}

/// Does it.
///
/// # Errors
/// Why there is nothing to be seen.
pub(super) fn run(arguments: &StatsArguments) -> Result<()> {
    let mut source = Source::open(&arguments.mountpoint)?;
    let is_live = io::stdout().is_terminal() && io::stdin().is_terminal() && !arguments.json;
    // Rates need two readings.
    std::thread::sleep(match is_live {
        true => arguments.interval.min(FIRST),
        false => arguments.interval,
    });
    if is_live {
        return show(&mut StatsScreen::new(source), arguments.interval);
    }
    let figures = source.figures()?;
    if arguments.json {
        return print_text(&format!("{:#}\n", figures.json()));
    }
    let mut lines = table::operations(&figures);
    lines.push(Line::default());
    lines.extend(table::others(&figures));
    print(&lines)
}
