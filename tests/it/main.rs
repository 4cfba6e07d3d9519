//! Integration tests, in one binary.

mod support;
mod sync_test;
mod mqtt_test;
mod mqtt_integration_test;
