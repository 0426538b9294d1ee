//! ELF core files, as core(5) describes them and the kernel writes them (`fs/binfmt_elf.c`, `fs/coredump.c`).
//!
//! Only what is before the memory is held: [`CoreImage`] says where in the file which memory lies, and
//! [`CoreFile`](crate::view::CoreFile) reads both as one file. `examples/write_core.rs` writes one to disk.

mod abi;
mod filter;
mod image;
mod magic;
mod notes;
mod status;

pub use image::{CoreImage, CoreSource, Part};
pub use magic::begins_as_elf;
