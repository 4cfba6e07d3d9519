//! Bodies that pass: each frame goes on as it comes, and a copy of it to the tee.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::time::Sleep;

use super::super::{Error, Metrics};
use super::upstream::{Busy, Seat, Site};
use super::{BoxBody, BoxError};
use crate::capture::{RequestTee, ResponseTee};
use crate::record::Outcome;

/// How far a request's content has come, so that a slow client is told from a slow upstream.
#[derive(Debug, Default)]
pub(super) struct Progress {
    frames: AtomicU64,
    waiting: AtomicBool,
    broken: AtomicBool,
    /// The client waits to be told to go on (`Expect: 100-continue`), and was not.
    held: AtomicBool,
    releasing: Mutex<Option<Waker>>,
    /// The limit that the content went over.
    exceeded: OnceLock<u64>,
}

/// How long an upstream has to say that it wants the content; then it is sent as well (RFC 9110 section
/// 10.1.1), since few servers say so.
const EXPECT_PATIENCE: Duration = Duration::from_secs(1);

impl Progress {
    /// Grows with each frame.
    pub(super) fn frames(&self) -> u64 {
        self.frames.load(Relaxed)
    }

    /// Whether the upstream would take more than the client has sent.
    pub(super) fn waits_for_client(&self) -> bool {
        self.waiting.load(Relaxed)
    }

    /// The content is wanted.
    pub(super) fn release(&self) {
        if self.held.swap(false, Relaxed)
            && let Some(body) = self.releasing.lock().take()
        {
            body.wake();
        }
    }

    /// Whether the client still waits to be told to go on.
    pub(super) fn is_held(&self) -> bool {
        self.held.load(Relaxed)
    }

    /// Whether the client broke off, or sent what is no content.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Relaxed)
    }

    /// What an exchange failed with, where it did not fail because its content went over the limit.
    pub(super) fn explain(&self, error: Error) -> Error {
        match self.exceeded.get() {
            None => error,
            Some(limit) => Error::LargeRequest { limit: *limit },
        }
    }
}

/// A request's content on its way to the upstream.
pub(super) struct RequestBody {
    incoming: Option<Incoming>,
    /// What has passed once and is to pass again first; already counted and copied.
    again: VecDeque<Bytes>,
    /// Until when the content is kept back.
    expect: Option<Pin<Box<Sleep>>>,
    /// How long it may be, and how much of that has passed.
    limit: Option<(u64, u64)>,
    tee: Option<RequestTee>,
    metrics: Arc<Metrics>,
    progress: Arc<Progress>,
}

impl RequestBody {
    pub(super) fn new(
        incoming: Incoming,
        tee: Option<RequestTee>,
        metrics: Arc<Metrics>,
        progress: Arc<Progress>,
    ) -> Self {
        Self {
            incoming: Some(incoming),
            again: VecDeque::new(),
            expect: None,
            limit: None,
            tee,
            metrics,
            progress,
        }
    }

    /// No content.
    pub(super) fn none(metrics: Arc<Metrics>) -> Self {
        Self {
            incoming: None,
            again: VecDeque::new(),
            expect: None,
            limit: None,
            tee: None,
            metrics,
            progress: Arc::default(),
        }
    }

    /// The same content, with what was taken of it put back in front.
    pub(super) fn preceded_by(mut self, taken: Vec<Bytes>) -> Self {
        for bytes in taken.into_iter().rev() {
            self.again.push_front(bytes);
        }
        self
    }

    /// The same content, kept back until the upstream says that it wants it, or has had the time to.
    pub(super) fn expected(mut self) -> Self {
        self.progress.held.store(true, Relaxed);
        self.expect = Some(Box::pin(tokio::time::sleep(EXPECT_PATIENCE)));
        self
    }

    /// The same content, which breaks off where it is longer than `limit` bytes.
    pub(super) fn limited(mut self, limit: Option<u64>) -> Self {
        self.limit = limit.map(|limit| (limit, 0));
        self
    }

