//! The JSON of the API. The command line reads it with the same types.
//!
//! Bytes have no place in JSON: content is `text` where it is UTF-8 and `base64` where not; a header that is
//! not UTF-8 is read as ISO 8859-1, as HTTP once had it (RFC 9110 section 5.5).

mod model;
mod status;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::store;

pub use super::calls::{Application, Call};
pub use super::resources::{Network, Usage};
pub use status::{Backup, Backups, Counts, Health, Status, StoreStatus};

pub(super) use model::{sender, text_or_base64};

/// `GET /api/records`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Listing {
    /// In the order asked for.
    pub records: Vec<Summary>,
    /// What `cursor` must be for the next page; `null` on the last.
    pub next: Option<String>,
}

/// One line of a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "named as the fields of `store::Summary`")]
pub struct Summary {
    pub id: String,
    pub node: String,
    pub service: String,
    pub protocol: String,
    pub method: String,
    pub host: String,
    pub target: String,
    pub status: Option<u16>,
    pub outcome: String,
    /// ISO 8601 in UTC; `null` where the recorder's clock was out of this world.
    pub started: Option<String>,
    pub duration_us: u64,
    pub request_bytes: u64,
    pub response_bytes: u64,
    /// Whether all of it is there; not in events, nor for what is sealed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub completeness: Option<store::Completeness>,
    /// The name of the key under which the rest is sealed, where that is not open here.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sealed: Option<String>,
}

impl From<&store::Summary> for Summary {
    fn from(summary: &store::Summary) -> Self {
        Self {
            id: summary.id.to_string(),
            node: summary.origin.node.to_string(),
            service: summary.service.to_string(),
            protocol: summary.protocol.to_string(),
            method: summary.method.to_string(),
            host: summary.host.to_string(),
            target: summary.target.to_string(),
            status: summary.status,
            outcome: summary.outcome.to_string(),
            started: time(summary.started_us),
            duration_us: summary.duration_us,
            request_bytes: summary.request_bytes,
            response_bytes: summary.response_bytes,
            completeness: None,
            sealed: summary.sealed.as_deref().map(str::to_owned),
        }
    }
}

/// `GET /api/records/{id}`: an exchange has `request`, a stream has `stream`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "named as the fields of `record::Exchange`")]
pub struct Record {
    pub id: String,
    pub origin: Origin,
    pub service: String,
    pub protocol: String,
    pub connection: u64,
    pub client: String,
    pub upstream: Option<String>,
    pub tls: Option<Tls>,
    pub timing: Timing,
    pub outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub request: Option<Request>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub response: Option<Response>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stream: Option<Stream>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub redactions: Vec<String>,
    /// The stream that followed, where the exchange ended in an upgrade.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub followed_by: Option<Link>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub grpc: Option<Grpc>,
    /// Whether all of it is there: `complete`, `pending` or `incomplete`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub completeness: Option<store::Completeness>,
    /// When the parts of the response's content came: microseconds since the start, and bytes.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub pace: Vec<(u64, u64)>,
}

/// Another record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Its id.
    pub id: String,
    /// Where it can be had.
    pub href: String,
}

/// What an upgrade agreed on, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "named as the fields of `record::Upgrade`")]
pub struct Upgrade {
    pub host: String,
    pub target: String,
    pub deflate: Option<Deflate>,
    pub client: Tally,
    pub server: Tally,
    pub close: Option<Close>,
}

/// How messages are compressed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "named as the fields of `record::Deflate`")]
pub struct Deflate {
    pub client: Window,
    pub server: Window,
}

/// How one side compresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// The base-2 logarithm of the window's size.
    pub bits: u8,
    /// Whether a message may refer to those before it.
    pub context: bool,
}

/// What came from one side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Text and binary messages that came whole.
    pub messages: u64,
    /// Why bytes were kept as they came.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub unframed: Option<String>,
}

/// The first Close frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Close {
    /// `client` or `server`: who sent it.
    pub from: String,
    /// The status code.
    pub code: Option<u16>,
    /// The reason.
    pub reason: String,
}

/// A gRPC call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "named as the fields of `record::Grpc`")]
pub struct Grpc {
    pub service: String,
    pub method: String,
    pub status: Option<u32>,
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub message: String,
    pub request: Messages,
    pub response: Messages,
}

