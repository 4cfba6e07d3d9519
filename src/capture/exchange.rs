//! The copy of one HTTP exchange: what the proxy's tasks hold and feed while it flows.
//!
//! Request and response can flow at the same time in different tasks, so each side owns its half; who ends
//! last hands the whole over. There is no lock between them. Dropping a half says that its sender broke off.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, StatusCode, Version};
use parking_lot::Mutex;

use super::body::{BodyCopy, CopiedBody, Limits, Over, Part, Sink};
use super::head::FlatHead;
use super::messages::Framer;
use super::pace::Pace;
use super::queue::{Chunk, Message};
use super::settings::RequestParts;
use super::stream::StreamTee;
use super::upgrade::Handshake;
use super::{Connection, Inner, MESSAGE_OVERHEAD, Settings, redact};
use crate::record::{Beat, Grpc, Messages, Outcome, Protocol, RecordId, Side, Target};

/// How many interim responses of an exchange are kept.
const MAX_INTERIM: usize = 16;

/// All that is known of an exchange; the halves are filled in as they end.
#[derive(Debug)]
pub(super) struct Shared {
    inner: Arc<Inner>,
    pub(super) id: RecordId,
    pub(super) connection: Arc<Connection>,
    pub(super) settings: Arc<Settings>,
    pub(super) started: Instant,
    pub(super) started_us: i64,
    pub(super) monotonic_us: u64,
    pub(super) method: Method,
    pub(super) version: Version,
    pub(super) protocol: Protocol,
    /// The target and the header fields.
    pub(super) head: FlatHead,
    pub(super) typed: bool,
    pub(super) request: OnceLock<RequestHalf>,
    pub(super) response: OnceLock<ResponseHalf>,
    /// The stream that follows.
    pub(super) stream: OnceLock<RecordId>,
    open: AtomicU8,
    discarded: AtomicBool,
    /// Interim responses; written while there is no response, and read when all has ended.
    pub(super) interim: Mutex<Vec<(u16, FlatHead)>>,
    room: AtomicUsize,
}

#[derive(Debug)]
pub(super) struct RequestHalf {
    pub(super) body: CopiedBody,
    pub(super) trailers: Option<FlatHead>,
    pub(super) messages: Messages,
    pub(super) end_us: u64,
}

#[derive(Debug)]
pub(super) struct ResponseHalf {
    pub(super) answer: Option<Answer>,
    pub(super) upstream: Option<Arc<str>>,
    pub(super) outcome: Outcome,
    pub(super) end_us: u64,
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) head: FlatHead,
    pub(super) typed: bool,
    pub(super) body: CopiedBody,
    pub(super) trailers: Option<FlatHead>,
    pub(super) first_byte_us: u64,
    pub(super) messages: Messages,
    pub(super) pace: Vec<Beat>,
}

impl Shared {
    /// The messages of a body, where it has some.
    fn framer(&self) -> Option<Box<Framer>> {
        (self.protocol == Protocol::Grpc).then(Box::default)
    }

    fn elapsed_us(&self) -> u64 {
        Inner::micros(self.started, Instant::now())
    }

    fn limits(&self, head: &HeaderMap) -> Limits {
        let config = &self.inner.config;
        let content_type = head.get(CONTENT_TYPE).map(http::HeaderValue::as_bytes);
        let held = redact::applies_to(&self.settings, content_type);
        Limits {
            inline: if held {
                config.redact_buffer_bytes
            } else {
                config.inline_bytes
            },
            chunk: config.chunk_bytes,
            total: self.settings.max_body_bytes,
            over: if held { Over::Withheld } else { Over::Chunks },
        }
    }

    /// One half has ended; the last one hands the exchange over.
    fn close(self: Arc<Self>) {
        if self.open.fetch_sub(1, Ordering::AcqRel) > 1 || self.discarded.load(Ordering::Relaxed) {
            return;
        }
        let inner = Arc::clone(&self.inner);
        if inner.queue.push(Message::Exchange(self)).is_err() {
            inner.queue.drop_one();
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.inner.queue.release(*self.room.get_mut());
    }
}

/// The way of one side's bytes into the queue.
struct Lane<'a> {
    shared: &'a Shared,
    side: Side,
}