    /// Whether there is room for a frame.
    fn fits(&mut self, frame: &Frame<Bytes>) -> bool {
        let (Some((limit, passed)), Some(data)) = (&mut self.limit, frame.data_ref()) else {
            return true;
        };
        *passed = passed.saturating_add(data.len() as u64);
        let fits = *passed <= *limit;
        if !fits {
            let _ = self.progress.exceeded.set(*limit);
        }
        fits
    }

    fn poll_expect(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(timer) = &mut self.expect {
            if self.progress.is_held() && timer.as_mut().poll(cx).is_pending() {
                *self.progress.releasing.lock() = Some(cx.waker().clone());
                return Poll::Pending;
            }
            self.progress.held.store(false, Relaxed);
            self.expect = None;
        }
        Poll::Ready(())
    }

    fn see(&mut self, frame: &Frame<Bytes>) {
        self.progress.frames.fetch_add(1, Relaxed);
        if let Some(data) = frame.data_ref() {
            self.metrics.bytes_in.inc_by(data.len() as u64);
            if let Some(tee) = &mut self.tee {
                tee.data(data);
            }
        } else if let (Some(trailers), Some(tee)) = (frame.trailers_ref(), &mut self.tee) {
            tee.trailers(trailers);
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if let Some(bytes) = this.again.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        ready!(this.poll_expect(cx));
        let Some(incoming) = &mut this.incoming else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(&mut *incoming).poll_frame(cx);
        let ended = incoming.is_end_stream();
        this.progress.waiting.store(polled.is_pending(), Relaxed);
        match &polled {
            Poll::Ready(Some(Ok(frame))) if !this.fits(frame) => {
                drop(this.tee.take());
                return Poll::Ready(Some(Err("the content is over the limit".into())));
            }
            Poll::Ready(Some(Ok(frame))) => {
                this.see(frame);
                if ended && let Some(tee) = this.tee.take() {
                    tee.end();
                }
            }
            Poll::Ready(None) => {
                this.progress.frames.fetch_add(1, Relaxed);
                if let Some(tee) = this.tee.take() {
                    tee.end();
                }
            }
            // A tee that is dropped tells that the content broke off.
            Poll::Ready(Some(Err(_))) => {
                this.progress.broken.store(true, Relaxed);
                drop(this.tee.take());
            }
            Poll::Pending => {}
        }
        polled.map(|frame| frame.map(|frame| frame.map_err(BoxError::from)))
    }

    fn is_end_stream(&self) -> bool {
        self.again.is_empty() && self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        if !self.again.is_empty() {
            // The length stands in the head already, where the client gave one.
            return SizeHint::default();
        }
        match &self.incoming {
            Some(incoming) => incoming.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}

/// Counts a request from its head to its response's end.
pub(super) struct Meter {
    metrics: Arc<Metrics>,
    started: Instant,
    status: u16,
}

impl Meter {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        metrics.in_flight.inc();
        Self {
            metrics,
            started: Instant::now(),
            status: 0,
        }
    }

    pub(super) const fn answered(&mut self, status: http::StatusCode) {
        self.status = status.as_u16();
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.metrics.in_flight.dec();
        self.metrics.served(self.status, self.started.elapsed());
    }
}

/// What a response's content comes on.
pub(super) enum Way {
    /// An HTTP/1.1 connection that this body drives.
    Own(Busy),
    /// A stream of a shared connection, whose place is kept until the end.
    Shared {
        /// Given back when it is dropped.
        _seat: Seat,
        progress: Arc<Progress>,
    },
    /// A connection that has a task.
    Driven,
    /// All has come.
    Done,
}

/// How long a response's content may rest between two frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pause {
    /// So long: what is silent for longer is stuck.
    AtMost(Duration),
    /// As long as both sides stay connected: it is made to rest until there is something to tell.
    Any,
}

/// A response's content on its way from the upstream.
pub(super) struct UpstreamBody {
    incoming: Incoming,
    way: Way,
    site: Arc<Site>,
    tee: Option<ResponseTee>,
    meter: Meter,
    pause: Pause,
    timer: Option<Pin<Box<Sleep>>>,
    failure: Option<BoxError>,
}

impl UpstreamBody {
    pub(super) fn new(
        incoming: Incoming,
        way: Way,
        site: Arc<Site>,
        tee: Option<ResponseTee>,
        meter: Meter,
        pause: Pause,
    ) -> Self {
        let mut body = Self {
            incoming,
            way,
            site,
            tee,
            meter,
            pause,
            timer: None,
            failure: None,
        };
        if body.incoming.is_end_stream() {
            let mut nobody = Context::from_waker(Waker::noop());
            body.complete(&mut nobody);
        }
        body
    }

