//! One program of one process.

use std::fmt::Debug;
use std::sync::Arc;

use super::credentials::Credentials;
use super::dump::{DumpFacts, Stopped};
use super::identity::{ProcessIdentity, ProcessInfo};
use super::mapping::AddressSpace;
use super::memory::ProcessMemory;
use crate::common::error::Result;

/// One program of one process, pinned: what is asked of it is never answered by another one.
pub trait Process: Debug + Send + Sync {
    /// Which one it is.
    fn identity(&self) -> &ProcessIdentity;

    /// Whether the process still lives and still runs the same program.
    ///
    /// # Errors
    /// `Ended` or `Replaced`.
    fn verify(&self) -> Result<()>;

    /// Whether the address space that was pinned is still there, for who verifies the process after what they ask of it. Waits
    /// for nobody, also not for an exec.
    ///
    /// # Errors
    /// `Ended` or `Replaced`.
    fn check_space(&self) -> Result<()>;

    /// What is to be known of it now, if it may still be read.
    ///
    /// # Errors
    /// As [`verify`](Self::verify), and `NoProcess`, `ProcessDenied`.
    fn describe(&self) -> Result<ProcessInfo>;

    /// Its memory: the same each time.
    ///
    /// # Errors
    /// As [`verify`](Self::verify), and `ProcessDenied`.
    fn memory(&self) -> Result<Arc<dyn ProcessMemory>>;

    /// Its memory for whoever has these credentials, as the kernel judges it now: whether they may open `/proc/PID/mem`, and for
    /// writing where `write` is set. What is read and written goes through the descriptor that they got, whatever becomes of
    /// the process, and its files are opened only where they could open them.
    ///
    /// # Errors
    /// As [`memory`](Self::memory), and `CallerDenied`.
    fn memory_for(&self, who: &Credentials, write: bool) -> Result<Arc<dyn ProcessMemory>>;

    /// Whether whoever has these credentials may read its `maps`, as the kernel judges it now.
    ///
    /// # Errors
    /// `CallerDenied`, and as [`verify`](Self::verify).
    fn check_visible(&self, who: &Credentials) -> Result<()>;

    /// Its mappings now.
    ///
    /// # Errors
    /// `NoProcess`, `ProcessDenied`, `TooManyMappings`, and `Replaced` where it is not the same program any more.
    fn address_space(&self) -> Result<AddressSpace>;

    /// The path of its program, in its own bytes; empty where the kernel does not say.
    ///
    /// # Errors
    /// As [`address_space`](Self::address_space).
    fn executable(&self) -> Result<Vec<u8>>;

    /// Its arguments, each ended by a NUL; the first 64 KiB of them.
    ///
    /// # Errors
    /// As [`address_space`](Self::address_space).
    fn arguments(&self) -> Result<Vec<u8>>;

    /// Its state, a letter as in `/proc/PID/stat`.
    ///
    /// # Errors
    /// As [`address_space`](Self::address_space).
    fn state(&self) -> Result<u8>;

    /// Its resident memory, in bytes.
    ///
    /// # Errors
    /// As [`address_space`](Self::address_space).
    fn resident(&self) -> Result<u64>;

    /// What a core dump says of it besides its memory, as far as it need not be stopped for that.
    ///
    /// # Errors
    /// As [`address_space`](Self::address_space).
    fn dump_facts(&self) -> Result<DumpFacts>;

    /// Stops all its threads together, reads their registers, and holds them until the answer is dropped; they then go on
    /// as they would have without. Also where this program is killed meanwhile.
    ///
    /// # Errors
    /// `Traced` where somebody traces it already, `Unstoppable` where a thread of it does not stop; `NoProcess`, `Replaced`, `System`.
    fn stop(&self) -> Result<Box<dyn Stopped>>;
}