impl Sink for Lane<'_> {
    fn reserve(&self, bytes: usize, part: Part) -> bool {
        let queue = &self.shared.inner.queue;
        let fits = match part {
            Part::Inline => queue.reserve(bytes),
            Part::Chunk => queue.reserve_bulk(bytes),
        };
        if fits {
            self.shared.room.fetch_add(bytes, Ordering::Relaxed);
        } else {
            self.shared.inner.metrics.truncated.overload.inc();
        }
        fits
    }

    fn release(&self, bytes: usize) {
        self.shared.room.fetch_sub(bytes, Ordering::Relaxed);
        self.shared.inner.queue.release(bytes);
    }

    fn chunk(&self, index: u32, bytes: Bytes) -> bool {
        let room = bytes.len();
        self.shared.room.fetch_sub(room, Ordering::Relaxed);
        let queue = &self.shared.inner.queue;
        if self.shared.discarded.load(Ordering::Relaxed) {
            queue.release(room);
            return false;
        }
        let chunk = Chunk {
            record: self.shared.id,
            service: Arc::clone(&self.shared.connection.service),
            side: self.side,
            index,
            bytes,
        };
        let taken = queue.push(Message::Chunk(Box::new(chunk))).is_ok();
        if !taken {
            queue.release(room);
            queue.drop_one();
        }
        taken
    }
}

/// The copy of an exchange whose response has not begun. Dropped as it is: the client went away.
#[derive(Debug)]
pub struct Tee(Option<Arc<Shared>>);

impl Tee {
    pub(super) fn begin(
        inner: &Arc<Inner>,
        settings: arc_swap::Guard<Arc<Settings>>,
        connection: &Arc<Connection>,
        head: &http::request::Parts,
        raw: Option<&[u8]>,
    ) -> Option<Self> {
        let flat = copy_head(head, raw);
        let room = flat.len() + MESSAGE_OVERHEAD;
        if !inner.queue.reserve(room) {
            inner.queue.drop_one();
            return None;
        }
        let (started, started_us) = (Instant::now(), Inner::wall_us());
        Some(Self(Some(Arc::new(Shared {
            inner: Arc::clone(inner),
            id: inner.ids.next_id(started_us),
            connection: Arc::clone(connection),
            settings: arc_swap::Guard::into_inner(settings),
            started,
            started_us,
            monotonic_us: Inner::micros(inner.epoch, started),
            method: head.method.clone(),
            version: head.version,
            protocol: protocol(connection, head),
            typed: head.headers.contains_key(CONTENT_TYPE),
            head: flat,
            request: OnceLock::new(),
            response: OnceLock::new(),
            stream: OnceLock::new(),
            open: AtomicU8::new(1),
            discarded: AtomicBool::new(false),
            interim: Mutex::new(Vec::new()),
            room: AtomicUsize::new(room),
        }))))
    }

    /// The record's id.
    #[must_use]
    pub fn id(&self) -> RecordId {
        self.shared().id
    }

    /// The copy of the request's content, where there is some. `headers` are the request's.
    #[must_use]
    pub fn request_body(&self, headers: &HeaderMap) -> RequestTee {
        let shared = Arc::clone(self.shared());
        shared.open.fetch_add(1, Ordering::Relaxed);
        RequestTee {
            framer: shared.framer(),
            copy: Some(BodyCopy::new(shared.limits(headers))),
            shared: Some(shared),
            trailers: None,
        }
    }

    /// The copy of the interim responses.
    #[must_use]
    pub fn interims(&self) -> InterimTee {
        InterimTee(Arc::clone(self.shared()))
    }

