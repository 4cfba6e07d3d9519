//! The recording proxies: HTTP in front of a service, or plain TCP.
//!
//! ```text
//! listener --> entry (PROXY protocol, TLS) --> detect --> http (hyper) --> forward --> upstream pool --> dial
//!                                          |          `-> Responder (answers from records, plugged in by `app`)
//!                                          |          `-> forward_proxy (CONNECT: look inside, or pump) --> dial
//!                                          `-> tcp (pump both ways) --> dial
//!                                               `-> Talker (answers from records, likewise)
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
mod detect;
mod dial;
mod reach;
mod lru;
pub mod tls;
pub mod http;
pub mod tcp;

pub use drain::{Drained, Running};
pub use error::{Error, Side};
pub use metrics::Metrics;
pub use proxy_protocol::ProxyProtocol;
