//! A recorded byte stream: TCP, or what follows a WebSocket upgrade.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    Application, ConnectionId, Frame, Origin, Outcome, Protocol, RecordId, Timing, TlsFacts,
    Upgrade,
};

/// The summary of a stream, published when it has ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Stream {
    /// Its name.
    pub id: RecordId,
    /// Its place in the recorder's sequence.
    pub origin: Origin,
    /// The service in front of which the proxy stands.
    pub service: Arc<str>,
    /// [`Protocol::WebSocket`], or [`Protocol::Tcp`] for everything else, also behind an upgrade.
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
    /// What was spoken on it, where its bytes told.
    pub application: Option<Box<Application>>,
    /// How it ended.
    pub outcome: Outcome,
    /// The exchange that asked for the upgrade which the stream began with; `None` for a connection of its own.
    pub exchange: Option<RecordId>,
    /// What was agreed on there, and what came of it.
    pub upgrade: Option<Box<Upgrade>>,
}

impl Stream {
    /// The name that the client asked for by TLS, ended here or passed through.
    #[must_use]
    pub fn server_name(&self) -> Option<&str> {
        let ended = self.tls.as_ref().and_then(|tls| tls.server_name.as_deref());
        let application = self.application.as_ref();
        ended.or_else(|| application.and_then(|a| a.facts.server_name.as_deref()))
    }
}

/// Who sent the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The client; written `c`.
    Client,
    /// The server; written `s`.
    Server,
}

/// Bytes that passed together in one direction; of a WebSocket stream a message, or a piece of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Who sent them.
    pub direction: Direction,
    /// Microseconds since the stream's start.
    pub offset_us: u64,
    /// What was sent. Without a frame it is empty where the sender closed its side.
    pub bytes: Bytes,
    /// Which piece of which message the bytes are; `None` for bytes that are none: plain TCP, and what of an
    /// upgraded stream is no WebSocket.
    pub frame: Option<Frame>,
    /// How many bytes of the same direction passed since its segment before and were not kept.
    pub missing: u64,
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
