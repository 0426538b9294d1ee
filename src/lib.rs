//! procmemfs shows the memory of live Linux processes as files.
//!
//! The command `procmemfs` mounts them. This library is what it is made of, for programs that look at the memory of
//! processes themselves, without a mount and without harm: no page of a process is faulted in, and what was read is the
//! memory of the program that was opened, or an error.
//!
//! # Reading memory
//!
//! A [`ProcessSource`](target::ProcessSource) knows the processes there are; [`LiveSource`](target::live::LiveSource) is
//! that of this system. It gives a [`Process`](target::Process): one program of one process, pinned by descriptors, so that neither
//! an exec nor another process of the same number is ever taken for it. Its [`ProcessMemory`](target::ProcessMemory) is read
//! by segments, as many as one likes in a call.
//!
//! The examples below look at a shell that they start themselves, for which a plain user needs no further rights
//! (but see ptrace(2) for Yama and `PR_SET_DUMPABLE`).
//!
//! ```
//! use std::io::{BufRead, BufReader};
//! use std::process::{Command, Stdio};
//! use std::sync::Arc;
//!
//! use procmemfs::common::clock::SystemClock;
//! use procmemfs::target::live::{LiveSource, SourceOptions};
//! use procmemfs::target::{ProcessId, ProcessSource, ReadSegment};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut child = Command::new("sh")
//!     .args(["-c", r#"secret=sword; secret="${secret}fish"; echo ready; read -r line"#])
//!     .stdin(Stdio::piped())
//!     .stdout(Stdio::piped())
//!     .spawn()?;
//! BufReader::new(child.stdout.take().unwrap()).read_line(&mut String::new())?;
//!
//! let clock = Arc::new(SystemClock::new());
//! let source = LiveSource::new(SourceOptions::default(), clock, Arc::default())?;
//! let info = source.describe(ProcessId::new(child.id()).ok_or("no process id")?)?;
//! let process = source.open(&info.identity)?;
//! let (memory, space) = (process.memory()?, process.address_space()?);
//!
//! let heap = space.heap().ok_or("a shell has a heap")?;
//! let mut bytes = vec![0; usize::try_from(heap.size())?];
//! let got = memory.read(&mut [ReadSegment {
//!     address: heap.range().start(),
//!     buffer: &mut bytes,
//!     mapping: heap,
//! }])?;
//! assert!(bytes[..got].windows(9).any(|window| window == b"swordfish"));
//! # drop(child.stdin.take());
//! # child.wait()?;
//! # Ok(())
//! # }
//! ```
//!
//! # Where the bytes are
//!
//! [`extents`](target::ProcessMemory::extents) says of each page whether it is in memory, in swap, in the file of its mapping,
//! zeros that nobody has touched, or not to be read at all; it touches none of them.
//!
//! ```
//! # use std::io::{BufRead, BufReader};
//! # use std::process::{Command, Stdio};
//! # use std::sync::Arc;
//! use procmemfs::target::page_state::PageState;
//! # use procmemfs::common::clock::SystemClock;
//! # use procmemfs::target::live::{LiveSource, SourceOptions};
//! # use procmemfs::target::{ProcessId, ProcessSource};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let mut child = Command::new("sh")
//! #     .args(["-c", "echo ready; read -r line"])
//! #     .stdin(Stdio::piped())
//! #     .stdout(Stdio::piped())
//! #     .spawn()?;
//! # BufReader::new(child.stdout.take().unwrap()).read_line(&mut String::new())?;
//! # let clock = Arc::new(SystemClock::new());
//! # let source = LiveSource::new(SourceOptions::default(), clock, Arc::default())?;
//! # let info = source.describe(ProcessId::new(child.id()).ok_or("no process id")?)?;
//! # let process = source.open(&info.identity)?;
//! # let (memory, space) = (process.memory()?, process.address_space()?);
//! // As above, for the stack.
//! let stack = space.stack().ok_or("each program has a stack")?;
//! let extents = memory.extents(stack, stack.range(), 1024)?;
//! let resident: u64 = extents
//!     .iter()
//!     .filter(|extent| extent.state == PageState::Resident)
//!     .map(|extent| extent.range.len())
//!     .sum();
//! assert!(resident > 0 && resident <= stack.size());
//! # drop(child.stdin.take());
//! # child.wait()?;
//! # Ok(())
//! # }
//! ```
//!
//! # Mappings without a process
//!
//! What the kernel says of an address space is parsed from bytes, wherever these come from:
//!
//! ```
//! use procmemfs::target::mapping::AddressSpace;
//!
//! let maps = b"55d0c0a00000-55d0c0a21000 rw-p 00000000 00:00 0          [heap]\n";
//! let space = AddressSpace::parse(maps)?;
//! let heap = space.heap().expect("there is one");
//! assert_eq!(heap.file_name(), "55d0c0a00000-55d0c0a21000.rw-p.heap");
//! assert_eq!(heap.size(), 0x21000);
//! # Ok::<(), procmemfs::target::mapping::MapsError>(())
//! ```
//!
//! # A mount
//!
//! A program can serve a mount itself; it needs the rights to mount, and lasts until it is unmounted:
//!
//! ```no_run
//! use std::path::Path;
//!
//! use procmemfs::mount::{Mount, MountConfig};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config = MountConfig::parse(["cache_ttl=1s,pid=1234"])?;
//! let serving = Mount::new(&config, Path::new("/mnt"))?.start()?;
//! // Other processes read the files; this one must not, since its threads serve them.
//! serving.unmount()?;
//! # Ok(())
//! # }
//! ```
//!
//! # More
//!
//! `examples/` has whole programs: `read_memory`, `page_states`, `write_core` and `snapshot` use the library, `watch` and `patch` any mount.
//! The modules form layers, and arrows between them point one way. See
//! `docs/ARCHITECTURE.md` for the picture and `docs/SEMANTICS.md` for what is
//! promised to whoever reads and writes the files.

pub mod backup;
pub mod common;
pub mod coredump;
pub mod diagnosis;
mod files;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod mount;
pub mod picture;
pub mod restore;
mod server;
pub mod target;
pub mod transport;

pub use files::view;
