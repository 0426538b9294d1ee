//! procmemfs shows the memory of live Linux processes as files.
//!
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
