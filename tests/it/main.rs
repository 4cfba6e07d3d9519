//! Every integration test, in one binary. The modules can be run by name: `cargo test proxy_test`.

mod architecture_test;
//! Integration tests, in one binary.

mod support;
mod mqtt_test;
mod mqtt_integration_test;
mod playback_test;
mod proxy_test;
