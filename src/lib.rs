//! QProxy records real HTTP and TCP traffic in one place and plays it back in another, over MQTT.
//!
//! ```text
//! client --> proxy --> upstream
//!              |  capture copies; it never delays the client
//!              v
//!           capture --> spool --> sync ==MQTT==> sync --> store --> api --> dashboard, cli
//!                                   (any broker)            |-----> playback --> target, or the waiting client
//! ```
//!
//! The modules stand in the order in which data flows. `ARCHITECTURE.md` has the table of who may use whom.

pub mod record;
pub mod segment;
pub mod metrics;
pub mod telemetry;
pub mod service_discovery;
pub mod capture;
pub mod proxy;
pub mod spool;
pub mod store;
pub mod sync;
pub mod playback;
pub mod api;
pub mod config;
pub mod app;
pub mod cli;

pub use qproxy_mqtt as mqtt_client;
