//! Every integration test, in one binary. The modules can be run by name: `cargo test proxy_test`.

mod architecture_test;
//! Integration tests, in one binary.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests fail by panicking, like the tests"
)]

mod support;
mod mqtt_test;
mod mqtt_integration_test;
mod playback_test;
mod proxy_test;
