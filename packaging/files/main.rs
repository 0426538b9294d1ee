//! Makes the files that packages carry beside the program: manual pages and completions for shells, from the very
//! definition that the program reads its arguments by.
//!
//! ```sh
//! cargo run --release --example package-files -- DIRECTORY
//! ```

mod completions;
mod manual;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Command, CommandFactory};

#[allow(dead_code, reason = "only what defines the arguments is of use here")]
#[path = "../../src/cli/mod.rs"]
mod cli;

fn main() -> Result<()> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [directory] = arguments.as_slice() else {
        bail!("give the directory to write to, and nothing else");
    };
    write_all(directory, manual::pages(&definition())?)?;
    write_all(directory, completions::scripts(&definition())?)
}

/// The whole command line.
fn definition() -> Command {
    cli::arguments::Arguments::command()
        .disable_help_subcommand(true)
        .subcommands(cli::arguments::commands())
}

/// A file, by its path below the directory, and what is in it.
type File = (String, Vec<u8>);

fn write_all(directory: &Path, files: Vec<File>) -> Result<()> {
    for (name, bytes) in files {
        let path = directory.join(name);
        let parent = path.parent().unwrap_or(directory);
        fs::create_dir_all(parent)
            .and_then(|()| fs::write(&path, bytes))
            .with_context(|| path.display().to_string())?;
        println!("{}", path.display());
    }
    Ok(())
}
