//! A request's content lent to an HTTP/2 connection, which may give it back.
//!
//! An upstream may refuse a stream unread (`REFUSED_STREAM`, or GOAWAY with a lower number: RFC 9113 section
//! 8.7); such a request is safe to send again, whatever its method. What was taken of its content until the
//! response begins is kept for that, up to a limit; past it the request cannot be repeated.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;

use super::BoxError;
use super::body::RequestBody;

/// The most that is kept of one request's content, in bytes: shared slices, but they hold their buffers.
const MAX_KEPT: usize = 64 << 10;

/// The borrower's end.
pub(super) struct Lent(Arc<Mutex<Loan>>);

/// The lender's end.
pub(super) struct Lender(Arc<Mutex<Loan>>);

struct Loan {
    /// `None` once it was taken back.
    body: Option<RequestBody>,
    kept: Vec<Bytes>,
    bytes: usize,
    keeping: Keeping,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Keeping {
    On,
    /// The response has begun, or there was too much: what has passed is not given again.
    Off,
}

/// Lends a request's content.
pub(super) fn lend(body: RequestBody) -> (Lent, Lender) {
    let loan = Arc::new(Mutex::new(Loan {
        body: Some(body),
        kept: Vec::new(),
        bytes: 0,
        keeping: Keeping::On,
    }));
    (Lent(Arc::clone(&loan)), Lender(loan))
}

impl Lender {
    /// The content from its beginning; `None` where too much of it has passed.
    pub(super) fn take_back(self) -> Option<RequestBody> {
        let mut loan = self.0.lock();
        if loan.keeping == Keeping::Off {
            return None;
        }
        let kept = std::mem::take(&mut loan.kept);
        loan.body.take().map(|body| body.preceded_by(kept))
    }

    /// The response has begun.
    pub(super) fn settle(self) {
        self.0.lock().forget();
    }
}

impl Loan {
    fn forget(&mut self) {
        self.keeping = Keeping::Off;
        self.kept = Vec::new();
    }

    fn keep(&mut self, frame: &Frame<Bytes>) {
        match frame.data_ref() {
            Some(data) if self.bytes + data.len() <= MAX_KEPT => {
                self.bytes += data.len();
                self.kept.push(data.clone());
            }
            _ => self.forget(),
        }
    }
}

impl Body for Lent {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut loan = self.0.lock();
        let Some(body) = &mut loan.body else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(body).poll_frame(cx);
        if loan.keeping == Keeping::On
            && let Poll::Ready(Some(Ok(frame))) = &polled
        {
            loan.keep(frame);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let loan = self.0.lock();
        let hint = loan.body.as_ref().map(Body::size_hint);
        hint.unwrap_or_else(|| SizeHint::with_exact(0))
    }
}
