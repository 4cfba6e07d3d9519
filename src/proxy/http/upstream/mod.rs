//! Connections to the upstreams of one listener, kept for the next request.
//!
//! HTTP/1.1 connections carry one exchange at a time and are driven by whoever uses them; while idle they are
//! looked at when taken, and now and then by a sweep, so that what the upstream has closed does not pile up.
//! HTTP/2 connections are shared and have tasks. Which of the two an endpoint speaks is in its scheme or, for
//! `https`, said by its TLS. Where an endpoint takes a limited number of connections, requests wait their turn.

mod outbound;
mod places;
mod own;
mod shared;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use http::HeaderValue;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;

use super::super::dial::{Dialer, Offer, Spoken};
use super::super::drain::Drain;
use super::super::stream::Stream;
use super::super::{Error, Metrics, tls};
use super::body::RequestBody;
use super::{Config, MAX_FIELDS};
use crate::service_discovery::{Endpoint, Member, Pool, Scheme};

use outbound::{Closed, Outbound};
pub(super) use own::{Busy, Connection};
pub(super) use places::Place;
use places::Places;
pub(super) use shared::Seat;
use shared::{Settings, SharedConnections};

/// How often idle connections are looked after.
pub(super) const SWEEP_EVERY: Duration = Duration::from_secs(10);

type Request = hyper::Request<RequestBody>;
type Response = hyper::Response<Incoming>;
type Http1 = (
    http1::SendRequest<RequestBody>,
    http1::Connection<TokioIo<Outbound<Stream>>, RequestBody>,
    Closed,
);

/// The endpoints and the connections to them.
pub(super) struct Upstreams {
    pool: Arc<Pool>,
    sites: Vec<Arc<Site>>,
    dialer: Dialer,
    connect_timeout: Duration,
    http1: http1::Builder,
    http2: Settings,
    metrics: Metrics,
}

/// One endpoint.
pub(super) struct Site {
    member: Arc<Member>,
    /// For records and errors.
    pub(super) name: Arc<str>,
    pub(super) authority: HeaderValue,
    idle: Mutex<Vec<Idle>>,
    places: Places,
    max_idle: usize,
    idle_for: Duration,
    shared: SharedConnections,
    /// Held while a shared connection is made, so that a burst makes one and not one each.
    dialing: tokio::sync::Mutex<()>,
    /// Whether it speaks HTTP/2, as far as is known.
    shares: AtomicBool,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

/// What carries one exchange.
pub(super) enum Carrier {
    /// A connection of its own.
    Own(Connection),
    /// A stream of a shared one.
    Shared(Seat),
}

/// A connection whose driver runs in its own task, for an upgrade.
pub(super) struct Upgradable {
    pub(super) sender: http1::SendRequest<RequestBody>,
    pub(super) driver: http1::Connection<TokioIo<Outbound<Stream>>, RequestBody>,
    /// To be kept until the connection ends.
    pub(super) place: Place,
}

/// What can become a tunnel.
pub(super) enum Entrance {
    /// A fresh HTTP/1.1 connection.
    Own(Box<Upgradable>),
    /// A stream of an HTTP/2 connection that takes extended CONNECT (RFC 8441).
    Shared(Seat),
}

/// Where a connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// It has served before: the upstream may be about to close it.
    Reused,
    /// It was made for this request.
    Fresh,
}

/// What an exchange may be sent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// What is kept, or else a new connection.
    Any,
    /// No idle connection: one of them has just proved stale.
    Fresh,
}

/// What sending came to.
pub(super) struct Refused {
    pub(super) error: hyper::Error,
    /// The request, where nothing of it was sent.
    pub(super) unsent: Option<Request>,
}

impl Upstreams {
    pub(super) fn new(
        config: &Config,
        pool: Arc<Pool>,
        metrics: Metrics,
        drain: Drain,
    ) -> Result<Self, Error> {
        let dialer = Dialer::new(&pool, trust(config))?;
        Ok(Self::over(dialer, config, pool, metrics, drain))
    }

    /// The same, connecting with `dialer`.
    pub(super) fn over(
        dialer: Dialer,
        config: &Config,
        pool: Arc<Pool>,
        metrics: Metrics,
        drain: Drain,
    ) -> Self {
        let site = |member: &Arc<Member>| Arc::new(Site::new(member, config));
        let sites = pool.members().iter().map(site).collect();
        let mut http1 = http1::Builder::new();
        http1
            .preserve_header_case(true)
            .max_headers(MAX_FIELDS)
            .max_buf_size(512 << 10);
        Self {
            pool,
            sites,
            dialer,
            connect_timeout: config.connect_timeout,
            http1,
            http2: Settings::new(config, drain),
            metrics,
        }
    }