    fn poll_incoming(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Way::Own(busy) = &mut self.way else {
            return Pin::new(&mut self.incoming).poll_frame(cx);
        };
        // The body is fed by the driver alone, which runs right here: only its socket has to wake us.
        let mut nobody = Context::from_waker(Waker::noop());
        match Pin::new(&mut self.incoming).poll_frame(&mut nobody) {
            Poll::Pending if !busy.connection.has_ended() => {
                busy.connection.drive(cx);
                Pin::new(&mut self.incoming).poll_frame(&mut nobody)
            }
            polled => polled,
        }
    }

    /// All has come: the connection can serve the next request, once it has taken all of this one.
    fn complete(&mut self, cx: &mut Context<'_>) {
        if let Way::Own(busy) = std::mem::replace(&mut self.way, Way::Done) {
            busy.answered(&self.site, cx);
        }
        if let Some(tee) = self.tee.take() {
            tee.end(Outcome::Ok);
        }
    }

    /// Records the failure at once and reports it at the next poll: an error makes hyper drop what it has
    /// not flushed, and the client should get what did come.
    fn fail(&mut self, error: Error, cx: &Context<'_>) {
        self.way = Way::Done;
        if let Some(failure) = error.upstream_failure() {
            self.meter.metrics.upstream_failed(failure);
        }
        if let Some(tee) = self.tee.take() {
            tee.end(error.outcome());
        }
        self.failure = Some(Box::new(error));
        cx.waker().wake_by_ref();
    }

    fn see(&mut self, frame: &Frame<Bytes>) {
        if let Some(data) = frame.data_ref() {
            self.meter.metrics.bytes_out.inc_by(data.len() as u64);
            if let Some(tee) = &mut self.tee {
                tee.data(data);
            }
        } else if let (Some(trailers), Some(tee)) = (frame.trailers_ref(), &mut self.tee) {
            tee.trailers(trailers);
        }
    }

    /// Whether the upstream has paused for too long.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
        let Pause::AtMost(pause) = self.pause else {
            return false;
        };
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
        timer.as_mut().poll(cx).is_ready()
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if let Some(error) = this.failure.take() {
            return Poll::Ready(Some(Err(error)));
        }
        match this.poll_incoming(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                this.timer = None;
                this.see(&frame);
                if this.incoming.is_end_stream() {
                    this.complete(cx);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                let error = Error::from_exchange(error, &this.site.name);
                let error = match &this.way {
                    Way::Own(busy) => busy.progress.explain(error),
                    Way::Shared { progress, .. } => progress.explain(error),
                    Way::Driven | Way::Done => error,
                };
                this.fail(error, cx);
                Poll::Pending
            }
            Poll::Ready(None) => {
                this.complete(cx);
                Poll::Ready(None)
            }
            Poll::Pending if this.poll_timer(cx) => {
                let upstream = Arc::clone(&this.site.name);
                let what = "go on with its response";
                this.fail(Error::Timeout { upstream, what }, cx);
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// What the client is answered with.
pub(super) enum Reply {
    /// From the upstream.
    Upstream(Box<UpstreamBody>),
    /// Written here.
    Own(Full<Bytes>),
    /// From a responder.
    Boxed(BoxBody),
}

impl Body for Reply {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Upstream(body) => Pin::new(&mut **body).poll_frame(cx),
            Self::Own(body) => Pin::new(body)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(|never| match never {}))),
            Self::Boxed(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Upstream(body) => body.is_end_stream(),
            Self::Own(body) => body.is_end_stream(),
            Self::Boxed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Upstream(body) => body.size_hint(),
            Self::Own(body) => body.size_hint(),
            Self::Boxed(body) => body.size_hint(),
        }
    }
}
