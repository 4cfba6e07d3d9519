//! What follows a CONNECT, from the first byte to the end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::sync::OwnedSemaphorePermit;

use super::super::super::detect::Rewound;
use super::super::super::entry::Opened;
use super::super::super::listener::next_connection;
use super::super::super::stream::Stream;
use super::super::super::tcp::pump;
use super::super::super::{Error, tls};
use super::super::line::Line;
use super::super::server::{Client, Guarded, Server};
use super::first::{Kind, Seen, Speaks};
use super::{Gate, Inside};
use crate::capture::{Connection, StreamTee};
use crate::record::{Outcome, Protocol, TlsFacts};
use crate::service_discovery::Endpoint;

/// How long a tunnel goes on when the node is to stop: it has no end of its own.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// One tunnel.
pub(super) struct Tunnel {
    server: Arc<Server>,
    gate: Arc<Gate>,
    client: SocketAddr,
    /// The client's place under the limit on connections, which the tunnel goes on to take.
    slot: Arc<OwnedSemaphorePermit>,
    target: Endpoint,
    /// The target in records and errors.
    name: Arc<str>,
    /// Whom the client asked for under TLS, where that is another.
    server_name: Option<Arc<str>>,
    tls: Option<TlsFacts>,
    /// The copy of the stream, once it is one.
    tee: Option<StreamTee>,
}

/// What a client begins with, and the upstream where it was asked first.
struct Beginning {
    kind: Kind,
    upstream: Option<Stream>,
}

impl Tunnel {
    pub(super) fn new(
        server: &Arc<Server>,
        gate: &Arc<Gate>,
        client: &Client,
        target: Endpoint,
    ) -> Self {
        Self {
            server: Arc::clone(server),
            gate: Arc::clone(gate),
            client: client.address,
            slot: Arc::clone(&client.slot),
            name: target.authority().into(),
            target,
            server_name: None,
            tls: client.tls().cloned(),
            tee: None,
        }
    }

    /// A connection to the target, of which a copy begins here; a failure ends the copy.
    pub(super) async fn reach(&mut self) -> Result<Stream, Error> {
        self.begin_copy();
        let dialed = self.dial(false).await;
        if let Err(error) = &dialed {
            self.end_copy(error.outcome());
        }
        dialed
    }

    /// Carries the tunnel on, to an upstream that is connected or else by what the client begins with.
    pub(super) async fn run(mut self, upgrade: OnUpgrade, upstream: Option<Stream>) {
        let stream = match upgrade.await {
            Ok(upgraded) => surface(upgraded),
            Err(error) => {
                tracing::debug!(client = %self.client, %error, "no tunnel came about");
                self.end_copy(Outcome::ClientClosed);
                return;
            }
        };
        match upstream {
            Some(upstream) => self.pump(stream, upstream).await,
            None => self.look_into(stream).await,
        }
    }

    async fn look_into(mut self, stream: Stream) {
        let mut seen = Seen::new(stream);
        let Some(Beginning { kind, upstream }) = self.beginning(&mut seen, false).await else {
            return;
        };
        match kind {
            Kind::Http => self.http(seen.into_stream(), false).await,
            Kind::Tls(name, Speaks::Http) if self.decrypts(name.as_ref()) => {
                self.decrypt(seen.rewound(), name).await;
            }
            Kind::Tls(..) => {
                self.gate.metrics.passed_through.inc();
                self.carry(seen.into_stream(), upstream, false).await;
            }
            Kind::Other => self.carry(seen.into_stream(), upstream, false).await,
        }
    }

    fn decrypts(&self, name: Option<&Arc<str>>) -> bool {
        name.is_none_or(|name| {
            !self.gate.access.passes_through_name(name)
                && !self.gate.has_refused(self.client.ip(), name)
        })
    }

