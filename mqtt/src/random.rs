//! Random numbers from the TLS provider: correlation ids that cannot be guessed, and jitter.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

use rustls::crypto::SecureRandom;

static SOURCE: LazyLock<&'static dyn SecureRandom> =
    LazyLock::new(|| rustls::crypto::aws_lc_rs::default_provider().secure_random);

/// 64 random bits.
pub(crate) fn bits() -> u64 {
    let mut bytes = [0; 8];
    match SOURCE.fill(&mut bytes) {
        Ok(()) => u64::from_le_bytes(bytes),
        // The system's source failed; std's hash keys were drawn from it at start.
        Err(_) => RandomState::new().hash_one(0),
    }
}
