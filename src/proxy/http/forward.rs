//! One request from the client to the upstream and its response back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http_body::Body;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response};

use super::super::drain::Drain;
use super::super::{Error, Metrics, Side};
use super::body::{Meter, Progress, Reply, RequestBody, UpstreamBody};
use super::head::{self, Route, Use};
use super::upstream::{self, Busy, Site, Source, Upstreams};
use super::{Client, Config, Forwarded, Host, upgrade};
use crate::capture::{Capture, Tee};
use crate::record::Outcome;
use crate::service_discovery::Pool;

/// What stands behind a listener that forwards.
pub(super) struct Forwarder {
    pub(super) upstreams: Upstreams,
    /// One count to share per request instead of one for each of two dozen counters.
    pub(super) metrics: Arc<Metrics>,
    pub(super) drain: Drain,
    capture: Capture,
    host: Host,
    forwarded: Forwarded,
    scheme: &'static str,
    pub(super) response_timeout: Duration,
    pub(super) body_timeout: Duration,
    started: Instant,
    /// In which second after the start the last warning was written.
    warned: AtomicU64,
}

/// A request that was sent, and what came of it.
struct Answered {
    site: Arc<Site>,
    connection: upstream::Connection,
    response: Response<Incoming>,
}

impl Forwarder {
    pub(super) fn new(
        config: &Config,
        pool: Arc<Pool>,
        capture: Capture,
        metrics: Metrics,
        drain: Drain,
    ) -> Result<Self, Error> {
        Ok(Self {
            upstreams: Upstreams::new(config, pool, metrics.clone())?,
            metrics: Arc::new(metrics),
            drain,
            capture,
            host: config.host,
            forwarded: config.forwarded,
            scheme: if config.tls.is_some() {
                "https"
            } else {
                "http"
            },
            response_timeout: config.response_timeout,
            body_timeout: config.body_timeout,
            started: Instant::now(),
            warned: AtomicU64::new(0),
        })
    }

    /// Looks after idle connections, for ever.
    pub(super) async fn sweep(&self) {
        self.upstreams.sweep().await;
    }

    /// Serves one request; every failure becomes a response that says what failed.
    pub(super) async fn forward(
        self: &Arc<Self>,
        request: Request<Incoming>,
        client: &Client,
    ) -> Response<Reply> {
        let mut meter = Meter::new(Arc::clone(&self.metrics));
        let (parts, body) = request.into_parts();
        let tee = self.capture.begin(&client.connection, &parts);
        let kind = match head::check(&parts) {
            Ok(kind) => kind,
            Err(error) => return self.refuse(&error, tee, meter),
        };
        if kind == Use::Upgrade {
            let request = Request::from_parts(parts, body);
            return upgrade::forward(self, request, tee, meter, client).await;
        }
        let request_tee = tee
            .as_ref()
            .filter(|_| !body.is_end_stream())
            .map(|tee| tee.request_body(&parts.headers));
        let progress: Arc<Progress> = Arc::default();
        let body = if body.is_end_stream() {
            RequestBody::none(Arc::clone(&self.metrics))
        } else {
            let progress = Arc::clone(&progress);
            RequestBody::new(body, request_tee, Arc::clone(&self.metrics), progress)
        };
        match self.exchange(parts, body, &progress, client.address).await {
            Ok(answered) => {
                let Answered {
                    site,
                    connection,
                    response,
                } = answered;
                let (mut head, incoming) = response.into_parts();
                head::to_client(&mut head, Use::Exchange);
                meter.answered(head.status);
                let tee = tee.and_then(|t| t.respond(head.status, &head.headers, Some(&site.name)));
                let pause = self.body_timeout;
                let busy = Busy {
                    connection,
                    progress,
                    drain: self.drain.clone(),
                };
                let body = UpstreamBody::new(incoming, Some(busy), site, tee, meter, pause);
                Response::from_parts(head, Reply::Upstream(Box::new(body)))
            }
            Err(error) => self.refuse(&error, tee, meter),
        }
    }

    /// Rewrites a head for a site.
    pub(super) fn rewrite(
        &self,
        parts: &mut Parts,
        kind: Use,
        site: &Site,
        client: SocketAddr,
    ) -> Result<(), Error> {
        let route = Route {
            path_prefix: site.endpoint().path_prefix(),
            authority: &site.authority,
            host: self.host,
            forwarded: self.forwarded,
            client: client.ip(),
            scheme: self.scheme,
        };
        head::to_upstream(parts, kind, &route)
    }