    /// A connection to the endpoint whose turn it is, kept or new; to another one where that fails.
    pub(super) async fn connection(&self) -> Result<(Arc<Site>, Carrier, Source), Error> {
        let mut tries = self.sites.len();
        loop {
            let site = self.pick_with_room();
            tries -= 1;
            match self.carrier(site, Wanted::Any).await {
                Ok((carrier, source)) => return Ok((Arc::clone(site), carrier, source)),
                Err(error) if tries == 0 || matches!(error, Error::Busy { .. }) => {
                    return Err(error);
                }
                Err(error) => tracing::debug!(%error, "trying another upstream"),
            }
        }
    }

    /// A new connection to an endpoint, or a place on one that others have made meanwhile.
    pub(super) async fn another(&self, site: &Site) -> Result<(Carrier, Source), Error> {
        self.carrier(site, Wanted::Fresh).await
    }

    async fn carrier(&self, site: &Site, wanted: Wanted) -> Result<(Carrier, Source), Error> {
        let mut found = None;
        if site.shares.load(Relaxed) {
            match self.share(site).await? {
                Some((Carrier::Own(connection), _)) => found = Some(connection),
                Some(shared) => return Ok(shared),
                None => {}
            }
        }
        let place = self.place(site).await?;
        if found.is_none()
            && wanted == Wanted::Any
            && let Some(mut connection) = site.take_idle().await
        {
            connection.occupy(place);
            return Ok((Carrier::Own(connection), Source::Reused));
        }
        site.make_room();
        let mut connection = match found {
            Some(connection) => connection,
            None => match self.in_time(site, self.open(site)).await? {
                Carrier::Own(connection) => connection,
                shared @ Carrier::Shared(_) => return Ok((shared, Source::Fresh)),
            },
        };
        connection.occupy(place);
        Ok((Carrier::Own(connection), Source::Fresh))
    }

    /// A seat on a shared connection, or whatever the endpoint speaks when it is dialed; `None` where others
    /// have found out meanwhile that it shares nothing.
    async fn share(&self, site: &Site) -> Result<Option<(Carrier, Source)>, Error> {
        let seat = || {
            let seat = site.shared.seat();
            seat.map(|seat| (Carrier::Shared(seat), Source::Reused))
        };
        if let Some(kept) = seat() {
            return Ok(Some(kept));
        }
        let opening = async {
            let _dialing = site.dialing.lock().await;
            if !site.shares.load(Relaxed) {
                return Ok(None);
            }
            match seat() {
                Some(made) => Ok(Some(made)),
                None => Ok(Some((self.open(site).await?, Source::Fresh))),
            }
        };
        self.in_time(site, opening).await
    }

    /// A place for an HTTP/1.1 exchange, at once or when it is this one's turn.
    async fn place(&self, site: &Site) -> Result<Place, Error> {
        if let Some(place) = site.places.try_take() {
            return Ok(place);
        }
        self.metrics.upstream_waits.inc();
        site.places.wait().await.map_err(|full| {
            self.metrics.upstream_busy.inc();
            Error::Busy {
                upstream: Arc::clone(&site.name),
                why: full.as_str(),
            }
        })
    }

    /// What can become a tunnel to the endpoint whose turn it is.
    pub(super) async fn tunnel(&self) -> Result<(Arc<Site>, Entrance), Error> {
        let site = self.pick_with_room();
        if matches!(site.endpoint().scheme(), Scheme::H2c | Scheme::H2) {
            let shared = self.share(site).await?;
            return match shared {
                Some((Carrier::Shared(seat), _)) if seat.takes_extended_connect().await => {
                    Ok((Arc::clone(site), Entrance::Shared(seat)))
                }
                _ => Err(Error::Unsupported(
                    "the upstream does not offer WebSocket over HTTP/2 (RFC 8441)",
                )),
            };
        }
        let place = self.place(site).await?;
        site.make_room();
        let opening = async {
            let (stream, _) = self.dial(site, Offer::Http1).await?;
            self.http1(site, stream).await
        };
        let (sender, driver, _) = self.in_time(site, opening).await?;
        let upgradable = Upgradable {
            sender,
            driver,
            place,
        };
        Ok((Arc::clone(site), Entrance::Own(Box::new(upgradable))))
    }

    /// Whether connections can become tunnels for any protocol: HTTP/2 has no `Upgrade` (RFC 9113 section 8.6).
    pub(super) fn upgrades(&self) -> bool {
        let scheme = |site: &Arc<Site>| site.endpoint().scheme();
        !self
            .sites
            .iter()
            .any(|site| matches!(scheme(site), Scheme::H2c | Scheme::H2))
    }

    /// Drops idle connections that are too old or were closed, for ever.
    pub(super) async fn sweep(&self) {
        loop {
            tokio::time::sleep(SWEEP_EVERY).await;
            self.sweep_once();
        }
    }

    /// Drops them now.
    pub(super) fn sweep_once(&self) {
        for site in &self.sites {
            site.sweep(Instant::now());
        }
    }

