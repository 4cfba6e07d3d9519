//! Integration tests, in one binary.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests fail by panicking, like the tests"
)]

mod support;
mod mqtt_test;
mod mqtt_integration_test;
