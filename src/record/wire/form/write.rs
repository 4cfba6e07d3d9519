//! From the model to the maps.

use crate::record::{
    Body, Direction, Exchange, Headers, Item, Origin, Outcome, Part, Record, Segment, Side, Stream,
    Timing, TlsFacts,
};

use super::super::VERSION;
use super::super::flow::{self};
use super::super::upgrade::{self};
use super::{
    Bin, BodyForm, ChunkForm, ExchangeForm, Fields, GapForm, OriginForm, Out, OutcomeForm,
    RequestForm, ResponseForm, SegmentForm, SegmentsForm, StreamForm, TimingForm, TlsForm,
};

impl<'a> Out<'a> {
    /// `None` for what is sealed.
    pub(in super::super) fn of(item: &'a Item) -> Option<Self> {
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
            application: stream.application.as_deref().map(|a| Box::new(a.into())),
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

pub(in super::super) const fn direction_name(direction: Direction) -> &'static str {
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

pub(in super::super) const fn side_name(side: Side) -> &'static str {
    match side {
        Side::Request => "request",
        Side::Response => "response",
    }
}
