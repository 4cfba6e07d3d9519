//! What is known of a stream that began with an upgrade, and of the messages in it: WebSocket (RFC 6455), or
//! whatever else the two sides agreed on.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

use super::Direction;

/// What a server appends to a key before it hashes it (RFC 6455 section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The `Sec-WebSocket-Accept` that answers a `Sec-WebSocket-Key` (RFC 6455 section 4.2.2).
#[must_use]
pub fn accept_key(key: &[u8]) -> String {
    let key = key.trim_ascii();
    STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize())
}

/// The upgrade that a stream began with, and how it went on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Upgrade {
    /// The handshake's host; at most [`Upgrade::TEXT_BYTES`] of it, as the exchange has it whole.
    pub host: Arc<str>,
    /// The handshake's target; at most [`Upgrade::TEXT_BYTES`] of it.
    pub target: Arc<str>,
    /// How messages are compressed, where that was agreed on.
    pub deflate: Option<Deflate>,
    /// What the client sent.
    pub client: Tally,
    /// What the server sent.
    pub server: Tally,
    /// The first Close frame.
    pub close: Option<Close>,
}

impl Upgrade {
    /// How much is kept of the handshake's host and target.
    pub const TEXT_BYTES: usize = 2048;
}

/// What came from one side.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Text and binary messages that came whole, kept or not.
    pub messages: u64,
    /// Why bytes were kept as they came, without frames: what first broke the protocol, or that it is another one.
    pub unframed: Option<Arc<str>>,
}

/// What was agreed on for `permessage-deflate` (RFC 7692 section 7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deflate {
    /// How the client's messages are compressed.
    pub client: Window,
    /// How the server's are.
    pub server: Window,
}

/// How one side compresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The base-2 logarithm of the LZ77 window's size, 8 to 15.
    pub bits: u8,
    /// What a message may refer to.
    pub context: Context,
}

/// What a compressed message may refer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Context {
    /// The messages before it.
    Kept,
    /// Itself alone: `no_context_takeover`.
    Fresh,
}

/// A Close frame (RFC 6455 section 5.5.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close {
    /// Who sent it.
    pub from: Direction,
    /// The status code, where it had one.
    pub code: Option<u16>,
    /// The reason; empty where there is none.
    pub reason: Arc<str>,
}

/// Which piece of which kind of message a segment's bytes are: the unmasked payload as it was on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// The kind of the message; a continuation's is that of its first frame.
    pub opcode: Opcode,
    /// Which piece.
    pub part: Part,
    /// Whether the message is compressed (RSV1, RFC 7692 section 7.2.1).
    pub compressed: bool,
}

/// The kind of a message (RFC 6455 section 11.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Opcode {
    /// Text in UTF-8.
    Text,
    /// Bytes.
    Binary,
    /// The side sends nothing more.
    Close,
    /// Wants a Pong.
    Ping,
    /// Answers a Ping, or just tells that its sender is there.
    Pong,
}

impl Opcode {
    /// Every kind.
    pub const ALL: [Self; 5] = [
        Self::Text,
        Self::Binary,
        Self::Close,
        Self::Ping,
        Self::Pong,
    ];

    /// The name used in JSON and MessagePack.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Binary => "binary",
            Self::Close => "close",
            Self::Ping => "ping",
            Self::Pong => "pong",
        }
    }

    /// The inverse of [`Opcode::as_str`].
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|opcode| opcode.as_str() == name)
    }

    /// Whether such frames come whole, and may come between those of a message (RFC 6455 section 5.5).
    #[must_use]
    pub const fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// Which piece of a message: one that its sender fragmented, or that is large, comes in several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// All of it.
    Whole,
    /// The first piece.
    First,
    /// One between.
    Middle,
    /// The last piece.
    Last,
}

impl Part {
    /// Every part.
    pub const ALL: [Self; 4] = [Self::Whole, Self::First, Self::Middle, Self::Last];

    /// The piece that begins, and ends, a message or does not.
    #[must_use]
    pub const fn of(begins: bool, ends: bool) -> Self {
        match (begins, ends) {
            (true, true) => Self::Whole,
            (true, false) => Self::First,
            (false, false) => Self::Middle,
            (false, true) => Self::Last,
        }
    }

    /// The name used in JSON and MessagePack.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::First => "first",
            Self::Middle => "middle",
            Self::Last => "last",
        }
    }

    /// The inverse of [`Part::as_str`].
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|part| part.as_str() == name)
    }

    /// Whether a message begins with it.
    #[must_use]
    pub const fn begins(self) -> bool {
        matches!(self, Self::Whole | Self::First)
    }

    /// Whether a message ends with it.
    #[must_use]
    pub const fn ends(self) -> bool {
        matches!(self, Self::Whole | Self::Last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_the_specification_has_its_answer() {
        let accept = accept_key(b" dGhlIHNhbXBsZSBub25jZQ== ");
        assert_eq!(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
