#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| procmemfs::fuzzing::run("names", data));
