//! One request from the client to the upstream and its response back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use http_body::Body;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response, Version};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::super::drain::Drain;
use super::super::{Error, Metrics, Side};
use super::body::{Meter, Pause, Progress, Reply, RequestBody, UpstreamBody, Way};
use super::head::{self, Route, Use};
use super::interim::Hints;
use super::loan;
use super::upstream::{Busy, Carrier, Seat, Site, Source, Upstreams};
use super::{Client, Config, Forwarded, Host, Route as Service, upgrade};
use crate::capture::{Capture, Tee};
use crate::record::{Grpc, Outcome};
use crate::service_discovery::Pool;

/// What stands behind a listener that forwards.
pub(super) struct Forwarder {
    upstreams: Upstreams,
    /// The services with requests of their own.
    routes: Vec<(Service, Upstreams)>,
    /// One count to share per request instead of one for each of two dozen counters.
    pub(super) metrics: Arc<Metrics>,
    pub(super) drain: Drain,
    capture: Capture,
    host: Host,
    forwarded: Forwarded,
    scheme: &'static str,
    pub(super) response_timeout: Duration,
    body_timeout: Duration,
    pub(super) max_request_bytes: Option<u64>,
    started: Instant,
    /// In which second after the start the last warning was written.
    warned: AtomicU64,
}

/// A request that was sent, and what came of it.
struct Answered {
    site: Arc<Site>,
    carrier: Carrier,
    response: Response<Incoming>,
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
    pub(super) fn new(
        config: &Config,
        pool: Arc<Pool>,
        capture: Capture,
        metrics: Metrics,
        drain: Drain,
    ) -> Result<Self, Error> {
        let upstreams = |pool| Upstreams::new(config, pool, metrics.clone(), drain.clone());
        let mut routes = Vec::new();
        for route in &config.routes {
            routes.push((route.clone(), upstreams(Arc::clone(&route.pool))?));
        }
        Ok(Self {
            upstreams: upstreams(pool)?,
            routes,
            metrics: Arc::new(metrics.clone()),
            drain: drain.clone(),
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
            max_request_bytes: config.max_request_bytes,
            started: Instant::now(),
            warned: AtomicU64::new(0),
        })
    }

    /// Whether copies are made here, now or at some time.
    pub(super) fn records(&self) -> bool {
        self.capture.settings().is_some()
    }

    /// Looks after idle connections, for ever.
    pub(super) async fn sweep(&self) {
        let routed = self.routes.iter().map(|(_, upstreams)| upstreams);
        let all = routed.chain([&self.upstreams]).map(Upstreams::sweep);
        futures_util::future::join_all(all).await;
    }

    /// Serves one request, whose head is `sent` as it came over HTTP/1.1; every failure becomes a response that says what failed.
    pub(super) async fn forward(
        self: &Arc<Self>,
        request: Request<Incoming>,
        sent: Option<Bytes>,
        client: &Client,
    ) -> Response<Reply> {
        let mut meter = Meter::new(Arc::clone(&self.metrics));
        let (mut parts, body) = request.into_parts();
        let normal = match parts.version {
            Version::HTTP_2 => head::from_http2(&mut parts),
            _ => Ok(()),
        };
        let fits = |(route, _): &(Service, Upstreams)| route.takes(&parts);
        let at = self.routes.iter().position(fits);
        let (upstreams, route) = match at.map(|at| (at, &self.routes[at])) {
            Some((at, (route, upstreams))) => (upstreams, Some((at, &route.service))),
            None => (&self.upstreams, None),
        };
        let (sent, connection) = (sent.as_deref(), client.connection(route));
        let tee = self.capture.begin_as_sent(connection, &parts, sent);
        let asker = Asker::of(&parts);
        let kind = match normal.and_then(|()| head::check(&parts)) {
            Ok(kind) => kind,
            Err(error) => return self.refuse(&error, asker, tee, meter),
        };
        if let Some(limit) = self
            .max_request_bytes
            .filter(|most| body.size_hint().lower() > *most)
        {
            return self.refuse(&Error::LargeRequest { limit }, asker, tee, meter);
        }
        if kind == Use::Upgrade && upstreams.upgrades() {
            let request = Request::from_parts(parts, body);
            return upgrade::forward(self, upstreams, request, tee, meter, client).await;
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
            let body = RequestBody::new(body, request_tee, Arc::clone(&self.metrics), progress)
                .limited(self.max_request_bytes);
            match head::expects_continue(&parts) {
                true => body.expected(),
                false => body,
            }
        };
        let hints = Hints {
            progress: Arc::clone(&progress),
            desk: (client
                .desk
                .as_ref()
                .filter(|_| parts.version == Version::HTTP_11))
            .cloned(),
            tee: tee.as_ref().map(Tee::interims),
        };
        let exchange = self.exchange(upstreams, parts, body, &hints, client.address);
        match exchange.await {
            Ok(answered) => {
                let Answered {
                    site,
                    carrier,
                    response,
                } = answered;
                let (mut head, incoming) = response.into_parts();
                head::to_client(&mut head, Use::Exchange);
                meter.answered(head.status);
                let tee = tee.and_then(|t| t.respond(head.status, &head.headers, Some(&site.name)));
                let pause = self.pause(&head.headers);
                let way = match carrier {
                    Carrier::Own(connection) => Way::Own(Busy {
                        connection,
                        progress,
                        drain: self.drain.clone(),
                        pause: self.body_timeout,
                    }),
                    Carrier::Shared(seat) => Way::Shared {
                        _seat: seat,
                        progress,
                    },
                };
                let body = UpstreamBody::new(incoming, way, site, tee, meter, pause);
                Response::from_parts(head, Reply::Upstream(Box::new(body)))
            }
            Err(error) => self.refuse(&progress.explain(error), asker, tee, meter),
        }
    }

