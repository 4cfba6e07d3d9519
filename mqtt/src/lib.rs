#![doc = include_str!("../README.md")]

pub mod client;
pub mod message;
pub mod options;
pub mod transport;
pub mod persistence;
pub mod error;
mod said;
pub mod stats;
pub mod session;
pub mod codec;
pub mod topic;
mod outcomes;
mod queue;
mod inbox;
mod driver;
mod random;

pub use client::{MqttClient, MqttConfig};
pub use codec::Version;
pub use error::Error;
pub use message::{Message, QoS};
