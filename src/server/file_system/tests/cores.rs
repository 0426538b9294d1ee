//! `core/PID` on fake processes.

use super::*;

/// Offset of `e_type` in the header of the file, and `ET_CORE`.
const CORE: (u64, u8) = (16, 4);

fn read(bench: &Bench, opened: &Opened, offset: u64, len: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let read = bench.fs.read(opened.handle, offset, &mut bytes, None)?;
    bytes.truncate(read);
    Ok(bytes)
}

#[test]
fn a_core_is_built_when_it_is_opened() {
    let bench = bench();
    let core = bench.find("core/7").unwrap();
    assert_eq!(bench.process.stops(), 0, "stat stops nobody");
    let size = core.attributes.size;
    assert!(
        size > 2 * PAGE_SIZE && size.is_multiple_of(PAGE_SIZE),
        "{size}"
    );
    let opened = bench.open("core/7", READ).unwrap();
    assert_eq!(bench.process.stops(), 1);
    assert_eq!(read(&bench, &opened, 0, 4).unwrap(), b"\x7fELF");
    assert_eq!(read(&bench, &opened, CORE.0, 1).unwrap(), [CORE.1]);
    assert_eq!(bench.find("core/7").unwrap().attributes.size, size);
    // The last mapping is at the end.
    let last = read(&bench, &opened, size - PAGE_SIZE, PAGE_SIZE as usize).unwrap();
    assert_eq!(last.len(), PAGE_SIZE as usize);
    assert_eq!(read(&bench, &opened, size, 1).unwrap(), b"");
    assert_eq!(bench.process.stops(), 1, "once for each open");
}

#[test]
fn a_second_core_that_is_open_has_headers_of_its_own() {
    let bench = bench();
    let first = bench.open("core/7", READ).unwrap();
    let second = bench.open("core/7", READ).unwrap();
    assert!(!first.direct, "the kernel may keep its pages");
    assert!(second.direct, "and those of no other one");
    bench.fs.release(first.handle);
    bench.fs.release(second.handle);
    assert!(!bench.open("core/7", READ).unwrap().direct);
    assert_eq!(bench.process.stops(), 3);
}

#[test]
fn who_cannot_be_stopped_has_a_core_without_registers() {
    let bench = bench();
    let with = bench.open("core/7", READ).unwrap();
    let size = bench.find("core/7").unwrap().attributes.size;
    let headers = |opened: &Opened| bench.fs.seek(opened.handle, 0, Seek::Hole).unwrap();
    let with_registers = headers(&with);
    bench.fs.release(with.handle);
    bench.process.set_traced(true);
    let without = bench.open("core/7", READ).unwrap();
    assert!(headers(&without) < with_registers);
    assert_eq!(bench.find("core/7").unwrap().attributes.size, size);
}

#[test]
fn nostop_stops_nobody() {
    let options = FileOptions {
        no_stop: true,
        ..FileOptions::default()
    };
    let bench = bench_with(options, TTL);
    bench.open("core/7", READ).unwrap();
    assert_eq!(bench.process.stops(), 0);
}

#[test]
fn a_core_cannot_be_written() {
    let bench = writable();
    assert_eq!(bench.open("core/7", READ_WRITE), Err(Error::NotPermitted));
    assert_eq!(bench.process.stops(), 0);
}

/// A listing shows the cores of all processes, and one of these may not answer.
#[test]
fn a_listing_asks_no_process() {
    let bench = bench();
    let found = Found::default();
    let inode = bench.find("core").unwrap().inode;
    let directory = bench.fs.node(inode).unwrap();
    let listing = bench
        .fs
        .context()
        .list(&directory, &Pass::everywhere(&found))
        .unwrap();
    let reads = bench.process.maps_reads();
    let entry = listing.iter().find(|entry| entry.name == "7").unwrap();
    let nodes = [&entry.node];
    let counted = bench.fs.context().count(nodes);
    let shown = bench.fs.context().attributes(&entry.node, &counted);
    assert_eq!(shown.valid, Duration::ZERO, "to be asked for again");
    assert_eq!(bench.process.maps_reads(), reads);
}
