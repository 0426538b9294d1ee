//! Memory whose calls fail as a plan says.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::common::address::{Address, AddressRange};
use crate::common::error::{Error, Result};
use crate::common::sync::Mutex;
use crate::target::mapping::Mapping;
use crate::target::page_state::{Extent, MemoryUsage};
use crate::target::{ProcessIdentity, ProcessMemory, ReadSegment, WriteMode};

/// What becomes of one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing goes wrong.
    None,
    /// It fails, and nothing was done.
    Fails(Error),
    /// It fails, and all of it was done.
    FailsLate(Error),
    /// At most so many bytes are done, or told; one at least. What a buffer holds past them means nothing.
    Short(usize),
}

/// What becomes of the calls to come, one after another; none fails once that is at its end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults(Arc<Mutex<VecDeque<Fault>>>);

impl Faults {
    /// Replaces what is to come.
    pub(crate) fn plan(&self, faults: impl IntoIterator<Item = Fault>) {
        *self.0.lock() = faults.into_iter().collect();
    }

    fn next(&self) -> Fault {
        self.0.lock().pop_front().unwrap_or(Fault::None)
    }

    /// Makes a call, with what the plan has for it.
    fn call<T>(&self, call: impl FnOnce(Option<usize>) -> Result<T>) -> Result<T> {
        match self.next() {
            Fault::None => call(None),
            Fault::Fails(error) => Err(error),
            Fault::FailsLate(error) => call(None).and(Err(error)),
            Fault::Short(most) => call(Some(most.max(1))),
        }
    }
}

/// Decorates memory with faults.
#[derive(Debug)]
pub(crate) struct FaultyMemory {
    inner: Arc<dyn ProcessMemory>,
    faults: Faults,
}

impl FaultyMemory {
    pub(crate) fn new(inner: Arc<dyn ProcessMemory>, faults: Faults) -> Self {
        Self { inner, faults }
    }
}

/// Overwrites what lies past the first `done` bytes, which nobody may take for bytes of the process.
fn spoil(segments: &mut [ReadSegment<'_>], mut done: usize) {
    for segment in segments {
        let kept = done.min(segment.buffer.len());
        segment.buffer[kept..].fill(0xbd);
        done -= kept;
    }
}

impl ProcessMemory for FaultyMemory {
    fn identity(&self) -> &ProcessIdentity {
        self.inner.identity()
    }

    fn verify(&self) -> Result<()> {
        self.inner.verify()
    }

    fn read(&self, segments: &mut [ReadSegment<'_>]) -> Result<usize> {
        let read = self.faults.call(|most| {
            let read = self.inner.read(segments)?;
            Ok(most.map_or(read, |most| read.min(most)))
        });
        spoil(segments, *read.as_ref().unwrap_or(&0));
        read
    }

    fn extents(
        &self,
        mapping: &Mapping,
        range: AddressRange,
        at_most: usize,
    ) -> Result<Vec<Extent>> {
        self.faults.call(|most| {
            let at_most = most.map_or(at_most, |most| at_most.min(most));
            self.inner.extents(mapping, range, at_most)
        })
    }

    fn drop_caches(&self) {
        self.inner.drop_caches();
    }

    fn memory_usage(&self, ranges: &[AddressRange]) -> Result<Vec<MemoryUsage>> {
        self.faults.call(|_| self.inner.memory_usage(ranges))
    }

    fn write(&self, address: Address, data: &[u8], mode: WriteMode) -> Result<usize> {
        self.faults.call(|most| {
            let len = most.map_or(data.len(), |most| data.len().min(most));
            self.inner.write(address, &data[..len], mode)
        })
    }
}

/// Plans for property tests.
pub(crate) mod plans {
    use nix::errno::Errno;
    use proptest::prelude::*;

    use super::Fault;
    use crate::common::error::Error;

    /// What a system call can answer that fails.
    pub(crate) const ERRNOS: [Errno; 5] = [
        Errno::EINTR,
        Errno::ENOMEM,
        Errno::EMFILE,
        Errno::EPERM,
        Errno::ESRCH,
    ];

    fn error() -> impl Strategy<Value = Error> {
        proptest::sample::select(&ERRNOS[..]).prop_map(|errno| Error::system("injected", errno))
    }

    fn fault() -> impl Strategy<Value = Fault> {
        prop_oneof![
            3 => Just(Fault::None),
            1 => error().prop_map(Fault::Fails),
            1 => error().prop_map(Fault::FailsLate),
            2 => (1_usize..20_000).prop_map(Fault::Short),
        ]
    }

    /// What becomes of up to 60 calls.
    pub(crate) fn faults() -> impl Strategy<Value = Vec<Fault>> {
        proptest::collection::vec(fault(), 0..60)
    }

    /// Whether `error` is one of those that a plan has.
    pub(crate) fn is_injected(error: &Error) -> bool {
        ERRNOS
            .iter()
            .any(|errno| *error == Error::system("injected", *errno))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::fake::conformance::{self, Layout};
    use crate::target::fake::{FakeProcess, mapping};

    #[test]
    fn without_faults_it_keeps_to_the_contract() {
        let process = FakeProcess::new(7, b"fake");
        let layout = Layout {
            mapping: mapping(0x10_000, 3),
            start: Address::new(0x10_000),
            first: vec![1; 4096],
            second: vec![2; 4096],
        };
        process
            .map(0x10_000, &layout.first)
            .map(0x11_000, &layout.second);
        let memory = FaultyMemory::new(process.open(), Faults::default());
        conformance::check(&memory, &layout);
    }

    #[test]
    fn each_call_fails_as_planned() {
        let process = FakeProcess::new(7, b"fake");
        process.map(0x10_000, b"bytes");
        let faults = Faults::default();
        let memory = FaultyMemory::new(process.open(), faults.clone());
        let at = Address::new(0x10_000);
        let write = |data: &[u8]| memory.write(at, data, WriteMode::Obey);
        let refusal = Error::system("injected", nix::errno::Errno::ENOMEM);
        faults.plan([
            Fault::Fails(refusal.clone()),
            Fault::FailsLate(refusal.clone()),
            Fault::Short(2),
        ]);
        assert_eq!(write(b"no"), Err(refusal.clone()));
        assert_eq!(write(b"late"), Err(refusal));
        assert_eq!(write(b"short"), Ok(2));
        let (mapping, mut bytes) = (mapping(0x10_000, 1), [0; 6]);
        let read = |bytes: &mut [u8]| {
            let segment = ReadSegment {
                address: at,
                buffer: bytes,
                mapping: &mapping,
            };
            memory.read(&mut [segment])
        };
        assert_eq!(read(&mut bytes), Ok(6));
        assert_eq!(&bytes, b"shtes\0");
        faults.plan([Fault::Short(3)]);
        assert_eq!(read(&mut bytes), Ok(3));
        assert_eq!(&bytes, b"sht\xbd\xbd\xbd");
    }
}
