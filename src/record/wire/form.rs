//! Version 1 of the maps: what each key is called and how it maps to the model.
//!
//! The writing forms borrow from the model, the reading forms from the message.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::record::{
    Body, BodyChunk, ConnectionId, Digest, Direction, Epoch, Exchange, Frame, Gap, GapReason,
    Headers, Item, NodeId, Opcode, Origin, Outcome, Part, Protocol, Record, RecordId, Request,
    Response, Segment, SegmentBatch, Sequence, Side, Stream, Timing, TlsFacts, UpstreamFailure,
};

use super::VERSION;
use super::flow::{self, GrpcForm, PaceForm};
use super::upgrade::{self, UpgradeForm};

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

// ---- model -> form ----

impl<'a> Out<'a> {
    /// `None` for what is sealed.
    pub(super) fn of(item: &'a Item) -> Option<Self> {
        Some(match item {
            Item::Record(Record::Exchange(exchange)) => {
                Self::Exchange(Box::new(exchange.as_ref().into()))
            }
            Item::Record(Record::Stream(stream)) => Self::Stream(Box::new(stream.as_ref().into())),
            Item::Chunk(chunk) => Self::Chunk(ChunkForm {
                v: VERSION,
                kind: "chunk",
                id: Bin(chunk.record.as_bytes()),
                origin: (&chunk.origin).into(),
                side: side_name(chunk.side),
                index: chunk.index,
                bytes: Bin(&chunk.bytes),
            }),
            Item::Segments(batch) => Self::Segments(SegmentsForm {
                v: VERSION,
                kind: "segments",
                id: Bin(batch.record.as_bytes()),
                origin: (&batch.origin).into(),
                index: batch.index,
                segments: batch.segments.iter().map(SegmentForm::from).collect(),
            }),
            Item::Gap(gap) => Self::Gap(GapForm {
                v: VERSION,
                kind: "gap",
                origin: (&gap.origin).into(),
                count: gap.count,
                reason: gap.reason.as_str(),
            }),
            Item::Sealed(_) => return None,
        })
    }
}

impl<'a> From<&'a Exchange> for ExchangeForm<'a> {
    fn from(exchange: &'a Exchange) -> Self {
        Self {
            v: VERSION,
            kind: "exchange",
            id: Bin(exchange.id.as_bytes()),
            origin: (&exchange.origin).into(),
            service: &exchange.service,
            protocol: exchange.protocol.as_str(),
            connection: exchange.connection.0,
            client: &exchange.client,
            upstream: exchange.upstream.as_deref(),
            tls: exchange.tls.as_ref().map(TlsForm::from),
            timing: exchange.timing.into(),
            request: RequestForm {
                method: &exchange.request.method,
                target: &exchange.request.target,
                version: &exchange.request.version,
                headers: fields(&exchange.request.headers),
                body: (&exchange.request.body).into(),
                trailers: fields(&exchange.request.trailers),
            },
            response: exchange.response.as_ref().map(|response| ResponseForm {
                status: response.status,
                headers: fields(&response.headers),
                body: (&response.body).into(),
                trailers: fields(&response.trailers),
                informational: response
                    .informational
                    .iter()
                    .map(|(s, h)| (*s, fields(h)))
                    .collect(),
            }),
            outcome: (&exchange.outcome).into(),
            redactions: exchange.redactions.iter().map(AsRef::as_ref).collect(),
            grpc: flow::grpc_form(&exchange.flow),
            pace: flow::pace_form(&exchange.flow),
            stream: exchange.stream.as_ref().map(|id| Bin(id.as_bytes())),
        }
    }
}

impl<'a> From<&'a Stream> for StreamForm<'a> {
    fn from(stream: &'a Stream) -> Self {
        Self {
            v: VERSION,
            kind: "stream",
            id: Bin(stream.id.as_bytes()),
            origin: (&stream.origin).into(),
            service: &stream.service,
            protocol: stream.protocol.as_str(),
            connection: stream.connection.0,
            client: &stream.client,
            upstream: stream.upstream.as_deref(),
            tls: stream.tls.as_ref().map(TlsForm::from),
            timing: stream.timing.into(),
            client_bytes: stream.client_bytes,
            server_bytes: stream.server_bytes,
            batches: stream.batches,
            truncated: stream.truncated,
            outcome: (&stream.outcome).into(),
            exchange: stream.exchange.as_ref().map(|id| Bin(id.as_bytes())),
            upgrade: stream.upgrade.as_deref().map(upgrade::upgrade_form),
        }
    }
}

impl<'a> From<&'a Origin> for OriginForm<'a> {
    fn from(origin: &'a Origin) -> Self {
        Self {
            node: origin.node.as_str(),
            epoch: origin.epoch.0,
            seq: origin.seq.0,
        }
    }
}

impl From<Timing> for TimingForm {
    fn from(timing: Timing) -> Self {
        let Timing {
            started_us,
            monotonic_us,
            request_end_us,
            first_byte_us,
            end_us,
        } = timing;
        Self {
            started_us,
            monotonic_us,
            request_end_us,
            first_byte_us,
            end_us,
        }
    }
}

