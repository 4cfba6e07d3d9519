//! `entries::topics` under libFuzzer.

#![no_main]
#![allow(dead_code, reason = "each target uses one entry")]

#[path = "../entries.rs"]
mod entries;

libfuzzer_sys::fuzz_target!(|data: &[u8]| entries::topics(data));