    /// Ends the client's TLS with a certificate made for the host, and looks at what is in it.
    async fn decrypt(mut self, stream: Rewound<Stream>, name: Option<Arc<str>>) {
        let host = name.unwrap_or_else(|| Arc::clone(self.target.host()));
        self.server_name = (host != *self.target.host()).then(|| Arc::clone(&host));
        let gate = Arc::clone(&self.gate);
        let Some(authority) = &gate.authority else {
            return;
        };
        let handshake = authority.accept(&host, stream, gate.handshake_timeout);
        let handshake = tokio::select! {
            handshake = handshake => handshake,
            () = self.server.drain().draining() => return,
        };
        let (stream, facts) = match handshake {
            Ok(done) => done,
            Err(error) => {
                gate.metrics.handshake_errors.inc();
                if tls::is_refused_by_client(&error) {
                    gate.refused(self.client, &host, &error);
                } else {
                    tracing::info!(
                        client = %self.client, host = &*host, %error,
                        "TLS handshake with a client failed; where it trusts no authority but the host's own, name the \
                         host in `http.forward_proxy.passthrough_hosts`"
                    );
                }
                return;
            }
        };
        let agreed = facts.alpn.is_some();
        self.tls = Some(facts);
        let stream = Stream::Within(Box::new(stream));
        if agreed {
            return self.http(stream, true).await;
        }
        let mut seen = Seen::new(stream);
        let Some(Beginning { kind, upstream }) = self.beginning(&mut seen, true).await else {
            return;
        };
        match kind {
            Kind::Http => self.http(seen.into_stream(), true).await,
            Kind::Tls(..) | Kind::Other => self.carry(seen.into_stream(), upstream, true).await,
        }
    }

    /// What the client begins with; `None` where the tunnel has come to its end. Where the client says nothing
    /// the server may be the one who speaks first, so that it is connected to and listened to as well.
    async fn beginning(&mut self, seen: &mut Seen, secure: bool) -> Option<Beginning> {
        let server = Arc::clone(&self.server);
        let beginning = async {
            let first = tokio::time::timeout(self.gate.config.first_word, seen.more()).await;
            let mut upstream = None;
            match first {
                Ok(read) => read.ok()?,
                Err(_) if self.gate.outward.is_none() => {
                    let patience = self.gate.head_timeout;
                    tokio::time::timeout(patience, seen.more())
                        .await
                        .ok()?
                        .ok()?;
                }
                Err(_) => {
                    let mut theirs = Seen::new(self.dial(secure).await.ok()?);
                    let idle = self.gate.config.idle_timeout;
                    tokio::select! {
                        read = seen.more() => read.ok()?,
                        read = theirs.more() => read.ok()?,
                        () = tokio::time::sleep(idle) => return None,
                    }
                    if seen.is_silent() {
                        return Some(Beginning {
                            kind: Kind::Other,
                            upstream: Some(theirs.into_stream()),
                        });
                    }
                    upstream = Some(theirs.into_stream());
                }
            }
            let kind = tokio::time::timeout(self.gate.handshake_timeout, seen.kind()).await;
            let Ok(kind) = kind else {
                self.gate.metrics.handshake_errors.inc();
                tracing::info!(client = %self.client, host = &*self.name, "a client did not come to an end of its first words");
                return None;
            };
            let kind = kind.ok()??;
            Some(Beginning { kind, upstream })
        };
        tokio::select! {
            beginning = beginning => beginning,
            () = server.drain().draining() => None,
        }
    }

    /// Serves HTTP on what is inside the tunnel.
    async fn http(self, stream: Stream, secure: bool) {
        let upstreams = self.gate.outward.as_ref().map(|outward| {
            let scheme = if secure { "https" } else { "http" };
            let target = format!("{scheme}://{}", self.name).parse();
            let target = target.unwrap_or_else(|_| self.target.clone());
            outward.upstreams(&target, self.server_name.as_ref())
        });
        let inside = Inside {
            upstreams,
            service: self.service(),
        };
        let opened = Opened {
            stream,
            client: self.client,
            tls: self.tls,
        };
        self.server.within(opened, self.slot, inside).await;
    }

