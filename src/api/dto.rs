//! The JSON of the API. The command line reads it with the same types.
//!
//! Bytes have no place in JSON: content is `text` where it is UTF-8 and `base64` where not; a header that is
//! not UTF-8 is read as ISO 8859-1, as HTTP once had it (RFC 9110 section 5.5).

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use super::resources::{Network, Usage};
use crate::record;
use crate::store;

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
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub grpc: Option<Grpc>,
    /// Whether all of it is there: `complete`, `pending` or `incomplete`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub completeness: Option<store::Completeness>,
    /// When the parts of the response's content came: microseconds since the start, and bytes.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub pace: Vec<(u64, u64)>,
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

/// Bytes that passed together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// `client` or `server`: who sent them.
    pub from: String,
    /// Microseconds since the stream's start.
    pub offset_us: u64,
    /// The bytes, where they are UTF-8.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub text: Option<String>,
    /// The bytes, where they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub base64: Option<String>,
}

/// `GET /api/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// This node's name.
    pub node: String,
    /// `Record`, `Playback`, `Standalone`, `Forward`.
    pub mode: String,
    /// The program's version.
    pub version: String,
    /// When the API began to serve, ISO 8601 in UTC.
    pub started: String,
    /// Seconds since then.
    pub uptime_s: u64,
    /// How many records are where.
    pub counts: Counts,
    /// What the process takes of its machine.
    pub resources: Usage,
    /// How full the store is; `null` on a node without one.
    pub store: Option<StoreStatus>,
    /// Seconds between a record's end and its commit, or the age of the oldest unsent one; by direction.
    pub lag: BTreeMap<String, f64>,
    /// Where every captured item is, by recorder and epoch.
    pub ledger: Value,
    /// The connection to the MQTT broker.
    pub broker: Value,
}

/// How many records are where, since this process started unless said otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Captured on this node.
    pub recorded: u64,
    /// Handed to the broker and acknowledged by it.
    pub published: u64,
    /// Waiting in this node's spool.
    pub spooled: u64,
    /// In the store now.
    pub records: u64,
    /// Of these, as far as they are watched: with a piece missing that may yet arrive.
    pub pending: u64,
    /// Of these, as far as they are watched: with a piece missing and late.
    pub incomplete: u64,
    /// Copies given up on purpose, each with a counted reason.
    pub dropped: u64,
    /// Not here yet, and asked for again.
    pub missing: u64,
    /// Not here, and nobody has them any more.
    pub lost: u64,
}

/// How full the store is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreStatus {
    /// Records that can be listed.
    pub records: Option<u64>,
    /// Bytes in use.
    pub bytes: Option<u64>,
    /// Start of the oldest record, ISO 8601 in UTC.
    pub oldest: Option<String>,
    /// Why the store could not tell.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
}

/// `POST /api/backups`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// When it was made, in UTC, as the name of a folder.
    pub name: String,
    /// Its folder on the node's machine.
    pub path: String,
    /// Files of records in it.
    pub segments: u64,
    /// Bytes of these and of their indexes.
    pub bytes: u64,
}

/// `GET /api/backups`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backups {
    /// Their names, oldest first.
    pub backups: Vec<String>,
}

/// `GET /healthz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// `ok` or `failing`.
    pub status: String,
    /// What is wrong; empty where nothing is.
    pub reasons: Vec<String>,
}

/// Microseconds since the Unix epoch as ISO 8601 in UTC; `None` outside the calendar.
#[must_use]
pub fn time(micros: i64) -> Option<String> {
    Timestamp::from_microsecond(micros)
        .ok()
        .map(|t| format!("{t:.6}"))
}

impl From<&record::Record> for Record {
    fn from(record: &record::Record) -> Self {
        match record {
            record::Record::Exchange(exchange) => exchange.as_ref().into(),
            record::Record::Stream(stream) => stream.as_ref().into(),
        }
    }
}

impl From<&record::Exchange> for Record {
    fn from(exchange: &record::Exchange) -> Self {
        let id = exchange.id.to_string();
        let body = |side: &str, body: &record::Body| {
            let (text, base64) = if body.chunks == 0 {
                text_or_base64(&body.inline)
            } else {
                (None, None)
            };
            Body {
                bytes: body.bytes,
                truncated: body.truncated,
                chunks: body.chunks,
                digest: format!("{:032x}", u128::from_be_bytes(*body.digest.as_be_bytes())),
                text,
                base64,
                href: format!("/api/records/{id}/{side}/body"),
            }
        };
        let request = Request {
            method: exchange.request.method.to_string(),
            target: exchange.request.target.to_string(),
            version: exchange.request.version.to_string(),
            headers: fields(&exchange.request.headers),
            body: body("request", &exchange.request.body),
            trailers: fields(&exchange.request.trailers),
        };
        let response = exchange.response.as_ref().map(|response| Response {
            status: response.status,
            headers: fields(&response.headers),
            body: body("response", &response.body),
            trailers: fields(&response.trailers),
            informational: response
                .informational
                .iter()
                .map(|(status, headers)| (*status, fields(headers)))
                .collect(),
        });
        Self {
            origin: (&exchange.origin).into(),
            service: exchange.service.to_string(),
            protocol: exchange.protocol.as_str().to_owned(),
            connection: exchange.connection.0,
            client: exchange.client.to_string(),
            upstream: exchange.upstream.as_deref().map(str::to_owned),
            tls: exchange.tls.as_ref().map(Into::into),
            timing: (&exchange.timing).into(),
            outcome: (&exchange.outcome).into(),
            request: Some(request),
            response,
            stream: None,
            redactions: exchange
                .redactions
                .iter()
                .map(ToString::to_string)
                .collect(),
            grpc: exchange.flow.grpc.as_deref().map(Into::into),
            completeness: None,
            pace: exchange
                .flow
                .pace
                .iter()
                .map(|beat| (beat.at_us, beat.bytes))
                .collect(),
            id,
        }
    }
}

