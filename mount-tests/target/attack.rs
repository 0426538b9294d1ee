//! A worker of the attacks on identity (`mount-tests/attack`) that is a process of its own, so that it can be another
//! user than the tests.

use std::io;
use std::path::Path;

use control::Control;
use worker::{Duty, Worker};

#[allow(dead_code, reason = "the tests use the rest of it")]
#[path = "../attack/control.rs"]
mod control;
#[allow(dead_code, reason = "the tests use the rest of it")]
#[path = "../attack/worker.rs"]
mod worker;

/// Works until the target has ended, and says in one line what came of it.
pub(crate) fn work(control: &str, mount: &str, duty: &str, index: &str) -> io::Result<()> {
    let named = |of: &Duty| format!("{of:?}") == duty;
    let duty = Duty::ALL.into_iter().find(named);
    let duty = duty.ok_or_else(|| io::Error::other("no such duty"))?;
    let index = index.parse().map_err(io::Error::other)?;
    let control = Control::open(Path::new(control))?;
    let worker = Worker::new(control, Path::new(mount), duty, index).of_plain_user();
    println!("tally {}", worker.run()?);
    Ok(())
}
