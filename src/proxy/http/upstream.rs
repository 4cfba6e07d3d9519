//! Connections to the upstreams of one listener, kept for the next request.
//!
//! A connection has no task of its own: whoever uses it drives it. That saves two wake-ups per exchange and
//! the hops between threads that come with them. While idle it is looked at when taken, and now and then by
//! a sweep, so that what the upstream has closed does not pile up.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use http::HeaderValue;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;

use super::super::drain::Drain;
use super::super::listener::tune;
use super::super::stream::Stream;
use super::super::{Error, Metrics, tls};
use super::body::{Progress, RequestBody};
use super::forward::within;
use super::{Config, MAX_FIELDS};
use crate::service_discovery::{Endpoint, Member, Pool, Scheme};

const SWEEP_EVERY: Duration = Duration::from_secs(10);

type Request = hyper::Request<RequestBody>;
type Response = hyper::Response<Incoming>;

/// The endpoints and their idle connections.
pub(super) struct Upstreams {
    pool: Arc<Pool>,
    sites: Vec<Arc<Site>>,
    tls: Option<tls::Client>,
    connect_timeout: Duration,
    http: http1::Builder,
    metrics: Metrics,
}

/// One endpoint.
pub(super) struct Site {
    member: Arc<Member>,
    /// For records and errors.
    pub(super) name: Arc<str>,
    pub(super) authority: HeaderValue,
    idle: Mutex<Vec<Idle>>,
    max_idle: usize,
    idle_for: Duration,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

/// A connection in someone's hands, who passes it on several times per exchange: a pointer, not the state of
/// a whole HTTP connection.
pub(super) struct Connection(Box<Held>);

struct Held {
    sender: http1::SendRequest<RequestBody>,
    driver: http1::Connection<TokioIo<Stream>, RequestBody>,
    ended: bool,
}

/// A connection with an exchange on it whose request's content may still be on its way.
pub(super) struct Busy {
    pub(super) connection: Connection,
    pub(super) progress: Arc<Progress>,
    pub(super) drain: Drain,
}

/// A connection whose driver runs in its own task, for an upgrade.
pub(super) struct Upgradable {
    pub(super) sender: http1::SendRequest<RequestBody>,
    pub(super) driver: http1::Connection<TokioIo<Stream>, RequestBody>,
}

/// Where a connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// It has served before: the upstream may be about to close it.
    Reused,
    /// It was made for this request.
    Fresh,
}

/// What sending came to.
pub(super) struct Refused {
    pub(super) error: hyper::Error,
    /// The request, where nothing of it was sent.
    pub(super) unsent: Option<Request>,
}

impl Upstreams {
    pub(super) fn new(config: &Config, pool: Arc<Pool>, metrics: Metrics) -> Result<Self, Error> {
        let site = |member: &Arc<Member>| {
            let authority = member.endpoint().authority();
            Arc::new(Site {
                name: origin(member.endpoint()).into(),
                authority: HeaderValue::try_from(authority)
                    .expect("an endpoint's host has only characters that a header may have"),
                member: Arc::clone(member),
                idle: Mutex::new(Vec::new()),
                max_idle: config.max_idle_upstream,
                idle_for: config.idle_upstream,
            })
        };
        let sites = pool.members().iter().map(site).collect();
        let secure = |member: &Arc<Member>| member.endpoint().scheme() == Scheme::Https;
        let trust = tls::Trust {
            ca: config.upstream_ca.as_ref(),
            identity: config.upstream_identity.as_ref(),
            verify: config.upstream_verify,
        };
        let tls = pool.members().iter().any(secure);
        let tls = tls
            .then(|| tls::Client::new(trust, &[b"http/1.1"]))
            .transpose()?;
        let mut http = http1::Builder::new();
        http.preserve_header_case(true)
            .max_headers(MAX_FIELDS)
            .max_buf_size(512 << 10);
        Ok(Self {
            pool,
            sites,
            tls,
            connect_timeout: config.connect_timeout,
            http,
            metrics,
        })
    }

    /// A connection to the endpoint whose turn it is, kept or new; to another one where that fails.
    pub(super) async fn connection(&self) -> Result<(Arc<Site>, Connection, Source), Error> {
        let mut tries = self.sites.len();
        loop {
            let site = self.pick();
            if let Some(connection) = site.take_idle().await {
                return Ok((Arc::clone(site), connection, Source::Reused));
            }
            tries -= 1;
            match self.fresh(site).await {
                Ok(connection) => return Ok((Arc::clone(site), connection, Source::Fresh)),
                Err(error) if tries == 0 => return Err(error),
                Err(error) => tracing::debug!(%error, "trying another upstream"),
            }
        }
    }

    /// A new connection to an endpoint.
    pub(super) async fn fresh(&self, site: &Site) -> Result<Connection, Error> {
        let (sender, driver) = self.connect(site).await?;
        Ok(Connection(Box::new(Held {
            sender,
            driver,
            ended: false,
        })))
    }

    /// A fresh connection that can be upgraded.
    pub(super) async fn upgradable(&self) -> Result<(Arc<Site>, Upgradable), Error> {
        let site = self.pick();
        let (sender, driver) = self.connect(site).await?;
        Ok((Arc::clone(site), Upgradable { sender, driver }))
    }

    /// Drops idle connections that are too old or were closed, for ever.
    pub(super) async fn sweep(&self) {
        loop {
            tokio::time::sleep(SWEEP_EVERY).await;
            for site in &self.sites {
                site.sweep(Instant::now());
            }
        }
    }

