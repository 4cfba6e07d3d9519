//! An item whose content is sealed: what of it anyone can see.

use std::sync::Arc;

use super::{Origin, Protocol, RecordId, Side, Timing};

/// A sealed item that could not be opened here, or not yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Sealed {
    /// The record that it is, or is a piece of.
    pub id: RecordId,
    /// Its place in its recorder's sequence.
    pub origin: Origin,
    /// The key's name.
    pub key: Arc<str>,
    /// What it is.
    pub outside: Outside,
}

/// What a sealed item shows, by its kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Outside {
    /// An exchange, or a stream's summary.
    Record(Box<Clear>),
    /// A piece of a body.
    Chunk {
        /// Whose.
        side: Side,
        /// Which, from 0.
        index: u32,
    },
    /// A batch of a stream's segments.
    Segments {
        /// Which, from 0.
        index: u32,
    },
}

/// What a sealed record shows: what its topic says, times and sizes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clear {
    /// The service's name.
    pub service: Arc<str>,
    /// What is spoken.
    pub protocol: Protocol,
    /// The method; empty for a stream.
    pub method: Arc<str>,
    /// The response's status.
    pub status: Option<u16>,
    /// How it ended, by its name.
    pub outcome: Arc<str>,
    /// When it happened.
    pub timing: Timing,
    /// Bytes from the client: content, or a stream's bytes.
    pub request_bytes: u64,
    /// Bytes to the client: content, or a stream's bytes.
    pub response_bytes: u64,
    /// How many chunks hold the request's content.
    pub request_chunks: u32,
    /// How many chunks hold the response's content.
    pub response_chunks: u32,
    /// How many batches of segments hold the stream.
    pub batches: u32,
}
