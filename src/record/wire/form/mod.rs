//! Version 1 of the maps: what each key is called and how it maps to the model.
//!
//! The writing forms borrow from the model, the reading forms from the message.

mod read;
mod write;

use serde::{Deserialize, Serialize};

use super::application::ApplicationForm;
use super::flow::{GrpcForm, PaceForm};
use super::upgrade::UpgradeForm;

pub(super) use read::{
    chunk, direction, exchange, gap, origin, record_id, segments, stream, timing,
};
pub(super) use write::{direction_name, side_name};

/// The key whose value cannot be.
pub(super) type Illegal = &'static str;

/// A byte string: MessagePack `bin`, which a text is read as too.
#[derive(Clone, Copy)]
pub(super) struct Bin<'a>(pub(super) &'a [u8]);

impl Serialize for Bin<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Bin<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&[u8]>::deserialize(deserializer).map(Self)
    }
}

type Fields<'a> = Vec<(Bin<'a>, Bin<'a>)>;

#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Out<'a> {
    Exchange(Box<ExchangeForm<'a>>),
    Stream(Box<StreamForm<'a>>),
    Chunk(ChunkForm<'a>),
    Segments(SegmentsForm<'a>),
    Gap(GapForm<'a>),
}

#[derive(Serialize, Deserialize)]
pub(super) struct OriginForm<'a> {
    node: &'a str,
    epoch: u64,
    seq: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct TimingForm {
    started_us: i64,
    monotonic_us: u64,
    request_end_us: Option<u64>,
    first_byte_us: Option<u64>,
    end_us: u64,
}

#[derive(Serialize, Deserialize)]
struct TlsForm<'a> {
    version: &'a str,
    cipher: &'a str,
    server_name: Option<&'a str>,
    alpn: Option<&'a str>,
}

#[derive(Serialize, Deserialize)]
struct OutcomeForm<'a> {
    end: &'a str,
    #[serde(default)]
    failure: Option<&'a str>,
    #[serde(default)]
    detail: Option<&'a str>,
}

#[derive(Serialize, Deserialize)]
struct BodyForm<'a> {
    #[serde(borrow)]
    inline: Bin<'a>,
    chunks: u32,
    bytes: u64,
    truncated: bool,
    #[serde(borrow)]
    digest: Bin<'a>,
}

#[derive(Serialize, Deserialize)]
struct RequestForm<'a> {
    method: &'a str,
    target: &'a str,
    version: &'a str,
    #[serde(borrow)]
    headers: Fields<'a>,
    #[serde(borrow)]
    body: BodyForm<'a>,
    #[serde(borrow, default)]
    trailers: Fields<'a>,
}

#[derive(Serialize, Deserialize)]
struct ResponseForm<'a> {
    status: u16,
    #[serde(borrow)]
    headers: Fields<'a>,
    #[serde(borrow)]
    body: BodyForm<'a>,
    #[serde(borrow, default)]
    trailers: Fields<'a>,
    #[serde(borrow, default)]
    informational: Vec<(u16, Fields<'a>)>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct ExchangeForm<'a> {
    v: u8,
    kind: &'a str,
    #[serde(borrow)]
    id: Bin<'a>,
    #[serde(borrow)]
    origin: OriginForm<'a>,
    service: &'a str,
    protocol: &'a str,
    connection: u64,
    client: &'a str,
    upstream: Option<&'a str>,
    #[serde(borrow)]
    tls: Option<TlsForm<'a>>,
    timing: TimingForm,
    #[serde(borrow)]
    request: RequestForm<'a>,
    #[serde(borrow)]
    response: Option<ResponseForm<'a>>,
    #[serde(borrow)]
    outcome: OutcomeForm<'a>,
    #[serde(borrow, default)]
    redactions: Vec<&'a str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    grpc: Option<Box<GrpcForm<'a>>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pace: PaceForm,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    stream: Option<Bin<'a>>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct StreamForm<'a> {
    v: u8,
    kind: &'a str,
    #[serde(borrow)]
    id: Bin<'a>,
    #[serde(borrow)]
    origin: OriginForm<'a>,
    service: &'a str,
    protocol: &'a str,
    connection: u64,
    client: &'a str,
    upstream: Option<&'a str>,
    #[serde(borrow)]
    tls: Option<TlsForm<'a>>,
    timing: TimingForm,
    client_bytes: u64,
    server_bytes: u64,
    batches: u32,
    truncated: bool,
    #[serde(borrow)]
    outcome: OutcomeForm<'a>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    exchange: Option<Bin<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    upgrade: Option<Box<UpgradeForm<'a>>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    application: Option<Box<ApplicationForm<'a>>>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct ChunkForm<'a> {
    v: u8,
    kind: &'a str,
    #[serde(borrow)]
    id: Bin<'a>,
    #[serde(borrow)]
    origin: OriginForm<'a>,
    side: &'a str,
    index: u32,
    #[serde(borrow)]
    bytes: Bin<'a>,
}

#[derive(Serialize, Deserialize)]
struct SegmentForm<'a> {
    from: &'a str,
    offset_us: u64,
    #[serde(borrow)]
    bytes: Bin<'a>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    opcode: Option<&'a str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    part: Option<&'a str>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    compressed: bool,
    #[serde(default, skip_serializing_if = "is_zero")]
    missing: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct SegmentsForm<'a> {
    v: u8,
    kind: &'a str,
    #[serde(borrow)]
    id: Bin<'a>,
    #[serde(borrow)]
    origin: OriginForm<'a>,
    index: u32,
    #[serde(borrow)]
    segments: Vec<SegmentForm<'a>>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct GapForm<'a> {
    v: u8,
    kind: &'a str,
    #[serde(borrow)]
    origin: OriginForm<'a>,
    count: u64,
    reason: &'a str,
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands out references"
)]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}
