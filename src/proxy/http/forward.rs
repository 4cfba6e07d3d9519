//! One request from the client to the upstream and its response back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http_body::Body;
use hyper::body::Incoming;
use hyper::{Request, Response, Version};

use super::super::drain::Drain;
use super::super::{Error, Metrics};
use super::body::{Meter, Pause, Progress, Reply, RequestBody, UpstreamBody, Way};
use super::exchange::Answered;
use super::forward_proxy::{Gate, Outbound};
use super::head::{self, Route, Use};
use super::interim::Hints;
use super::refusal::Asker;
use super::upstream::{Busy, Carrier, Site, Upstreams};
use super::{Client, Config, Forwarded, Host, Route as Service, upgrade};
use crate::capture::{Capture, Tee};
use crate::record::Grpc;
use crate::service_discovery::Pool;

/// What stands behind a listener that forwards.
pub(super) struct Forwarder {
    /// `None` where all there is is what clients name.
    upstreams: Option<Upstreams>,
    pub(super) gate: Option<Arc<Gate>>,
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
    pub(super) tunnel_idle_timeout: Duration,
    body_timeout: Duration,
    pub(super) max_request_bytes: Option<u64>,
    pub(super) started: Instant,
    /// In which second after the start the last warning was written.
    pub(super) warned: AtomicU64,
}

impl Forwarder {
    pub(super) fn new(
        config: &Config,
        pool: Option<Arc<Pool>>,
        gate: Option<Arc<Gate>>,
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
            upstreams: pool.map(upstreams).transpose()?,
            gate,
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
            tunnel_idle_timeout: config.tunnel_idle_timeout,
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
        let all = routed.chain(&self.upstreams).map(Upstreams::sweep);
        let outward = self.gate.as_ref().and_then(|gate| gate.outward());
        futures_util::future::join(
            futures_util::future::join_all(all),
            futures_util::future::join_all(outward.map(|outward| outward.sweep())),
        )
        .await;
    }

    /// Where a request goes that is not for the services behind this listener.
    fn outbound(&self, parts: &mut Parts, sent: Option<&[u8]>) -> Option<Result<Outbound, Error>> {
        let gate = self.gate.as_ref()?;
        let authority = match parts.version {
            // There every request names its host: it is for another where there is no service of ours.
            Version::HTTP_2 if self.upstreams.is_some() || !self.routes.is_empty() => return None,
            _ => parts.uri.authority()?.as_str().to_owned(),
        };
        let scheme = parts.uri.scheme_str().unwrap_or_default().to_owned();
        let checked = match parts.version {
            Version::HTTP_2 => head::from_http2(parts),
            _ => Ok(()),
        };
        let checked = checked.and_then(|()| head::check(parts));
        Some(checked.and_then(|_| gate.outbound(parts, [&scheme, &authority], sent)))
    }

    /// Serves one request, whose head is `sent` as it came over HTTP/1.1; every failure becomes a response that says what failed.
    pub(super) async fn forward(
        self: &Arc<Self>,
        request: Request<Incoming>,
        sent: Option<Bytes>,
        client: &Client,
    ) -> Response<Reply> {
        let meter = Meter::new(Arc::clone(&self.metrics));
        let (mut parts, body) = request.into_parts();
        let asker = Asker::of(&parts);
        let outbound = match &client.inside {
            None => self.outbound(&mut parts, sent.as_deref()),
            Some(_) => None,
        };
        let outbound = match outbound.transpose() {
            Ok(outbound) => outbound,
            // It was for nobody here, so that it is no service's record.
            Err(error) => return self.refuse(&error, asker, None, meter),
        };
        let normal = match parts.version {
            Version::HTTP_2 => head::from_http2(&mut parts),
            _ => Ok(()),
        };
        let fits = |(route, _): &(Service, Upstreams)| route.takes(&parts);
        let inside = client
            .inside
            .as_ref()
            .and_then(|inside| inside.upstreams.as_deref());
        let at = match (&outbound, inside) {
            (None, None) => self.routes.iter().position(fits),
            _ => None,
        };
        let (upstreams, route) = match (&outbound, at.map(|at| (at, &self.routes[at]))) {
            (Some(outbound), _) => (Some(&*outbound.upstreams), None),
            (None, Some((at, (route, upstreams)))) => (Some(upstreams), Some((at, &route.service))),
            (None, None) => (inside.or(self.upstreams.as_ref()), None),
        };
        let Some(upstreams) = upstreams else {
            let error = Error::Request(
                "this is a forward proxy: name the host in the target, as in GET http://host/path, or use CONNECT",
            );
            return self.refuse(&error, asker, None, meter);
        };
        let (outward, sent) = match outbound.as_ref() {
            Some(outbound) => (
                Some(client.connection_to(Arc::clone(&outbound.service))),
                outbound.sent.as_deref(),
            ),
            None => (None, sent.as_deref()),
        };
        let connection = outward.as_ref().unwrap_or_else(|| client.connection(route));
        let tee = self.capture.begin_as_sent(connection, &parts, sent);
        let kind = match normal.and_then(|()| head::check(&parts)) {
            Ok(kind) => kind,
            Err(error) => return self.refuse(&error, asker, tee, meter),
        };
        if let Some(limit) = self
            .max_request_bytes
            .filter(|most| body.size_hint().lower() > *most)
        {
            self.linger(parts.version, body);
            return self.refuse(&Error::LargeRequest { limit }, asker, tee, meter);
        }
        if kind == Use::Upgrade && (head::is_web_socket(&parts.headers) || upstreams.upgrades()) {
            let request = Request::from_parts(parts, body);
            return upgrade::forward(self, upstreams, request, tee, meter, client).await;
        }
        let progress: Arc<Progress> = Arc::default();
        let body = self.content(&parts, body, tee.as_ref(), &progress);
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
            Ok(answered) => self.pass_on(answered, progress, tee, meter),
            Err(error) => self.refuse(&progress.explain(error), asker, tee, meter),
        }
    }

    /// Passes a response on to the client, its content as it comes.
    fn pass_on(
        &self,
        answered: Answered,
        progress: Arc<Progress>,
        tee: Option<Tee>,
        mut meter: Meter,
    ) -> Response<Reply> {
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

    /// A request's content on its way, and its copy.
    fn content(
        &self,
        head: &Parts,
        body: Incoming,
        tee: Option<&Tee>,
        progress: &Arc<Progress>,
    ) -> RequestBody {
        let metrics = Arc::clone(&self.metrics);
        if body.is_end_stream() {
            return RequestBody::none(metrics);
        }
        let tee = tee.map(|tee| tee.request_body(&head.headers));
        let body = RequestBody::new(body, tee, metrics, Arc::clone(progress))
            .limited(self.max_request_bytes);
        match head::expects_continue(head) {
            true => body.expected(),
            false => body,
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
}

fn is_event_stream(content_type: &[u8]) -> bool {
    let kind = content_type.split(|b| *b == b';').next();
    kind.is_some_and(|kind| kind.trim_ascii().eq_ignore_ascii_case(b"text/event-stream"))
}