impl<'a> From<&'a TlsFacts> for TlsForm<'a> {
    fn from(tls: &'a TlsFacts) -> Self {
        Self {
            version: &tls.version,
            cipher: &tls.cipher,
            server_name: tls.server_name.as_deref(),
            alpn: tls.alpn.as_deref(),
        }
    }
}

impl<'a> From<&'a Outcome> for OutcomeForm<'a> {
    fn from(outcome: &'a Outcome) -> Self {
        let (failure, detail) = match outcome {
            Outcome::Ok | Outcome::ClientClosed => (None, None),
            Outcome::UpstreamFailed(failure, detail) => (Some(failure.as_str()), Some(detail)),
            Outcome::ClientError(detail) | Outcome::ProxyClosed(detail) => (None, Some(detail)),
        };
        Self {
            end: outcome.as_str(),
            failure,
            detail: detail.map(AsRef::as_ref),
        }
    }
}

impl<'a> From<&'a Body> for BodyForm<'a> {
    fn from(body: &'a Body) -> Self {
        Self {
            inline: Bin(&body.inline),
            chunks: body.chunks,
            bytes: body.bytes,
            truncated: body.truncated,
            digest: Bin(body.digest.as_be_bytes()),
        }
    }
}

impl<'a> From<&'a Segment> for SegmentForm<'a> {
    fn from(segment: &'a Segment) -> Self {
        let frame = segment.frame;
        let part = frame.map(|frame| frame.part);
        Self {
            from: direction_name(segment.direction),
            offset_us: segment.offset_us,
            bytes: Bin(&segment.bytes),
            opcode: frame.map(|frame| frame.opcode.as_str()),
            part: part.filter(|part| *part != Part::Whole).map(Part::as_str),
            compressed: frame.is_some_and(|frame| frame.compressed),
            missing: segment.missing,
        }
    }
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands out references"
)]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

pub(super) const fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Client => "c",
        Direction::Server => "s",
    }
}

fn fields(headers: &Headers) -> Fields<'_> {
    headers
        .iter()
        .map(|(name, value)| (Bin(name), Bin(value)))
        .collect()
}

pub(super) const fn side_name(side: Side) -> &'static str {
    match side {
        Side::Request => "request",
        Side::Response => "response",
    }
}

// ---- form -> model ----

pub(super) fn exchange(form: ExchangeForm<'_>, message: &Bytes) -> Result<Item, Illegal> {
    let RequestForm {
        method,
        target,
        version,
        headers,
        body: request_body,
        trailers,
    } = form.request;
    let response = form.response.map(|response| -> Result<Response, Illegal> {
        if !(100..=999).contains(&response.status) {
            return Err("response.status");
        }
        let interim = response.informational.into_iter();
        Ok(Response {
            status: response.status,
            headers: headers_of(response.headers, message),
            body: body(&response.body, message)?,
            trailers: headers_of(response.trailers, message),
            informational: interim.map(|(s, h)| (s, headers_of(h, message))).collect(),
        })
    });
    Ok(Item::Record(Record::Exchange(Box::new(Exchange {
        id: record_id(form.id)?,
        origin: origin(&form.origin)?,
        service: form.service.into(),
        protocol: Protocol::from_name(form.protocol).ok_or("protocol")?,
        connection: ConnectionId(form.connection),
        client: form.client.into(),
        upstream: form.upstream.map(Arc::from),
        tls: form.tls.map(tls),
        timing: timing(&form.timing),
        request: Request {
            method: method.into(),
            target: target.into(),
            version: version.into(),
            headers: headers_of(headers, message),
            body: body(&request_body, message)?,
            trailers: headers_of(trailers, message),
        },
        response: response.transpose()?,
        flow: flow::flow(form.grpc, form.pace),
        stream: form.stream.map(record_id).transpose()?,
        outcome: outcome(&form.outcome)?,
        redactions: form.redactions.into_iter().map(Arc::from).collect(),
    }))))
}

pub(super) fn stream(form: StreamForm<'_>) -> Result<Item, Illegal> {
    Ok(Item::Record(Record::Stream(Box::new(Stream {
        id: record_id(form.id)?,
        origin: origin(&form.origin)?,
        service: form.service.into(),
        protocol: Protocol::from_name(form.protocol).ok_or("protocol")?,
        connection: ConnectionId(form.connection),
        client: form.client.into(),
        upstream: form.upstream.map(Arc::from),
        tls: form.tls.map(tls),
        timing: timing(&form.timing),
        client_bytes: form.client_bytes,
        server_bytes: form.server_bytes,
        batches: form.batches,
        truncated: form.truncated,
        outcome: outcome(&form.outcome)?,
        exchange: form.exchange.map(record_id).transpose()?,
        upgrade: form
            .upgrade
            .map(|form| upgrade::upgrade(*form))
            .transpose()?,
    }))))
}

