#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| qproxy::segment::fuzzing::frames(data));
