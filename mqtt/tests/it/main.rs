//! Tests of the public face of the crate, in one binary.

#![allow(clippy::unwrap_used, reason = "a test says by a panic that it failed")]

mod packets;
mod oracle;
mod oracle_test;
mod differential_test;
mod differential_v5_test;
mod entries_test;
mod examples_test;
mod conformance_test;
mod journal_test;