    /// Whether no connection is kept for a next request.
    pub(super) fn is_idle(&self) -> bool {
        let idle = |site: &Arc<Site>| site.idle.lock().is_empty() && site.shared.is_empty();
        self.sites.iter().all(idle)
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

    /// The same, passing over endpoints with which a request would have to wait, if not all are like that.
    fn pick_with_room(&self) -> &Arc<Site> {
        let mut site = self.pick();
        for _ in 1..self.sites.len() {
            if site.places.has_room() {
                break;
            }
            site = self.pick();
        }
        site
    }

    async fn open(&self, site: &Site) -> Result<Carrier, Error> {
        let (stream, spoken) = self.dial(site, Offer::Http).await?;
        site.shares.store(spoken == Spoken::Http2, Relaxed);
        match spoken {
            Spoken::Http1 => {
                let (sender, driver, closed) = self.http1(site, stream).await?;
                Ok(Carrier::Own(Connection::new(sender, driver, closed)))
            }
            Spoken::Http2 => {
                let added = site.shared.add(stream, &self.http2).await;
                let seat = added.map_err(|error| Error::from_exchange(error, &site.name))?;
                Ok(Carrier::Shared(seat))
            }
        }
    }

    async fn http1(&self, site: &Site, stream: Stream) -> Result<Http1, Error> {
        let upstream = Arc::clone(&site.name);
        let (stream, closed) = Outbound::new(stream);
        let handshake = self.http1.handshake(TokioIo::new(stream)).await;
        let made = handshake.map(|(sender, driver)| (sender, driver, closed));
        made.map_err(|source| Error::Protocol { upstream, source })
    }

    /// Dials, and tells the pool what came of it.
    async fn dial(&self, site: &Site, offer: Offer) -> Result<(Stream, Spoken), Error> {
        let dialed = self.dialer.dial(site.endpoint(), &site.name, offer).await;
        match &dialed {
            Ok(_) => {
                self.pool.connected(&site.member);
                self.metrics.upstream_connections.inc();
            }
            Err(_) => self.pool.failed(&site.member, Instant::now()),
        }
        dialed
    }

    async fn in_time<T>(
        &self,
        site: &Site,
        opening: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let opened = tokio::time::timeout(self.connect_timeout, opening).await;
        opened.unwrap_or_else(|_| {
            self.pool.failed(&site.member, Instant::now());
            Err(Error::Timeout {
                upstream: Arc::clone(&site.name),
                what: "accept a connection",
            })
        })
    }
}

impl Site {
    fn new(member: &Arc<Member>, config: &Config) -> Self {
        let endpoint = member.endpoint();
        Self {
            name: origin(endpoint).into(),
            authority: HeaderValue::try_from(endpoint.authority())
                .expect("an endpoint's host has only characters that a header may have"),
            member: Arc::clone(member),
            idle: Mutex::new(Vec::new()),
            places: Places::new(config),
            max_idle: config.max_idle_upstream,
            idle_for: config.idle_upstream,
            shared: SharedConnections::default(),
            dialing: tokio::sync::Mutex::new(()),
            shares: AtomicBool::new(endpoint.scheme() != Scheme::Http),
        }
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        self.member.endpoint()
    }

    /// `http` or `https`, as a request's `:scheme` (RFC 9113 section 8.3.1).
    pub(super) fn scheme(&self) -> http::uri::Scheme {
        if self.endpoint().scheme().is_secure() {
            http::uri::Scheme::HTTPS
        } else {
            http::uri::Scheme::HTTP
        }
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
    pub(super) fn give_back(&self, mut connection: Connection) {
        if !connection.is_ready() {
            return;
        }
        // Free once the connection is to be seen, so that who waits for the place finds it.
        let _place = connection.vacate();
        let since = Instant::now();
        let mut idle = self.idle.lock();
        if idle.len() < self.max_idle {
            idle.push(Idle { connection, since });
        }
    }

    /// Closes the idle connection used longest ago, where another one would be one too many.
    fn make_room(&self) {
        let mut idle = self.idle.lock();
        let closed = self.places.crowded(idle.len()).then(|| idle.remove(0));
        drop(idle);
        drop(closed);
    }

    fn sweep(&self, now: Instant) {
        self.shared.sweep(self.idle_for);
        let mut nobody = Context::from_waker(Waker::noop());
        let bad = |idle: &mut Idle| {
            idle.connection.drive(&mut nobody);
            let young = now.saturating_duration_since(idle.since) <= self.idle_for;
            !(young && idle.connection.is_ready())
        };
        // They stay where they are while they are looked at: one that is out of sight would be missed by who
        // counts them. Closing them can wait until the lock is free.
        let closed: Vec<_> = self.idle.lock().extract_if(.., bad).collect();
        drop(closed);
    }
}

/// How TLS with upstreams begins.
pub(super) fn trust(config: &Config) -> tls::Trust<'_> {
    tls::Trust {
        ca: config.upstream_ca.as_ref(),
        identity: config.upstream_identity.as_ref(),
        verify: config.upstream_verify,
    }
}

/// `scheme://host:port`.
fn origin(endpoint: &Endpoint) -> String {
    format!("{}://{}", endpoint.scheme().as_str(), endpoint.authority())
}
