//! `procmemfs map`: a picture of an address space, and what differs between two copies of one.

mod changes;
mod json;
mod live;
mod order;
mod svg;
mod table;
mod watched;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use procmemfs::backup::Backup;
use procmemfs::common::clock::SystemClock;
use procmemfs::common::metrics::Metrics;
use procmemfs::picture::{Picture, difference};
use procmemfs::target::live::{LiveSource, SourceOptions};
use serde_json::Value;

use self::live::MapScreen;
use self::order::Order;
use self::table::Look;
use self::watched::Watched;
use super::progress::Progress;
use super::terminal::{parse_interval, print, print_text, show, width};
use super::units::process_number;

const EXAMPLES: &str = "\
No page of the process is touched, and it is not stopped. Sizes are in bytes, K, M, G, T (powers of 1024).

  resident    in memory, in the process's page table
  swapped     in swap
  zero        never written: reads as zeros, takes no memory
  absent      in the file, or the shared memory, of the mapping; not in the process's page table
  unreadable  past the end of a file, of a device, guarded, or filled in when touched

Examples:
  procmemfs map 1234                          a picture of process 1234
  procmemfs map --live --sort resident 1234   again and again
  procmemfs map --svg 1234.svg 1234           as a file
  procmemfs map --json 1234 | jq .totals
  mkdir /mnt/snap/1234@a; sleep 60; mkdir /mnt/snap/1234@b
  procmemfs map --diff /mnt/snap/1234@a /mnt/snap/1234@b";

/// Draw the memory of a process
///
/// Of each mapping: what of it is in memory, in swap, or nowhere.
#[derive(Debug, Parser)]
#[command(bin_name = "procmemfs map", after_help = EXAMPLES)]
pub(super) struct MapArguments {
    /// Compare two snapshots, or copies of them, page by page
    #[arg(long, num_args = 2, value_names = ["OLD", "NEW"], conflicts_with_all = ["pid", "live", "svg"])]
    diff: Option<Vec<PathBuf>>,

    /// Write JSON, with all mappings
    #[arg(long, conflicts_with_all = ["live", "svg"])]
    json: bool,

    /// Draw into a file of this name, as SVG
    #[arg(long, value_name = "FILE", conflicts_with = "live")]
    svg: Option<PathBuf>,

    /// Show it again and again, until q is pressed
    #[arg(long)]
    live: bool,

    /// How often, with --live
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_interval)]
    interval: Duration,

    /// What comes first
    #[arg(long, value_name = "KEY", default_value = "held")]
    sort: Order,

    /// Show so many mappings, and the others as one; 0 shows all
    #[arg(long, value_name = "COUNT", default_value_t = 40)]
    top: usize,

    /// The process
    #[arg(value_name = "PID", required_unless_present = "diff")]
    pid: Option<String>,
}

/// Does it.
///
/// # Errors
/// Why there is nothing to be seen.
pub(super) fn run(arguments: &MapArguments) -> Result<()> {
    if let Some([old, new]) = arguments.diff.as_deref() {
        return compare(old, new, arguments.json);
    }
    let pid = process_number("map", arguments.pid.as_deref().unwrap_or_default())?;
    let clock = Arc::new(SystemClock::new());
    let source = LiveSource::new(
        SourceOptions::default(),
        clock,
        Arc::new(Metrics::default()),
    )?;
    let mut watched = Watched::new(source, pid)?;
    if arguments.live {
        let mut screen = MapScreen::new(watched, arguments.sort);
        return show(&mut screen, arguments.interval);
    }
    let look = Look {
        width: width(),
        is_plain: width().is_none(),
    };
    let cells = match arguments.svg {
        Some(_) => svg::CELLS,
        None => look.cells(),
    };
    let bar = Arc::new(Progress::of_mappings());
    let drawn = Arc::clone(&bar);
    let picture = watched.look(cells, move |done, total| drawn.at(done, total));
    // Whoever draws it may never come back.
    bar.clear();
    let picture = picture?;
    match &arguments.svg {
        Some(path) => draw(path, &picture, arguments),
        None if arguments.json => print_json(&json::picture(&picture, arguments.sort)),
        None => {
            let mut lines = table::heading(&picture, look);
            lines.push(table::columns(look));
            lines.extend(table::rows(&picture, arguments.sort, arguments.top, look));
            print(&lines)
        }
    }
}

fn draw(path: &Path, picture: &Picture, arguments: &MapArguments) -> Result<()> {
    let drawing = svg::draw(picture, arguments.sort, arguments.top);
    let text = format!("{drawing}\n");
    std::fs::write(path, text).with_context(|| format!("map: {}", path.display()))
}

fn compare(old: &Path, new: &Path, is_json: bool) -> Result<()> {
    let old = Backup::open(old)?;
    let new = Backup::open(new)?;
    let bar = Progress::of_bytes();
    let found = difference(&old, &new, &mut |done, total| bar.at(done, total));
    drop(bar);
    let found = found?;
    match is_json {
        true => print_json(&json::difference(&old, &new, &found)),
        false => print(&changes::lines(&old, &new, &found)),
    }
}

fn print_json(value: &Value) -> Result<()> {
    print_text(&format!("{value:#}\n"))
}