    /// Carries bytes of no known protocol.
    async fn carry(mut self, client: Stream, upstream: Option<Stream>, secure: bool) {
        if self.gate.outward.is_none() {
            tracing::info!(
                client = %self.client, target = &*self.name,
                "a tunnel holds no HTTP: answers come from records of HTTP alone"
            );
            return;
        }
        self.begin_copy();
        let upstream = match upstream {
            Some(upstream) => Ok(upstream),
            None => self.dial(secure).await,
        };
        match upstream {
            Ok(upstream) => self.pump(client, upstream).await,
            Err(error) => {
                if let Some(failure) = error.upstream_failure() {
                    self.gate.metrics.upstream_failed(failure);
                }
                tracing::info!(client = %self.client, error = error.chain(), "no upstream for a tunnel");
                self.end_copy(error.outcome());
            }
        }
    }

    async fn pump(mut self, mut client: Stream, mut upstream: Stream) {
        let metrics = &self.gate.metrics;
        metrics.streams.inc();
        let idle = self.gate.config.idle_timeout;
        let tee = self.tee.as_mut();
        let pumped = pump::run(&mut client, &mut upstream, tee, idle, metrics);
        let drain = self.server.drain();
        let outcome = tokio::select! {
            outcome = pumped => outcome,
            () = async {
                drain.draining().await;
                tokio::time::sleep(LAST_WORDS).await;
            } => Outcome::ProxyClosed("the proxy is shutting down".into()),
        };
        if let Outcome::UpstreamFailed(failure, _) = &outcome {
            metrics.upstream_failed(*failure);
        }
        self.end_copy(outcome);
    }

    async fn dial(&self, secure: bool) -> Result<Stream, Error> {
        let Some(outward) = &self.gate.outward else {
            return Err(Error::Unsupported("this listener sends nothing out"));
        };
        let scheme = if secure { "https" } else { "http" };
        let target = format!("{scheme}://{}", self.name).parse();
        let target: Endpoint = target.unwrap_or_else(|_| self.target.clone());
        let server_name = self.server_name.clone();
        outward.dial(&target, server_name, &self.name).await
    }

    fn service(&self) -> Arc<str> {
        match &self.gate.outward {
            Some(outward) => outward.service(&self.target, self.server_name.as_ref()),
            None => Arc::clone(self.target.host()),
        }
    }

    fn begin_copy(&mut self) {
        let Some(outward) = self.gate.outward.as_ref().filter(|_| self.tee.is_none()) else {
            return;
        };
        let connection = Arc::new(Connection {
            id: next_connection(),
            service: self.service(),
            client: self.client.to_string().into(),
            protocol: Protocol::Tcp,
            tls: self.tls.clone(),
        });
        self.tee = outward.capture.begin_summary(&connection);
    }

    fn end_copy(&mut self, outcome: Outcome) {
        if let Some(tee) = self.tee.take() {
            tee.end(outcome, Some(&self.name));
        }
    }
}

/// What HTTP ran on, without what HTTP needed around it: so that a tunnel of plain sockets can be spliced.
fn surface(upgraded: Upgraded) -> Stream {
    let parts = match upgraded.downcast::<TokioIo<Line<Guarded>>>() {
        Ok(parts) => parts,
        // A stream of HTTP/2.
        Err(upgraded) => return Stream::Within(Box::new(TokioIo::new(upgraded))),
    };
    let (held, guarded) = parts.io.into_inner().into_parts();
    let (first, stream) = guarded.into_inner().into_parts();
    let mut bytes = BytesMut::from(&*parts.read_buf);
    bytes.put_slice(&held);
    bytes.put_slice(&first);
    if bytes.is_empty() {
        return stream;
    }
    Stream::Within(Box::new(Rewound::new(bytes, stream)))
}