impl From<&record::Grpc> for Grpc {
    fn from(grpc: &record::Grpc) -> Self {
        Self {
            service: grpc.service.to_string(),
            method: grpc.method.to_string(),
            status: grpc.status,
            message: grpc.message.to_string(),
            request: (&grpc.request).into(),
            response: (&grpc.response).into(),
        }
    }
}

impl From<&record::Messages> for Messages {
    fn from(messages: &record::Messages) -> Self {
        Self {
            count: messages.count,
            broken: messages.broken,
            first: messages
                .first
                .iter()
                .map(|m| (m.offset, m.bytes, m.compressed, m.at_us))
                .collect(),
        }
    }
}

impl From<&record::Stream> for Record {
    fn from(stream: &record::Stream) -> Self {
        let id = stream.id.to_string();
        Self {
            origin: (&stream.origin).into(),
            service: stream.service.to_string(),
            protocol: stream.protocol.as_str().to_owned(),
            connection: stream.connection.0,
            client: stream.client.to_string(),
            upstream: stream.upstream.as_deref().map(str::to_owned),
            tls: stream.tls.as_ref().map(Into::into),
            timing: (&stream.timing).into(),
            outcome: (&stream.outcome).into(),
            request: None,
            response: None,
            stream: Some(Stream {
                client_bytes: stream.client_bytes,
                server_bytes: stream.server_bytes,
                batches: stream.batches,
                truncated: stream.truncated,
                href: format!("/api/records/{id}/segments"),
            }),
            redactions: Vec::new(),
            grpc: None,
            completeness: None,
            pace: Vec::new(),
            id,
        }
    }
}

impl From<&record::Origin> for Origin {
    fn from(origin: &record::Origin) -> Self {
        Self {
            node: origin.node.to_string(),
            epoch: origin.epoch.0,
            seq: origin.seq.0,
        }
    }
}

impl From<&record::TlsFacts> for Tls {
    fn from(tls: &record::TlsFacts) -> Self {
        Self {
            version: tls.version.to_string(),
            cipher: tls.cipher.to_string(),
            server_name: tls.server_name.as_deref().map(str::to_owned),
            alpn: tls.alpn.as_deref().map(str::to_owned),
        }
    }
}

impl From<&record::Timing> for Timing {
    fn from(timing: &record::Timing) -> Self {
        Self {
            started: time(timing.started_us),
            request_end_us: timing.request_end_us,
            first_byte_us: timing.first_byte_us,
            end_us: timing.end_us,
        }
    }
}

impl From<&record::Outcome> for Outcome {
    fn from(outcome: &record::Outcome) -> Self {
        let (failure, detail) = match outcome {
            record::Outcome::Ok | record::Outcome::ClientClosed => (None, None),
            record::Outcome::UpstreamFailed(failure, detail) => (Some(failure), Some(detail)),
            record::Outcome::ClientError(detail) | record::Outcome::ProxyClosed(detail) => {
                (None, Some(detail))
            }
        };
        Self {
            kind: outcome.as_str().to_owned(),
            failure: failure.map(|failure| failure.as_str().to_owned()),
            detail: detail.map(ToString::to_string),
        }
    }
}

impl From<&record::Segment> for Segment {
    fn from(segment: &record::Segment) -> Self {
        let (text, base64) = text_or_base64(&segment.bytes);
        Self {
            from: match segment.direction {
                record::Direction::Client => "client".to_owned(),
                record::Direction::Server => "server".to_owned(),
            },
            offset_us: segment.offset_us,
            text,
            base64,
        }
    }
}

fn fields(headers: &record::Headers) -> Fields {
    headers
        .iter()
        .map(|(name, value)| {
            (
                header_text(name).into_owned(),
                header_text(value).into_owned(),
            )
        })
        .collect()
}

fn header_text(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => bytes
            .iter()
            .map(|byte| char::from(*byte))
            .collect::<String>()
            .into(),
    }
}

fn text_or_base64(bytes: &[u8]) -> (Option<String>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(STANDARD.encode(bytes))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_stay_bytes() {
        assert_eq!(text_or_base64("é".as_bytes()), (Some("é".to_owned()), None));
        assert_eq!(text_or_base64(b"\xff\0"), (None, Some("/wA=".to_owned())));
        assert_eq!(header_text(b"caf\xe9"), "café");
    }

    #[test]
    fn times_are_utc_and_never_panic() {
        assert_eq!(
            time(1_000_001).as_deref(),
            Some("1970-01-01T00:00:01.000001Z")
        );
        assert_eq!((time(i64::MAX), time(i64::MIN)), (None, None));
    }
}
