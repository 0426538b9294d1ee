//! Restoring fake processes.

use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::common::address::PAGE_SIZE;
use crate::target::ProcessSource;
use crate::target::fake::{Call, FakeProcess, FakeSource};

const PAGE: usize = PAGE_SIZE as usize;
const HEAP: &str = "000000010000-000000014000.rw-p.heap";
const CODE: &str = "000000050000-000000051000.r-xp.x";
const SHARED: &str = "000000060000-000000061000.rw-s.memfd:x.deleted";
const MAPS: &str = "10000-14000 rw-p 00000000 00:00 0 [heap]\n\
    50000-51000 r-xp 00001000 08:01 7 /lib/x\n\
    60000-61000 rw-s 00000000 00:01 9 /memfd:x (deleted)\n";

struct Bench {
    process: FakeProcess,
    source: FakeSource,
    directory: tempfile::TempDir,
}

/// A process as it was copied: a heap of two pages of `a`, a hole, and one of `b`; code and shared memory.
fn bench() -> Bench {
    let process = FakeProcess::new(7, b"fake");
    process.set_maps(MAPS.as_bytes());
    process.map(0x10000, &[b'a'; 2 * PAGE]).reserve(0x12000, 1);
    process.map(0x13000, &[b'b'; PAGE]);
    process
        .map(0x50000, &[b'c'; PAGE])
        .map(0x60000, &[b's'; PAGE]);
    let source = FakeSource::default();
    source.add(process.clone());
    let bench = Bench {
        process,
        source,
        directory: tempfile::tempdir().unwrap(),
    };
    let heap = [vec![b'a'; 2 * PAGE], vec![0; PAGE], vec![b'b'; PAGE]].concat();
    bench.save(HEAP, &heap);
    bench.save(CODE, &[b'c'; PAGE]);
    bench.save(SHARED, &[b's'; PAGE]);
    bench.save("process", bench.record().to_string().as_bytes());
    bench
}

impl Bench {
    fn save(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path().join(name), bytes).unwrap();
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn record(&self) -> ProcessRecord {
        ProcessRecord {
            pid: 7,
            command: "fake".to_owned(),
            executable: "/usr/bin/fake".to_owned(),
            build_id: None,
            boot: "a boot".to_owned(),
            started: 1,
            layout: [1, 1],
            threads: vec![ThreadPlace {
                tid: 7,
                instruction: 0,
                stack: 0,
            }],
            unreadable: Vec::new(),
        }
    }

    fn restore(&self, options: Options) -> Result<Report, RestoreError> {
        let backup = Backup::open(self.path())?;
        let pid = self.process.identity().pid;
        let info = Arc::new(self.source.describe(pid).unwrap());
        let process = self.source.open(&info.identity).unwrap();
        self.process.take_calls();
        let restored = restore(&backup, &*process, "a boot", options, &mut |_, _| ());
        assert!(!self.process.is_stopped(), "it goes on");
        restored
    }

    /// Addresses and lengths of all writes since the last call.
    fn writes(&self) -> Vec<(u64, usize)> {
        let calls = self.process.take_calls().into_iter();
        let writes = calls.filter_map(|call| match call {
            Call::Write(address, len) => Some((address, len)),
            Call::Read(_) | Call::MemoryUsage(_) => None,
        });
        writes.collect()
    }

    /// Why nothing is written.
    fn refusal(&self) -> String {
        let refused = self.restore(Options::default()).unwrap_err().to_string();
        assert_eq!(self.writes(), []);
        assert!(!refused.contains('\n'), "{refused}");
        refused
    }
}

#[test]
fn pages_that_differ_are_written_back_and_no_others() {
    let bench = bench();
    assert_eq!(bench.restore(Options::default()).unwrap().written, 0);
    assert_eq!(bench.writes(), []);
    bench.process.poke(0x11005, b'X');
    bench.process.map(0x12000, &[9; PAGE]);
    bench.process.poke(0x50001, b'X');
    let report = bench.restore(Options::default()).unwrap();
    assert_eq!(bench.writes(), [(0x11000, 2 * PAGE), (0x50000, PAGE)]);
    assert_eq!((report.written, report.mappings), (3 * PAGE_SIZE, 2));
    assert_eq!(
        bench.process.bytes(0x10000, 4),
        std::fs::read(bench.path().join(HEAP)).unwrap()
    );
    assert_eq!(bench.process.bytes(0x50000, 1), [b'c'; PAGE]);
}

#[test]
fn a_dry_run_writes_nothing() {
    let bench = bench();
    bench.process.poke(0x11005, b'X');
    let options = Options {
        dry_run: true,
        ..Options::default()
    };
    assert_eq!(bench.restore(options).unwrap().written, PAGE_SIZE);
    assert_eq!(bench.writes(), []);
}

#[test]
fn shared_memory_is_restored_where_that_is_asked_for() {
    let bench = bench();
    bench.process.poke(0x60000, b'X');
    let report = bench.restore(Options::default()).unwrap();
    assert_eq!(report.written, 0);
    assert!(report.left[0].starts_with(SHARED), "{report:?}");
    let options = Options {
        shared: true,
        ..Options::default()
    };
    let report = bench.restore(options).unwrap();
    assert_eq!((report.written, report.left.len()), (PAGE_SIZE, 0));
}

#[test]
fn what_was_not_copied_is_left_as_it_is() {
    let bench = bench();
    let mut record = bench.record();
    record.unreadable = vec![crate::common::address::AddressRange::ALL];
    bench.save("process", record.to_string().as_bytes());
    bench.process.poke(0x10000, b'X');
    let report = bench.restore(Options::default()).unwrap();
    assert_eq!(report.written, 0);
    assert!(
        report.left.iter().any(|line| line.starts_with(HEAP)),
        "{report:?}"
    );
}