    /// The response's head is there. `None` where the rules do not want this exchange.
    #[must_use]
    pub fn respond(
        mut self,
        status: StatusCode,
        headers: &HeaderMap,
        upstream: Option<&Arc<str>>,
    ) -> Option<ResponseTee> {
        let shared = self.0.take()?;
        if shared.settings.judges() && !keeps(&shared, status, headers) {
            shared.inner.metrics.skipped.filtered.inc();
            shared.discarded.store(true, Ordering::Relaxed);
            shared.close();
            return None;
        }
        let head = FlatHead::copy(&[], headers);
        // A head goes over the budget where it must: it is bounded by itself, and worth most.
        shared.inner.queue.take(head.len());
        shared.room.fetch_add(head.len(), Ordering::Relaxed);
        Some(ResponseTee {
            status,
            typed: headers.contains_key(CONTENT_TYPE),
            head,
            copy: Some(BodyCopy::new(shared.limits(headers))),
            trailers: None,
            first_byte_us: shared.elapsed_us(),
            upstream: upstream.cloned(),
            framer: shared.framer(),
            pace: Pace::default(),
            shared: Some(shared),
        })
    }

    /// The exchange ended without a response.
    pub fn end(mut self, outcome: Outcome, upstream: Option<&Arc<str>>) {
        self.close(outcome, upstream.cloned());
    }

    fn shared(&self) -> &Arc<Shared> {
        self.0
            .as_ref()
            .expect("only methods that consume the tee take its content")
    }

    fn close(&mut self, outcome: Outcome, upstream: Option<Arc<str>>) {
        if let Some(shared) = self.0.take() {
            let half = ResponseHalf {
                answer: None,
                upstream,
                outcome,
                end_us: shared.elapsed_us(),
            };
            let _ = shared.response.set(half);
            shared.close();
        }
    }
}

impl Drop for Tee {
    fn drop(&mut self) {
        self.close(Outcome::ClientClosed, None);
    }
}

/// The copy of an exchange's interim responses (RFC 9110 section 15.2).
#[derive(Debug, Clone)]
pub struct InterimTee(Arc<Shared>);

impl InterimTee {
    /// One came; the first 16 are kept.
    pub fn add(&self, status: StatusCode, headers: &HeaderMap) {
        let mut interim = self.0.interim.lock();
        if interim.len() < MAX_INTERIM {
            let head = FlatHead::copy(&[], headers);
            self.0.inner.queue.take(head.len());
            self.0.room.fetch_add(head.len(), Ordering::Relaxed);
            interim.push((status.as_u16(), head));
        }
    }
}

/// The copy of a request's content. Dropped before [`RequestTee::end`]: the content broke off.
#[derive(Debug)]
pub struct RequestTee {
    shared: Option<Arc<Shared>>,
    copy: Option<BodyCopy>,
    framer: Option<Box<Framer>>,
    trailers: Option<FlatHead>,
}

impl RequestTee {
    /// The next bytes passed.
    pub fn data(&mut self, frame: &Bytes) {
        if let (Some(shared), Some(copy)) = (&self.shared, &mut self.copy) {
            if let Some(framer) = &mut self.framer {
                framer.data(frame, shared.elapsed_us());
            }
            copy.data(
                frame,
                &Lane {
                    shared,
                    side: Side::Request,
                },
            );
        }
    }

    /// Trailer fields passed.
    pub fn trailers(&mut self, trailers: &HeaderMap) {
        self.trailers = Some(FlatHead::copy(&[], trailers));
    }

    /// The content is complete.
    pub fn end(mut self) {
        self.close(true);
    }

    fn close(&mut self, whole: bool) {
        let (Some(shared), Some(copy)) = (self.shared.take(), self.copy.take()) else {
            return;
        };
        let half = RequestHalf {
            body: copy.finish(
                whole,
                &Lane {
                    shared: &shared,
                    side: Side::Request,
                },
            ),
            trailers: self.trailers.take(),
            messages: finish(self.framer.take()),
            end_us: shared.elapsed_us(),
        };
        let _ = shared.request.set(half);
        shared.close();
    }
}

impl Drop for RequestTee {
    fn drop(&mut self) {
        self.close(false);
    }
}

/// The copy of a response. Dropped before [`ResponseTee::end`]: the client went away.
#[derive(Debug)]
pub struct ResponseTee {
    shared: Option<Arc<Shared>>,
    status: StatusCode,
    head: FlatHead,
    typed: bool,
    copy: Option<BodyCopy>,
    trailers: Option<FlatHead>,
    first_byte_us: u64,
    framer: Option<Box<Framer>>,
    pace: Pace,
    upstream: Option<Arc<str>>,
}

