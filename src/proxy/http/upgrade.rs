//! Upgrades (RFC 9110 section 7.8), WebSocket above all: the handshake is an exchange like any other, and what
//! follows passes as bytes, untouched, until both sides are done; a copy is read as messages.
//!
//! WebSocket also comes as an extended CONNECT over HTTP/2 (RFC 8441), on either side. Whichever way it comes, it
//! is handled and recorded in the form of HTTP/1.1, and goes on in the form that the upstream understands.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY};
use http::request::Parts;
use http::{HeaderValue, StatusCode, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::super::Error;
use super::super::stream::Socket;
use super::super::tcp::pump;
use super::Tunnel;
use super::body::{Meter, Progress, Reply, RequestBody, UpstreamBody, Way};
use super::exchange::{copy, no_answer, within};
use super::forward::Forwarder;
use super::head::{self, Use};
use super::loan;
use super::refusal::Asker;
use super::server::{Client, Server};
use super::upstream::{Entrance, Place, Seat, Site, Upgradable, Upstreams};
use crate::capture::{StreamTee, Tee};
use crate::record::{Outcome, UpstreamFailure, accept_key};

/// An answer, in the form of HTTP/1.1, and what has to be kept as long as it or its tunnel lasts.
struct Answered {
    site: Arc<Site>,
    hold: Hold,
    response: Response<Incoming>,
}

enum Hold {
    Place { _place: Arc<Place> },
    Seat(Seat),
}

/// The two ends of a tunnel, as far as they are there.
struct Ends {
    client: OnUpgrade,
    upstream: OnUpgrade,
}

impl Socket for TokioIo<Upgraded> {
    fn plain(&mut self) -> Option<&mut TcpStream> {
        None
    }
}

/// Serves a request that asks for another protocol.
pub(super) async fn forward(
    forwarder: &Arc<Forwarder>,
    upstreams: &Upstreams,
    mut request: Request<Incoming>,
    tee: Option<Tee>,
    mut meter: Meter,
    client: &Client,
) -> Response<Reply> {
    let version = request.version();
    let client_side = hyper::upgrade::on(&mut request);
    let sent = send(forwarder, upstreams, request, tee.as_ref(), client);
    let Answered {
        site,
        hold,
        mut response,
    } = match sent.await {
        Ok(answered) => answered,
        Err(error) => return forwarder.refuse(&error, Asker::Http, tee, meter),
    };
    let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let upstream_side = hyper::upgrade::on(&mut response);
    let (mut head, incoming) = response.into_parts();
    let kind = if switched {
        Use::Upgrade
    } else {
        Use::Exchange
    };
    head::to_client(&mut head, kind);
    meter.answered(head.status);
    let tee = tee.and_then(|tee| tee.respond(head.status, &head.headers, Some(&site.name)));
    if !switched {
        let pause = forwarder.pause(&head.headers);
        let way = match hold {
            Hold::Place { .. } => Way::Driven,
            // The handshake had no content that could have broken off.
            Hold::Seat(seat) => Way::Shared {
                _seat: seat,
                progress: Arc::default(),
            },
        };
        let body = UpstreamBody::new(incoming, way, site, tee, meter, pause);
        return Response::from_parts(head, Reply::Upstream(Box::new(body)));
    }
    let stream = tee.as_ref().and_then(|tee| tee.stream(&head.headers));
    if let Some(tee) = tee {
        tee.end(Outcome::Ok);
    }
    if version == Version::HTTP_2 {
        head::to_http2_client(&mut head);
    } else {
        client.write_limit.lift();
    }
    // The tunnel outlives the HTTP connection and goes on to count under the limit on connections.
    let (task, slot) = (Arc::clone(forwarder), Arc::clone(&client.slot));
    let ends = Ends {
        client: client_side,
        upstream: upstream_side,
    };
    forwarder.drain.spawn(async move {
        let (_slot, _hold) = (slot, hold);
        tunnel(&task, ends, stream, &site).await;
    });
    Response::from_parts(head, Reply::Own(http_body_util::Full::default()))
}

/// Hands the connection behind a responder's 101 over. It goes on to count under the limit on connections.
pub(super) fn hand_over(server: &Server, client: &Client, upgrade: OnUpgrade, tunnel: Tunnel) {
    client.write_limit.lift();
    let (slot, drain) = (Arc::clone(&client.slot), server.drain().clone());
    let address = client.address;
    server.drain().spawn(async move {
        let _slot = slot;
        let stop = drain.clone();
        let draining = Box::pin(async move { stop.draining().await });
        let held = async {
            match upgrade.await {
                Ok(upgraded) => tunnel(Box::new(TokioIo::new(upgraded)), draining).await,
                Err(error) => {
                    tracing::debug!(client = %address, %error, "the client left before its upgrade");
                }
            }
        };
        tokio::select! {
            () = held => {}
            () = drain.closing() => {}
        }
    });
}

/// Sends the request in the upstream's form.
async fn send(
    forwarder: &Arc<Forwarder>,
    upstreams: &Upstreams,
    request: Request<Incoming>,
    tee: Option<&Tee>,
    client: &Client,
) -> Result<Answered, Error> {
    let (site, entrance) = upstreams.tunnel().await?;
    let (mut parts, body) = request.into_parts();
    match entrance {
        Entrance::Own(connection) => {
            let key = own_key(&mut parts);
            forwarder.rewrite(&mut parts, Use::Upgrade, &site, client.address)?;
            let request = Request::from_parts(parts, body);
            let answered = send_own(forwarder, site, *connection, request, tee).await?;
            match key {
                Some(key) => fits(answered, &key),
                None => Ok(answered),
            }
        }
        Entrance::Shared(seat) => {
            let key = parts.headers.get(SEC_WEBSOCKET_KEY).cloned();
            if parts.version != Version::HTTP_2 && key.is_none() {
                return Err(Error::Request(
                    "the WebSocket handshake has no Sec-WebSocket-Key (RFC 6455 section 4.1)",
                ));
            }
            forwarder.rewrite(&mut parts, Use::Exchange, &site, client.address)?;
            let mut sent = copy(&parts);
            head::to_extended_connect(&mut sent, site.scheme())?;
            let mut answered = send_shared(forwarder, site, seat, sent).await?;
            if answered.response.status() == StatusCode::OK {
                let (mut head, body) = answered.response.into_parts();
                head::accepted(&mut head, key.as_ref());
                answered.response = Response::from_parts(head, body);
            }
            Ok(answered)
        }
    }
}

/// A key for a request that came over HTTP/2, which has none (RFC 8441 section 5).
fn own_key(parts: &mut Parts) -> Option<HeaderValue> {
    if parts.version != Version::HTTP_2 {
        return None;
    }
    let random = uuid::Uuid::new_v4();
    let key = STANDARD.encode(random.as_bytes());
    let key = HeaderValue::try_from(key).expect("base64 is printable ASCII");
    parts.headers.insert(SEC_WEBSOCKET_KEY, key.clone());
    Some(key)
}

/// Whether what came for a key of ours may be told to a client of HTTP/2: there a success says that the tunnel stands.
fn fits(mut answered: Answered, key: &HeaderValue) -> Result<Answered, Error> {
    let upstream = Arc::clone(&answered.site.name);
    let status = answered.response.status();
    if status == StatusCode::SWITCHING_PROTOCOLS {
        let accept = answered.response.headers_mut().remove(SEC_WEBSOCKET_ACCEPT);
        let expected = accept_key(key.as_bytes());
        return match accept.is_some_and(|accept| accept.as_bytes() == expected.as_bytes()) {
            true => Ok(answered),
            false => Err(Error::WebSocket {
                upstream,
                what: "its Sec-WebSocket-Accept does not answer our key (RFC 6455 section 4.1)",
            }),
        };
    }
    if status.is_success() {
        return Err(Error::WebSocket {
            upstream,
            what: "it answers a WebSocket handshake as if it were a plain request",
        });
    }
    Ok(answered)
}

async fn send_own(
    forwarder: &Arc<Forwarder>,
    site: Arc<Site>,
    connection: Upgradable,
    request: Request<Incoming>,
    tee: Option<&Tee>,
) -> Result<Answered, Error> {
    let (parts, body) = request.into_parts();
    let progress: Arc<Progress> = Arc::default();
    let metrics = Arc::clone(&forwarder.metrics);
    let body = if body.is_end_stream() {
        RequestBody::none(metrics)
    } else {
        let tee = tee.map(|tee| tee.request_body(&parts.headers));
        RequestBody::new(body, tee, metrics, Arc::clone(&progress))
            .limited(forwarder.max_request_bytes)
    };
    let (mut sender, driver) = (connection.sender, connection.driver);
    let (drain, place) = (forwarder.drain.clone(), Arc::new(connection.place));
    let driven = Arc::clone(&place);
    forwarder.drain.spawn(async move {
        let _place = driven;
        tokio::select! {
            result = driver.with_upgrades() => {
                if let Err(error) = result {
                    tracing::debug!(%error, "upstream connection ended");
                }
            }
            () = drain.closing() => {}
        }
    });
    let response = sender.send_request(Request::from_parts(parts, body));
    match within(forwarder.response_timeout, &progress, response).await {
        Some(Ok(response)) => Ok(Answered {
            site,
            hold: Hold::Place { _place: place },
            response,
        }),
        Some(Err(error)) => Err(progress.explain(Error::from_exchange(error, &site.name))),
        None => Err(no_answer(&progress, &site.name)),
    }
}

async fn send_shared(
    forwarder: &Arc<Forwarder>,
    site: Arc<Site>,
    mut seat: Seat,
    parts: Parts,
) -> Result<Answered, Error> {
    let progress = Progress::default();
    let none = RequestBody::none(Arc::clone(&forwarder.metrics));
    let (lent, _lender) = loan::lend(none);
    let response = seat.send(Request::from_parts(parts, lent));
    match within(forwarder.response_timeout, &progress, response).await {
        Some(Ok(response)) => Ok(Answered {
            site,
            hold: Hold::Seat(seat),
            response,
        }),
        Some(Err(returned)) => Err(Error::from_exchange(returned.error, &site.name)),
        None => Err(no_answer(&progress, &site.name)),
    }
}

/// Carries what follows the handshake. A tunnel has no natural end, so a drain does not wait for it.
async fn tunnel(forwarder: &Forwarder, ends: Ends, mut tee: Option<StreamTee>, site: &Site) {
    forwarder.metrics.streams.inc();
    let carried = async {
        let (mut client, mut upstream) = match tokio::join!(ends.client, ends.upstream) {
            (Ok(client), Ok(upstream)) => (TokioIo::new(client), TokioIo::new(upstream)),
            (Err(_), _) => return Outcome::ClientClosed,
            (_, Err(error)) => {
                let why = error.to_string().into();
                return Outcome::UpstreamFailed(UpstreamFailure::Reset, why);
            }
        };
        let idle = forwarder.tunnel_idle_timeout;
        let metrics = &forwarder.metrics;
        pump::run(&mut client, &mut upstream, tee.as_mut(), idle, metrics).await
    };
    let outcome = tokio::select! {
        outcome = carried => outcome,
        () = forwarder.drain.draining() => {
            Outcome::ProxyClosed("the proxy is shutting down".into())
        }
    };
    tracing::debug!(upstream = %site.name, outcome = outcome.as_str(), "tunnel ended");
    if let Outcome::UpstreamFailed(failure @ UpstreamFailure::Reset, _) = &outcome {
        forwarder.metrics.upstream_failed(*failure);
    }
    if let Some(tee) = tee {
        tee.end(outcome, Some(&site.name));
    }
}