/// The length-prefixed messages of one direction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "named as the fields of `record::Messages`")]
pub struct Messages {
    pub count: u64,
    pub broken: bool,
    /// Of the first ones: offset in the content, bytes, whether compressed, microseconds since the start.
    pub first: Vec<(u64, u32, bool, u64)>,
}

/// A place in a recorder's sequence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "named as the fields of `record::Origin`")]
pub struct Origin {
    pub node: String,
    pub epoch: u64,
    pub seq: u64,
}

/// The client's TLS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "named as the fields of `record::TlsFacts`")]
pub struct Tls {
    pub version: String,
    pub cipher: String,
    pub server_name: Option<String>,
    pub alpn: Option<String>,
}

/// When, and how long each part took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "named as the fields of `record::Timing`")]
pub struct Timing {
    pub started: Option<String>,
    pub request_end_us: Option<u64>,
    pub first_byte_us: Option<u64>,
    pub end_us: u64,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// `ok`, `client_closed`, `upstream_failed`, `client_error`, `proxy_closed`.
    pub kind: String,
    /// In which way the upstream failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub failure: Option<String>,
    /// More about it, in words.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub detail: Option<String>,
}

/// Name and value of header fields, in order.
pub type Fields = Vec<(String, String)>;

/// What was asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "named as the fields of `record::Request`")]
pub struct Request {
    pub method: String,
    pub target: String,
    pub version: String,
    pub headers: Fields,
    pub body: Body,
    pub trailers: Fields,
}

/// What was answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "named as the fields of `record::Response`")]
pub struct Response {
    pub status: u16,
    pub headers: Fields,
    pub body: Body,
    pub trailers: Fields,
    /// Interim responses that came first: status and fields.
    pub informational: Vec<(u16, Fields)>,
}

/// What is known of a content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body {
    /// Bytes that passed, kept or not.
    pub bytes: u64,
    /// Whether fewer were kept.
    pub truncated: bool,
    /// In how many pieces it is kept apart from the record; 0 where it stands here.
    pub chunks: u32,
    /// XXH3-128 of all that passed, in hexadecimal.
    pub digest: String,
    /// The kept bytes, where they stand here and are UTF-8.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub text: Option<String>,
    /// The kept bytes, where they stand here and are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub base64: Option<String>,
    /// Where the bytes can be had.
    pub href: String,
}

/// A TCP or WebSocket stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// Bytes from client to server, kept or not.
    pub client_bytes: u64,
    /// Bytes from server to client, kept or not.
    pub server_bytes: u64,
    /// How many batches of segments there are.
    pub batches: u32,
    /// Whether fewer bytes were kept than passed.
    pub truncated: bool,
    /// Where the segments can be had.
    pub href: String,
    /// The exchange that it began with.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub began_with: Option<Link>,
    /// What was agreed on there, and what came of it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub upgrade: Option<Upgrade>,
    /// What was spoken on it, where its bytes told.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub application: Option<Application>,
}

/// `GET /api/records/{id}/segments`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segments {
    /// In the order in which they passed.
    pub segments: Vec<Segment>,
    /// Batches of this page that have not arrived or are gone.
    pub missing: Vec<u32>,
    /// What `batch` must be for the next page; `null` on the last.
    pub next: Option<u32>,
}

/// Bytes that passed together; in a WebSocket stream a message, or as much of one as the page has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// `client` or `server`: who sent them.
    pub from: String,
    /// Microseconds since the stream's start, when the last of it passed.
    pub offset_us: u64,
    /// The kind of the message: `text`, `binary`, `close`, `ping`, `pong`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub opcode: Option<String>,
    /// `first`, `middle` or `last`, where it is not the whole message.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub part: Option<String>,
    /// Whether it was compressed on the wire.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub compressed: bool,
    /// Bytes of the same sender before it that were not kept.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub missing: u64,
    /// Why it is not shown inflated.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub note: Option<String>,
    /// The bytes, where they are UTF-8.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub text: Option<String>,
    /// The bytes, where they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub base64: Option<String>,
}

/// Microseconds since the Unix epoch as ISO 8601 in UTC; `None` outside the calendar.
#[must_use]
pub fn time(micros: i64) -> Option<String> {
    Timestamp::from_microsecond(micros)
        .ok()
        .map(|t| format!("{t:.6}"))
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands out references"
)]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}
