//! Requests, whatever transport brings them.

pub mod admission;
