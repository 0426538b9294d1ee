//! The program whose memory the mount tests look at.
//!
//! `mount-target serve DIR GENERATION` makes one region of every kind, fills
//! each with known bytes (see `pattern`), prints one line `ready pid=N ...`
//! and then answers one line for each line of its standard input. It ends when
//! its input ends and when its parent dies, so that nothing outlives a test.
//!
//! `mount-target as-pid PID DIR GENERATION` does the same in a child that has
//! the given process id.
//!
//! `mount-target attack-worker CONTROL MOUNT DUTY INDEX` is a worker of `mount-tests/attack`.

#![allow(clippy::unwrap_used)]

mod attack;
mod churn;
mod command_line;
mod edges;
mod odd;
mod pattern;
mod regions;
mod rings;
mod scatter;
mod shapes;
mod steps;
mod userfault;

use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};

use edges::Edges;
use regions::{PAGE, Regions};
use shapes::Shapes;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    odd::die_with_parent();
    match words[..] {
        ["serve", dir, generation] => serve(Path::new(dir), generation.parse().unwrap()),
        ["as-pid", pid, dir, generation] => odd::serve_as(pid.parse().unwrap(), || {
            serve(Path::new(dir), generation.parse().unwrap());
        }),
        ["attack-worker", control, mount, duty, index] => {
            attack::work(control, mount, duty, index).unwrap();
        }
        _ => {
            eprintln!("usage: mount-target serve DIR GENERATION");
            std::process::exit(2);
        }
    }
}

/// Makes the regions, says so, and obeys until the input ends.
fn serve(dir: &Path, generation: u64) {
    odd::allow_any_tracer();
    let regions = Regions::build(dir, generation).unwrap();
    let target = Target {
        regions,
        shapes: Shapes::new(generation),
        edges: Edges::new(generation),
        dir: dir.to_path_buf(),
    };
    target.ready(generation);
    obey_all(target);
}

fn obey_all(mut target: Target) {
    let mut line = String::new();
    while io::stdin().read_line(&mut line).unwrap() > 0 {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words == ["end-first-thread"] {
            // Another one goes on in its place.
            std::thread::spawn(move || {
                odd::die_with_parent();
                say("ok");
                obey_all(target);
                std::process::exit(0);
            });
            odd::end_thread();
        }
        match target.obey(&words) {
            Ok(answer) => say(&format!("ok {answer}")),
            Err(error) => say(&format!("err {}: {error}", line.trim())),
        }
        line.clear();
    }
}

