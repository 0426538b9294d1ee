//! How bytes of memory become bytes of a file.

mod mapping_file;

pub use mapping_file::{FaultPolicy, MappingFile, Short};
