//! What files show of themselves.

use super::*;

/// SEMANTICS: `ls -l` shows virtual size, `du` the memory that is held.
#[test]
fn blocks_count_the_memory_that_is_held() {
    let bench = bench();
    bench.process.reserve(0x10_000, 1);
    let heap = bench.stat(&format!("7/{HEAP}"));
    assert_eq!((heap.size, heap.blocks), (2 * PAGE_SIZE, PAGE_SIZE / 512));
    bench.process.reserve(0x10_000, 2).reserve(0x20_000, 1);
    bench.clock.advance(2 * TTL);
    assert_eq!(bench.stat(&format!("7/{HEAP}")).blocks, 0);
    let text = bench.stat(&format!("7/{TEXT}"));
    assert_eq!(
        text.blocks, 1,
        "its file may have bytes, so it must not pass for one hole"
    );
    assert_eq!(bench.stat(&format!("7/{VVAR}")).blocks, 0);
}

/// SEMANTICS: extended attributes.
#[test]
fn extended_attributes_are_as_designed() {
    let bench = bench();
    let value = |path: &str, name: &str| {
        let inode = bench.find(path).unwrap().inode;
        let name = format!("user.procmemfs.{name}");
        let value = bench
            .fs
            .extended_attribute(inode, OsStr::new(&name), &subject());
        value.map(|value| String::from_utf8(value).unwrap())
    };
    let names = |path: &str| {
        let inode = bench.find(path).unwrap().inode;
        let names =
            String::from_utf8(bench.fs.extended_attributes(inode, &subject()).unwrap()).unwrap();
        let names = names.replace("user.procmemfs.", "");
        names.trim_end_matches('\0').replace('\0', " ")
    };
    let (text, vvar) = (format!("7/{TEXT}"), format!("7/{VVAR}"));
    let of_mapping = "start end perms offset dev inode path rss swap unreadable_bytes";
    assert_eq!(names(&text), of_mapping);
    assert_eq!(names(&vvar), format!("{of_mapping} unreadable"));
    assert_eq!(
        names("7"),
        "comm exe cmdline uid state rss cgroup container"
    );
    assert_eq!(names("mem/7"), "unreadable_bytes");
    assert_eq!(names("stats"), "");
    let table = [
        ("start", "000000020000"),
        ("end", "000000021000"),
        ("perms", "r-xp"),
        ("offset", "00000000"),
        ("dev", "fe:00"),
        ("inode", "9"),
        ("path", "/usr/bin/bin"),
        ("rss", "4096"),
        ("swap", "0"),
        ("unreadable_bytes", "0"),
    ];
    for (name, expected) in table {
        assert_eq!(value(&text, name).unwrap(), expected, "{name}");
    }
    assert!(value(&vvar, "unreadable").unwrap().contains("kernel"));
    let table = [
        ("comm", "my prog"),
        ("exe", "/usr/bin/fake"),
        ("cmdline", "fake\0--flag\0"),
        ("uid", "1000"),
        ("state", "S"),
        ("rss", "12288"),
    ];
    for (name, expected) in table {
        assert_eq!(value("7", name).unwrap(), expected, "{name}");
    }
    for (path, name) in [
        ("7", "start"),
        (&text, "comm"),
        (&text, "unreadable"),
        ("stats", "comm"),
    ] {
        assert_eq!(value(path, name), Err(Error::NoAttribute), "{path} {name}");
    }
    let inode = bench.find("7").unwrap().inode;
    let foreign = bench
        .fs
        .extended_attribute(inode, OsStr::new("security.capability"), &subject());
    assert_eq!(foreign, Err(Error::NotSupported));
}