    /// Sends a request; once more on a fresh connection where a kept one turned out to be closed and the
    /// request can be repeated (RFC 9110 section 9.2.2).
    async fn exchange(
        &self,
        mut parts: Parts,
        body: RequestBody,
        progress: &Arc<Progress>,
        client: SocketAddr,
    ) -> Result<Answered, Error> {
        let (site, connection, source) = self.upstreams.connection().await?;
        let repeatable =
            source == Source::Reused && parts.method.is_idempotent() && body.is_end_stream();
        self.rewrite(&mut parts, Use::Exchange, &site, client)?;
        let spare = repeatable.then(|| copy(&parts));
        let request = Request::from_parts(parts, body);
        let again = Arc::clone(&site);
        let (error, unsent) = match self.send(site, connection, request, progress).await {
            Ok(answered) => return Ok(answered),
            Err(failed) => failed,
        };
        if source == Source::Fresh || !matches!(error, Error::Reset { .. }) {
            return Err(error);
        }
        let none = |parts| Request::from_parts(parts, RequestBody::none(Arc::clone(&self.metrics)));
        let Some(request) = unsent.or_else(|| spare.map(none)) else {
            return Err(error);
        };
        self.metrics.retries.inc();
        let connection = self.upstreams.fresh(&again).await?;
        let sent = self.send(again, connection, request, progress).await;
        sent.map_err(|(error, _)| error)
    }

    async fn send(
        &self,
        site: Arc<Site>,
        mut connection: upstream::Connection,
        request: Request<RequestBody>,
        progress: &Progress,
    ) -> Result<Answered, (Error, Option<Request<RequestBody>>)> {
        let response = connection.send(request);
        let response = within(self.response_timeout, progress, response).await;
        match response {
            Some(Ok(response)) => Ok(Answered {
                site,
                connection,
                response,
            }),
            Some(Err(refused)) => {
                let error = Error::from_exchange(refused.error, &site.name);
                Err((error, refused.unsent))
            }
            None => Err((no_answer(progress, &site.name), None)),
        }
    }

    /// Answers a request that failed, and records that.
    pub(super) fn refuse(
        &self,
        error: &Error,
        tee: Option<Tee>,
        mut meter: Meter,
    ) -> Response<Reply> {
        if let Some(failure) = error.upstream_failure() {
            self.metrics.upstream_failed(failure);
            self.log_failure(error);
        } else {
            tracing::debug!(error = error.chain(), "request refused");
        }
        let status = error.status();
        let content = message(error);
        let mut response = Response::new(Reply::Own(Full::new(content.clone())));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(content.len()));
        if error.side() == Side::Client {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        meter.answered(status);
        if let Some(tee) = tee {
            if error.outcome() == Outcome::ClientClosed {
                tee.end(error.outcome(), error.upstream());
            } else if let Some(mut tee) = tee.respond(status, response.headers(), error.upstream())
            {
                tee.data(&content);
                tee.end_own(error.outcome());
            }
        }
        response
    }

    /// Warns at most once a second: an upstream that is down fails every request.
    fn log_failure(&self, error: &Error) {
        let second = self.started.elapsed().as_secs() + 1;
        if self.warned.swap(second, Relaxed) == second {
            tracing::debug!(error = error.chain(), "upstream failed");
        } else {
            tracing::warn!(error = error.chain(), "upstream failed");
        }
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
fn copy(parts: &Parts) -> Parts {
    let mut copy = Request::new(()).into_parts().0;
    copy.method = parts.method.clone();
    copy.uri = parts.uri.clone();
    copy.version = parts.version;
    copy.headers = parts.headers.clone();
    copy
}

fn message(error: &Error) -> Bytes {
    let name = match error.side() {
        Side::Client => "bad_request",
        Side::Upstream => "upstream_failed",
        Side::Proxy => "proxy_failed",
    };
    let failure = error.upstream_failure().map(|failure| failure.as_str());
    let text = serde_json::json!({
        "error": name,
        "failure": failure,
        "upstream": error.upstream().map(|name| &**name),
        "detail": error.chain(),
    });
    format!("{text}\n").into()
}
