//! From the maps to the model.

use std::sync::Arc;

use bytes::Bytes;

use crate::record::{
    Body, BodyChunk, ConnectionId, Digest, Direction, Epoch, Exchange, Frame, Gap, GapReason,
    Headers, Item, NodeId, Opcode, Origin, Outcome, Part, Protocol, Record, RecordId, Request,
    Response, Segment, SegmentBatch, Sequence, Side, Stream, Timing, TlsFacts, UpstreamFailure,
};

use super::super::{flow, upgrade};
use super::{
    Bin, BodyForm, ChunkForm, ExchangeForm, Fields, GapForm, Illegal, OriginForm, OutcomeForm,
    RequestForm, SegmentForm, SegmentsForm, StreamForm, TimingForm, TlsForm,
};

pub(in super::super) fn exchange(form: ExchangeForm<'_>, message: &Bytes) -> Result<Item, Illegal> {
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

pub(in super::super) fn stream(form: StreamForm<'_>) -> Result<Item, Illegal> {
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
        application: form.application.map(|form| Box::new((*form).into())),
        outcome: outcome(&form.outcome)?,
        exchange: form.exchange.map(record_id).transpose()?,
        upgrade: form
            .upgrade
            .map(|form| upgrade::upgrade(*form))
            .transpose()?,
    }))))
}

pub(in super::super) fn chunk(form: &ChunkForm<'_>, message: &Bytes) -> Result<Item, Illegal> {
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

pub(in super::super) fn segments(form: SegmentsForm<'_>, message: &Bytes) -> Result<Item, Illegal> {
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

pub(in super::super) fn direction(name: &str) -> Option<Direction> {
    match name {
        "c" => Some(Direction::Client),
        "s" => Some(Direction::Server),
        _ => None,
    }
}

pub(in super::super) fn gap(form: &GapForm<'_>) -> Result<Item, Illegal> {
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

pub(in super::super) fn record_id(bytes: Bin<'_>) -> Result<RecordId, Illegal> {
    RecordId::from_slice(bytes.0).ok_or("id")
}

pub(in super::super) fn origin(form: &OriginForm<'_>) -> Result<Origin, Illegal> {
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

pub(in super::super) fn timing(form: &TimingForm) -> Timing {
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
