#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| qproxy::capture::fuzzing::frames(data));
