//! One client connection, from the handshake to its end, over HTTP/1.1 or HTTP/2.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::task::Poll;

use http::Method;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::OwnedSemaphorePermit;

use super::super::Metrics;
use super::super::detect::{self, Rewound};
use super::super::dial::Spoken;
use super::super::drain::{Drain, Ended, Step};
use super::super::entry::{Entry, Opened};
use super::super::listener::{Accepted, next_connection};
use super::super::stream::Stream;
use super::body::Reply;
use super::forward_proxy::{self, Gate, Inside};
use super::line::{Desk, Line};
use super::stall::{self, Lift, StallGuard};
use super::streams::{Patience, Streams, Watch};
use super::{Answer, BoxFuture, Config, Handler, MAX_FIELDS, head, upgrade};
use crate::capture::Connection;
use crate::record::{Protocol, TlsFacts};

/// What every connection of a listener shares.
pub(super) struct Server {
    config: Config,
    http1: http1::Builder,
    entry: Entry,
    handler: Handler,
    gate: Option<Arc<Gate>>,
    metrics: Metrics,
    drain: Drain,
}

/// A connected client, as its requests see it.
pub(super) struct Client {
    pub(super) address: SocketAddr,
    connection: Arc<Connection>,
    /// The same for the service of each route, as far as it was needed.
    routed: Box<[OnceLock<Arc<Connection>>]>,
    /// Its place under the limit on connections.
    pub(super) slot: Arc<OwnedSemaphorePermit>,
    /// To be lifted where the connection becomes a tunnel.
    pub(super) write_limit: Lift,
    /// What goes beside the library, over HTTP/1.1.
    pub(super) desk: Option<Arc<Desk>>,
    /// Where its requests go, within a tunnel.
    pub(super) inside: Option<Inside>,
}

/// What HTTP runs on, but for [`Line`].
pub(super) type Guarded = StallGuard<Rewound<Stream>>;

impl Client {
    pub(super) fn tls(&self) -> Option<&TlsFacts> {
        self.connection.tls.as_ref()
    }

    /// What the exchanges of this connection have in common that go to another service.
    pub(super) fn connection_to(&self, service: Arc<str>) -> Arc<Connection> {
        Arc::new(Connection {
            service,
            ..Connection::clone(&self.connection)
        })
    }

    /// What the exchanges of this connection with one route's service have in common.
    pub(super) fn connection(&self, route: Option<(usize, &Arc<str>)>) -> &Arc<Connection> {
        let Some((at, service)) = route else {
            return &self.connection;
        };
        self.routed[at].get_or_init(|| self.connection_to(Arc::clone(service)))
    }
}

impl Server {
    pub(super) fn new(
        config: Config,
        entry: Entry,
        handler: Handler,
        gate: Option<Arc<Gate>>,
        metrics: Metrics,
        drain: Drain,
    ) -> Self {
        Self {
            http1: http1_settings(&config),
            config,
            entry,
            handler,
            gate,
            metrics,
            drain,
        }
    }

    pub(super) async fn connection(self: Arc<Self>, accepted: Accepted) {
        let Accepted {
            socket,
            client,
            slot,
        } = accepted;
        let opened = self.entry.open(socket, client, &self.drain, &self.metrics);
        if let Some(opened) = opened.await {
            self.http(opened, Arc::new(slot), None).await;
        }
    }

    /// Serves HTTP within a tunnel.
    pub(super) fn within(
        self: Arc<Self>,
        opened: Opened,
        slot: Arc<OwnedSemaphorePermit>,
        inside: Inside,
    ) -> BoxFuture<()> {
        Box::pin(async move { self.http(opened, slot, Some(inside)).await })
    }

    pub(super) const fn drain(&self) -> &Drain {
        &self.drain
    }

    async fn http(
        self: Arc<Self>,
        opened: Opened,
        slot: Arc<OwnedSemaphorePermit>,
        inside: Option<Inside>,
    ) {
        let Opened {
            stream,
            client,
            tls,
        } = opened;
        self.metrics.open.inc();
        if let Some((stream, spoken)) = self.detect(stream, tls.as_ref()).await {
            let lift = Lift::default();
            let stream = StallGuard::new(stream, self.config.write_timeout, lift.clone());
            let mut peer = Client {
                write_limit: lift,
                desk: None,
                routed: self.config.routes.iter().map(|_| OnceLock::new()).collect(),
                address: client,
                slot,
                connection: Arc::new(Connection {
                    id: next_connection(),
                    service: Arc::clone(
                        inside
                            .as_ref()
                            .map_or(&self.config.service, |inside| &inside.service),
                    ),
                    client: client.to_string().into(),
                    protocol: match spoken {
                        Spoken::Http1 => Protocol::Http1,
                        Spoken::Http2 => Protocol::Http2,
                    },
                    tls,
                }),
                inside,
            };
            let server = Arc::clone(&self);
            match spoken {
                Spoken::Http1 => {
                    let (line, desk) =
                        Line::new(stream, self.config.max_head_bytes, self.handler.copies());
                    peer.desk = Some(desk);
                    server.http1(line, Arc::new(peer)).await;
                }
                Spoken::Http2 => server.http2(stream, Arc::new(peer)).await,
            }
        }
        self.metrics.open.dec();
    }

