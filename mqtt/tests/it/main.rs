//! Tests of the public face of the crate, in one binary.

#![allow(clippy::unwrap_used, reason = "a test says by a panic that it failed")]

mod packets;
mod differential_test;
mod entries_test;
mod conformance_test;
mod journal_test;
