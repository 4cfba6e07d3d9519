//! The recording proxies: HTTP in front of a service, or plain TCP.
//!
//! ```text
//! listener --> entry (PROXY protocol, TLS) --> http (hyper) --> forward --> upstream pool
//!                                          |                `-> Responder (answers from records, plugged in by `app`)
//!                                          `-> tcp (pump both ways)
//! ```
//!
//! Sockets are bound by `bind`, work starts with `serve`, and [`Running::shutdown`] drains. What is copied
//! goes through `capture`; nothing here waits for it.

mod error;
mod metrics;
mod drain;
mod listener;
mod entry;
mod proxy_protocol;
mod stream;
pub mod tls;
pub mod http;
pub mod tcp;

pub use drain::{Drained, Running};
pub use error::{Error, Side};
pub use metrics::Metrics;
pub use proxy_protocol::ProxyProtocol;