#[test]
fn another_process_is_refused() {
    type Change = fn(&mut ProcessRecord);
    let changes: [(Change, &str); 5] = [
        (|record| record.pid = 8, "that was 8"),
        (|record| record.boot = "another".to_owned(), "started anew"),
        (|record| record.started = 2, "another time"),
        (|record| record.layout = [1, 2], "another program"),
        (
            |record| record.executable = "/bin/other".to_owned(),
            "/bin/other",
        ),
    ];
    for (change, expected) in changes {
        let bench = bench();
        bench.process.poke(0x10000, b'X');
        let mut record = bench.record();
        change(&mut record);
        bench.save("process", record.to_string().as_bytes());
        let refused = bench.refusal();
        assert!(
            refused.contains(expected) && refused.contains("nothing was written"),
            "{refused}"
        );
    }
}

/// A page of the program lies at 0x50000.
#[test]
fn a_program_with_another_build_id_is_refused() {
    use crate::target::build_id::tests::load;
    let with = |recorded: Option<&str>| {
        let bench = bench();
        let mut record = bench.record();
        record.build_id = recorded.map(str::to_owned);
        bench.save("process", record.to_string().as_bytes());
        bench.process.poke(0x10000, b'X');
        bench
    };
    let bench = with(Some("ab12"));
    load(&bench.process, 0x50000, &[0xab, 0x13]);
    let refused = bench.refusal();
    for word in ["build-id", "ab13", "ab12", "nothing was written"] {
        assert!(refused.contains(word), "{word} in {refused}");
    }
    let bench = with(Some("ab12"));
    assert!(bench.refusal().contains("no build-id"), "it had one");
    let bench = with(Some("ab12"));
    load(&bench.process, 0x50000, &[0xab, 0x12]);
    bench.save(CODE, &bench.process.bytes(0x50000, 1));
    assert_eq!(
        bench.restore(Options::default()).unwrap().written,
        PAGE_SIZE
    );
    // A record of an earlier snapshot, or of a program that has none.
    let bench = with(None);
    load(&bench.process, 0x50000, &[0xab, 0x12]);
    bench.save(CODE, &bench.process.bytes(0x50000, 1));
    assert_eq!(
        bench.restore(Options::default()).unwrap().written,
        PAGE_SIZE
    );
}

#[test]
fn another_layout_is_refused() {
    let bench = bench();
    bench.process.poke(0x10000, b'X');
    bench
        .process
        .set_maps(format!("{MAPS}70000-71000 rw-p 0 00:00 0\n").as_bytes());
    assert!(
        bench
            .refusal()
            .contains("000000070000-000000071000.rw-p.anon is new")
    );
    bench
        .process
        .set_maps(b"10000-14000 rw-p 00000000 00:00 0 [heap]\n");
    assert!(bench.refusal().contains(&format!("{CODE} is gone")));
    bench
        .process
        .set_maps(MAPS.replace("rw-p", "r--p").as_bytes());
    assert!(bench.refusal().contains("is "));
}

#[test]
fn threads_that_are_elsewhere_are_refused() {
    let place = |tid, instruction| ThreadPlace {
        tid,
        instruction,
        stack: 0,
    };
    for (threads, expected) in [
        (
            vec![place(7, 5)],
            "thread 7 was at 5 (stack 0) and is at 0 (stack 0)",
        ),
        (vec![place(7, 0), place(8, 0)], "thread 8 has ended"),
        (Vec::new(), "thread 7 was started since"),
    ] {
        let bench = bench();
        bench.process.poke(0x10000, b'X');
        let mut record = bench.record();
        record.threads = threads;
        bench.save("process", record.to_string().as_bytes());
        assert!(bench.refusal().contains(expected), "{expected}");
    }
    let bench = bench();
    bench.process.set_traced(true);
    assert!(bench.refusal().contains("traced"));
}

/// SEMANTICS: what a restore cannot complete it takes back.
#[test]
fn where_a_write_fails_what_was_written_is_taken_back() {
    use crate::common::error::Error;
    use crate::target::fake::{Fault, Faults};
    let mut restored = 0;
    for fault in [
        Fault::Fails(Error::Invalid),
        Fault::Short(100),
        Fault::FailsLate(Error::Invalid),
    ] {
        for calls in 0..20 {
            let bench = bench();
            bench.process.poke(0x10000, b'X');
            bench.process.poke(0x50000, b'Y');
            let held = || {
                (
                    bench.process.bytes(0x10000, 4),
                    bench.process.bytes(0x50000, 1),
                )
            };
            let before = held();
            let faults = Faults::default();
            let plan = std::iter::repeat_n(Fault::None, calls).chain([fault.clone()]);
            bench.process.set_faults(faults.clone());
            faults.plan(plan);
            match bench.restore(Options::default()) {
                Ok(_) => restored += 1,
                Err(RestoreError::Process(_) | RestoreError::TakenBack(_)) => {
                    assert!(held() == before, "{fault:?} after {calls} calls");
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    assert!(restored > 0 && restored < 60, "{restored}");
}

#[test]
fn a_directory_that_is_no_copy_is_named() {
    let empty = tempfile::tempdir().unwrap();
    let error = Backup::open(empty.path()).unwrap_err().to_string();
    assert!(error.contains("no snapshot of a process"), "{error}");
    let error = Backup::open(&empty.path().join("nowhere")).unwrap_err();
    assert!(matches!(error, BackupError::Unreadable(..)), "{error}");
    std::fs::write(empty.path().join("process"), "pid x\n").unwrap();
    let error = Backup::open(empty.path()).unwrap_err().to_string();
    assert!(error.contains("line 1"), "{error}");
}
