//! What the tests of this module share: items to send.

use bytes::Bytes;

use crate::record::{
    Body, ConnectionId, Epoch, Exchange, Gap, GapReason, Headers, Item, NodeId, Origin, Outcome,
    Protocol, Record, RecordId, Request, Response, Sequence, Timing, wire,
};

pub(super) fn origin(node: &str, epoch: u64, seq: u64) -> Origin {
    Origin {
        node: NodeId::new(node).unwrap(),
        epoch: Epoch(epoch),
        seq: Sequence(seq),
    }
}

/// `GET /{seq}`, answered with 200; its id says epoch and number.
pub(super) fn exchange(node: &str, epoch: u64, seq: u64) -> Item {
    let started_us = 1_700_000_000_000_000 + i64::try_from(seq).unwrap_or(0);
    let millis = u128::try_from(started_us / 1000).unwrap();
    let id = (millis << 80) | (7 << 76) | (2 << 62) | (u128::from(epoch) << 40) | u128::from(seq);
    Item::Record(Record::Exchange(Box::new(Exchange {
        id: RecordId::from_u128(id),
        origin: origin(node, epoch, seq),
        service: "shop".into(),
        protocol: Protocol::Http1,
        connection: ConnectionId(1),
        client: "127.0.0.1:5".into(),
        upstream: None,
        tls: None,
        timing: Timing {
            started_us,
            ..Timing::default()
        },
        request: Request {
            method: "GET".into(),
            target: format!("/{seq}").into(),
            version: "HTTP/1.1".into(),
            headers: Headers::default(),
            body: Body::empty(),
            trailers: Headers::default(),
        },
        response: Some(Response {
            status: 200,
            headers: Headers::default(),
            body: Body::inline(Bytes::from(vec![b'x'; 100])),
            trailers: Headers::default(),
            informational: Vec::new(),
        }),
        outcome: Outcome::Ok,
        flow: crate::record::Flow::default(),
        stream: None,
        redactions: Vec::new(),
    })))
}

pub(super) fn gap(node: &str, epoch: u64, seq: u64, count: u64) -> Item {
    Item::Gap(Gap {
        origin: origin(node, epoch, seq),
        count,
        reason: GapReason::CaptureOverload,
    })
}

pub(super) fn message(items: &[Item]) -> Bytes {
    let mut out = Vec::new();
    items.iter().for_each(|item| wire::encode(item, &mut out));
    out.into()
}
