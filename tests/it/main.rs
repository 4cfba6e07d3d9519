//! Every integration test, in one binary. The modules can be run by name: `cargo test proxy_test`.

mod architecture_test;
mod config_test;
mod api_test;
