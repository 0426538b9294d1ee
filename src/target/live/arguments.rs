//! The command line of a process, read without touching what is not there.
//!
//! `/proc/PID/cmdline` faults the pages in that it shows, and a process may point it anywhere and make
//! it as long as it likes (`PR_SET_MM` in prctl(2)): whoever reads it all makes page tables in the
//! process, and holds terabytes. So where it lies is taken from `stat`,
//! and the bytes as those of any other memory. What they mean is as in `get_mm_cmdline` of `fs/proc/base.c`.

use procfs::process::Stat;

use super::vma::{Maps, Vma};
use crate::common::address::{Address, PAGE_SIZE};
use crate::common::error::{Error, Result};
use crate::target::mapping::{Mapping, Protection};
use crate::target::{ProcessMemory, ReadSegment};

/// Bytes that are read: as many as an extended attribute can hold.
const MOST: u64 = 64 << 10;

/// Where the arguments and the environment lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Places {
    arguments: (u64, u64),
    environment_end: u64,
}

impl Places {
    /// `None` where there are no arguments, or the kernel does not say where.
    fn new(stat: &Stat) -> Option<Self> {
        let (start, end) = (stat.arg_start?, stat.arg_end?);
        let environment = (stat.env_start?, stat.env_end?);
        // A title may only grow into the environment if that follows at once.
        let follows = environment.0 == end && environment.1 >= environment.0;
        (start < end).then_some(Self {
            arguments: (start, end),
            environment_end: if follows { environment.1 } else { end },
        })
    }
}

/// The first [`MOST`] bytes of the arguments, or of the title that the process gave itself instead
/// (`setproctitle`); fewer where they cannot be read.
///
/// # Errors
/// `Ended`, `Replaced`.
pub(super) fn arguments(memory: &dyn ProcessMemory, maps: &Maps, stat: &Stat) -> Result<Vec<u8>> {
    let Some(places) = Places::new(stat) else {
        return Ok(Vec::new());
    };
    let read = |from, to| read(memory, maps, from, to);
    let (start, end) = places.arguments;
    if matches!(read(end - 1, end)?[..], [last] if last != 0) {
        let title = read(
            start,
            places.environment_end.min(start.saturating_add(PAGE_SIZE)),
        )?;
        return Ok(up_to_nul(title));
    }
    read(start, end.min(start.saturating_add(MOST)))
}

/// The bytes before the first NUL, and that.
fn up_to_nul(mut text: Vec<u8>) -> Vec<u8> {
    if let Some(nul) = text.iter().position(|byte| *byte == 0) {
        text.truncate(nul + 1);
    }
    text
}

/// The bytes from `from` on, up to `to` or the first that cannot be read.
fn read(memory: &dyn ProcessMemory, maps: &Maps, from: u64, to: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(to - from).unwrap_or_default()];
    let mut done = 0;
    while done < bytes.len() {
        let address = Address::new(from).plus(done as u64);
        let vma = maps.at_or_after(address).ok().flatten();
        let Some(vma) = vma.filter(|vma| vma.range.contains(address)) else {
            break;
        };
        let mapping = mapping(&vma);
        let left = usize::try_from(vma.range.end().since(address)).unwrap_or(usize::MAX);
        let upto = bytes.len().min(done.saturating_add(left));
        let segment = ReadSegment {
            address,
            buffer: &mut bytes[done..upto],
            mapping: &mapping,
        };
        match memory.read(&mut [segment]) {
            Ok(read) => done += read,
            Err(error @ (Error::Ended(_) | Error::Replaced(_))) => return Err(error),
            Err(_) => break,
        }
        if done < upto {
            break;
        }
    }
    bytes.truncate(done);
    Ok(bytes)
}

/// The mapping, without what only its line in `maps` tells.
fn mapping(vma: &Vma) -> Mapping {
    let protection = Protection {
        read: vma.readable,
        write: vma.writable,
        execute: false,
        shared: false,
    };
    Mapping::without_name(vma.range, protection, vma.offset, vma.device, vma.inode)
}

#[cfg(test)]
mod tests {
    use procfs::FromRead;

    use super::*;
    use crate::target::mapping::AddressSpace;

    fn stat(places: [u64; 4]) -> Stat {
        let [arguments, arguments_end, environment, environment_end] = places;
        let text = format!(
            "7 (x) S 1 7 7 0 -1 0 1 2 3 4 5 6 7 8 20 0 1 0 4711 8192 3 18446744073709551615 \
             4096 8192 140737488347136 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 1 2 3 \
             {arguments} {arguments_end} {environment} {environment_end} 0\n"
        );
        Stat::from_read(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_title_grows_only_into_an_environment_that_follows() {
        let table = [
            ([100, 200, 200, 300], Some((100, 200, 300))),
            ([100, 200, 201, 300], Some((100, 200, 200))),
            ([100, 200, 200, 150], Some((100, 200, 200))),
            ([200, 200, 200, 300], None),
            ([300, 200, 200, 300], None),
            // The kernel does not say.
            ([0, 0, 0, 0], None),
        ];
        for (places, expected) in table {
            let found = Places::new(&stat(places));
            let found = found.map(
                |Places {
                     arguments: (start, end),
                     environment_end,
                 }| { (start, end, environment_end) },
            );
            assert_eq!(found, expected, "{places:?}");
        }
    }

    #[test]
    fn a_mapping_is_what_maps_says_but_for_its_name() {
        let lines: [&[u8]; 3] = [
            b"1000-3000 rw-p 00000000 00:00 0",
            b"1000-3000 r--p 00002000 fe:01 9",
            b"1000-3000 ---p 00000000 00:01 0",
        ];
        for line in lines {
            let space = AddressSpace::parse(line).unwrap();
            let expected = &space.mappings()[0];
            let vma = Vma {
                range: expected.range(),
                readable: expected.protection().read,
                writable: expected.protection().write,
                shared: false,
                offset: expected.offset(),
                device: expected.device(),
                inode: expected.inode(),
            };
            assert_eq!(mapping(&vma), *expected);
        }
    }

    #[test]
    fn a_title_ends_with_its_nul() {
        assert_eq!(
            up_to_nul(b"nginx: worker\0A=b\0".to_vec()),
            b"nginx: worker\0"
        );
        assert_eq!(up_to_nul(b"no end".to_vec()), b"no end");
    }
}