    /// How long a response with such a head may rest in its content. Event streams (HTML, section 9.2) and
    /// gRPC's streams are silent for hours by design; keep-alives on their sockets find out who has gone.
    pub(super) fn pause(&self, headers: &HeaderMap) -> Pause {
        let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
        if kind.is_some_and(|kind| is_event_stream(kind) || Grpc::is_content_type(kind)) {
            Pause::Any
        } else {
            Pause::AtMost(self.body_timeout)
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

    /// Sends a request; once more where a kept connection turned out to be closed and the request can be
    /// repeated (RFC 9110 section 9.2.2), or where the upstream says that it has not looked at it.
    async fn exchange(
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

    /// Answers a request that failed, and records that.
    pub(super) fn refuse(
        &self,
        error: &Error,
        asker: Asker,
        tee: Option<Tee>,
        mut meter: Meter,
    ) -> Response<Reply> {
        if let Some(failure) = error.upstream_failure() {
            self.metrics.upstream_failed(failure);
            self.log_failure(error);
        } else {
            tracing::debug!(error = error.chain(), "request refused");
        }
        let content = match asker {
            Asker::Http => message(error),
            Asker::Grpc => Bytes::new(),
        };
        let mut response = Response::new(Reply::Own(Full::new(content.clone())));
        let status = match asker {
            Asker::Http => error.status(),
            // What went wrong with a call is in its trailers, which here are the only head there is.
            Asker::Grpc => StatusCode::OK,
        };
        *response.status_mut() = status;
        let headers = response.headers_mut();
        match asker {
            Asker::Http => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                headers.insert(CONTENT_LENGTH, HeaderValue::from(content.len()));
            }
            Asker::Grpc => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
                headers.insert("grpc-status", error.grpc_status().into());
                headers.insert("grpc-message", grpc_message(error));
            }
        }
        if asker == Asker::Http && error.side() == Side::Client {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        meter.answered(error.status());
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

fn is_event_stream(content_type: &[u8]) -> bool {
    let kind = content_type.split(|b| *b == b';').next();
    kind.is_some_and(|kind| kind.trim_ascii().eq_ignore_ascii_case(b"text/event-stream"))
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

/// Who is answered, which decides what an error looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asker {
    /// Takes a status and a text.
    Http,
    /// Takes a `grpc-status` in trailers.
    Grpc,
}

impl Asker {
    fn of(parts: &Parts) -> Self {
        let kind = parts.headers.get(CONTENT_TYPE);
        let grpc = kind.is_some_and(|kind| Grpc::is_content_type(kind.as_bytes()));
        if grpc && parts.version == Version::HTTP_2 {
            Self::Grpc
        } else {
            Self::Http
        }
    }
}

/// What a `grpc-message` has to escape: a percent sign, and what is not printable ASCII.
const GRPC_ESCAPED: &AsciiSet = &CONTROLS.add(b'%');

fn grpc_message(error: &Error) -> HeaderValue {
    let text = utf8_percent_encode(&error.chain(), GRPC_ESCAPED).to_string();
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("the call failed"))
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
