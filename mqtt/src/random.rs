//! Random numbers: correlation ids that cannot be guessed, and jitter.
//!
//! From the system, as the TLS provider's own source costs some 40 ms of processor time before its first number.

use std::hash::{BuildHasher, RandomState};

/// 64 random bits.
pub(crate) fn bits() -> u64 {
    match getrandom::u64() {
        Ok(bits) => bits,
        // The system's source failed; std's hash keys were drawn from it at start.
        Err(_) => RandomState::new().hash_one(0),
    }
}
