//! The command `procmemfs`.

mod cli;

fn main() -> std::process::ExitCode {
    cli::run()
}