impl ResponseTee {
    /// The next bytes passed.
    pub fn data(&mut self, frame: &Bytes) {
        if let (Some(shared), Some(copy)) = (&self.shared, &mut self.copy) {
            let at_us = shared.elapsed_us();
            self.pace.data(frame.len(), at_us);
            if let Some(framer) = &mut self.framer {
                framer.data(frame, at_us);
            }
            copy.data(
                frame,
                &Lane {
                    shared,
                    side: Side::Response,
                },
            );
        }
    }

    /// Trailer fields passed.
    pub fn trailers(&mut self, trailers: &HeaderMap) {
        self.trailers = Some(FlatHead::copy(&[], trailers));
    }

    /// The copy of the stream that begins with this response; `None` where there is no room. `headers` are the
    /// response's in the form of HTTP/1.1, and `Upgrade` among them tells what is spoken.
    #[must_use]
    pub fn stream(&self, headers: &HeaderMap) -> Option<StreamTee> {
        let shared = self.shared.as_ref()?;
        let mut request = shared.head.headers();
        redact::headers(&shared.settings, &mut request, &mut Vec::new());
        let handshake = Handshake::new(shared.id, shared.head.text(), &request, headers);
        let stream = StreamTee::after(&shared.inner, &shared.connection, handshake)?;
        let _ = shared.stream.set(stream.id()?);
        Some(stream)
    }

    /// The response has ended in this way; its content is whole where that is [`Outcome::Ok`].
    pub fn end(mut self, outcome: Outcome) {
        let whole = outcome == Outcome::Ok;
        self.close(outcome, whole);
    }

    /// The response was the proxy's own and is whole, though the exchange ended in this way.
    pub fn end_own(mut self, outcome: Outcome) {
        self.close(outcome, true);
    }

    fn close(&mut self, outcome: Outcome, whole: bool) {
        let (Some(shared), Some(copy)) = (self.shared.take(), self.copy.take()) else {
            return;
        };
        let body = copy.finish(
            whole,
            &Lane {
                shared: &shared,
                side: Side::Response,
            },
        );
        let half = ResponseHalf {
            answer: Some(Answer {
                status: self.status,
                head: std::mem::take(&mut self.head),
                typed: self.typed,
                body,
                trailers: self.trailers.take(),
                first_byte_us: self.first_byte_us,
                messages: finish(self.framer.take()),
                pace: std::mem::take(&mut self.pace).finish(),
            }),
            upstream: self.upstream.take(),
            outcome,
            end_us: shared.elapsed_us(),
        };
        let _ = shared.response.set(half);
        shared.close();
    }
}

impl Drop for ResponseTee {
    fn drop(&mut self) {
        self.close(Outcome::ClientClosed, false);
    }
}

/// gRPC is a use of HTTP/2 that only its content type tells.
fn protocol(connection: &Connection, head: &http::request::Parts) -> Protocol {
    let kind = head.headers.get(CONTENT_TYPE);
    let grpc = kind.is_some_and(|kind| Grpc::is_content_type(kind.as_bytes()));
    match connection.protocol {
        Protocol::Http2 if grpc => Protocol::Grpc,
        protocol => protocol,
    }
}

fn finish(framer: Option<Box<Framer>>) -> Messages {
    framer.map_or_else(Messages::default, |framer| framer.finish())
}

fn copy_head(head: &http::request::Parts, raw: Option<&[u8]>) -> FlatHead {
    let uri = &head.uri;
    let copy = |text: &[&str]| match raw {
        Some(raw) => FlatHead::parse(text, raw),
        None => FlatHead::copy(text, &head.headers),
    };
    match (uri.scheme_str(), uri.authority()) {
        (None, None) => {
            let target = uri.path_and_query().map_or("/", |target| target.as_str());
            copy(&[target])
        }
        _ => copy(&[&uri.to_string()]),
    }
}

fn keeps(shared: &Shared, status: StatusCode, headers: &HeaderMap) -> bool {
    let request = shared.head.headers();
    let target = Target(shared.head.text());
    let parts = RequestParts {
        method: shared.method.as_str(),
        host: target.host(&request),
        path: target.path(),
    };
    shared.settings.keeps(&parts, status.as_u16(), headers)
}