pub(super) fn chunk(form: &ChunkForm<'_>, message: &Bytes) -> Result<Item, Illegal> {
    let side = match form.side {
        "request" => Side::Request,
        "response" => Side::Response,
        _ => return Err("side"),
    };
    Ok(Item::Chunk(BodyChunk {
        record: record_id(form.id)?,
        origin: origin(&form.origin)?,
        side,
        index: form.index,
        bytes: message.slice_ref(form.bytes.0),
    }))
}

pub(super) fn segments(form: SegmentsForm<'_>, message: &Bytes) -> Result<Item, Illegal> {
    let segment = |segment: SegmentForm<'_>| -> Result<Segment, Illegal> {
        Ok(Segment {
            direction: direction(segment.from).ok_or("segments.from")?,
            offset_us: segment.offset_us,
            bytes: message.slice_ref(segment.bytes.0),
            frame: frame(&segment)?,
            missing: segment.missing,
        })
    };
    Ok(Item::Segments(SegmentBatch {
        record: record_id(form.id)?,
        origin: origin(&form.origin)?,
        index: form.index,
        segments: form
            .segments
            .into_iter()
            .map(segment)
            .collect::<Result<_, _>>()?,
    }))
}

fn frame(form: &SegmentForm<'_>) -> Result<Option<Frame>, Illegal> {
    let Some(opcode) = form.opcode else {
        return Ok(None);
    };
    Ok(Some(Frame {
        opcode: Opcode::from_name(opcode).ok_or("segments.opcode")?,
        part: match form.part {
            None => Part::Whole,
            Some(part) => Part::from_name(part).ok_or("segments.part")?,
        },
        compressed: form.compressed,
    }))
}

pub(super) fn direction(name: &str) -> Option<Direction> {
    match name {
        "c" => Some(Direction::Client),
        "s" => Some(Direction::Server),
        _ => None,
    }
}

pub(super) fn gap(form: &GapForm<'_>) -> Result<Item, Illegal> {
    let origin = origin(&form.origin)?;
    if form.count == 0 || origin.seq.0.checked_add(form.count).is_none() {
        return Err("count");
    }
    let reason = GapReason::from_name(form.reason).ok_or("reason")?;
    Ok(Item::Gap(Gap {
        origin,
        count: form.count,
        reason,
    }))
}

pub(super) fn record_id(bytes: Bin<'_>) -> Result<RecordId, Illegal> {
    RecordId::from_slice(bytes.0).ok_or("id")
}

pub(super) fn origin(form: &OriginForm<'_>) -> Result<Origin, Illegal> {
    let node = NodeId::new(form.node).map_err(|_| "origin.node")?;
    if form.seq == 0 || form.seq == u64::MAX {
        return Err("origin.seq");
    }
    Ok(Origin {
        node,
        epoch: Epoch(form.epoch),
        seq: Sequence(form.seq),
    })
}

pub(super) fn timing(form: &TimingForm) -> Timing {
    let TimingForm {
        started_us,
        monotonic_us,
        request_end_us,
        first_byte_us,
        end_us,
    } = *form;
    Timing {
        started_us,
        monotonic_us,
        request_end_us,
        first_byte_us,
        end_us,
    }
}

fn tls(form: TlsForm<'_>) -> TlsFacts {
    TlsFacts {
        version: form.version.into(),
        cipher: form.cipher.into(),
        server_name: form.server_name.map(Arc::from),
        alpn: form.alpn.map(Arc::from),
    }
}

fn outcome(form: &OutcomeForm<'_>) -> Result<Outcome, Illegal> {
    let detail = || Arc::from(form.detail.unwrap_or_default());
    Ok(match form.end {
        "ok" => Outcome::Ok,
        "client_closed" => Outcome::ClientClosed,
        "upstream_failed" => {
            let failure = form.failure.and_then(UpstreamFailure::from_name);
            Outcome::UpstreamFailed(failure.ok_or("outcome.failure")?, detail())
        }
        "client_error" => Outcome::ClientError(detail()),
        "proxy_closed" => Outcome::ProxyClosed(detail()),
        _ => return Err("outcome.end"),
    })
}

fn body(form: &BodyForm<'_>, message: &Bytes) -> Result<Body, Illegal> {
    let digest = form.digest.0.try_into().map_err(|_| "body.digest")?;
    // What is sent on announces `bytes` and gives `inline`: where they disagree, messages run into each other.
    let inline = form.inline.0.len() as u64;
    let agree = match (form.chunks, form.truncated) {
        (0, false) => inline == form.bytes,
        (0, true) => inline <= form.bytes,
        _ => inline == 0,
    };
    if !agree {
        return Err("body.bytes");
    }
    Ok(Body {
        inline: message.slice_ref(form.inline.0),
        chunks: form.chunks,
        bytes: form.bytes,
        truncated: form.truncated,
        digest: Digest::from_be_bytes(digest),
    })
}

fn headers_of(fields: Fields<'_>, message: &Bytes) -> Headers {
    fields
        .into_iter()
        .map(|(n, v)| (message.slice_ref(n.0), message.slice_ref(v.0)))
        .collect()
}
