//! procmemfs shows the memory of live Linux processes as files.
//!
//! The modules form layers, and arrows between them point one way. See
//! `docs/ARCHITECTURE.md` for the picture and `docs/SEMANTICS.md` for what is
//! promised to whoever reads and writes the files.

pub mod address;
pub mod admission;
pub mod cache;
pub mod clock;
pub mod config;
mod contained;
pub mod error;
pub mod fs;
pub mod fuse;
pub mod linux;
mod log_limit;
pub mod mapping;
pub mod metrics;
pub mod mount;
pub mod pid;
pub mod process;
mod recent;
pub mod residency;
mod room;
pub mod supervisor;
pub mod tree;
pub mod view;
pub mod visit;
