//! What every [`ProcessMemory`](super::ProcessMemory) keeps to; the same checks run on fakes, on the
//! cache over them, and on live processes.

use crate::common::address::{Address, AddressRange, PAGE_SIZE};
use crate::common::error::Error;
use crate::target::mapping::Mapping;
use crate::target::page_state::PageState;
use crate::target::{ProcessMemory, ReadSegment, WriteMode};

/// Three pages: two hold `first` and `second`, the one after them nothing.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) mapping: Mapping,
    pub(crate) start: Address,
    pub(crate) first: Vec<u8>,
    pub(crate) second: Vec<u8>,
}

fn read_all(
    memory: &dyn ProcessMemory,
    mapping: &Mapping,
    asked: &[(Address, usize)],
) -> Result<Vec<u8>, Error> {
    let mut buffers: Vec<Vec<u8>> = asked.iter().map(|(_, len)| vec![0xee; *len]).collect();
    let mut segments: Vec<ReadSegment<'_>> = asked
        .iter()
        .zip(&mut buffers)
        .map(|((address, _), buffer)| ReadSegment {
            address: *address,
            buffer,
            mapping,
        })
        .collect();
    let done = memory.read(&mut segments)?;
    let mut bytes = buffers.concat();
    bytes.truncate(done);
    Ok(bytes)
}

/// Checks all of it.
pub(crate) fn check(memory: &dyn ProcessMemory, layout: &Layout) {
    let page = PAGE_SIZE as usize;
    let Layout {
        mapping,
        start,
        first,
        second,
    } = layout;
    let read = |memory, asked: &[(Address, usize)]| read_all(memory, mapping, asked);
    let both = [first.as_slice(), second.as_slice()].concat();
    let hole = start.plus(2 * PAGE_SIZE);

    assert_eq!(memory.verify(), Ok(()));
    assert_eq!(read(memory, &[(*start, 2 * page)]).unwrap(), both);
    assert_eq!(
        read(memory, &[(start.plus(PAGE_SIZE - 3), 7)]).unwrap(),
        both[page - 3..page + 4],
        "across pages"
    );
    let apart = [(start.plus(PAGE_SIZE), 5), (start.plus(1), 2)];
    assert_eq!(
        read(memory, &apart).unwrap(),
        [&second[..5], &first[1..3]].concat(),
        "segments are filled in the order asked"
    );
    assert_eq!(read(memory, &[]).unwrap(), []);
    assert_eq!(read(memory, &[(hole, 0)]).unwrap(), []);

    assert_eq!(
        read(memory, &[(start.plus(PAGE_SIZE + 1), 2 * page)]).unwrap(),
        second[1..],
        "a hole ends the read"
    );
    assert_eq!(
        read(memory, &[(*start, 4), (hole, 4), (*start, 4)]).unwrap(),
        first[..4],
        "and nothing after it counts"
    );
    assert_eq!(
        read(memory, &[(*start, 4), (hole.plus(9), 4)]).unwrap(),
        first[..4],
        "wherever in its page it begins"
    );
    assert_eq!(read(memory, &[(hole.plus(9), 0)]).unwrap(), []);
    assert_eq!(
        read(memory, &[(hole, 4), (*start, 4)]),
        Err(Error::Unreachable(hole))
    );

    check_extents(memory, layout);

    let patch = [0xa5; 5];
    let seam = start.plus(PAGE_SIZE - 2);
    assert_eq!(memory.write(seam, &patch, WriteMode::Obey), Ok(5));
    assert_eq!(
        read(memory, &[(seam, 5)]).unwrap(),
        patch,
        "a write is seen at once"
    );
    assert_eq!(
        read(memory, &[(*start, page - 2)]).unwrap(),
        first[..page - 2]
    );
    assert_eq!(
        read(memory, &[(start.plus(PAGE_SIZE + 3), 9)]).unwrap(),
        second[3..12]
    );
    assert_eq!(
        memory.write(hole, &patch, WriteMode::Obey),
        Err(Error::Unreachable(hole))
    );
    let last = start.plus(2 * PAGE_SIZE - 2);
    assert_eq!(
        memory.write(last, &patch, WriteMode::Obey),
        Ok(2),
        "a hole ends the write"
    );
}

/// What cannot be read is said to be nowhere, and all else to be somewhere, however many extents
/// are asked for at a time.
fn check_extents(memory: &dyn ProcessMemory, layout: &Layout) {
    let (start, hole) = (layout.start, layout.start.plus(2 * PAGE_SIZE));
    let all = AddressRange::new(start, hole.plus(PAGE_SIZE)).expect("three pages");
    for at_most in [1, 2, 100] {
        let mut at = start;
        while at < all.end() {
            let rest = AddressRange::new(at, all.end()).expect("a part of them");
            let extents = memory.extents(&layout.mapping, rest, at_most).unwrap();
            assert!(!extents.is_empty(), "nothing is said of {at}");
            for extent in extents {
                assert_eq!(extent.range.start(), at, "in order and without a gap");
                assert!(!extent.range.is_empty() && extent.range.end() <= all.end());
                let is_hole = extent.state == PageState::Unreadable;
                assert_eq!(is_hole, at >= hole, "{extent:?}");
                at = extent.range.end();
            }
        }
        assert_eq!(at, all.end());
    }
}