    /// The endpoint whose turn it is, where nothing is known about a connection yet.
    pub(super) fn pick(&self) -> &Arc<Site> {
        if let [only] = &*self.sites {
            return only;
        }
        let member = self.pool.pick(Instant::now());
        self.sites
            .iter()
            .find(|site| Arc::ptr_eq(&site.member, member))
            .expect("there is a site for each member, and a pool never changes")
    }

    async fn connect(
        &self,
        site: &Site,
    ) -> Result<
        (
            http1::SendRequest<RequestBody>,
            http1::Connection<TokioIo<Stream>, RequestBody>,
        ),
        Error,
    > {
        let result = tokio::time::timeout(self.connect_timeout, self.open(site)).await;
        let stream = match result {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                self.pool.failed(&site.member, Instant::now());
                return Err(error);
            }
            Err(_) => {
                self.pool.failed(&site.member, Instant::now());
                let upstream = Arc::clone(&site.name);
                let what = "accept a connection";
                return Err(Error::Timeout { upstream, what });
            }
        };
        self.pool.connected(&site.member);
        self.metrics.upstream_connections.inc();
        let upstream = Arc::clone(&site.name);
        let handshake = self.http.handshake(TokioIo::new(stream)).await;
        handshake.map_err(|source| Error::Protocol { upstream, source })
    }

    async fn open(&self, site: &Site) -> Result<Stream, Error> {
        let endpoint = site.member.endpoint();
        let host = &**endpoint.host();
        let upstream = || Arc::clone(&site.name);
        let socket = TcpStream::connect((host, endpoint.port()))
            .await
            .map_err(|source| Error::Connect {
                upstream: upstream(),
                source,
            })?;
        tune(&socket);
        match (&self.tls, endpoint.scheme()) {
            (Some(tls), Scheme::Https) => {
                tls.connect(host, socket)
                    .await
                    .map_err(|source| Error::Handshake {
                        upstream: upstream(),
                        source,
                    })
            }
            _ => Ok(Stream::Plain(socket)),
        }
    }
}

impl Site {
    pub(super) fn endpoint(&self) -> &Endpoint {
        self.member.endpoint()
    }

    /// The connection used last that is still good.
    async fn take_idle(&self) -> Option<Connection> {
        loop {
            let Idle {
                mut connection,
                since,
            } = self.idle.lock().pop()?;
            if since.elapsed() > self.idle_for {
                continue;
            }
            // Looks for an end or stray bytes that came while nobody was looking.
            let usable = std::future::poll_fn(|cx| {
                connection.drive(cx);
                Poll::Ready(connection.is_ready())
            });
            if usable.await {
                return Some(connection);
            }
        }
    }

    /// Keeps a connection for the next request, where it can serve one.
    pub(super) fn give_back(&self, connection: Connection) {
        if !connection.is_ready() {
            return;
        }
        let since = Instant::now();
        let mut idle = self.idle.lock();
        if idle.len() < self.max_idle {
            idle.push(Idle { connection, since });
        }
    }

    fn sweep(&self, now: Instant) {
        let idle = std::mem::take(&mut *self.idle.lock());
        let mut nobody = Context::from_waker(Waker::noop());
        let good = |mut idle: Idle| {
            idle.connection.drive(&mut nobody);
            let young = now.saturating_duration_since(idle.since) <= self.idle_for;
            (young && idle.connection.is_ready()).then_some(idle)
        };
        let mut kept: Vec<_> = idle.into_iter().filter_map(good).collect();
        let mut current = self.idle.lock();
        // Those that were given back meanwhile are the younger ones, so they go to the end.
        kept.append(&mut current);
        kept.truncate(self.max_idle);
        *current = kept;
    }
}

impl Busy {
    /// Gives the connection back once its response is complete.
    ///
    /// An upstream may answer before it has read the whole request and go on reading (RFC 9112 section 9.5).
    /// Then the upload gets a task of its own, until it is done, rests for `pause`, or the drain is over.
    pub(super) fn answered(mut self, site: &Arc<Site>, pause: Duration, cx: &mut Context<'_>) {
        self.connection.drive(cx);
        if self.connection.has_ended() || self.connection.is_ready() {
            site.give_back(self.connection);
            return;
        }
        let Self {
            mut connection,
            progress,
            drain,
        } = self;
        let (site, closing) = (Arc::clone(site), drain.clone());
        drain.spawn(async move {
            let settled = std::future::poll_fn(|cx| {
                connection.drive(cx);
                if connection.has_ended() || connection.is_ready() {
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

impl Connection {
    /// Lets the connection read and write; whatever comes of it shows at the request or the body.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        let held = &mut *self.0;
        if !held.ended {
            held.ended = Pin::new(&mut held.driver).poll(cx).is_ready();
        }
    }

    /// Whether nothing will come any more but what has been read.
    pub(super) const fn has_ended(&self) -> bool {
        self.0.ended
    }

    fn is_ready(&self) -> bool {
        !self.0.ended && self.0.sender.is_ready()
    }

    /// Sends a request and waits for the response's head.
    pub(super) async fn send(&mut self, request: Request) -> Result<Response, Box<Refused>> {
        let Held {
            sender,
            driver,
            ended,
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

/// `scheme://host:port`.
fn origin(endpoint: &Endpoint) -> String {
    format!("{}://{}", endpoint.scheme().as_str(), endpoint.authority())
}