fn say(line: &str) {
    let mut out = io::stdout().lock();
    // A test that went away does not read any more.
    if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

struct Target {
    regions: Regions,
    shapes: Shapes,
    edges: Edges,
    dir: PathBuf,
}

impl Target {
    fn ready(&self, generation: u64) {
        let mut line = format!(
            "ready pid={} generation={generation} anon_names={}",
            std::process::id(),
            self.regions.anon_names
        );
        for region in &self.regions.list {
            let (start, end) = (region.start, region.start + region.len);
            line += &format!(" {}={start:x}-{end:x}", region.name);
        }
        say(&line);
    }

    /// Carries out one command.
    fn obey(&mut self, words: &[&str]) -> io::Result<String> {
        match *words {
            ["read", at, len] => Ok(hex(visible(address(at), number(len)))),
            ["readmem", at, len] => {
                let mut bytes = vec![0; number(len)];
                std::fs::File::open("/proc/self/mem")?
                    .read_exact_at(&mut bytes, address(at) as u64)?;
                Ok(hex(&bytes))
            }
            ["write", at, bytes] => {
                let bytes = unhex(bytes);
                // SAFETY: the test names bytes of a writable region.
                unsafe {
                    std::ptr::copy_nonoverlapping(
                        bytes.as_ptr(),
                        address(at) as *mut u8,
                        bytes.len(),
                    );
                };
                Ok(String::new())
            }
            ["unmap", at, len] => regions::unmap(address(at), number(len)).map(|()| String::new()),
            ["protect", at, len, prot] => {
                regions::protect(address(at), number(len), protection(prot)).map(|()| String::new())
            }
            ["map", name, path, len, kind, prot] => {
                let file = regions::open_any(path)?;
                let len = number(len);
                let prot = protection(prot);
                let start =
                    self.regions
                        .map_as(name, len, Some(file.as_fd()), kind == "private", prot)?;
                Ok(format!("{start:x}-{:x}", start + len))
            }
            ["grow-heap", len] => {
                let region = self.regions.grow_heap("grown", number(len))?;
                Ok(format!(
                    "{:x}-{:x}",
                    region.start,
                    region.start + region.len
                ))
            }
            ["memfd", name] => {
                let (_, fd) = self
                    .regions
                    .memfds
                    .iter()
                    .find(|(region, _)| region == name)
                    .unwrap();
                Ok(fd.as_raw_fd().to_string())
            }
            ["many", count] => {
                let count = number(count);
                let start = self.regions.many(count)?;
                Ok(format!("{start:x}-{:x}", start + count * PAGE))
            }
            ["value", at] => {
                // SAFETY: the test names eight bytes of a readable region, which
                // the counter's thread writes as a whole.
                let value = unsafe { AtomicU64::from_ptr(address(at) as *mut u64) };
                Ok(value.load(Ordering::Relaxed).to_string())
            }
            ["counter"] => {
                count(self.regions.region("counter").start);
                Ok(String::new())
            }
            ["churn", len] => {
                let start = self.regions.map("churn", number(len), None, true)?;
                churn::start(start, number(len));
                Ok(format!("{start:x}-{:x}", start + number(len)))
            }
            ["threads", count] => {
                let count = number(count);
                // A thread maps memory for itself before it comes to that.
                let all_run = Arc::new(Barrier::new(count + 1));
                for _ in 0..count {
                    let all_run = Arc::clone(&all_run);
                    std::thread::spawn(move || {
                        all_run.wait();
                        std::thread::park();
                    });
                }
                all_run.wait();
                Ok(String::new())
            }
            ["comm"] => odd::set_comm(b"").map(|()| String::new()),
            ["comm", bytes] => odd::set_comm(&unhex(bytes)).map(|()| String::new()),
            ["userfault"] => {
                let len = 16 * PAGE;
                let start = self.regions.map("userfault", len, None, true)?;
                self.edges.register("missing", start, len)?;
                Ok(format!("{start:x}-{:x}", start + len))
            }
            // A child that has the mappings of ours, and waits until we end.
            ["fork"] => odd::fork_waiting(|| ()).map(|pid| pid.to_string()),
            ["fork-closing", name] => {
                let fd = self.shapes.file(name)?.as_raw_fd();
                odd::fork_waiting(|| {
                    // SAFETY: no Rust object of the child uses the descriptor any more.
                    unsafe { libc::close(fd) };
                })
                .map(|pid| pid.to_string())
            }
            ["release", name] => {
                odd::lease(self.shapes.file(name)?, libc::F_UNLCK).map(|()| String::new())
            }
            ["poke-child", at] => {
                let at = address(at) as *mut u8;
                // SAFETY: the test names a byte of memory that is shared and writable.
                let child = odd::fork(|| unsafe { at.write_volatile(b'c') })?;
                odd::wait_until_zombie(child as u32)?;
                Ok(String::new())
            }
            ["command-line", place, len] => command_line::lay(place, number(len)),
            ["title", len] => command_line::retitle(number(len)).map(|()| String::new()),
            ["zombie"] => {
                let child = std::process::Command::new("/bin/true").spawn()?;
                let pid = child.id();
                odd::wait_until_zombie(pid)?;
                std::mem::forget(child);
                Ok(pid.to_string())
            }
            ["lay-over", at, len] => {
                odd::lay_over(address(at), number(len));
                Ok(String::new())
            }
            ["vfork-exec"] => odd::vfork_exec().map(|pid| pid.to_string()),
            ["in-order", at, len] => {
                steps::in_order(address(at), number(len));
                Ok(String::new())
            }
            ["take-turns", turn, own, mine] => {
                steps::take_turns(address(turn), address(own), mine.parse().unwrap());
                Ok(String::new())
            }
            ["vfork-wait"] => Ok(steps::wait_for_vfork().to_string()),
            ["exec", generation] => Err(odd::exec_self(&self.dir, generation)),
            ["exit"] => std::process::exit(0),
            ["lease", name] => {
                odd::lease(self.shapes.file(name)?, libc::F_WRLCK).map(|()| String::new())
            }
            [
                "come-and-go" | "register" | "write-protect" | "poison" | "guard" | "huge" | "ring"
                | "advise",
                ..,
            ] => self.edges.obey(words),
            _ => self.shapes.obey(words),
        }
    }
}

/// Starts a thread that writes an ever growing number into the page.
fn count(start: usize) {
    // SAFETY: the region is mapped for as long as the process lives, and only
    // this counter uses it from now on.
    let counter = unsafe { AtomicU64::from_ptr(start as *mut u64) };
    counter.store(0, Ordering::Relaxed);
    std::thread::spawn(move || {
        loop {
            counter.fetch_add(1, Ordering::Relaxed);
            std::thread::yield_now();
        }
    });
}

/// Memory of a readable region, as the program itself sees it.
fn visible(start: usize, len: usize) -> &'static [u8] {
    // SAFETY: the test names bytes of a readable region, and nothing writes
    // there while the answer is made.
    unsafe { std::slice::from_raw_parts(start as *const u8, len) }
}

fn address(text: &str) -> usize {
    usize::from_str_radix(text, 16).unwrap()
}

fn number(text: &str) -> usize {
    text.parse().unwrap()
}

fn protection(text: &str) -> libc::c_int {
    let mut prot = libc::PROT_NONE;
    for (letter, bit) in [
        ('r', libc::PROT_READ),
        ('w', libc::PROT_WRITE),
        ('x', libc::PROT_EXEC),
    ] {
        if text.contains(letter) {
            prot |= bit;
        }
    }
    prot
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2)
        .map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
        .collect()
}
