//! Records as a recorder would have made them.

use std::sync::Arc;

use bytes::Bytes;
use qproxy::record::{
    Body, ConnectionId, Digest, Epoch, Exchange, Headers, NodeId, Origin, Outcome, Protocol,
    Record, RecordId, Request, Response, Sequence, Side, Timing,
};

use super::memory::MemoryStore;

/// Where the records start, microseconds since the Unix epoch.
const START_US: i64 = 1_700_000_000_000_000;

/// The exchange at place `seq`, 10 ms after the one before, on a connection of its own, answered 200.
pub(crate) fn exchange(seq: u64, method: &str, target: &str, answer: &str) -> Exchange {
    let offset = seq * 10_000;
    let started_us = START_US + i64::try_from(offset).unwrap();
    let id = (u128::try_from(started_us / 1000).unwrap() << 80) | u128::from(seq);
    Exchange {
        id: RecordId::from_u128(id),
        origin: Origin {
            node: NodeId::new("rec").unwrap(),
            epoch: Epoch(1),
            seq: Sequence(seq),
        },
        service: "shop".into(),
        protocol: Protocol::Http1,
        connection: ConnectionId(seq),
        client: "10.0.0.1:5000".into(),
        upstream: Some("http://10.0.0.2:80".into()),
        tls: None,
        timing: Timing {
            started_us,
            monotonic_us: offset,
            request_end_us: Some(10),
            first_byte_us: Some(500),
            end_us: 1000,
        },
        request: Request {
            method: method.into(),
            target: target.into(),
            version: "HTTP/1.1".into(),
            headers: headers(&[("Host", "shop.test")]),
            body: Body::empty(),
            trailers: Headers::default(),
        },
        response: Some(Response {
            status: 200,
            headers: headers(&[
                ("Content-Type", "text/plain"),
                ("Content-Length", &answer.len().to_string()),
            ]),
            body: Body::inline(Bytes::from(answer.to_owned())),
            trailers: Headers::default(),
            informational: Vec::new(),
        }),
        outcome: Outcome::Ok,
        flow: qproxy::record::Flow::default(),
        stream: None,
        redactions: Vec::new(),
    }
}

pub(crate) fn headers(fields: &[(&str, &str)]) -> Headers {
    let owned = |text: &str| Bytes::from(text.to_owned());
    fields.iter().map(|(n, v)| (owned(n), owned(v))).collect()
}

/// Small changes to an exchange, to be chained.
pub(crate) trait Change: Sized {
    fn with(self, change: impl FnOnce(&mut Exchange)) -> Self;

    fn on_connection(self, connection: u64) -> Self {
        self.with(|e| e.connection = ConnectionId(connection))
    }

    fn response(self, change: impl FnOnce(&mut Response)) -> Self {
        self.with(|e| change(e.response.as_mut().unwrap()))
    }

    fn status(self, status: u16) -> Self {
        self.response(|r| r.status = status)
    }

    fn response_header(self, name: &str, value: &str) -> Self {
        let (name, value) = (Bytes::from(name.to_owned()), Bytes::from(value.to_owned()));
        self.response(|r| r.headers.push(name, value))
    }

    fn request_header(self, name: &str, value: &str) -> Self {
        let (name, value) = (Bytes::from(name.to_owned()), Bytes::from(value.to_owned()));
        self.with(|e| e.request.headers.push(name, value))
    }

    fn request_body(self, body: &str) -> Self {
        self.with(|e| e.request.body = Body::inline(Bytes::from(body.to_owned())))
    }

    /// A JSON answer in place of the text.
    fn json(self, body: &str) -> Self {
        let length = body.len().to_string();
        let body = Body::inline(Bytes::from(body.to_owned()));
        self.response(|r| {
            r.headers = headers(&[
                ("content-type", "application/json"),
                ("content-length", &length),
            ]);
            r.body = body;
        })
    }
}

impl Change for Exchange {
    fn with(mut self, change: impl FnOnce(&mut Exchange)) -> Self {
        change(&mut self);
        self
    }
}

/// Puts the exchanges into a new store.
pub(crate) fn store_of(exchanges: impl IntoIterator<Item = Exchange>) -> Arc<MemoryStore> {
    let store = Arc::new(MemoryStore::default());
    for exchange in exchanges {
        store.add(&record(exchange));
    }
    store
}

pub(crate) fn record(exchange: Exchange) -> Record {
    Record::Exchange(Box::new(exchange))
}

/// A body that is kept as chunks of `size` bytes; they are stored, the last one only where `whole`.
pub(crate) fn chunked(
    store: &MemoryStore,
    id: RecordId,
    side: Side,
    content: &[u8],
    size: usize,
    whole: bool,
) -> Body {
    let chunks: Vec<&[u8]> = content.chunks(size).collect();
    let kept = if whole {
        chunks.len()
    } else {
        chunks.len() - 1
    };
    for (index, bytes) in chunks[..kept].iter().enumerate() {
        let index = u32::try_from(index).unwrap();
        store.add_chunk(id, side, index, Bytes::copy_from_slice(bytes));
    }
    Body {
        inline: Bytes::new(),
        chunks: u32::try_from(chunks.len()).unwrap(),
        bytes: content.len() as u64,
        truncated: false,
        digest: Digest::of(content),
    }
}
