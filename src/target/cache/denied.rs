//! Memory that is shown and never read.

use std::sync::Arc;

use crate::common::address::{Address, AddressRange};
use crate::common::error::{Error, Result};
use crate::target::mapping::Mapping;
use crate::target::page_state::{Extent, MemoryUsage, PageState};
use crate::target::{ProcessIdentity, ProcessMemory, ReadSegment, WriteMode, requested};

/// A decorator that keeps all bytes back: the daemon does not read its own
/// memory, which changes as it is read and holds what was read from others.
#[derive(Debug)]
pub(crate) struct DeniedMemory(Arc<dyn ProcessMemory>);

impl DeniedMemory {
    /// Keeps the bytes of `inner` back.
    pub(crate) fn new(inner: Arc<dyn ProcessMemory>) -> Self {
        Self(inner)
    }
}

impl ProcessMemory for DeniedMemory {
    fn identity(&self) -> &ProcessIdentity {
        self.0.identity()
    }

    fn verify(&self) -> Result<()> {
        self.0.verify()
    }

    fn read(&self, segments: &mut [ReadSegment<'_>]) -> Result<usize> {
        match requested(segments) {
            0 => Ok(0),
            _ => Err(Error::OwnMemory),
        }
    }

    fn extents(
        &self,
        _mapping: &Mapping,
        range: AddressRange,
        _at_most: usize,
    ) -> Result<Vec<Extent>> {
        let state = PageState::Unreadable;
        Ok(vec![Extent { range, state }])
    }

    fn drop_caches(&self) {
        self.0.drop_caches();
    }

    fn memory_usage(&self, ranges: &[AddressRange]) -> Result<Vec<MemoryUsage>> {
        self.0.memory_usage(ranges)
    }

    fn write(&self, _address: Address, data: &[u8], _mode: WriteMode) -> Result<usize> {
        match data.len() {
            0 => Ok(0),
            _ => Err(Error::OwnMemory),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::fake::{self, FakeProcess};

    /// SEMANTICS: the daemon's own memory is never read.
    #[test]
    fn no_byte_comes_through() {
        let process = FakeProcess::new(7, b"daemon");
        process.map(0x1000, b"secret");
        let memory = DeniedMemory::new(process.open());
        let mapping = fake::mapping(0x1000, 1);
        let mut buffer = [0; 6];
        let segment = ReadSegment {
            address: Address::new(0x1000),
            buffer: &mut buffer,
            mapping: &mapping,
        };
        assert_eq!(memory.read(&mut [segment]), Err(Error::OwnMemory));
        assert_eq!(
            memory.write(Address::new(0x1000), b"x", WriteMode::Force),
            Err(Error::OwnMemory)
        );
        assert_eq!(buffer, [0; 6]);
        assert_eq!(process.take_calls(), []);
    }
}
