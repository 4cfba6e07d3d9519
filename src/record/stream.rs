//! A recorded byte stream: TCP, or what follows a WebSocket upgrade.

use std::sync::Arc;

use bytes::Bytes;

use super::{ConnectionId, Origin, Outcome, Protocol, RecordId, Timing, TlsFacts};

/// The summary of a stream, published when it has ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Stream {
    /// Its name.
    pub id: RecordId,
    /// Its place in the recorder's sequence.
    pub origin: Origin,
    /// The service in front of which the proxy stands.
    pub service: Arc<str>,
    /// [`Protocol::Tcp`] or [`Protocol::WebSocket`].
    pub protocol: Protocol,
    /// The client connection.
    pub connection: ConnectionId,
    /// The client's address, `ip:port`.
    pub client: Arc<str>,
    /// The upstream's address, `host:port`; `None` where no connection was made, but of a tunnel always.
    pub upstream: Option<Arc<str>>,
    /// The client's TLS, where the listener ended one.
    pub tls: Option<TlsFacts>,
    /// When it started and how long it lasted.
    pub timing: Timing,
    /// Bytes from client to server, kept or not.
    pub client_bytes: u64,
    /// Bytes from server to client, kept or not.
    pub server_bytes: u64,
    /// How many [`SegmentBatch`]es hold the kept bytes.
    pub batches: u32,
    /// Whether fewer bytes were kept than passed.
    pub truncated: bool,
    /// How it ended.
    pub outcome: Outcome,
}

/// Who sent the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The client; written `c`.
    Client,
    /// The server; written `s`.
    Server,
}

/// Bytes that passed together in one direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Who sent them.
    pub direction: Direction,
    /// Microseconds since the stream's start.
    pub offset_us: u64,
    /// What was sent; empty where the sender closed its side.
    pub bytes: Bytes,
}

/// Consecutive segments of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentBatch {
    /// The stream.
    pub record: RecordId,
    /// The batch's own place in the recorder's sequence.
    pub origin: Origin,
    /// Its place in the stream, from 0.
    pub index: u32,
    /// The segments, in the order in which they passed.
    pub segments: Vec<Segment>,
}
