//! An HTTP/1.1 connection to an upstream, for one exchange at a time.
//!
//! It has no task of its own: whoever uses it drives it. That saves two wake-ups per exchange and the hops
//! between threads that come with them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::super::super::drain::Drain;
use super::super::super::stream::Stream;
use super::super::body::{Progress, RequestBody};
use super::super::exchange::within;
use super::outbound::{Closed, Outbound};
use super::{Place, Refused, Request, Response, Site};

/// A connection in someone's hands, who passes it on several times per exchange: a pointer, not the state of
/// a whole HTTP connection.
pub(in super::super) struct Connection(Box<Held>);

struct Held {
    sender: http1::SendRequest<RequestBody>,
    driver: http1::Connection<TokioIo<Outbound<Stream>>, RequestBody>,
    ended: bool,
    /// The upstream takes no more of a request.
    closed: Closed,
    /// While there is an exchange on it; the last field, so that it is free when the socket is closed.
    place: Place,
}

/// A connection with an exchange on it whose request's content may still be on its way.
pub(in super::super) struct Busy {
    pub(in super::super) connection: Connection,
    pub(in super::super) progress: Arc<Progress>,
    pub(in super::super) drain: Drain,
    /// How long the client may rest in that content once the response is there.
    pub(in super::super) pause: Duration,
}

impl Connection {
    pub(super) fn new(
        sender: http1::SendRequest<RequestBody>,
        driver: http1::Connection<TokioIo<Outbound<Stream>>, RequestBody>,
        closed: Closed,
    ) -> Self {
        Self(Box::new(Held {
            sender,
            driver,
            ended: false,
            closed,
            place: Place::default(),
        }))
    }

    /// An exchange takes the connection and brings its place.
    pub(super) fn occupy(&mut self, place: Place) {
        self.0.place = place;
    }

    /// The exchange is done.
    pub(super) fn vacate(&mut self) -> Place {
        std::mem::take(&mut self.0.place)
    }

    /// Lets the connection read and write; whatever comes of it shows at the request or the body.
    pub(in super::super) fn drive(&mut self, cx: &mut Context<'_>) {
        let held = &mut *self.0;
        if !held.ended {
            held.ended = Pin::new(&mut held.driver).poll(cx).is_ready();
        }
    }

    /// Whether nothing will come any more but what has been read.
    pub(in super::super) const fn has_ended(&self) -> bool {
        self.0.ended
    }

    pub(super) fn is_ready(&self) -> bool {
        !self.0.ended && self.0.sender.is_ready()
    }

    /// Sends a request and waits for the response's head.
    pub(in super::super) async fn send(
        &mut self,
        request: Request,
    ) -> Result<Response, Box<Refused>> {
        let Held {
            sender,
            driver,
            ended,
            ..
        } = &mut *self.0;
        let mut response = std::pin::pin!(sender.try_send_request(request));
        let result = std::future::poll_fn(|cx| {
            if !*ended {
                *ended = Pin::new(&mut *driver).poll(cx).is_ready();
            }
            // Only the driver completes the response, and it runs right here: nobody has to wake us.
            let mut nobody = Context::from_waker(Waker::noop());
            response.as_mut().poll(&mut nobody)
        });
        result.await.map_err(|mut refused| {
            Box::new(Refused {
                unsent: refused.take_message(),
                error: refused.into_error(),
            })
        })
    }
}

impl Busy {
    /// Gives the connection back once its response is complete.
    ///
    /// An upstream may answer before it has read the whole request and go on reading (RFC 9112 section 9.5).
    /// Then the upload gets a task of its own, until it is done, rests for too long, or the drain is over.
    pub(in super::super) fn answered(mut self, site: &Arc<Site>, cx: &mut Context<'_>) {
        self.connection.drive(cx);
        if self.connection.0.closed.is_set() || self.progress.is_held() {
            // What is left of the request goes nowhere.
            return;
        }
        if self.connection.has_ended() || self.connection.is_ready() {
            site.give_back(self.connection);
            return;
        }
        let Self {
            mut connection,
            progress,
            drain,
            pause,
        } = self;
        let (site, closing) = (Arc::clone(site), drain.clone());
        drain.spawn(async move {
            let settled = std::future::poll_fn(|cx| {
                connection.drive(cx);
                let closed = connection.0.closed.is_set();
                if closed || connection.has_ended() || connection.is_ready() {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            });
            let settled = tokio::select! {
                settled = within(pause, &progress, settled) => settled,
                () = closing.closing() => None,
            };
            if settled.is_some() {
                site.give_back(connection);
            }
        });
    }
}