    /// Waits for the first bytes, for as long as a client may take for a head.
    async fn detect(
        &self,
        stream: Stream,
        facts: Option<&TlsFacts>,
    ) -> Option<(Rewound<Stream>, Spoken)> {
        let agreed = facts.and_then(|facts| facts.alpn.as_deref());
        let first = detect::http(stream, agreed.map(str::as_bytes));
        let first = tokio::time::timeout(self.config.head_timeout, first);
        tokio::select! {
            first = first => match first {
                Ok(Ok(detected)) => detected,
                Ok(Err(_)) | Err(_) => {
                    self.metrics.client_errors.inc();
                    None
                }
            },
            () = self.drain.draining() => None,
        }
    }

    async fn http1(self: Arc<Self>, stream: Line<Guarded>, peer: Arc<Client>) {
        let address = peer.address;
        let server = Arc::clone(&self);
        let service =
            service_fn(move |request| serve(Arc::clone(&server), Arc::clone(&peer), request));
        let connection = self.http1.serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection.with_upgrades());
        let ended = self.drain.watch(|step, cx| {
            if step == Step::Drain {
                connection.as_mut().graceful_shutdown();
            }
            connection.as_mut().poll(cx)
        });
        self.log(address, ended.await);
    }

    async fn http2(self: Arc<Self>, stream: Guarded, peer: Arc<Client>) {
        let address = peer.address;
        let streams = Streams::new(
            self.drain.clone(),
            self.config.write_timeout,
            self.metrics.client_errors.clone(),
        );
        let server = Arc::clone(&self);
        let service = service_fn(move |request| {
            let (server, peer) = (Arc::clone(&server), Arc::clone(&peer));
            async move {
                let response = serve(server, peer, request).await?;
                Ok::<_, Infallible>(response.map(|reply| Watch::current().over(reply)))
            }
        });
        let mut settings = http2_settings(&self.config, streams.clone());
        if matches!(self.handler, Handler::Forward(_)) {
            // WebSocket over HTTP/2 (RFC 8441).
            settings.enable_connect_protocol();
        }
        let mut connection = pin!(settings.serve_connection(TokioIo::new(stream), service));
        let mut patience = Patience::new(self.config.head_timeout);
        let ended = self.drain.watch(|step, cx| {
            if step == Step::Drain || patience.is_over(&streams, cx) {
                connection.as_mut().graceful_shutdown();
            }
            if patience.is_lost() {
                return Poll::Ready(Ok(()));
            }
            connection.as_mut().poll(cx)
        });
        self.log(address, ended.await);
    }

    fn log(&self, client: SocketAddr, ended: Ended<hyper::Result<()>>) {
        if let Ended::Done(Err(error)) = ended {
            if error.is_parse() || error.is_timeout() || stall::stalled(&error) {
                self.metrics.client_errors.inc();
            }
            tracing::debug!(%client, %error, "client connection ended");
        }
    }
}

/// Transparent where hyper can be: header case is kept, no `Date` is added. A client that closes its side
/// in mid-exchange has gone, as for nginx and others, so that its upstream request is cancelled.
fn http1_settings(config: &Config) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.preserve_header_case(true)
        .auto_date_header(false)
        .half_close(false)
        .timer(TokioTimer::new())
        .header_read_timeout(config.head_timeout)
        .max_headers(MAX_FIELDS)
        .max_header_size(config.max_head_bytes)
        .max_buf_size(config.max_head_bytes.max(64 << 10));
    http
}

/// What one client may cost: its open streams, what it sends unasked, its resets. A client that resets what
/// it has just asked for, over and over, is sent away (hyper: 20 such streams that were not yet accepted, and
/// 1,024 that ended by its errors).
fn http2_settings(config: &Config, streams: Streams) -> http2::Builder<Streams> {
    let mut http = http2::Builder::new(streams);
    let head = u32::try_from(config.max_head_bytes).unwrap_or(u32::MAX);
    http.auto_date_header(false)
        .timer(TokioTimer::new())
        .max_concurrent_streams(config.max_client_streams)
        .max_header_list_size(head)
        .initial_stream_window_size(config.stream_window)
        .initial_connection_window_size(config.connection_window)
        .keep_alive_interval(config.ping_after)
        .keep_alive_timeout(config.ping_timeout);
    http
}

async fn serve(
    server: Arc<Server>,
    peer: Arc<Client>,
    request: hyper::Request<Incoming>,
) -> Result<hyper::Response<Reply>, Infallible> {
    let head = peer.desk.as_ref().and_then(|desk| desk.head());
    let connects = request.method() == Method::CONNECT;
    let response = match &server.handler {
        _ if connects && server.gate.is_some() => {
            let gate = server.gate.as_ref().expect("it is there");
            forward_proxy::serve(&server, gate, &peer, request).await
        }
        Handler::Respond(_) if connects => forward_proxy::no_authority(),
        Handler::Forward(forwarder) => forwarder.forward(request, head, &peer).await,
        Handler::Respond(responder) => {
            let started = std::time::Instant::now();
            let mut request = head::normal(request);
            let upgrade = hyper::upgrade::on(&mut request);
            let connection = peer.connection(None).id;
            let answer = responder.respond(request, peer.address, connection).await;
            let response = match answer {
                Answer::Response(response) => response,
                Answer::Switch(response, tunnel) => {
                    upgrade::hand_over(&server, &peer, upgrade, tunnel);
                    response
                }
            };
            server
                .metrics
                .served(response.status().as_u16(), started.elapsed());
            response.map(Reply::Boxed)
        }
    };
    if let Some(desk) = &peer.desk {
        desk.answered(response.status());
    }
    Ok(response)
}
