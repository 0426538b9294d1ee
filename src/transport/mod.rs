//! What brings requests from the kernel and takes answers back. A transport translates, and decides nothing.

pub mod fuser;
