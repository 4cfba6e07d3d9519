//! The broker over real sockets, driven with nothing but the codec.

#![allow(unreachable_pub, reason = "nothing of a test binary is reachable")]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod client;
mod abuse;
mod faults;
mod service;
mod throughput;
mod tls;
mod v5;
