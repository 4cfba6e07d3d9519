//! An asynchronous MQTT client: a strict codec, a pure session and a batching driver.

pub mod topic;
pub mod codec;
