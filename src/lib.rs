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
pub mod metrics;
pub mod telemetry;
pub mod store;
pub mod api;
pub mod config;
pub mod app;
