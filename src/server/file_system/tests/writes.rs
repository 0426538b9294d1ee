//! Opening for writing, writing and truncating.

use super::*;

/// SEMANTICS: opening for writing.
#[test]
fn writing_needs_the_option_and_a_writable_mapping() {
    let bench = bench();
    let (heap, text) = (format!("7/{HEAP}"), format!("7/{TEXT}"));
    assert_eq!(bench.open(&heap, READ_WRITE), Err(Error::WriteOff));
    let read_only = FileOptions {
        read_only: true,
        ..FileOptions::default()
    };
    let read_only = bench_with(read_only, TTL);
    assert_eq!(read_only.open(&heap, READ_WRITE), Err(Error::ReadOnlyMount));
    let bench = writable();
    assert_eq!(bench.open(&text, READ_WRITE), Err(Error::Protected));
    assert!(
        bench.open(&heap, READ_WRITE).unwrap().direct,
        "never in the kernel's cache"
    );
    let forced = bench_with(
        FileOptions {
            writable: true,
            force: true,
            ..FileOptions::default()
        },
        TTL,
    );
    let opened = forced.open(&text, READ_WRITE).unwrap();
    assert_eq!(forced.fs.write(opened.handle, 0, b"xx").unwrap().bytes, 2);
    assert_eq!(forced.open("stats", READ_WRITE), Err(Error::NotPermitted));
}

/// SEMANTICS: a write is seen at once, and the kernel drops what it may hold.
#[test]
fn a_write_invalidates_what_others_have_read() {
    let bench = writable();
    let path = format!("7/{HEAP}");
    let reader = bench.open(&path, READ).unwrap();
    let writer = bench.open(&path, READ_WRITE).unwrap();
    bench.read(&reader, 0, 4).unwrap();
    let written = bench.fs.write(writer.handle, 1, b"W").unwrap();
    assert_eq!(written.bytes, 1);
    assert_eq!(written.stale, [bench.find(&path).unwrap().inode]);
    assert_eq!(bench.read(&reader, 0, 4).unwrap(), b"hWhh");
    assert_eq!(
        bench.fs.write(reader.handle, 0, b"x"),
        Err(Error::BadHandle)
    );
    bench.fs.release(reader.handle);
    assert_eq!(bench.fs.write(writer.handle, 1, b"V").unwrap().stale, []);
}

/// SEMANTICS: truncation never changes anything.
#[test]
fn truncation_is_accepted_and_ignored() {
    let bench = writable();
    let heap = bench.find(&format!("7/{HEAP}")).unwrap();
    let truncate = Change {
        size: Some(0),
        metadata: false,
    };
    let after = bench
        .fs
        .set_attributes(heap.inode, truncate, None, &subject())
        .unwrap();
    assert_eq!(after.attributes.size, heap.attributes.size);
    let chmod = Change {
        size: None,
        metadata: true,
    };
    assert_eq!(
        bench.fs.set_attributes(heap.inode, chmod, None, &subject()),
        Err(Error::NotPermitted)
    );
}
