//! A small strict MQTT broker, versions 3.1.1 and 5, that runs inside another process.
//!
//! Two uses: [`Broker::bind`] is the default broker of QProxy on one machine, with a bound on everything that could
//! grow; [`MockBroker`] is the same broker with a script of faults and a record of every packet, for tests.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), broker_mock::Error> {
//! use broker_mock::{Broker, Config};
//!
//! let broker = Broker::bind(Config::new("127.0.0.1:0".parse().expect("an address"))).await?;
//! println!("clients connect to {}", broker.local_addr());
//! assert_eq!(broker.stats().clients, 0);
//! broker.shutdown().await;
//! # Ok(()) }
//! ```
//!
//! What it does: QoS 0, 1 and 2 both ways, retained messages, last will, clean and persistent sessions with bounded
//! offline queues, takeover, keep alive, `+` and `#`, `$SYS`, shared subscriptions (`$share/group/filter`), user name
//! and token, TLS. What it does not: persistence on disk, WebSocket, extended authentication. Sessions and retained
//! messages end with the process; QProxy's spool and watermarks make that harmless. A full queue drops messages and
//! counts them, as every broker does; nobody ever waits for a slow reader.
//!
//! The version is each connection's own, by its CONNECT; clients of both meet on the same topics. In MQTT 5 all of
//! session expiry, will delay, message expiry, Receive Maximum, Maximum Packet Size and topic aliases (both ways),
//! subscription options and identifiers, properties and reason codes is there, CONNACK tells the limits, and DISCONNECT
//! says why before a connection is closed. Choices that the specification leaves open: overlapping subscriptions give
//! one copy with every matching identifier, the highest QoS, and the retain flag as published where one of them asks for
//! it; expiry "never" is [`Limits::session_expiry`]; a QoS 2 PUBLISH that repeats an id without DUP is answered with 0x91;
//! payloads that are said to be UTF-8 are checked.
//!
//! Inside: `core` is a pure state machine (events and time in, actions out), `driver` the sockets around it, and
//! `faults` what tests add to the driver.

mod config;
mod core;
mod driver;
mod error;
pub mod faults;
mod stats;

pub use config::{Config, Limits, Overflow, Tls};
pub use core::{Action, Broker, CloseReason, ConnectionId, weight};
pub use driver::RunningBroker;
pub use error::Error;
pub use faults::MockBroker;
pub use stats::{Counters, Stats};
