//! A request's way to an upstream and back to its response's head, and what can be tried again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http_body::Body;
use hyper::body::Incoming;
use hyper::{Request, Response};

use super::super::Error;
use super::body::{Progress, RequestBody};
use super::forward::Forwarder;
use super::head::{self, Use};
use super::interim::Hints;
use super::loan;
use super::upstream::{Carrier, Seat, Site, Source, Upstreams};

/// A request that was sent, and what came of it.
pub(super) struct Answered {
    pub(super) site: Arc<Site>,
    pub(super) carrier: Carrier,
    pub(super) response: Response<Incoming>,
}

/// A request that was not answered.
struct Failed {
    error: Error,
    /// The request, where it can be sent again and has its content.
    again: Option<Request<RequestBody>>,
    sight: Sight,
}

/// What the upstream has seen of a failed request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sight {
    /// Perhaps all of it.
    Unknown,
    /// Nothing, as it says itself: every request can be sent again.
    Nothing,
}

impl Forwarder {
    /// Sends a request; once more where a kept connection turned out to be closed and the request can be
    /// repeated (RFC 9110 section 9.2.2), or where the upstream says that it has not looked at it.
    pub(super) async fn exchange(
        &self,
        upstreams: &Upstreams,
        mut parts: Parts,
        body: RequestBody,
        hints: &Hints,
        client: SocketAddr,
    ) -> Result<Answered, Error> {
        let (site, carrier, source) = upstreams.connection().await?;
        let repeatable =
            source == Source::Reused && parts.method.is_idempotent() && body.is_end_stream();
        self.rewrite(&mut parts, Use::Exchange, &site, client)?;
        let spare = repeatable.then(|| copy(&parts));
        let request = Request::from_parts(parts, body);
        let again = Arc::clone(&site);
        let failed = match self.send(site, carrier, request, hints).await {
            Ok(answered) => return Ok(answered),
            Err(failed) => *failed,
        };
        let stale = source == Source::Reused && matches!(failed.error, Error::Reset { .. });
        let none = |parts| Request::from_parts(parts, RequestBody::none(Arc::clone(&self.metrics)));
        let request = match (failed.again, spare) {
            (Some(request), _) if stale || failed.sight == Sight::Nothing => request,
            (None, Some(parts)) if stale => none(parts),
            _ => return Err(failed.error),
        };
        self.metrics.retries.inc();
        let (carrier, _) = upstreams.another(&again).await?;
        let sent = self.send(again, carrier, request, hints).await;
        sent.map_err(|failed| failed.error)
    }

    async fn send(
        &self,
        site: Arc<Site>,
        carrier: Carrier,
        mut request: Request<RequestBody>,
        hints: &Hints,
    ) -> Result<Answered, Box<Failed>> {
        let progress = &*hints.progress;
        let mut connection = match carrier {
            Carrier::Own(connection) => connection,
            Carrier::Shared(seat) => {
                // The library tells nothing of interim responses over HTTP/2.
                progress.release();
                return self.share(site, seat, request, progress).await;
            }
        };
        hints.attach(&mut request);
        let response = connection.send(request);
        let response = within(self.response_timeout, progress, response).await;
        match response {
            Some(Ok(response)) => Ok(Answered {
                site,
                carrier: Carrier::Own(connection),
                response,
            }),
            Some(Err(refused)) => Err(Box::new(Failed {
                error: Error::from_exchange(refused.error, &site.name),
                again: refused.unsent,
                sight: Sight::Unknown,
            })),
            None => Err(Failed::only(no_answer(progress, &site.name))),
        }
    }

    /// Sends a request on a stream of a shared connection.
    async fn share(
        &self,
        site: Arc<Site>,
        mut seat: Seat,
        request: Request<RequestBody>,
        progress: &Progress,
    ) -> Result<Answered, Box<Failed>> {
        let (parts, body) = request.into_parts();
        let mut sent = copy(&parts);
        head::to_http2(&mut sent, site.scheme()).map_err(Failed::only)?;
        let (lent, lender) = loan::lend(body);
        let response = seat.send(Request::from_parts(sent, lent));
        match within(self.response_timeout, progress, response).await {
            Some(Ok(response)) => {
                lender.settle();
                let carrier = Carrier::Shared(seat);
                Ok(Answered {
                    site,
                    carrier,
                    response,
                })
            }
            Some(Err(returned)) if returned.unprocessed => {
                let body = lender.take_back();
                Err(Box::new(Failed {
                    error: Error::from_exchange(returned.error, &site.name),
                    again: body.map(|body| Request::from_parts(parts, body)),
                    sight: Sight::Nothing,
                }))
            }
            Some(Err(returned)) if progress.is_broken() => {
                Err(Failed::only(Error::RequestBody(returned.error)))
            }
            Some(Err(returned)) => Err(Failed::only(Error::from_exchange(
                returned.error,
                &site.name,
            ))),
            None => Err(Failed::only(no_answer(progress, &site.name))),
        }
    }
}

impl Failed {
    /// A failure after which nothing is sent again.
    fn only(error: Error) -> Box<Self> {
        Box::new(Self {
            error,
            again: None,
            sight: Sight::Unknown,
        })
    }
}

/// Waits for a response's head; the time starts anew while the request's content still moves.
pub(super) async fn within<T>(
    limit: Duration,
    progress: &Progress,
    response: impl Future<Output = T>,
) -> Option<T> {
    let mut response = std::pin::pin!(response);
    let mut seen = progress.frames();
    loop {
        match tokio::time::timeout(limit, response.as_mut()).await {
            Ok(result) => return Some(result),
            Err(_) => {
                let now = progress.frames();
                if now == seen {
                    return None;
                }
                seen = now;
            }
        }
    }
}

/// Whose fault it is that there is no response.
pub(super) fn no_answer(progress: &Progress, upstream: &Arc<str>) -> Error {
    if progress.waits_for_client() {
        return Error::SlowRequest;
    }
    Error::Timeout {
        upstream: Arc::clone(upstream),
        what: "answer",
    }
}

/// What is needed to send a request without content again; its header case is not.
pub(super) fn copy(parts: &Parts) -> Parts {
    let mut copy = Request::new(()).into_parts().0;
    copy.method = parts.method.clone();
    copy.uri = parts.uri.clone();
    copy.version = parts.version;
    copy.headers = parts.headers.clone();
    copy
}
