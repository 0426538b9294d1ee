//! ELF core files, as core(5) describes them and the kernel writes them (`fs/binfmt_elf.c`, `fs/coredump.c`).
//!
//! Only what is before the memory is held: [`CoreImage`] says where in the file which memory lies.

mod abi;
mod filter;
mod image;
mod notes;
mod status;

pub use image::{CoreImage, CoreSource, Part};
