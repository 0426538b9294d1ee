//! `procmemfs doctor`: says what keeps the program from working here, and why a process cannot be read.

use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode};

use anstyle::{AnsiColor, Style};
use anyhow::Result;
use clap::Parser;
use nix::sys::signal::Signal;
use procmemfs::diagnosis::{
    Diagnosis, Finding, ProcessDiagnosis, UnreadableBytes, Verdict, diagnose, killed, may_be_killed,
};

use super::terminal::print_styled;
use super::units::process_number;

const EXAMPLES: &str = "\
Each check is ok, a warning (something is slower, or shows less, than it could) or a problem. The exit code is 1 where
there is a problem, else 0. Nothing is changed, and no process is stopped or touched.

Examples:
  procmemfs doctor                  check this system, as this user
  procmemfs doctor 1234             and say why process 1234 cannot be read, or parts of it
  procmemfs doctor --json | jq '.system[] | select(.verdict != \"ok\")'";

/// The width of the column with the names of the checks.
const NAMES: usize = 24;

/// Say what keeps procmemfs from working here
///
/// And why a process cannot be read, or which bytes of it.
#[derive(Debug, Parser)]
#[command(bin_name = "procmemfs doctor", after_help = EXAMPLES)]
pub(super) struct DoctorArguments {
    /// Print one JSON object
    #[arg(long)]
    json: bool,

    /// A process to look at, too
    #[arg(value_name = "PID")]
    pid: Option<String>,
}

/// Does it.
///
/// # Errors
/// Where PID is no number, or nothing can be printed.
pub(super) fn run(arguments: &DoctorArguments) -> Result<ExitCode> {
    let pid = arguments.pid.as_deref();
    let pid = pid.map(|pid| process_number("doctor", pid)).transpose()?;
    let diagnosis = match by_another_process() {
        Some(Outcome::Done(code)) => return Ok(code),
        Some(Outcome::Killed) => killed(),
        None => diagnose(pid),
    };
    let mut text = Vec::new();
    match arguments.json {
        true => {
            serde_json::to_writer_pretty(&mut text, &diagnosis)?;
            text.push(b'\n');
        }
        false => write(&diagnosis, &mut text)?,
    }
    print_styled(&text)?;
    Ok(match diagnosis.works {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// What became of a process that did the same.
enum Outcome {
    Done(ExitCode),
    /// By a filter, before it said anything.
    Killed,
}

/// Says that a process is the one that [`by_another_process`] has started.
const STARTED: &str = "PROCMEMFS_DOCTOR_STARTED";

/// Has another process look and print where a filter may kill who does; `None` where this one can.
fn by_another_process() -> Option<Outcome> {
    if !may_be_killed() || std::env::var_os(STARTED).is_some() {
        return None;
    }
    let mut command = Command::new("/proc/self/exe");
    let command = command.args(std::env::args_os().skip(1)).env(STARTED, "1");
    let status = command.status().ok()?;
    if status.signal() == Some(Signal::SIGSYS as i32) {
        return Some(Outcome::Killed);
    }
    let code = u8::try_from(status.code()?).ok()?;
    Some(Outcome::Done(code.into()))
}

fn write(diagnosis: &Diagnosis, out: &mut impl Write) -> io::Result<()> {
    let Diagnosis {
        version,
        kernel,
        user,
        ..
    } = diagnosis;
    writeln!(
        out,
        "procmemfs {version} on Linux {kernel}, as user {user}\n"
    )?;
    for finding in &diagnosis.system {
        write_finding(finding, out)?;
    }
    if let Some(process) = &diagnosis.process {
        write_process(process, out)?;
    }
    let process = diagnosis
        .process
        .iter()
        .flat_map(|process| &process.findings);
    let all = diagnosis.system.iter().chain(process);
    let problems = all.filter(|it| it.verdict == Verdict::Problem).count();
    match problems {
        0 => writeln!(out, "\nNothing keeps it from working here."),
        1 => writeln!(out, "\nOne problem keeps it from working."),
        many => writeln!(out, "\n{many} problems keep it from working."),
    }
}

fn write_process(process: &ProcessDiagnosis, out: &mut impl Write) -> io::Result<()> {
    let command = process.command.as_deref().unwrap_or("?");
    writeln!(out, "\nprocess {} ({command})\n", process.pid)?;
    for finding in &process.findings {
        write_finding(finding, out)?;
    }
    for part in &process.unreadable {
        let told = Finding {
            found: format!("{}: {}{}", part.mapping, extent(part), part.why.found),
            ..part.why.clone()
        };
        write_finding(&told, out)?;
    }
    Ok(())
}

/// How much of a mapping it is, and from where on.
fn extent(part: &UnreadableBytes) -> String {
    match part.mapping.starts_with(&part.from) {
        true => format!("{} bytes: ", part.bytes),
        false => format!("{} bytes from {} on: ", part.bytes, part.from),
    }
}

fn write_finding(finding: &Finding, out: &mut impl Write) -> io::Result<()> {
    let style = style(finding.verdict);
    writeln!(
        out,
        "{style}{verdict:<8}{style:#} {check:<NAMES$} {found}",
        verdict = finding.verdict,
        check = finding.check,
        found = finding.found
    )?;
    let more = [("", &finding.means), ("fix: ", &finding.fix)];
    for (label, text) in more {
        if let Some(text) = text {
            writeln!(
                out,
                "{:indent$}{label}{text}",
                "",
                indent = 8 + 1 + NAMES + 1
            )?;
        }
    }
    Ok(())
}

fn style(verdict: Verdict) -> Style {
    let colour = match verdict {
        Verdict::Ok => AnsiColor::Green,
        Verdict::Warning => AnsiColor::Yellow,
        Verdict::Problem => AnsiColor::Red,
    };
    Style::new().fg_color(Some(colour.into()))
}
