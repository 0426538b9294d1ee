//! Core files of programs that are laid out in other ways: of 32 bits, of Go, a Java virtual machine, AddressSanitizer.

use std::path::Path;
use std::process::Command;

use super::debuggers::gdb_compares;
use super::{Subject, core_of};
use crate::support::{
    Mount, Program, current_test, extents, held, open, quote, run, secret, sh, tests,
};

tests![
    a_program_of_32_bits: [Need::Cc32, Need::Tool("gdb"), Need::Tool("eu-readelf"), Need::Ptrace],
    a_go_program: [Need::Tool("go"), Need::Tool("gdb"), Need::Tool("grep"), Need::Ptrace],
    a_java_virtual_machine: [
        Need::Tool("java"), Need::Tool("javac"), Need::Tool("gdb"), Need::Tool("grep"), Need::Ptrace
    ],
    an_address_sanitizer_program: [Need::Asan, Need::Tool("gdb"), Need::Tool("grep"), Need::Ptrace],
];

const GO: &str = r#"
package main

import (
	"fmt"
	"os"
	"strings"
)

func waits(depth int, done chan string) {
	if depth > 0 {
		waits(depth-1, done)
		return
	}
	<-done
}

func main() {
	secret := strings.Join([]string{"procmemfs", "keeps", "a", "secret", "4711"}, "+")
	done := make(chan string)
	for i := 0; i < 20; i++ {
		go waits(i, done)
	}
	fmt.Println("ready")
	os.Stdin.Read(make([]byte, 1))
	fmt.Println(secret)
}
"#;

/// gdb finds in the core file what it finds in the process; the secret is in it, and it is no larger than what is held.
#[track_caller]
fn compares(program: &Program, binary: &Path, threads: usize) {
    program.stop();
    let mount = Mount::new("");
    let dir = tempfile::tempdir().unwrap();
    let lines = gdb_compares(&mount, dir.path(), program.pid(), binary, &[]);
    let count = lines
        .iter()
        .filter(|line| line.contains(" frames "))
        .count();
    assert!(count >= threads, "{count} threads");
    let core = core_of(&mount, program.pid());
    let copy = mount.outside().join("copy");
    run(Command::new("cp").arg(&core).arg(&copy))
        .success()
        .quiet();
    let script = format!("grep -q -a -F '{}' {}", secret(), quote(&copy));
    sh(&script).success();
    let data: u64 = extents(&open(&core))
        .iter()
        .map(|(from, to)| to - from)
        .sum();
    let (copied, size) = (held(&copy), core.metadata().unwrap().len());
    assert!(
        copied <= data + (data >> 3) + (1 << 20),
        "{copied} of {data}"
    );
    eprintln!("[{}] {size} bytes, {data} of data", current_test());
}

/// Registers and words of 32 bits, where the machine has 64.
fn a_program_of_32_bits() {
    let subject = Subject::built(&["-m32"], "threads", 4);
    subject.program.stop();
    let mount = Mount::new("");
    let (dir, pid) = (subject.dir.path(), subject.pid());
    let lines = gdb_compares(&mount, dir, pid, &subject.binary, &[]);
    let count = |what: &str| lines.iter().filter(|line| line.contains(what)).count();
    assert_eq!(count(" frames "), 5);
    assert_eq!(count(" frames spin@"), 2);
    assert_eq!(count("register eip "), 5);
    assert!(
        count("library ") >= 2 && count("mapping ") > 5,
        "{lines:#?}"
    );
    let mut readelf = Command::new("eu-readelf");
    let text = run(readelf.args(["-h", "-n"]).arg(core_of(&mount, pid)))
        .success()
        .quiet()
        .text();
    for wanted in ["ELF32", "Intel 80386"] {
        assert!(text.contains(wanted), "{text}");
    }
    assert_eq!(text.matches("PRSTATUS").count(), 5, "{text}");
    assert_eq!(text.matches("386_TLS").count(), 5, "{text}");
}

/// Stacks on the heap, an arena that is reserved, and threads of the run-time.
fn a_go_program() {
    let dir = tempfile::tempdir().unwrap();
    let (source, binary) = (dir.path().join("main.go"), dir.path().join("main"));
    std::fs::write(&source, GO).unwrap();
    let mut go = Command::new("go");
    go.env("GOCACHE", dir.path().join("cache"))
        .env("GO111MODULE", "off")
        .env("GOFLAGS", "");
    go.args(["build", "-o"]).arg(&binary).arg(&source);
    run(&mut go).success();
    compares(&Program::of(Command::new(&binary)), &binary, 3);
}

/// Code that is made while it runs, and a heap that is reserved.
fn a_java_virtual_machine() {
    let dir = tempfile::tempdir().unwrap();
    let java = Program::java(dir.path());
    let binary = std::fs::read_link(format!("/proc/{}/exe", java.pid())).unwrap();
    compares(&java, &binary, 8);
}

/// A shadow of 20 TiB, which is not dumped.
fn an_address_sanitizer_program() {
    let dir = tempfile::tempdir().unwrap();
    let asan = Program::asan(dir.path());
    compares(&asan, &dir.path().join("asan"), 1);
}
